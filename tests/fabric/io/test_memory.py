"""What unread streams hold at an endpoint is bounded, and who fills it pays for it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import StreamError
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
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


@contextlib.asynccontextmanager
async def left_unread(*, ended: bool) -> AsyncIterator[tuple[Endpoint, Stream, Connection]]:
    """A node, and its end of a stream that is over with a MiB that nobody has read."""
    served: list[Stream] = []
    release = asyncio.Event()

    async def stuck(stream: Stream, connection: Connection) -> None:
        served.append(stream)
        if ended:
            await stream.end()
        await release.wait()

    async with pair(services=SERVICES | {"stuck": stuck}) as (_, b, connection):
        stream = await connection.open("stuck", TrafficClass.BULK)
        stream.write(bytes(MIB))
        if ended:
            await stream.end()
            await until(lambda: served != [] and served[0].over and not b.connections()[0].streams())
        else:
            await until(lambda: served != [] and served[0].machine.readable == MIB)
            stream.reset()
            await until(lambda: served[0].over)
        yield b, served[0], connection
        release.set()
        await until(lambda: not b._serving._tasks)
        assert b.memory.total == 0, "what the service left is free"


both_ends = pytest.mark.parametrize("ended", [False, True], ids=["reset", "ended"])


@both_ends
def test_what_a_stream_that_is_over_left_unread_is_counted_until_it_is_read(ended: bool) -> None:
    async def main() -> None:
        async with left_unread(ended=ended) as (node, stream, _):
            assert node.memory.total == MIB
            assert await stream.readexactly(MIB // 2) == bytes(MIB // 2)
            assert node.memory.total == MIB // 2
            assert await stream.readexactly(MIB // 2) == bytes(MIB // 2)
            assert node.memory.total == 0
            assert stream._unread_timer is None
            if ended:
                assert await stream.read() == b""
            else:
                with pytest.raises(StreamError, match="cancelled"):
                    await stream.read()

    run(main)


@both_ends
def test_streams_that_are_over_pay_for_a_full_budget_and_their_readers_are_told(ended: bool) -> None:
    async def main() -> None:
        async with left_unread(ended=ended) as (node, stream, connection):
            node.memory._process = MIB + 1000
            assert await send_and_hash(connection, 2 * MIB, TrafficClass.BULK)
            assert node.counters["memory_exceeded"] == 1
            assert node.memory.total < MIB
            assert stream.machine.readable == 0
            with pytest.raises(StreamError, match="memory_exceeded" if ended else "cancelled"):
                await stream.read()

    run(main)


@both_ends
def test_what_nobody_reads_for_long_is_forgotten(monkeypatch: pytest.MonkeyPatch, ended: bool) -> None:
    monkeypatch.setattr(limits, "UNREAD_KEPT_S", 0.3)

    async def main() -> None:
        async with left_unread(ended=ended) as (node, stream, _):
            for _ in range(4):
                await stream.readexactly(1000)
                await asyncio.sleep(0.15)  # slower than all at once, and not silent
            await until(lambda: node.memory.total == 0)
            with pytest.raises(StreamError, match="cancelled"):
                await stream.read()

    run(main)


def test_reading_gives_the_budget_back() -> None:
    async def main() -> None:
        async with pair() as (a, b, connection):
            assert await send_and_hash(connection, 4 * MIB, TrafficClass.BULK)
            await until(lambda: connection.streams() == [])
            assert a.memory.total == b.memory.total == 0

    run(main)
