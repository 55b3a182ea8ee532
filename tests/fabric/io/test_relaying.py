"""Relays on real sockets: A - relay - B, and A - relay - relay - B, sealed end to end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import StreamError
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.io.streams import Stream
from fabric.relay import Lease
from fabric.wire import RouteRef
from tests.support.aio import run, until
from tests.support.carrier_pair import identity
from tests.support.endpoints import bind, dial
from tests.support.udp_link import UdpLink

ENGINES = ["qh3", "aioquic"]
ROUTE = "r-1"


def lease(*numbers: int, **changes: object) -> Lease:
    """A lease over the nodes of these numbers, good for bulk and interactive streams to `digest`."""
    made = Lease(
        route_id=ROUTE,
        epoch=5,
        hops=tuple(identity(number).node_id for number in numbers),
        service="digest",
        allowed_classes=frozenset({TrafficClass.BULK, TrafficClass.INTERACTIVE}),
        organization_id="org-1",
        expires_at=time.time() + 3600,
    )
    return replace(made, **changes)  # type: ignore[arg-type]  # a test names only real fields


class Network:
    """Endpoints in a row that share one table of leases, with sessions between neighbours."""

    def __init__(self) -> None:
        self.leases: dict[str, Lease] = {}
        self.endpoints: list[Endpoint] = []
        self.initiators: list[str] = []

    async def digest(self, stream: Stream, connection: Connection) -> None:
        seen = hashlib.sha256()
        self.initiators.append(stream.peer_node_id)
        while data := await stream.read():
            seen.update(data)
        stream.write(seen.digest())
        await stream.end()

    @property
    def target(self) -> str:
        return self.endpoints[-1].identity.node_id

    async def open(
        self,
        traffic_class: TrafficClass = TrafficClass.BULK,
        *,
        service: str = "digest",
        resume: bool = True,
    ) -> Stream:
        """A stream from the first endpoint over the leased route to the last."""
        neighbour = self.endpoints[0].connection_to(self.endpoints[1].identity.node_id)
        assert neighbour is not None
        route = RouteRef(route_id=ROUTE, epoch=5, position=1)
        return await neighbour.open(
            service, traffic_class, target_node_id=self.target, route=route, resume=resume
        )

    async def send(self, total: int, traffic_class: TrafficClass = TrafficClass.BULK) -> None:
        """Send random bytes along the route and check the hash that comes back."""
        async with await self.open(traffic_class) as stream:
            assert stream.peer_node_id == self.target
            data = os.urandom(total)
            stream.write(data)
            await stream.end()
            assert await stream.readexactly(32) == hashlib.sha256(data).digest()
            assert await stream.read() == b""

    async def refused(
        self, traffic_class: TrafficClass = TrafficClass.BULK, *, service: str = "digest"
    ) -> str:
        with pytest.raises(StreamError) as refused:
            await self.open(traffic_class, service=service)
        return refused.value.code

    def recheck(self) -> None:
        for endpoint in self.endpoints:
            endpoint.relaying.recheck()


@contextlib.asynccontextmanager
async def network(count: int, engine: str = "qh3", *, connect: bool = True) -> AsyncIterator[Network]:
    """`count` nodes numbered from 1, each with a session to the next, and a lease over all of them."""
    net = Network()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(1, count + 1):
            endpoint = await bind(
                number,
                engine=engine,
                services={"digest": net.digest, "other": net.digest},
                lookup_lease=net.leases.get,
            )
            net.endpoints.append(await stack.enter_async_context(endpoint))
        if connect:
            for one, other in zip(net.endpoints, net.endpoints[1:], strict=False):
                await dial(one, other)
        net.leases[ROUTE] = lease(*range(1, count + 1))
        yield net


def test_datagrams_of_a_route_are_of_the_size_that_every_hop_carries() -> None:
    async def main() -> None:
        async with network(3, "aioquic") as net:
            neighbour = net.endpoints[0].connection_to(net.endpoints[1].identity.node_id)
            assert neighbour is not None
            await until(lambda: neighbour.carrier.datagram_bytes() > limits.CARRIER_DATAGRAM_BYTES)
            stream = await net.open()
            assert stream.datagram_room < limits.CARRIER_DATAGRAM_BYTES < neighbour.datagram_room
            stream.reset()

    run(main)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [3, 4])
def test_bytes_pass_sealed_end_to_end(engine: str, count: int) -> None:
    async def main() -> None:
        async with network(count, engine) as net:
            size = 3_000_000 if engine == "qh3" else 400_000
            await net.send(size)
            await net.send(1_000, TrafficClass.INTERACTIVE)
            assert set(net.initiators) == {net.endpoints[0].identity.node_id}
            for relay in net.endpoints[1:-1]:
                machine = relay.relaying.machine
                assert machine is not None
                await until(lambda machine=machine: not machine._legs)  # type: ignore[misc]  # bound per turn
                accounts = relay.relaying.accounts
                bulk = accounts[(TrafficClass.BULK, ROUTE, "org-1")]
                assert bulk.streams == 1
                assert size < bulk.bytes_forward < size * 1.01 + 200
                assert 32 < bulk.bytes_back < 400
                assert accounts[(TrafficClass.INTERACTIVE, ROUTE, "org-1")].streams == 1
                assert all(connection.streams() == [] for connection in relay.connections())
            assert net.endpoints[0].relaying.accounts == {}

    run(main)


def test_many_streams_over_one_relay() -> None:
    async def main() -> None:
        async with network(3) as net:
            await asyncio.gather(*(net.send(50_000 + number) for number in range(20)))
            [account] = net.endpoints[1].relaying.accounts.values()
            assert account.streams == 20

    run(main)


def test_a_stream_that_the_target_does_not_read_holds_little_at_the_relay() -> None:
    async def main() -> None:
        async with network(3) as net:
            release = asyncio.Event()

            async def stuck(stream: Stream, connection: Connection) -> None:
                await release.wait()
                await net.digest(stream, connection)

            net.endpoints[-1].services["digest"] = stuck
            stream = await net.open()
            data = bytes(20 << 20)
            stream.write(data)
            await until(lambda: stream._pending_bytes < len(data))
            net.endpoints[-1].services["digest"] = net.digest
            await net.send(100_000, TrafficClass.INTERACTIVE)
            assert stream._pending_bytes > 0, "the writer was let go on although nobody reads"
            release.set()
            await stream.end()
            assert await stream.readexactly(32) == hashlib.sha256(data).digest()

    run(main)


# -- what does not pass --


def test_without_a_lease_nothing_passes() -> None:
    async def main() -> None:
        async with network(3) as net:
            kept = net.leases.pop(ROUTE)
            assert await net.refused() == "no_lease"
            assert net.endpoints[1].relaying.accounts == {}
            net.leases[ROUTE] = kept
            await net.send(1_000)

    run(main)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"expires_at": 1.0}, "lease_expired"),
        ({"fenced": True}, "fenced"),
        ({"hops": tuple(identity(n).node_id for n in (1, 9, 3))}, "wrong_hop"),
        ({"hops": tuple(identity(n).node_id for n in (8, 2, 3))}, "wrong_previous"),
        ({"allowed_classes": frozenset({TrafficClass.INTERACTIVE})}, "class_not_allowed"),
        ({"service": "other"}, "service_not_allowed"),
        ({"epoch": 4}, "no_lease"),
    ],
)
def test_a_lease_that_does_not_fit_is_refused_at_the_relay(changes: dict[str, object], code: str) -> None:
    async def main() -> None:
        async with network(3) as net:
            good = net.leases[ROUTE]
            net.leases[ROUTE] = replace(good, **changes)  # type: ignore[arg-type]  # only real fields
            assert await net.refused() == code
            assert net.initiators == []
            net.leases[ROUTE] = good
            await net.send(1_000)

    run(main)


def test_the_last_hop_checks_the_lease_itself() -> None:
    """A relay whose table is stale or false lets a stream through; the target still refuses it."""

    async def main() -> None:
        async with network(3) as net:
            good = net.leases[ROUTE]
            seen_by_target = replace(good, fenced=True)
            target = net.endpoints[-1]
            target.relaying._lookup = {ROUTE: seen_by_target}.get
            assert await net.refused() == "fenced"
            assert net.endpoints[1].relaying.accounts != {}
            target.relaying._lookup = net.leases.get
            await net.send(1_000)

    run(main)


def test_an_unreachable_next_hop_is_told() -> None:
    async def main() -> None:
        async with network(3, connect=False) as net:
            a, relay, b = net.endpoints
            await dial(a, relay)
            assert await net.refused() == "next_hop_unreachable"
            await dial(relay, b)
            await net.send(1_000)

    run(main)


# -- what ends on the way --


def test_a_fence_ends_running_streams_at_once() -> None:
    async def main() -> None:
        async with network(3) as net:
            stream = await net.open()
            stream.write(b"x" * 1000)
            await stream.drain()
            reading = asyncio.ensure_future(stream.read())
            await until(lambda: net.initiators != [])
            net.leases[ROUTE] = replace(net.leases[ROUTE], fenced=True)
            net.recheck()
            with pytest.raises(StreamError) as failed:
                await reading
            assert failed.value.code == "fenced"
            assert all(c.streams() == [] for c in net.endpoints[0].connections())
            net.leases[ROUTE] = lease(1, 2, 3)
            await net.send(1_000)

    run(main)


def test_an_expiring_lease_ends_its_streams_by_itself() -> None:
    async def main() -> None:
        async with network(3) as net:
            net.leases[ROUTE] = replace(net.leases[ROUTE], expires_at=time.time() + 0.3)
            stream = await net.open()
            with pytest.raises(StreamError) as failed:
                await stream.read()
            assert failed.value.code == "lease_expired"

    run(main)


def test_a_lost_hop_is_a_failed_route_and_never_an_end_of_data() -> None:
    async def main() -> None:
        async with network(3) as net:
            stream = await net.open(resume=False)
            stream.write(b"half of it")
            await stream.drain()
            reading = asyncio.ensure_future(stream.read())
            await until(lambda: net.initiators != [])
            onward = net.endpoints[1].connection_to(net.target)
            assert onward is not None
            onward.close("done")
            with pytest.raises(StreamError) as failed:
                await reading
            assert failed.value.code == "route_failed"
            # The session to the relay lives, and with a new onward session the route does too.
            await dial(net.endpoints[1], net.endpoints[2])
            await net.send(1_000)

    run(main)


def test_a_stream_goes_on_when_a_lost_hop_is_back() -> None:
    async def main() -> None:
        async with network(3) as net:
            stream = await net.open()
            data = os.urandom(300_000)
            stream.write(data[:100_000])
            await until(lambda: net.initiators != [])
            onward = net.endpoints[1].connection_to(net.target)
            assert onward is not None
            onward.internal_error(ConnectionError("the carrier broke"))
            stream.write(data[100_000:])
            ending = asyncio.ensure_future(stream.end())
            await until(lambda: not stream.bound)
            await dial(net.endpoints[1], net.endpoints[2])
            await ending
            assert await stream.readexactly(32) == hashlib.sha256(data).digest()
            assert net.initiators == [net.endpoints[0].identity.node_id]
            await stream.aclose()

    run(main)


def test_relayed_streams_survive_a_lossy_hop() -> None:
    async def main() -> None:
        async with network(3, connect=False) as net:
            a, relay, b = net.endpoints
            async with UdpLink(
                b.local_address, delay_s=0.002, jitter_s=0.002, loss=0.03, duplicate=0.02, seed=6
            ) as link:
                await dial(a, relay)
                await dial(relay, b, link.url)
                await net.send(400_000)
                assert link.lost > 0

    run(main, timeout_s=90)
