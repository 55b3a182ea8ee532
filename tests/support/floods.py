"""A neighbour that proved itself and then does what it likes: raw frames on the lanes of a real session.

    node = Hostile(await dial(a, b))
    await node.push(CONTROL_LANE, frames)

It obeys the carrier's flow control and nothing else. Its own session hears no more, so that nothing it is
told can end it early.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from fabric import limits, wire
from fabric.classes import Mode, TrafficClass
from fabric.errors import FabricError, StreamError
from fabric.events import StreamConfig
from fabric.io import connection as connections
from fabric.io.connection import Connection
from fabric.io.engines import load_engine
from fabric.io.streams import Stream
from fabric.lanes import CONTROL_LANE, LaneKey, encode_preface
from fabric.relay import Lease
from fabric.stream import EndToEnd
from fabric.wire import FrameType, RouteRef
from tests.support.aio import until
from tests.support.carrier_pair import identity
from tests.support.endpoints import SERVICES, bind

AHEAD_BYTES = 256 << 10
"""Bytes that wait in its carrier: enough that a flood has no pauses."""
BULK_LANE = LaneKey(TrafficClass.BULK, 0)


class Hostile:
    """A session whose dialer obeys no rule of ours."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.sent = 0
        """Bytes pushed."""
        session: Any = connection.session
        session.handle = lambda now, event: []
        session.outgoing = lambda now, room, total=0: []

    @property
    def code(self) -> str:
        """With which code the session was ended, or empty."""
        closed = self.connection.closed
        return closed.result() if closed.done() else ""

    def lane(self, key: LaneKey) -> int:
        """The QUIC stream of a lane, opened with its preface if need be."""
        connection: Any = self.connection
        lanes: dict[LaneKey, int] = connection._lanes._lanes
        if key not in lanes:
            lanes[key] = connection.carrier.open_lane()
            connection.carrier.send(lanes[key], encode_preface(key))
        return lanes[key]

    async def push(self, key: LaneKey, data: bytes) -> bool:
        """Send bytes on a lane as fast as the carrier takes them; False once the session is over."""
        connection: Any = self.connection
        carrier = connection.carrier
        if not self.code:
            lane = self.lane(key)
            await until(lambda: bool(self.code) or carrier.unsent(lane) < AHEAD_BYTES)
        if self.code:
            return False
        carrier.send(lane, data)
        self.sent += len(data)
        connection._host.connection_dirty(connection)
        return True

    async def flood(self, key: LaneKey, data: bytes, total: int) -> None:
        """Push `data` again and again, until the session is over or so many bytes have left."""
        while self.sent < total and await self.push(key, data):
            pass
        await self.left(key)

    async def left(self, *keys: LaneKey) -> None:
        """Until everything pushed has been acknowledged, or the session is over."""
        carrier = self.connection.carrier
        await until(lambda: bool(self.code) or not (carrier.unsent() or carrier.in_flight()))

    def opening(
        self, service: str = "echo", traffic_class: TrafficClass = TrafficClass.BULK, mode: Mode = Mode.STREAM
    ) -> bytes:
        """The body of an OPEN that is valid in every way; good under any stream id while no stream has its
        uid."""
        host: Any = self.connection._host
        _, opening = EndToEnd.initiate(
            0.0,
            host.identity,
            host.cluster_id,
            self.connection.peer_node_id,
            service,
            traffic_class,
            os.urandom,
            mode=mode,
        )
        return wire.encode_map(opening.open, 2)[wire.HEADER_BYTES :]


def open_frame(stream_id: int, body: bytes) -> bytes:
    return wire.encode_frame(FrameType.OPEN_STREAM, stream_id, body, wire.FLAG_CRITICAL)


def reset_frame(stream_id: int) -> bytes:
    return wire.encode_map(wire.ResetStream(reason="cancelled"), stream_id)


async def late(stream: Stream, connection: Connection) -> None:
    """A service that reads nothing, and is slow to notice that its stream is over."""
    await asyncio.sleep(2)  # its slowness is the point


# -- processes: `python -m tests.support.floods node ENGINE [EXIT]` and `… KIND ENGINE URL [ROUTE]` ----------

NODE, ATTACKER, EXIT = 2, 3, 6
"""Identities: the node under attack, who attacks it, and who is behind it where it relays."""


def relayed(number: int) -> RouteRef:
    """The route from a node over the one under attack to the exit."""
    return RouteRef(route_id=f"from-{number}", epoch=1, position=1)


def leases(*numbers: int) -> Callable[[str], Lease | None]:
    """Leases of such routes, for any service and class."""
    found = {
        f"from-{number}": Lease(
            route_id=f"from-{number}",
            epoch=1,
            hops=tuple(identity(one).node_id for one in (number, NODE, EXIT)),
            service="echo",
            allowed_services=frozenset({"*"}),
            allowed_classes=frozenset(TrafficClass),
            organization_id=f"organization-{number}",
            expires_at=time.time() + 3600,
        )
        for number in numbers
    }
    return found.get


async def node(engine: str, exit_url: str = "", number: int = NODE) -> None:
    """Serve, and relay to the exit where there is one; print where, then for each line read what the node
    holds and has ended.
    """
    loop = asyncio.get_running_loop()
    lookup = leases(1, ATTACKER)
    services = SERVICES | {"late": late}
    async with await bind(number, engine=engine, services=services, lookup_lease=lookup) as endpoint:
        if exit_url:
            await endpoint.dial(exit_url, node_id=identity(EXIT).node_id)
        print(endpoint.url, flush=True)
        while await loop.run_in_executor(None, sys.stdin.readline):
            totals = endpoint.totals.with_live(endpoint.connections())
            report = {
                "resident_bytes": resident(),
                "closed": dict(totals.closed),
                "counters": dict(totals.counters + endpoint.counters),
                "resets_sent": dict(totals.resets_sent),
                "held_bytes": endpoint.memory.total,
                "bulk_bytes": totals.received_bytes[TrafficClass.BULK],
                "relay": {}
                if endpoint.relaying.machine is None
                else dict(endpoint.relaying.machine.counters),
                "relayed_bytes": sum(one.bytes_forward for one in endpoint.relaying.accounts.values()),
                "relay_held_bytes": 0
                if endpoint.relaying.machine is None
                else endpoint.relaying.machine.held,
            }
            print(json.dumps(report), flush=True)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def attack(kind: str, engine: str, url: str, route: str = "") -> None:
    """Flood the node at `url` until killed; a session that is ended is dialed again."""
    async with await bind(ATTACKER, engine=engine) as endpoint:
        while True:
            connection = await endpoint.dial(url, node_id=identity(NODE).node_id)
            print("up", flush=True)
            if kind in ATTACKS:
                await ATTACKS[kind](Hostile(connection))
                continue
            with contextlib.suppress(FabricError):  # the session was ended: dialed again
                await asyncio.gather(*(MISUSES[kind](connection, bool(route)) for _ in range(20)))


# Streams that are valid in every way but one, by an end whose own code is bent.


async def open_stream(connection: Connection, service: str, over_route: bool) -> Stream:
    """A bulk stream to the node, or over its route to the exit."""
    return await connection.open(
        service,
        TrafficClass.BULK,
        target_node_id=identity(EXIT).node_id if over_route else None,
        route=relayed(ATTACKER) if over_route else None,
        resume=False,
    )


async def again(connection: Connection, misuse: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """One stream after the other, while the session lives."""
    while not connection.closed.done():
        with contextlib.suppress(StreamError):  # ended for it, as it should be
            await misuse()
        await asyncio.sleep(0)


async def slow_reader(connection: Connection, over_route: bool) -> None:
    """An echo that is asked for without end and never read."""

    async def one() -> None:
        stream = await open_stream(connection, "echo", over_route)
        while True:
            stream.write(bytes(1 << 16))
            await stream.drain()

    await again(connection, one)


async def tiny_window(connection: Connection, over_route: bool) -> None:
    """An echo that is read to its end, by windows of 16 bytes."""
    connections.StreamConfig = functools.partial(  # type: ignore[misc,assignment]  # this end is bent
        StreamConfig, window=16, window_max=16
    )

    async def one() -> None:
        stream = await open_stream(connection, "echo", over_route)
        stream.write(bytes(1 << 19))
        while await stream.read(1):
            pass

    await again(connection, one)


async def sparse_records(connection: Connection, over_route: bool) -> None:
    """Records of one byte, as fast as they can be sealed."""
    limits.RECORD_BYTES = 1  # this end is bent

    async def one() -> None:
        stream = await open_stream(connection, "digest", over_route)
        while True:
            stream.write(bytes(1 << 12))
            await stream.drain()

    await again(connection, one)


async def credit_overrun(connection: Connection, over_route: bool) -> None:
    """More than the node, and the far end, have given room for."""

    async def one() -> None:
        stream = await open_stream(connection, "late", over_route)
        stream.machine._sender.allow(1 << 40)  # type: ignore[union-attr]  # a stream of bytes
        connection.session.scheduler.allow(connection.session._streams[stream.stream_id].queue, 1 << 40)
        while True:
            stream.write(bytes(1 << 20))
            await stream.drain()

    await again(connection, one)


async def fill_and_close(connection: Connection, over_route: bool) -> None:
    """Streams that are filled, left unread, and given up for the next."""

    async def one() -> None:
        stream = await open_stream(connection, "late", over_route)
        stream.write(bytes(1 << 20))
        await until(lambda: stream.over or not stream.unsent_bytes)
        stream.reset()

    await again(connection, one)


MISUSES: dict[str, Callable[[Connection, bool], Coroutine[Any, Any, None]]] = {
    "slow-reader": slow_reader,
    "tiny-window": tiny_window,
    "sparse-records": sparse_records,
    "credit-overrun": credit_overrun,
    "fill-and-close": fill_and_close,
}


async def pings(hostile: Hostile) -> None:
    await hostile.flood(CONTROL_LANE, wire.encode_ping(0, 1, 2) * 500, 1 << 40)


async def rapid_reset(hostile: Hostile) -> None:
    body, stream_id = hostile.opening(), 2
    while await hostile.push(BULK_LANE, open_frame(stream_id, body)):
        await hostile.push(CONTROL_LANE, reset_frame(stream_id))
        stream_id += 2
        await asyncio.sleep(0)  # let it leave; the node's pace is what is attacked


async def tiny_data(hostile: Hostile) -> None:
    await hostile.push(BULK_LANE, open_frame(2, hostile.opening()))
    await hostile.push(CONTROL_LANE, reset_frame(2))
    await hostile.flood(BULK_LANE, wire.encode_data_head(2, 0, 0, 0) * 500, 1 << 40)


async def datagrams(hostile: Hostile) -> None:
    carrier = hostile.connection.carrier
    head = wire.encode_data_head(2, 0, 8, 1000)
    while not hostile.code:
        for _ in range(100):
            carrier.send_datagram(head + bytes(1000))
        hostile.connection._host.connection_dirty(hostile.connection)
        await hostile.left()


async def handshakes(hostile: Hostile) -> None:
    """First packets of ever new connections, from a hundred addresses."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(100)]
    for number, one in enumerate(sockets):
        one.bind((f"127.0.1.{number + 1}", 0))
    engine = load_engine("qh3", identity(7))
    flights = [engine.dial(("127.0.0.1", 1), 0.0).datagrams_to_send(0.0) for _ in range(40)]
    for number in itertools.count():
        for data, _ in flights[number % len(flights)]:
            changed = bytearray(data)
            changed[6:14] = number.to_bytes(8, "big")
            sockets[number % len(sockets)].sendto(changed, hostile.connection.remote)
        await asyncio.sleep(0.0002)  # a few thousand a second: more would test this machine's loopback


ATTACKS: dict[str, Callable[[Hostile], Coroutine[Any, Any, None]]] = {
    "pings": pings,
    "rapid-reset": rapid_reset,
    "tiny-data": tiny_data,
    "datagrams": datagrams,
    "handshakes": handshakes,
}


if __name__ == "__main__":
    _, role, *rest = sys.argv
    jobs = {"node": node, "exit": functools.partial(node, number=EXIT)}
    asyncio.run(jobs[role](*rest) if role in jobs else attack(role, *rest))
