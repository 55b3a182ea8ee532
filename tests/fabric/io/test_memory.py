"""What unread streams hold at an endpoint is bounded, and who fills it pays for it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fabric.classes import TrafficClass
from fabric.errors import StreamError
from fabric.io.connection import Connection
from fabric.io.streams import Stream
from fabric.memory import MemoryBudget
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, pair, send_and_hash

MIB = 1 << 20


def test_streams_that_nobody_reads_end_before_memory_does() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def stuck(stream: Stream, connection: Connection) -> None:
            await release.wait()

        async with pair(services=SERVICES | {"stuck": stuck}) as (_, b, connection):
            b.memory = MemoryBudget(session=3 * MIB)
            streams = [await connection.open("stuck", TrafficClass.BULK) for _ in range(6)]
            for stream in streams:
                stream.write(bytes(MIB))
            # Others of the same session and class go on all the while.
            assert await send_and_hash(connection, MIB, TrafficClass.BULK)
            await until(lambda: b.counters["memory_exceeded"] >= 3)
            assert b.memory.total <= 3 * MIB
            await until(lambda: sum(stream.over for stream in streams) >= 3)
            for stream in streams:
                if stream.over:
                    with pytest.raises(StreamError, match="memory_exceeded"):
                        await stream.read()
            release.set()
            for stream in streams:
                with contextlib.suppress(StreamError):
                    await stream.aclose()

    run(main)


def test_reading_gives_the_budget_back() -> None:
    async def main() -> None:
        async with pair() as (a, b, connection):
            assert await send_and_hash(connection, 4 * MIB, TrafficClass.BULK)
            await until(lambda: connection.streams() == [])
            assert a.memory.total == b.memory.total == 0

    run(main)
