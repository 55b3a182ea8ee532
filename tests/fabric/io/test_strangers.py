"""What strangers may cost an endpoint, on real sockets; after each attack an honest dialer gets in."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import Any

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.events import SessionConfig
from fabric.io.endpoint import Endpoint
from fabric.io.engines import CarrierConfig, Terminated, load_engine
from fabric.lanes import LaneKey, encode_preface
from tests.support.aio import run, until
from tests.support.carrier_pair import identity
from tests.support.endpoints import (
    assert_alive,
    bind,
    dial,
    engines,
)

# -- strangers --


class Stranger:
    """A bare UDP socket that sends what it likes."""

    def __init__(self, target: Endpoint) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.connect(target.local_address)

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def received(self) -> list[bytes]:
        found = []
        while True:
            try:
                found.append(self._socket.recv(65_535))
            except BlockingIOError:
                return found

    def close(self) -> None:
        self._socket.close()


def first_flight(engine: str = "qh3") -> list[bytes]:
    """A client's Initial datagrams, new each time."""
    carrier = load_engine(engine, identity(7)).dial(("127.0.0.1", 1), 0.0)
    return [data for data, _ in carrier.datagrams_to_send(0.0)]


@pytest.mark.parametrize("listener", ["qh3", "aioquic"])
def test_garbage_is_ignored(listener: str) -> None:
    async def main() -> None:
        rng = random.Random(5)
        async with await bind(1) as a, await bind(2, engine=listener) as b:
            connection = await dial(a, b)
            stranger = Stranger(b)
            cid = min(b.connections()[0].carrier.connection_ids())
            initial = first_flight()[0]
            junk = [b"", b"\x00", b"\x40", b"\x80", b"\xc0\x00\x00\x00\x01", b"\xff" * 1200, b"\x00" * 1200]
            junk += [rng.randbytes(rng.randrange(1, 1500)) for _ in range(200)]
            junk += [b"\x40" + cid + rng.randbytes(rng.randrange(0, 1200)) for _ in range(50)]
            junk += [initial[: rng.randrange(1, 1200)] for _ in range(50)]
            for _ in range(100):
                changed = bytearray(initial)
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
                junk.append(bytes(changed))
            for data in junk:
                stranger.send(data)
            await until(lambda: b.counters["unowned_datagrams"] > 150)
            assert b.counters["internal_errors"] == 0
            assert await connection.ping() > 0
            await assert_alive(a, b)
            stranger.close()

    run(main)


def test_another_version_is_told_which_one_we_speak() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            stranger = Stranger(b)
            unknown = bytes([0xC0]) + b"\x1a\x2a\x3a\x4a" + b"\x08" + b"d" * 8 + b"\x08" + b"s" * 8
            stranger.send(unknown)  # too short to be answered
            stranger.send(unknown.ljust(1200, b"\x00"))
            await until(lambda: b.counters["version_negotiations"] > 0)
            [answer] = stranger.received()
            assert answer[1:5] == bytes(4)
            assert answer.endswith(b"\x00\x00\x00\x01")
            stranger.close()
            await assert_alive(a, b)

    run(main)


@engines
def test_a_retry_lets_honest_dialers_in(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1], retry_policy="always") as b,
        ):
            connection = await dial(a, b)
            assert await connection.ping() > 0
            # One for each datagram of the ClientHello; the client follows the first.
            assert b.counters["retries_sent"] == 2
            assert len(b.connections()) == 1

    run(main)


@pytest.mark.parametrize("listener", ["qh3", "aioquic"])
def test_a_flood_of_half_open_connections_is_bounded_and_honest_dialers_get_in(listener: str) -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2, engine=listener) as b:
            sources = [f"127.0.{n // 200}.{n % 200 + 1}" for n in range(2, 90)]
            strangers = []
            for source in sources:
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind((source, 0))
                strangers.append(sock)
            flight = [first_flight() for _ in range(40)]
            for number in range(2_000):
                # A new destination id each time makes each one a new connection.
                sock = strangers[number % len(strangers)]
                for data in flight[number % len(flight)]:
                    changed = bytearray(data)
                    changed[6:14] = number.to_bytes(8, "big")
                    sock.sendto(changed, b.local_address)
                if number % 50 == 0:
                    await asyncio.sleep(0)
            await until(lambda: b.counters["retries_sent"] > 1_000)
            assert b.half_open <= limits.ENDPOINT_HALF_OPEN_RETRY
            assert len(b._table._cids) <= limits.ENDPOINT_HALF_OPEN_RETRY
            # Under load the honest dialer proves its address first, and is let in.
            connection = await dial(a, b)
            assert await connection.ping() > 0
            for sock in strangers:
                sock.close()

    run(main)


def test_one_host_cannot_hold_more_than_its_share() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2, retry_policy="never") as b:
            flood = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            flood.bind(("127.0.0.9", 0))
            for _ in range(limits.ENDPOINT_HALF_OPEN_PER_ADDRESS + 30):
                for data in first_flight():
                    flood.sendto(data, b.local_address)
                await asyncio.sleep(0)
            await until(lambda: b.counters["connections_refused"] >= 30)
            assert b.half_open == limits.ENDPOINT_HALF_OPEN_PER_ADDRESS
            await assert_alive(a, b)
            flood.close()

    run(main)


@pytest.mark.parametrize("listener", ["qh3", "aioquic"])
def test_half_open_connections_end_by_themselves(listener: str) -> None:
    async def main() -> None:
        config = SessionConfig(handshake_timeout_s=0.3)
        carrier = CarrierConfig(idle_timeout_s=1.0)
        async with (
            await bind(1) as a,
            await bind(2, engine=listener, session=config, carrier=carrier) as b,
        ):
            stranger = Stranger(b)
            for data in first_flight():
                stranger.send(data)
            await until(lambda: b.half_open == 1)
            await until(lambda: b.half_open == 0)
            await until(lambda: not b._table._cids)
            assert b._table.by_cid == {}
            assert b._timers == {}
            stranger.close()
            await assert_alive(a, b)

    run(main)


@pytest.mark.parametrize("listener", ["qh3", "aioquic"])
def test_bytes_before_proof_are_bounded(listener: str) -> None:
    """A dialer that finished TLS may not fill our memory, not even with bytes that cannot be delivered."""

    async def main() -> None:
        async with await bind(3) as a, await bind(2, engine=listener) as b:
            loop = asyncio.get_running_loop()
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.connect(b.local_address)
            carrier = load_engine("aioquic", identity(7)).dial(b.local_address, loop.time())
            quic = carrier._quic  # type: ignore[attr-defined]  # the attacker leaves a hole in its own stream
            lane, sent, ended = None, 0, ""
            deadline = loop.time() + 10
            while not ended and loop.time() < deadline:
                for event in carrier.events():
                    if type(event).__name__ == "Handshaken":
                        lane = carrier.open_lane()
                    if isinstance(event, Terminated):
                        ended = event.reason
                if lane is not None and not ended and carrier.unsent(lane) < 50_000:
                    carrier.send(lane, os.urandom(20_000))
                    if not sent:
                        quic._streams[lane].sender._pending.subtract(0, 1)
                    sent += 20_000
                for data, _ in carrier.datagrams_to_send(loop.time()):
                    sock.send(data)
                await asyncio.sleep(0.001)  # the hand-driven carrier below has a clock, not events
                while True:
                    try:
                        carrier.receive([sock.recv(65_535)], b.local_address, loop.time())
                    except BlockingIOError:
                        break
                timer = carrier.timer()
                if timer is not None and timer <= loop.time():
                    carrier.handle_timer(loop.time())
            sock.close()
            assert ended == "pre_auth_overflow"
            assert sent < 4 * limits.CARRIER_PRE_AUTH_DATAGRAM_BYTES
            assert b.half_open == 0
            await assert_alive(a, b)

    run(main)


@engines
def test_a_stream_that_goes_both_ways_is_no_lane(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with await bind(1, engine=engines[0]) as a, await bind(2, engine=engines[1]) as b:
            connection = await dial(a, b)
            await until(lambda: len(b.connections()) == 1)
            (there,) = b.connections()
            carrier: Any = connection.carrier
            carrier.send(carrier.open_lane(), encode_preface(LaneKey(TrafficClass.BULK, 0)))
            a.connection_dirty(connection)
            assert await connection.ping() > 0
            bidirectional = 0 if connection.is_dialer else 1
            carrier._quic.send_stream_data(
                bidirectional, encode_preface(LaneKey(TrafficClass.BULK, 1)), False
            )
            a.connection_dirty(connection)
            assert await there.closed == "wrong_lane"
            assert await connection.closed == "wrong_lane"
            await assert_alive(a, b)

    run(main)
