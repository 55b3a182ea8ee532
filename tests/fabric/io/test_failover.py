"""What makes a live stream change its route, on real sockets; and that nothing happens without."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace

import msgspec
import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.failover import Reason
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.io.streams import Stream
from fabric.relay import Lease
from fabric.wire import RouteRef
from tests.fabric.io.test_relaying import lease
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, bind, dial, linked
from tests.support.udp_link import UdpLink

both_engines = pytest.mark.parametrize("engine", ["qh3", "aioquic"])


class Fork:
    """Node 1, relays 2 and 3, and node 4 behind both: two leases for one service. Links can be cut."""

    def __init__(self, nodes: list[Endpoint], links: dict[tuple[int, int], UdpLink]) -> None:
        self.nodes = dict(enumerate(nodes, start=1))
        self.links = links
        self.leases: dict[str, Lease] = {}
        self.nodes[1].resuming.ways = self.ways

    async def ways(self, stream: Stream) -> AsyncGenerator[tuple[Connection, RouteRef | None], None]:
        """Both leases, where there is a session with the relay."""
        for relay in (2, 3):
            connection = self.nodes[1].connection_to(self.nodes[relay].identity.node_id)
            if connection is not None:
                yield connection, RouteRef(route_id=f"r-{relay}", epoch=5, position=1)

    async def open(self, traffic_class: TrafficClass) -> Stream:
        """A stream over relay 2."""
        connection = self.nodes[1].connection_to(self.nodes[2].identity.node_id)
        assert connection is not None
        route = RouteRef(route_id="r-2", epoch=5, position=1)
        target = self.nodes[4].identity.node_id
        return await connection.open("digest", traffic_class, target_node_id=target, route=route)


@contextlib.asynccontextmanager
async def fork(engine: str, delay_s: float = 0.005) -> AsyncIterator[Fork]:
    leases: dict[str, Lease] = {}
    async with contextlib.AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(
                await bind(number, engine=engine, services=SERVICES, lookup_lease=leases.get)
            )
            for number in (1, 2, 3, 4)
        ]
        links = {}
        for one, other in ((1, 2), (1, 3), (2, 4), (3, 4)):
            link = UdpLink(nodes[other - 1].local_address, delay_s=delay_s, seed=one)
            links[one, other] = await stack.enter_async_context(link)
            await dial(nodes[one - 1], nodes[other - 1], link.url)
        found = Fork(nodes, links)
        found.leases = leases
        for relay in (2, 3):
            leases[f"r-{relay}"] = replace(lease(1, relay, 4), route_id=f"r-{relay}")
        yield found


class Writing:
    """A stream that is written to all the while, until told to end; then every byte must have arrived."""

    def __init__(self, stream: Stream, size: int) -> None:
        self.stream = stream
        self._size = size
        self._hash = hashlib.sha256()
        self._stop = False
        self._task = asyncio.ensure_future(self._write())

    async def _write(self) -> None:
        while not self._stop:
            data = os.urandom(self._size)
            self._hash.update(data)
            self.stream.write(data)
            await self.stream.drain()
            await asyncio.sleep(0.01)  # a live stream has pauses

    async def until_acknowledged(self) -> None:
        """Traffic flows."""
        before = self.stream.machine._sender.acknowledged  # type: ignore[union-attr]  # a stream of bytes
        await until(lambda: self.stream.machine._sender.acknowledged > before)  # type: ignore[union-attr]  # same

    async def check(self) -> None:
        """End the stream: nothing is lost or doubled."""
        self._stop = True
        await self._task
        await self.stream.end()
        assert await self.stream.readexactly(32) == self._hash.digest()
        assert await self.stream.read() == b""


async def goaway(found: Fork) -> None:
    (there,) = [one for one in found.nodes[2].connections() if not one.is_dialer]
    there.goaway()


async def fence(found: Fork) -> None:
    found.leases["r-2"] = replace(found.leases["r-2"], fenced=True)
    found.nodes[2].relaying.recheck()


async def expire(found: Fork) -> None:
    found.leases["r-2"] = replace(found.leases["r-2"], expires_at=time.time() + 0.05)
    found.nodes[2].relaying.recheck()


async def cut_before_the_relay(found: Fork) -> None:
    found.links[1, 2].silent = True


async def cut_behind_the_relay(found: Fork) -> None:
    found.links[2, 4].silent = True


async def lose_the_session(found: Fork) -> None:
    (there,) = [one for one in found.nodes[2].connections() if not one.is_dialer]
    there.lose("carrier_lost")


async def lose_the_next_session(found: Fork) -> None:
    (there,) = [one for one in found.nodes[2].connections() if one.is_dialer]
    there.lose("idle_timeout")


async def icmp(found: Fork) -> None:
    found.links[1, 2].silent = True
    await until(lambda: not found.links[1, 2]._queue)
    there = found.nodes[1].connection_to(found.nodes[2].identity.node_id)
    assert there is not None
    for _ in range(30):  # as often as something is sent; what is on its way yet would take it back
        found.nodes[1]._on_unreachable(there.remote, "no_route_to_host")
        await asyncio.sleep(0.01)  # the pace of what is sent


CAUSES = {
    goaway: "peer_unavailable",
    fence: "fenced",
    expire: "fenced",
    cut_before_the_relay: "timeout",
    cut_behind_the_relay: "timeout",
    lose_the_session: "connection_reset",
    lose_the_next_session: "peer_unavailable",
    icmp: "no_route_to_host",
}


@both_engines
@pytest.mark.parametrize(
    "traffic_class", [TrafficClass.INTERACTIVE, TrafficClass.BULK], ids=["person", "bulk"]
)
@pytest.mark.parametrize(("cause", "reason"), CAUSES.items(), ids=[cause.__name__ for cause in CAUSES])
def test_a_live_stream_goes_on_by_the_other_relay(
    engine: str,
    traffic_class: TrafficClass,
    cause: object,
    reason: Reason,
) -> None:
    async def main() -> None:
        async with fork(engine) as found:
            stream = await found.open(traffic_class)
            writing = Writing(stream, 200 if traffic_class is TrafficClass.INTERACTIVE else 100_000)
            await writing.until_acknowledged()
            await cause(found)  # type: ignore[operator]  # one of the functions above
            await until(lambda: stream.switches > 0)
            assert stream.route is not None
            assert stream.route.route_id == "r-3"
            assert stream.last_switch is not None
            assert stream.last_switch.reason == reason
            assert found.nodes[1].resuming.switches.by_reason[reason] == 1
            await writing.check()
            assert stream.switches == 1

    run(main, timeout_s=90)


@both_engines
def test_a_lossy_path_is_no_reason_to_leave_it(engine: str) -> None:
    async def main() -> None:
        async with fork(engine, delay_s=0.02) as found:
            found.links[1, 2].loss, found.links[2, 4].jitter_s = 0.02, 0.02
            stream = await found.open(TrafficClass.INTERACTIVE)
            writing = Writing(stream, 5_000)
            for _ in range(12):
                await writing.until_acknowledged()
            await writing.check()
            assert stream.switches == 0
            assert stream.route is not None
            assert stream.route.route_id == "r-2"

    run(main, timeout_s=90)


def test_a_process_that_was_away_blames_no_route() -> None:
    async def main() -> None:
        async with fork("qh3") as found:
            stream = await found.open(TrafficClass.INTERACTIVE)
            writing = Writing(stream, 200)
            await writing.until_acknowledged()
            for _ in range(3):
                time.sleep(2 * limits.ROUTE_SWITCHED_S)  # noqa: ASYNC251 - the loop itself must stand still
                await writing.until_acknowledged()
            await writing.check()
            assert stream.switches == 0

    run(main, timeout_s=90)


def test_an_idle_stream_finds_the_silence_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ROUTE_PING_S", 0.3)

    async def main() -> None:
        async with fork("qh3") as found:
            stream = await found.open(TrafficClass.BULK)
            found.links[2, 4].silent = True
            await until(lambda: stream.switches > 0)
            assert stream.last_switch is not None
            assert stream.last_switch.reason == "timeout"
            await stream.end()
            assert await stream.readexactly(32) == hashlib.sha256().digest()

    run(main)


def test_without_another_way_a_stream_stays_and_goes_on_after_the_silence() -> None:
    async def main() -> None:
        async with fork("qh3") as found:
            del found.leases["r-3"]
            stream = await found.open(TrafficClass.INTERACTIVE)
            writing = Writing(stream, 200)
            await writing.until_acknowledged()
            found.links[2, 4].silent = True
            await until(lambda: found.nodes[1].resuming.counters["attempts_failed"] > 0)
            found.links[2, 4].silent = False
            await writing.until_acknowledged()
            await writing.check()

    run(main, timeout_s=90)


@pytest.mark.parametrize("streams", [0, 1])
def test_a_stream_that_the_other_way_has_no_room_for_stays_where_it_is(streams: int) -> None:
    async def main() -> None:
        async with fork("qh3") as found:
            stream = await found.open(TrafficClass.INTERACTIVE)
            before = stream.connection
            writing = Writing(stream, 200)
            await writing.until_acknowledged()
            other = found.nodes[1].connection_to(found.nodes[3].identity.node_id)
            assert other is not None
            assert other.session._peer_limits is not None
            other.session._peer_limits = msgspec.structs.replace(
                other.session._peer_limits, max_streams=streams
            )
            await goaway(found)
            resuming = found.nodes[1].resuming
            await until(lambda: resuming.counters["attempts_failed"] > 0 or stream.switches > 0)
            assert (stream.connection is before) is not bool(streams)
            assert resuming.counters["suspended"] == 0
            await writing.until_acknowledged()
            await writing.check()
            assert stream.switches == streams

    run(main, timeout_s=90)


@both_engines
def test_a_neighbour_that_fell_silent_is_dialed_anew(engine: str) -> None:
    async def main() -> None:
        async with linked((engine, engine)) as (_, b, connection, link):
            stream = await connection.open("digest", TrafficClass.INTERACTIVE)
            writing = Writing(stream, 200)
            await writing.until_acknowledged()
            connection.dialed_at = b.url  # another of its addresses, which a node would know of
            link.silent = True
            await until(lambda: stream.switches > 0)
            assert stream.connection is not connection
            assert connection.given_up
            await writing.check()

    run(main, timeout_s=90)
