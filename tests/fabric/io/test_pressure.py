"""Pressure of real endpoints: what is seen, told to neighbours, and honoured by them."""

from __future__ import annotations

import asyncio

import pytest

from fabric.classes import TrafficClass
from fabric.errors import StreamError
from fabric.events import SessionConfig
from fabric.io.pressure import PressureWatch
from fabric.pressure import Pressure
from fabric.sessionpolicy import SessionPolicy
from fabric.wire import NodePressure
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, bind, dial, pair, send_and_hash, url
from tests.support.udp_link import UdpLink

MIB = 1 << 20
TWO = SessionConfig(max_streams=2)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def look(self, watch: PressureWatch) -> Pressure:
        self.now += 1.0
        return watch.look()


def test_mixed_load_presses_bulk_and_passes() -> None:
    async def main() -> None:
        clock = Clock()
        async with (
            await bind(1) as a,
            await bind(2, services=SERVICES) as b,
            UdpLink(b.local_address, delay_s=0.005, bytes_per_s=4_000_000) as link,
        ):
            watch = PressureWatch(a, clock)
            assert clock.look(watch).level == "nominal"
            connection = await dial(a, b, link.url)
            urgent = await connection.open("echo", TrafficClass.INTERACTIVE)
            bulk = asyncio.ensure_future(send_and_hash(connection, 2 * MIB, TrafficClass.BULK))
            for _ in range(5):
                urgent.write(b"key")
                assert await urgent.readexactly(3) == b"key"
            found = clock.look(watch)
            assert "bulk_pressure" in found.reasons
            assert found.reading.flows[TrafficClass.INTERACTIVE].channels == 1
            assert found.reading.flows[TrafficClass.BULK].channels == 1
            assert await bulk
            clock.now += 10
            scheduler = connection.session.scheduler
            await until(lambda: a.now() - scheduler.shrunk_at > 1.0)
            clock.look(watch)
            clock.now += 10
            assert clock.look(watch).level == "nominal"
            assert watch.current.history[0].level in ("warning", "critical")
            assert watch.current.history[-1].level == "nominal"
            await urgent.aclose()

    run(main, timeout_s=90)


def test_a_pressed_node_tells_its_neighbours_and_their_bulk_still_arrives() -> None:
    async def main() -> None:
        async with pair() as (_, b, connection):
            back = b.connections()[0]
            back.session.send_pressure(b.now(), NodePressure(memory=100))
            b.connection_dirty(back)
            scheduler = connection.session.scheduler
            await until(lambda: scheduler.peer_pressure(connection.now()) == 100)
            # Longer than every window, so that it comes to a stop if credit ever does.
            assert await send_and_hash(connection, 24 * MIB, TrafficClass.BULK)

    run(main, timeout_s=90)


def test_what_waits_for_a_carrier_is_critical_and_going_on_is_observed() -> None:
    async def main() -> None:
        clock = Clock()
        async with pair() as (a, _, connection):
            watch = PressureWatch(a, clock)
            clock.look(watch)
            stream = await connection.open("echo", TrafficClass.RELIABLE)
            connection.lose()
            assert clock.look(watch).action == "rebuild_or_reroute"
            await until(lambda: stream.bound)
            clock.now += 10
            found = clock.look(watch)
            assert (found.reasons, found.action) == (("route_recovered",), "observe_recovery")
            await stream.aclose()

    run(main)


def test_refusing_for_want_of_room_is_capacity_not_failure() -> None:
    async def main() -> None:
        clock = Clock()
        # Streams of the first flight are sent before the listener's limit is known.
        async with await bind(1) as a, await bind(2, services=SERVICES, session=TWO) as b:
            connection = await a.start_dial(url(b), node_id=b.identity.node_id)
            watch = PressureWatch(b, clock)
            clock.look(watch)
            with pytest.raises(StreamError, match="too_many_streams"):
                await asyncio.gather(*(connection.open("echo", TrafficClass.RELIABLE) for _ in range(3)))
            assert clock.look(watch).reasons == ("capacity_limited",)
            assert await connection.ping() > 0

    run(main)


def test_sessions_near_their_bound_are_pressure_of_sockets() -> None:
    async def main() -> None:
        policy = SessionPolicy(total=4)
        async with await bind(2, sessions=policy) as node, await bind(1) as a, await bind(3) as b:
            watch = PressureWatch(node, Clock())
            for other in (a, b):
                await dial(other, node)
            await until(lambda: len(node.connections()) == 2)
            assert watch.look().reading.node.sockets == 50
            assert "sockets" not in watch.current.reasons
            for _ in range(2):
                await dial(a, node)
            await until(lambda: len(node.connections()) == 4)
            assert watch.look().reading.node.sockets == 100
            assert "sockets" in watch.current.reasons

    run(main)


def test_a_node_without_room_for_a_session_says_that_its_capacity_is_limited() -> None:
    async def main() -> None:
        policy = SessionPolicy(total=1)
        async with (
            await bind(2, services=SERVICES, sessions=policy) as node,
            await bind(1) as a,
            await bind(3) as b,
        ):
            clock = Clock()
            watch = PressureWatch(node, clock)
            first = await dial(a, node)
            assert "capacity_limited" not in clock.look(watch).reasons
            stream = await first.open("echo", TrafficClass.RELIABLE)
            late = await b.start_dial(url(node), node_id=node.identity.node_id)
            assert await late.closed == "no_room"
            assert node.counters["no_room"] == 1
            assert "capacity_limited" in clock.look(watch).reasons
            stream.reset()

    run(main)
