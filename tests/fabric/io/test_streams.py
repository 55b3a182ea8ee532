"""Sealed streams on real sockets: bytes both ways, and backpressure."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from typing import Any

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.connection import Connection
from fabric.io.streams import Stream
from tests.support.aio import run, until
from tests.support.endpoints import (
    SERVICES,
    bind,
    dial,
    digest,
    engines,
    linked,
    pair,
    send_and_hash,
)
from tests.support.udp_link import UdpLink

MIB = 1 << 20


# -- bytes --


@engines
def test_bytes_go_both_ways(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with pair(engines) as (_, b, connection):
            async with await connection.open("echo", TrafficClass.INTERACTIVE) as stream:
                assert stream.service == "echo"
                assert stream.traffic_class is TrafficClass.INTERACTIVE
                assert stream.peer_node_id == b.identity.node_id
                for size in (1, 5, 70_000):
                    data = os.urandom(size)
                    stream.write(data)
                    assert await stream.readexactly(size) == data
                await stream.end()
                assert await stream.read() == b""
            assert stream.over
            await until(lambda: connection.streams() == [])
            await until(lambda: b.connections()[0].streams() == [])

    run(main)


@engines
@pytest.mark.parametrize(
    "traffic_class",
    list(TrafficClass),
)
def test_a_megabyte_in_every_class_arrives_whole(
    engines: tuple[str, str], traffic_class: TrafficClass
) -> None:
    async def main() -> None:
        async with pair(engines) as (_, _, connection):
            assert await send_and_hash(connection, MIB + 17, traffic_class)

    run(main)


def test_64_mib_arrive_whole() -> None:
    async def main() -> None:
        async with pair() as (_, _, connection):
            assert await send_and_hash(connection, 64 * MIB, TrafficClass.BULK)

    run(main)


@engines
def test_many_streams_at_once_keep_apart(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with pair(engines) as (_, _, connection):
            classes = [TrafficClass.INTERACTIVE, TrafficClass.RELIABLE, TrafficClass.BULK]
            assert all(
                await asyncio.gather(
                    *(send_and_hash(connection, 100_000 + i, classes[i % len(classes)]) for i in range(24))
                )
            )

    run(main)


def test_the_listener_opens_streams_too() -> None:
    async def main() -> None:
        async with await bind(1, services=SERVICES) as a, await bind(2) as b:
            await dial(a, b)
            back = b.connection_to(a.identity.node_id)
            assert back is not None
            assert not back.is_dialer
            assert await send_and_hash(back, 100_000, TrafficClass.RELIABLE)

    run(main)


def test_a_stream_opened_before_the_session_is_ready_rides_in_its_first_flight() -> None:
    async def main() -> None:
        delay = 0.1
        async with (
            await bind(1) as a,
            await bind(2, services=SERVICES) as b,
            UdpLink(b.local_address, delay_s=delay) as link,
        ):
            start = asyncio.get_running_loop().time()
            connection = await a.start_dial(link.url, node_id=b.identity.node_id)
            stream = await connection.open("echo", TrafficClass.INTERACTIVE)
            took = asyncio.get_running_loop().time() - start
            # One round trip for TLS, one for AUTH and OPEN together.
            assert 4 * delay <= took < 5 * delay
            stream.write(b"early")
            assert await stream.readexactly(5) == b"early"
            stream.reset()

    run(main)


@engines
def test_small_writes_that_wait_for_the_lane_become_few_records(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with pair(engines) as (_, _, connection):
            stream = await connection.open("echo", TrafficClass.BULK)
            stream.write(b"0")
            assert await stream.readexactly(1) == b"0"
            lanes: Any = connection._lanes
            pieces = [os.urandom(100) for _ in range(500)]
            room, lanes._room = lanes._room, lambda _key: 0
            for piece in pieces:
                stream.write(piece)
                await asyncio.sleep(0)  # a turn of its own for each, as from a socket
            sealed = stream.machine.counters["records_sent"]
            assert 1 < sealed <= 2 + 100 * 500 // limits.JOINED_BYTES
            lanes._room = room
            assert stream.machine.joining
            connection.stream_dirty(stream)
            assert connection._fill_lanes(connection.now())
            assert connection._fill_lanes(connection.now())
            assert not stream.machine.joining, "the rest follows without an answer of the peer's"
            assert await stream.readexactly(50_000) == b"".join(pieces)
            stream.write(b"alone")
            assert await stream.readexactly(5) == b"alone", "what waits behind nothing goes at once"
            await stream.end()
            await stream.aclose()

    run(main)


def test_reading_in_pieces() -> None:
    async def main() -> None:
        async with (
            pair() as (_, _, connection),
            await connection.open("echo", TrafficClass.RELIABLE) as stream,
        ):
            stream.write(bytearray(b"0123456789"))
            assert await stream.read(0) == b""
            assert await stream.read(3) == b"012"
            assert await stream.readexactly(5) == b"34567"
            await stream.end()
            with pytest.raises(asyncio.IncompleteReadError) as short:
                await stream.readexactly(3)
            assert short.value.partial == b"89"
            assert await stream.read() == b""

    run(main)


def test_a_record_of_a_stream_that_is_over_here_resets_it_and_nothing_else() -> None:
    """Without a hold nobody is left to judge it: what the peer goes on to send must not pile up unseen."""

    async def main() -> None:
        async with pair() as (_, b, connection):
            stream = await connection.open("echo", TrafficClass.RELIABLE, resume=False)
            await stream.end()
            assert await stream.read() == b""
            await until(lambda: stream.ended)
            far = b.connections()[0].session
            await until(lambda: connection.session.streams() == ())
            opening = await connection.open("echo", TrafficClass.RELIABLE, resume=False)
            connection.release(opening)  # as when both directions have ended here
            far.send_data(b.now(), opening.stream_id, 0, 0, bytes(100))
            b.connections()[0].stream_dirty(b.connections()[0].streams()[0])
            await until(lambda: far.resets_received["record_after_end"] == 1)
            assert await connection.ping() > 0
            assert connection.session._window.held == 0

    run(main)


# -- backpressure --


@engines
def test_a_stream_that_nobody_reads_stops_itself_and_nothing_else(engines: tuple[str, str]) -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def stuck(stream: Stream, connection: Connection) -> None:
            await release.wait()
            await digest(stream, connection)

        async with pair(engines, services=SERVICES | {"stuck": stuck}) as (_, _, connection):
            stream = await connection.open("stuck", TrafficClass.BULK)
            written = 0
            expected = hashlib.sha256()
            with contextlib.suppress(TimeoutError):
                while True:
                    data = os.urandom(65_536)
                    stream.write(data)
                    expected.update(data)
                    written += len(data)
                    async with asyncio.timeout(1.0):
                        await stream.drain()
            # The window at the other end, and the buffer at this one.
            assert written <= limits.E2E_WINDOW_BYTES_MAX + limits.E2E_SEND_BUFFER_BYTES + 3 * 65_536
            # The same class on the same lane goes on.
            assert await send_and_hash(connection, MIB, TrafficClass.BULK)
            assert await connection.ping() > 0
            release.set()
            await stream.end()
            assert await stream.readexactly(32) == expected.digest()

    run(main)


def test_drain_waits_for_the_peer_and_not_longer() -> None:
    async def main() -> None:
        async with (
            pair() as (_, _, connection),
            await connection.open("digest", TrafficClass.BULK) as stream,
        ):
            stream.write(bytes(4 * MIB))
            drained = asyncio.ensure_future(stream.drain())
            await asyncio.sleep(0)
            assert not drained.done()
            await drained
            await stream.end()
            assert await stream.readexactly(32) == hashlib.sha256(bytes(4 * MIB)).digest()

    run(main)


@engines
def test_an_urgent_stream_passes_bulk_that_was_queued_before_it(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with linked(engines, delay_s=0.005, bytes_per_s=2_000_000) as (_, _, connection, _):
            urgent = await connection.open("echo", TrafficClass.INTERACTIVE)
            bulk = await connection.open("digest", TrafficClass.BULK)
            data = bytes(2 * MIB)
            bulk.write(data)
            sending = asyncio.ensure_future(bulk.end())
            answered = 0
            while answered < 5:
                urgent.write(b"key pressed")
                assert await urgent.readexactly(11) == b"key pressed"
                # What the engine holds can no longer be overtaken, so it holds little.
                assert connection.carrier.unsent() <= limits.LANE_UNSENT_BYTES + limits.FRAME_BODY_BYTES
                answered += 1
            assert not sending.done(), "five echoes did not pass two megabytes at 2 MB/s"
            await sending
            assert await bulk.readexactly(32) == hashlib.sha256(data).digest()
            await urgent.aclose()

    run(main)
