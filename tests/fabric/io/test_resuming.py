"""Streams that go on over another session, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import FabricError, StreamError
from fabric.io.connection import Connection
from fabric.io.dials import Dials
from fabric.io.endpoint import Endpoint
from fabric.io.streams import Stream
from fabric.stream import EndToEnd, StreamConfig
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, bind, dial, engines, pair


async def lose(connection: Connection) -> None:
    """End the session under its streams, by an end that says nothing about them."""
    connection.lose("idle_timeout")
    await connection.closed


@engines
def test_a_stream_goes_on_when_its_session_is_gone(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with pair(engines) as (a, _, connection):
            stream = await connection.open("digest", TrafficClass.BULK)
            expected = hashlib.sha256()
            for round_number in range(4):
                data = os.urandom(200_000)
                expected.update(data)
                stream.write(data)
                if round_number % 2:
                    await lose(stream.connection)
                    await until(lambda: stream.bound)
                await stream.drain()
            await stream.end()
            assert await stream.readexactly(32) == expected.digest()
            assert await stream.read() == b""
            assert a.resuming.counters["resumed"] == 2
            assert stream.connection is not connection
            await stream.aclose()

    run(main, timeout_s=90)


def test_readers_and_writers_just_wait_and_the_service_is_called_once() -> None:
    async def main() -> None:
        called = 0

        async def counted(stream: Stream, connection: Connection) -> None:
            nonlocal called
            called += 1
            await SERVICES["echo"](stream, connection)

        async with pair(services={"echo": counted}) as (_a, _, connection):
            stream = await connection.open("echo", TrafficClass.INTERACTIVE)
            reading = asyncio.ensure_future(stream.readexactly(5))
            await until(lambda: called == 1)
            await lose(connection)
            assert not stream.bound
            assert not reading.done()
            stream.write(b"hello")
            assert await reading == b"hello"
            assert called == 1
            await stream.aclose()

    run(main)


def test_streams_that_the_listener_opened_go_on_over_the_dialers_next_session() -> None:
    async def main() -> None:
        async with await bind(1, services=SERVICES) as a, await bind(2) as b:
            connection = await dial(a, b)
            back = b.connection_to(a.identity.node_id)
            assert back is not None
            stream = await back.open("echo", TrafficClass.RELIABLE)
            await lose(connection)
            await until(lambda: not stream.bound)
            stream.write(b"late")
            await dial(a, b)
            assert await stream.readexactly(4) == b"late"
            await stream.aclose()

    run(main)


def test_a_session_closed_on_purpose_takes_its_streams_with_it() -> None:
    async def main() -> None:
        for closer in (0, 1):
            async with pair() as (a, b, connection):
                stream = await connection.open("echo", TrafficClass.RELIABLE)
                (a.connections(), b.connections())[closer][0].close("done")
                with pytest.raises(StreamError, match="route_failed"):
                    await stream.read()
                assert a.resuming.held() == b.resuming.held() == []

    run(main)


def test_a_stream_opened_without_resumption_fails_with_its_session() -> None:
    async def main() -> None:
        async with pair() as (_a, _, connection):
            stream = await connection.open("echo", TrafficClass.RELIABLE, resume=False)
            await lose(connection)
            with pytest.raises(StreamError, match="route_failed"):
                await stream.read()

    run(main)


def test_an_end_that_restarted_does_not_know_the_stream() -> None:
    async def main() -> None:
        async with contextlib.AsyncExitStack() as stack:
            a = await stack.enter_async_context(await bind(1))
            async with await bind(2, services=SERVICES) as b:
                connection = await dial(a, b)
                stream = await connection.open("echo", TrafficClass.RELIABLE)
                port = b.local_address[1]
                await lose(connection)
            b = await stack.enter_async_context(await bind(2, port=port, services=SERVICES))
            with pytest.raises(StreamError, match="gone"):
                await stream.read()

    run(main)


def test_a_stream_given_up_while_it_waits_is_over_at_once() -> None:
    async def main() -> None:
        async with await bind(1) as a:
            async with await bind(2, services=SERVICES) as b:
                connection = await dial(a, b)
                stream = await connection.open("echo", TrafficClass.RELIABLE)
                await lose(connection)
            stream.reset()
            assert a.resuming.held() == []
            with pytest.raises(StreamError, match="cancelled"):
                await stream.read()

    run(main)


@contextlib.asynccontextmanager
async def held(count: int) -> AsyncIterator[tuple[Endpoint, list[Stream]]]:
    """So many streams whose peer is gone for good."""
    async with await bind(1) as a:
        async with await bind(2, services=SERVICES) as b:
            connection = await dial(a, b)
            streams = [await connection.open("echo", TrafficClass.RELIABLE) for _ in range(count)]
            await lose(connection)
        yield a, streams


@pytest.mark.parametrize("limit", ["HELD_STREAMS", "HELD_STREAMS_PEER"])
def test_waiting_streams_are_bounded(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(limits, limit, 2)

    async def main() -> None:
        async with held(3) as (a, streams):
            assert len(a.resuming.held()) == 2
            assert [stream.over for stream in streams].count(True) == 1
            assert a.resuming.counters["too_many_held"] == 1

    run(main)


def test_hundreds_of_streams_that_lose_one_session_go_on_over_one_dial() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2, services=SERVICES) as b:
            connection = await dial(a, b)
            streams = [await connection.open("echo", TrafficClass.RELIABLE) for _ in range(300)]
            dialed = []
            start_dial = a.start_dial

            async def counted(address: str, **fields: Any) -> Connection:
                dialed.append(address)
                return await start_dial(address, **fields)

            a.start_dial = counted  # type: ignore[method-assign]  # the dial itself goes on as ever
            await lose(connection)
            assert len(a.resuming.held()) == 300
            for number, stream in enumerate(streams):
                stream.write(b"%3d" % number)
            for number, stream in enumerate(streams):
                assert await stream.readexactly(3) == b"%3d" % number
            assert len(dialed) == 1
            assert len({stream.connection for stream in streams}) == 1
            assert a.resuming.counters["resumed"] == b.resuming.counters["resumed"] == 300
            assert a.resuming.held() == []
            for stream in streams:
                stream.reset()

    run(main, timeout_s=90)


def test_a_waiter_that_is_cancelled_takes_nobodys_dial_away() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2, services=SERVICES) as b:
            dials, node_id = Dials(), b.identity.node_id
            one, other = (asyncio.ensure_future(dials.dial(a, b.url, node_id=node_id)) for _ in range(2))
            await asyncio.sleep(0)
            one.cancel()
            assert (await other).peer_node_id == node_id
            assert one.cancelled()
            third = asyncio.ensure_future(dials.dial(a, "quic://127.0.0.1:9", node_id=node_id))
            await asyncio.sleep(0)
            await dials.aclose()
            with pytest.raises(FabricError, match="carrier_closed"):
                await third

    run(main)


def test_what_waiting_streams_hold_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HELD_BYTES", 100_000)

    async def main() -> None:
        async with await bind(1) as a, await bind(2, services=SERVICES) as b:
            connection = await dial(a, b)
            small = await connection.open("echo", TrafficClass.RELIABLE)
            large = await connection.open("echo", TrafficClass.RELIABLE)
            large.write(bytes(150_000))
            await lose(connection)
            assert large.over
            assert not small.over
            small.write(b"goes on")
            assert await small.readexactly(7) == b"goes on"
            await small.aclose()

    run(main)


def test_a_stream_that_waits_takes_nothing_more_from_its_writer() -> None:
    async def main() -> None:
        async with held(1) as (_, (stream,)):
            before = stream.held_bytes
            stream.write(bytes(100_000))
            assert stream.held_bytes == before
            writing = asyncio.ensure_future(stream.drain())
            await asyncio.sleep(0)
            assert not writing.done()
            writing.cancel()
        async with await bind(1) as a, await bind(2, services=SERVICES) as b:
            connection = await dial(a, b)
            stream = await connection.open("echo", TrafficClass.RELIABLE)
            await lose(connection)
            stream.write(bytes(100_000))
            await stream.drain()
            assert await stream.readexactly(100_000) == bytes(100_000)
            await stream.aclose()

    run(main)


def test_closing_the_endpoint_ends_what_waits() -> None:
    async def main() -> None:
        async with held(1) as (a, (stream,)):
            reading = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0)
            await a.aclose()
            with pytest.raises(StreamError, match="route_failed"):
                await reading

    run(main)


@pytest.mark.parametrize("hold_s", [0, 30])
def test_a_copied_open_is_refused_while_its_stream_lives(hold_s: int) -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2, services=SERVICES) as b:
            connection = await dial(a, b)
            _, opening = EndToEnd.initiate(
                a.now(),
                a.identity,
                a.cluster_id,
                b.identity.node_id,
                "echo",
                TrafficClass.RELIABLE,
                os.urandom,
                config=StreamConfig(hold_s=hold_s),
            )
            session = connection.session
            session.open_stream(a.now(), opening.open)
            session.open_stream(a.now(), opening.open)
            a.connection_dirty(connection)
            await until(lambda: session.resets_received["uid_in_use"] == 1)
            assert len(session.streams()) == 1
            session.reset_stream(a.now(), session.streams()[0], "cancelled")
            a.connection_dirty(connection)
            # Once it is over, the same OPEN is one of a new stream, in which old records do not open.
            await until(lambda: not b.connections()[0].streams())
            session.open_stream(a.now(), opening.open)
            a.connection_dirty(connection)
            await until(lambda: len(b.connections()[0].streams()) == 1)
            assert session.resets_received == {"uid_in_use": 1}

    run(main)
