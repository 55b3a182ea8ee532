"""Pings of sessions and streams on real sockets: each comes back, is asked again, or ends with a code."""

from __future__ import annotations

import asyncio

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import SessionError, StreamError
from tests.support.aio import run, until
from tests.support.endpoints import engines, linked, pair


@engines
def test_both_kinds_come_back(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with pair(engines) as (_, _, connection):
            stream = await connection.open("echo", TrafficClass.INTERACTIVE)
            assert 0 < await connection.ping() < 5
            assert 0 < await stream.ping() < 5
            assert connection._pings == {}
            assert stream._pings == {}
            stream.reset()
            with pytest.raises(StreamError, match="cancelled"):
                await stream.ping()

    run(main)


def test_more_than_a_session_remembers_come_back_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PING_REPEAT_S", 0.05)
    count = 5 * limits.PENDING_PINGS

    async def main() -> None:
        async with pair() as (_, _, connection):
            stream = await connection.open("echo", TrafficClass.INTERACTIVE)
            assert min(await asyncio.gather(*(connection.ping() for _ in range(count)))) > 0
            # Of a stream only the newest PING is sent.
            assert min(await asyncio.gather(*(stream.ping() for _ in range(10)))) > 0
            stream.reset()

    run(main)


def test_one_that_is_lost_with_its_carrier_is_asked_again_over_the_next() -> None:
    async def main() -> None:
        async with linked() as (_, _, connection, link):
            stream = await connection.open("echo", TrafficClass.INTERACTIVE)
            link.silent = True
            asking = asyncio.ensure_future(stream.ping())
            await until(lambda: len(stream._pings or ()) == 1)
            connection.lose()
            await until(lambda: not stream.bound)
            link.silent = False
            assert await asking > 0
            assert stream.connection is not connection
            stream.reset()

    run(main)


def test_where_nothing_comes_back_there_is_a_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PING_TIMEOUT_S", 0.2)
    monkeypatch.setattr(limits, "PING_REPEAT_S", 0.05)

    async def main() -> None:
        async with linked() as (_, _, connection, link):
            stream = await connection.open("echo", TrafficClass.INTERACTIVE)
            link.silent = True
            with pytest.raises(SessionError, match="ping_lost"):
                await connection.ping()
            with pytest.raises(StreamError, match="ping_lost"):
                await stream.ping()
            assert connection._pings == {}
            assert stream._pings == {}
            waiting = asyncio.ensure_future(connection.ping())
            await until(lambda: connection._pings != {})
            connection.close()
            with pytest.raises(SessionError, match="done"):
                await waiting

    run(main)
