"""Datagram mode on real sockets: both engines, loss, sizes, a relay between."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from fabric import limits
from fabric.classes import Mode, TrafficClass
from fabric.datagrams import OVERHEAD_BYTES
from fabric.errors import StreamError
from fabric.io.connection import Connection
from fabric.io.engines import CarrierConfig
from fabric.io.streams import Stream
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, bind, dial, engines, pair
from tests.support.udp_link import UdpLink


async def answer(stream: Stream, connection: Connection) -> None:
    """Send every datagram back."""
    while (data := await stream.receive()) is not None:
        stream.send(data)
    await stream.end()


DATAGRAMS = SERVICES | {"answer": answer}


@engines
def test_datagrams_go_there_and_back_up_to_the_carriers_size(engines: tuple[str, str]) -> None:
    async def main() -> None:
        fixed = CarrierConfig(probe_datagram_bytes=limits.CARRIER_DATAGRAM_BYTES)
        async with (
            await bind(1, engine=engines[0], carrier=fixed) as a,
            await bind(2, engine=engines[1], carrier=fixed, services=DATAGRAMS) as b,
        ):
            connection = await dial(a, b)
            stream = await connection.open("answer", TrafficClass.INTERACTIVE, mode=Mode.DATAGRAM)
            assert stream.mode is Mode.DATAGRAM
            room = stream.datagram_room
            assert room == connection.carrier.datagram_room() - OVERHEAD_BYTES
            assert room > 1000
            for size in (0, 1, 500, room):
                stream.send(bytes(size))
                assert await stream.receive() == bytes(size)
            with pytest.raises(StreamError, match="datagram_too_large"):
                stream.send(bytes(room + 1))
            with pytest.raises(StreamError, match="cancelled"):
                stream.write(b"bytes")
            await stream.end()
            assert await stream.receive() is None
            await until(lambda: connection.streams() == [])

    run(main)


def test_datagrams_grow_with_what_the_path_carries() -> None:
    async def main() -> None:
        async with pair(("aioquic", "aioquic"), services=DATAGRAMS) as (_, b, connection):
            [other] = b.connections()
            await until(lambda: {c.carrier.datagram_bytes() for c in (connection, other)} == {8952})
            stream = await connection.open("answer", TrafficClass.INTERACTIVE, mode=Mode.DATAGRAM)
            room = stream.datagram_room
            assert room == connection.carrier.datagram_room() - OVERHEAD_BYTES > 8000
            stream.send(bytes(room))
            assert await stream.receive() == bytes(room)
            await stream.end()

    run(main)


def test_losses_are_gaps_and_hold_up_nothing() -> None:
    async def main() -> None:
        async with (
            await bind(1) as a,
            await bind(2, services=DATAGRAMS) as b,
            UdpLink(b.local_address, delay_s=0.002, loss=0.05, duplicate=0.05, seed=4) as link,
        ):
            connection = await dial(a, b, link.url)
            stream = await connection.open("answer", TrafficClass.RELIABLE, mode=Mode.DATAGRAM)
            got: list[int] = []

            async def read() -> None:
                while (data := await stream.receive()) is not None:
                    got.append(int(data))

            reading = asyncio.ensure_future(read())
            for number in range(400):
                stream.send(b"%d" % number)
                if number % 8 == 7:
                    await asyncio.sleep(0.001)  # the link's queue is time
            await stream.end()
            await reading
            assert len(set(got)) == len(got)
            assert 100 < len(got) < 400
            await stream.aclose()

    run(main, timeout_s=90)


def test_datagrams_are_lost_while_there_is_no_carrier_and_go_on_after() -> None:
    async def main() -> None:
        async with pair(services=DATAGRAMS) as (_, _, connection):
            stream = await connection.open("answer", TrafficClass.INTERACTIVE, mode=Mode.DATAGRAM)
            stream.send(b"one")
            assert await stream.receive() == b"one"
            connection.lose()
            stream.send(b"two")
            await until(lambda: stream.bound)
            stream.send(b"three")
            assert await stream.receive() == b"three"
            await stream.aclose()

    run(main)


def test_a_receive_ends_with_the_stream() -> None:
    async def main() -> None:
        async with pair(services=DATAGRAMS) as (_, _, connection):
            stream = await connection.open("answer", TrafficClass.INTERACTIVE, mode=Mode.DATAGRAM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await stream.receive()
            reading = asyncio.ensure_future(stream.receive())
            await asyncio.sleep(0)
            stream.reset()
            with pytest.raises(StreamError, match="cancelled"):
                await reading

    run(main)
