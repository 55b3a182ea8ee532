"""What a neighbour that proved itself may cost a node, on real sockets; others are served all the while."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from fabric import limits, wire
from fabric.classes import Mode, TrafficClass
from fabric.errors import StreamError
from fabric.events import LaneData, SessionConfig
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.io.streams import Stream
from fabric.lanes import CONTROL_LANE, LaneKey
from fabric.memory import MemoryBudget
from fabric.sessionpolicy import SessionPolicy
from fabric.wire import FrameType
from tests.fabric.io.test_relaying import network
from tests.fabric.test_floods import NEWS
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, bind, dial
from tests.support.floods import BULK_LANE, Hostile, open_frame, reset_frame
from tests.support.udp_link import UdpLink

MIB = 1 << 20
both_engines = pytest.mark.parametrize("engine", ["qh3", "aioquic"])


async def stuck(stream: Stream, connection: Connection) -> None:
    """Read nothing."""
    await asyncio.Event().wait()


async def source(stream: Stream, connection: Connection) -> None:
    """Write without end."""
    while True:
        stream.write(bytes(MIB))
        await stream.drain()


ALL = SERVICES | {"stuck": stuck, "source": source}


class Scene:
    """A node, a neighbour that floods it, and another that wants an echo."""

    def __init__(self, node: Endpoint, hostile: Hostile, person: Stream) -> None:
        self.node = node
        self.hostile = hostile
        self.person = person

    @property
    def attacked(self) -> Connection:
        """The node's end of the hostile session."""
        peer = self.hostile.connection._host.identity.node_id
        (found,) = [one for one in self.node.connections() if one.peer_node_id == peer]
        return found

    async def echo(self) -> None:
        """The other neighbour is served."""
        self.person.write(b"hello")
        assert await self.person.readexactly(5) == b"hello"


@contextlib.asynccontextmanager
async def scene(engine: str, **options: Any) -> AsyncIterator[Scene]:
    async with (
        await bind(2, engine=engine, **({"services": ALL} | options)) as node,
        await bind(3, engine=engine) as hostile,
        await bind(4, engine=engine) as other,
    ):
        person = await (await dial(other, node)).open("echo", TrafficClass.INTERACTIVE)
        found = Scene(node, Hostile(await dial(hostile, node)), person)
        await found.echo()
        yield found
        await found.echo()
        person.reset()


@contextlib.contextmanager
def held_below(budget: int) -> Iterator[None]:
    """Python's memory grows by at most so many bytes, the attacker's own included."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < budget


# -- frames about the session --


@both_engines
@pytest.mark.parametrize("kind", [kind for kind in NEWS if kind != "pong"])
def test_a_flood_of_news_ends_the_session(kind: str, engine: str) -> None:
    async def main() -> None:
        async with scene(engine) as found:
            with held_below(limits.CARRIER_CONNECTION_WINDOW_BYTES):
                flood = asyncio.ensure_future(found.hostile.flood(CONTROL_LANE, NEWS[kind] * 500, 200 * MIB))
                await found.echo()
                await flood
            assert found.hostile.code == "frame_flood"
            assert found.node.totals.closed["frame_flood"] == 1

    run(main, timeout_s=90)


# -- streams --


@both_engines
def test_streams_beyond_the_limit_are_refused(engine: str) -> None:
    async def main() -> None:
        async with scene(engine, session=SessionConfig(max_streams=50)) as found:
            for number in range(80):
                await found.hostile.push(BULK_LANE, open_frame(2 + 2 * number, found.hostile.opening()))
            await until(lambda: found.attacked.session.resets_sent["too_many_streams"] == 30)
            assert len(found.attacked.streams()) == 50

    run(main)


@both_engines
def test_streams_opened_and_reset_in_a_loop_are_slowed(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSION_OPENS_BURST", 100)

    async def main() -> None:
        async with scene(engine) as found:
            began = asyncio.get_running_loop().time()
            hostile, body = found.hostile, found.hostile.opening()
            for first in range(2, 4002, 100):
                # A RESET that passes its OPEN would spare the node the work.
                ids = range(first, first + 100, 2)
                await hostile.push(BULK_LANE, b"".join(open_frame(one, body) for one in ids))
                await hostile.left()
                await hostile.push(CONTROL_LANE, b"".join(map(reset_frame, ids)))
                await found.echo()
            session = found.attacked.session
            await until(lambda: session._peer_ids.highest == 4000)
            await until(lambda: session.streams() == ())
            took = asyncio.get_running_loop().time() - began
            judged = sum(session.opened_by_class.values())
            assert 100 <= judged <= 100 + limits.SESSION_OPENS_PER_S * took
            assert hostile.code == ""

    run(main, timeout_s=90)


@both_engines
def test_half_a_frame_on_each_lane_holds_nobody_up(engine: str) -> None:
    async def main() -> None:
        async with scene(engine) as found:
            half = wire.encode_frame(FrameType.DATA, 2, bytes(limits.FRAME_BODY_BYTES), 0)[:-1]
            lanes = [LaneKey(TrafficClass.BULK, shard) for shard in range(limits.LANE_SHARDS)]
            with held_below(3 * limits.LANE_SHARDS * limits.FRAME_BODY_BYTES):
                for lane in lanes:
                    await found.hostile.push(lane, half)
                await found.hostile.left()
                await found.echo()
            reliable = LaneKey(TrafficClass.RELIABLE, 0)
            opening = found.hostile.opening(traffic_class=TrafficClass.RELIABLE)
            await found.hostile.push(reliable, open_frame(2, opening))
            await until(lambda: len(found.attacked.streams()) == 1)
            assert found.hostile.code == ""

    run(main)


# -- data --


@both_engines
def test_a_hole_that_is_filled_at_last_leaves_turns_to_others(engine: str) -> None:
    """A window of the smallest frames behind one missing byte arrives at once, and is taken in parts."""

    async def main() -> None:
        async with (
            await bind(2, engine=engine, services=ALL) as node,
            await bind(3, engine="aioquic") as other,
        ):
            hostile = Hostile(await dial(other, node))
            carrier: Any = hostile.connection.carrier
            session: Any = node.connections()[0].session
            parts: list[int] = []
            views: set[int] = set()
            judge = session.handle

            def counted(now: float, event: Any) -> Any:
                if isinstance(event, LaneData):
                    parts.append(len(event.data))
                    if isinstance(event.data, memoryview):
                        views.add(id(event.data.obj))
                return judge(now, event)

            session.handle = counted
            lane = hostile.lane(BULK_LANE)
            sender = carrier._quic._streams[lane].sender
            late = wire.encode_data_head(2, 0, 0, 0)
            carrier.send(lane, open_frame(2, hostile.opening()) + late * (2 * MIB // len(late)))
            sender._pending.subtract(0, 1)
            hostile.connection._host.connection_dirty(hostile.connection)
            await hostile.left()
            assert sum(parts) < MIB, "nothing can be delivered before the first byte"
            sender._pending.add(0, 1)
            sender.buffer_is_empty = False
            hostile.connection._host.connection_dirty(hostile.connection)
            await until(lambda: sum(parts) > 2 * MIB)
            assert max(parts) <= max(limits.SESSION_INPUT_BYTES, 128 * limits.CARRIER_DATAGRAM_BYTES)
            assert 1 <= len(views) < len(parts) // 4, "parts of what came at once are views of it"

    run(main, timeout_s=90)


@both_engines
def test_records_beyond_the_window_end_their_stream(engine: str) -> None:
    async def main() -> None:
        async with (
            await bind(2, engine=engine, services=ALL) as node,
            await bind(3, engine=engine) as other,
        ):
            connection = await dial(other, node)
            stream = await connection.open("stuck", TrafficClass.BULK)
            honest = await connection.open("echo", TrafficClass.INTERACTIVE)
            stream.machine._sender.allow(1 << 40)  # the window that it was given does not matter to it
            stream.write(bytes(2 * limits.E2E_WINDOW_BYTES))
            with pytest.raises(StreamError, match="window_exceeded"):
                await stream.read()
            honest.write(b"lives")
            assert await honest.readexactly(5) == b"lives"
            honest.reset()

    run(main)


@both_engines
def test_credit_is_enforced_where_records_wait(engine: str) -> None:
    """At a relay whose next hop takes nothing: the stream that overruns its credit ends, and nothing else."""

    async def main() -> None:
        async with network(3, engine, connect=False) as net:
            first, relay, last = net.endpoints
            async with UdpLink(last.local_address) as link:
                await dial(relay, last, link.url)
                connection = await dial(first, relay)
                stream = await net.open(resume=False)
                link.silent = True
                scheduler = connection.session.scheduler
                scheduler.session_credit.allow(1 << 40)
                scheduler.allow(connection.session._streams[stream.stream_id].queue, 1 << 40)
                stream.machine._sender.allow(1 << 40)
                stream.write(bytes(8 * MIB))
                with pytest.raises(StreamError, match="credit_exceeded"):
                    await stream.read()
                assert not connection.closed.done()

    run(main)


# -- memory --


@both_engines
def test_readers_that_acknowledge_nothing_hold_up_only_their_writers(engine: str) -> None:
    async def main() -> None:
        async with scene(engine) as found, await bind(5, engine=engine) as other:
            found.node.memory = MemoryBudget(session=8 * MIB)
            connection = await dial(other, found.node)
            streams = [await connection.open("source", TrafficClass.BULK) for _ in range(40)]
            deaf = Hostile(connection)
            ids = [stream.stream_id for stream in streams]
            generous = b"".join(
                wire.encode_credit(one, 1 << 40) + wire.encode_ack(one, 0, 1 << 40) for one in ids
            )
            await deaf.push(CONTROL_LANE, wire.encode_credit(0, 1 << 40) + generous)
            peer = other.identity.node_id
            await until(lambda: found.node.memory._by_peer.get(peer, 0) > 4 * MIB)
            for _ in range(20):
                await found.echo()
                assert found.node.memory._by_peer.get(peer, 0) <= 8 * MIB
            assert found.node.counters["memory_exceeded"] == 0, "writers waited"

    run(main)


@both_engines
def test_datagrams_that_nobody_reads_are_dropped(engine: str) -> None:
    async def main() -> None:
        async with (
            scene(engine) as found,
            await bind(5, engine=engine) as other,
        ):
            connection = await dial(other, found.node)
            stream = await connection.open("stuck", TrafficClass.DROPPABLE, mode=Mode.DATAGRAM)
            room = stream.datagram_room
            # As many as it takes: the flood is the point, and most of it is lost on the way.
            (there,) = [one for one in found.node.connections() if one.peer_node_id == other.identity.node_id]
            await until(lambda: len(there.streams()) == 1)
            (end,) = there.streams()
            with held_below(limits.CARRIER_CONNECTION_WINDOW_BYTES):
                while end.machine.counters["datagrams_overrun"] < 2000:
                    for _ in range(100):
                        stream.send(bytes(room))
                    await found.echo()
            assert end.machine.readable <= limits.DATAGRAM_QUEUE_BYTES
            assert found.node.memory._by_peer.get(other.identity.node_id, 0) == end.machine.readable
            stream.reset()

    run(main, timeout_s=90)


@both_engines
def test_a_neighbour_has_a_few_sessions_and_the_newest_stay(engine: str) -> None:
    async def main() -> None:
        async with (
            await bind(2, engine=engine, services=ALL, sessions=SessionPolicy(per_node=3)) as node,
            await bind(3, engine=engine) as other,
        ):
            url, peer = node.url, node.identity.node_id
            first = await other.start_dial(url, node_id=peer)
            await first.ready()
            stream = await first.open("echo", TrafficClass.RELIABLE)
            more = [await other.start_dial(url, node_id=peer) for _ in range(3)]
            for connection in more:
                await connection.ready()
            assert await first.closed == "too_many_sessions"
            assert len(node.connections()) == 3
            # What it carried goes on over one of the others.
            stream.write(b"moved")
            assert await stream.readexactly(5) == b"moved"
            assert stream.connection in more
            stream.reset()

    run(main)
