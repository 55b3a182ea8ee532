"""Those who obey nothing, by name: what a neighbour, a leased client, an exit or a relay may try.

Each act has a session of its own, which must end with the code that the act earns and no other, or live where
a stream pays for it alone; no honest stream may notice. Acts are generators that yield virtual seconds.
"""

# Long on purpose: a list of acts, each a few lines.
from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import msgspec

from fabric import limits, wire
from fabric.classes import TrafficClass
from fabric.events import SessionEvent
from fabric.lanes import CONTROL_LANE, LaneKey, encode_preface
from fabric.relay import Lease
from fabric.session import Session, StreamRecord
from fabric.stream import EndToEnd
from fabric.wire import FrameType, RouteRef
from tests.support.fabric_net import CLUSTER, Stream, identity
from tests.support.fabric_world import CLIENT, EXIT, FAR_RELAY, HONEST, RELAY, BrokenError, FabricWorld
from tests.support.leases import hops

ROGUE, DEAF = 7, 8
BULK = LaneKey(TrafficClass.BULK, 0)
PATIENCE_S = 3.0
Script = Generator[float, None, None]


@dataclass(frozen=True)
class Behaviour:
    """`code`: how the session ends, "" if it lives. `target`: who is dialed. `proved`: begins when ready, and
    not with the first packet.
    """

    name: str
    script: Callable[[Act], Script]
    code: str
    target: int
    proved: bool


BEHAVIOURS: dict[str, Behaviour] = {}


def behaviour(
    code: str = "", *, target: int = EXIT, proved: bool = True
) -> Callable[[Callable[[Act], Script]], Callable[[Act], Script]]:
    """Registers an act under its function's name."""

    def register(script: Callable[[Act], Script]) -> Callable[[Act], Script]:
        BEHAVIOURS[script.__name__] = Behaviour(script.__name__, script, code, target, proved)
        return script

    return register


class Act:
    """One rogue's session; `mine` is its end, `there` the honest one."""

    def __init__(self, world: FabricWorld, one: Behaviour) -> None:
        self.world, self.behaviour = world, one
        self.mine, self.there = world.link(ROGUE, one.target)
        for end in (self.mine, self.there):
            world.expected[end] = ""
        world.expected[self.there] = one.code
        self.streams: list[Stream] = []

    def begin(self) -> None:
        if self.behaviour.proved and not self.mine.ready:
            self.world.at(self.world.now + 0.1, self.begin)
            return
        self._go_on(self.behaviour.script(self))

    def _go_on(self, script: Script) -> None:
        try:
            pause = next(script)
        except StopIteration:
            self.world.at(self.world.now + PATIENCE_S, self._judge)
        else:
            self.world.at(self.world.now + pause, lambda: self._go_on(script))

    def _judge(self) -> None:
        name, code = self.behaviour.name, self.behaviour.code
        if bool(code) != self.there.closed:
            said = "ended" if self.there.closed else "lives"
            raise BrokenError(f"{name}: the session {said}, expected {code or 'life'}")
        self.world.fired[name] += 1
        if not self.there.closed:
            self.world.expected[self.there] = ""
            self.world.lose(self.mine)

    def mute(self) -> None:
        """From now on this end says only what is pushed."""
        session: Any = self.mine
        session.handle = lambda now, event: []
        session.outgoing = lambda now, room, total=0: []
        session.timer = lambda: None
        session.has_output = lambda: False

    def push(self, lane: LaneKey, *frames: bytes) -> None:
        data, carrier = b"".join(frames), self.world.carriers.get(self.mine)
        if carrier is not None:
            fresh = lane not in carrier.ids
            self.world.ship(self.mine, lane, encode_preface(lane) + data if fresh else data)

    def opening(self, **fields: Any) -> wire.OpenStream:
        """An OPEN that is valid in every way."""
        _, opening = EndToEnd.initiate(
            self.world.now,
            identity(ROGUE),
            CLUSTER,
            self.there_id,
            "echo",
            TrafficClass.BULK,
            self.world.chance.randbytes,
        )
        return msgspec.structs.replace(opening.open, **fields)

    @property
    def there_id(self) -> str:
        return self.world.owner[self.there].node_id

    def stream(self, route: str = "") -> Stream:
        """An honest beginning."""
        node = self.world.host(ROGUE)
        target = self.world.host(self.behaviour.target)
        nodes = [self.world.host(number) for number in sorted(self.world.hosts)]
        ref = None
        if route:
            lease = node.leases[route]
            target = next(one for one in nodes if one.node_id == lease.hops[-1])
            ref = RouteRef(route_id=route, epoch=1, position=1)
        found = node.open(self.mine, "echo", TrafficClass.BULK, to=target, route=ref)
        self.streams.append(found)
        return found


def invite(world: FabricWorld) -> None:
    """Give the rogues leases of their own, and the deaf exit its place."""
    everybody = {"rogue": (ROGUE, RELAY, FAR_RELAY, EXIT), "deaf": (ROGUE, RELAY, FAR_RELAY, DEAF)}
    for name, way in everybody.items():
        lease = Lease(
            route_id=name,
            epoch=1,
            hops=hops(*way),
            service="echo",
            expires_at=1e12,
            allowed_classes=frozenset(TrafficClass),
            organization_id="org-rogue",
        )
        for number in (*HONEST, ROGUE, DEAF):
            world.host(number).leases[name] = lease
    for end in world.link(DEAF, FAR_RELAY):
        world.expected[end] = ""
    world.host(DEAF).deaf = True
    _record_a_proof(world)


def _record_a_proof(world: FabricWorld) -> None:
    mine, there = world.link(ROGUE, EXIT)
    for end in (mine, there):
        world.expected[end] = ""

    def record(session: Session, data: bytes) -> None:
        if session is mine:
            world.recorded_proof.append(data.removeprefix(encode_preface(CONTROL_LANE)))

    world.tap = record
    world.run_for(1.0)
    world.tap = None
    world.lose(mine)


def play(world: FabricWorld, names: list[str]) -> None:
    """Every act of these, one after the other, in the time of a storm."""
    for number, name in enumerate(names):
        act = BEHAVIOURS[name]

        def begin(one: Behaviour = act) -> None:
            Act(world, one).begin()

        world.at(world.now + 0.5 + 1.5 * number, begin)


# -- before the proof --------------------------------------------------------------------------------------


@behaviour("handshake_timeout", proved=False)
def says_nothing(act: Act) -> Script:
    act.mute()
    yield limits.SESSION_HANDSHAKE_TIMEOUT_S


@behaviour("pre_auth_overflow", proved=False)
def talks_before_its_proof(act: Act) -> Script:
    act.mute()
    act.push(BULK, wire.encode_map(act.opening(), 2) * (limits.PRE_AUTH_BYTES // 200))
    yield 0.1


@behaviour("auth_failed", proved=False)
def replays_a_proof(act: Act) -> Script:
    """HELLO and AUTH of another session of its own; anybody's would do."""
    act.mute()
    act.push(CONTROL_LANE, *act.world.recorded_proof)
    yield 0.1


@behaviour("unexpected_frame", proved=False)
def begins_in_the_middle(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_map(wire.Goaway(last_id=0, drain_s=1, reason="x")))
    yield 0.1


# -- frames ------------------------------------------------------------------------------------------------


@behaviour("frame_too_large")
def sends_a_huge_frame(act: Act) -> Script:
    act.mute()
    act.push(BULK, wire.HEADER.pack(1, FrameType.DATA, 1, limits.FRAME_BODY_BYTES + 1, 2))
    yield 0.1


@behaviour("unknown_critical_frame")
def sends_a_critical_frame_of_tomorrow(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_frame(99, 0, b"", wire.FLAG_CRITICAL))
    yield 0.1


@behaviour()
def sends_frames_of_tomorrow(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_frame(99, 0, b"later") * 1000)
    yield 0.5
    if act.there.counters["unknown_frames"] != 1000:
        raise BrokenError("unknown frames were not counted")


@behaviour("reserved_flags")
def sets_a_flag_of_tomorrow(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_frame(FrameType.PING, 0, bytes(16), 0x8000))
    yield 0.1


@behaviour("frame_flood")
def floods_with_pings(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_ping(0, 1, 1) * (limits.SESSION_NEWS_BURST + 10_000))
    yield 3.0


@behaviour("field_out_of_bounds", proved=False)
def announces_bodies_too_small_for_a_record(act: Act) -> Script:
    handshake = act.mine._handshake
    _, body = handshake._ready_frame[: wire.HEADER_BYTES], handshake._ready_frame[wire.HEADER_BYTES :]
    fields = {**msgspec.msgpack.decode(body), "body_limit": limits.FRAME_BODY_BYTES_MIN - 1}
    handshake._ready_frame = wire.encode_frame(
        FrameType.SESSION_READY, 0, msgspec.msgpack.encode(fields), wire.FLAG_CRITICAL
    )
    yield 1.0


@behaviour("duplicate_lane")
def opens_a_lane_twice(act: Act) -> Script:
    act.mute()
    act.push(BULK, b"")
    carrier = act.world.carriers[act.mine]
    carrier.ids.pop(BULK)
    carrier.ids[LaneKey(TrafficClass.BULK, 15)] = 1  # so that the next stream has an id of its own
    act.push(BULK, b"")
    yield 0.1


@behaviour("bad_lane_preface")
def opens_a_lane_of_nothing(act: Act) -> Script:
    act.mute()
    act.world.carriers[act.mine].ids[BULK] = 402
    act.push(BULK, b"LAPR\x01\x04\x00\x00")
    yield 0.1


@behaviour("wrong_lane")
def opens_a_bulk_stream_on_another_lane(act: Act) -> Script:
    act.mute()
    act.push(LaneKey(TrafficClass.INTERACTIVE, 0), wire.encode_map(act.opening(), 2))
    yield 0.1


# -- streams -----------------------------------------------------------------------------------------------


@behaviour("bad_stream_id")
def resets_what_was_never_opened(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_map(wire.ResetStream(reason="gone"), 2_000))
    yield 0.1


@behaviour("stream_id_reused")
def uses_an_id_twice(act: Act) -> Script:
    act.mute()
    act.push(BULK, wire.encode_map(act.opening(), 2), wire.encode_map(act.opening(), 2))
    yield 0.1


@behaviour("bad_stream_id")
def leaves_thousands_of_ids_out(act: Act) -> Script:
    act.mute()
    act.push(BULK, wire.encode_map(act.opening(), 2 + 2 * limits.SESSION_STREAM_ID_GAPS + 2))
    yield 0.1


@behaviour()
def sends_data_before_it_was_accepted(act: Act) -> Script:
    """At a node that does not know the service's caller yet: the stream breaks, and nothing else."""
    act.mute()
    head = wire.encode_data_head(2, 0, 0, 20)
    act.push(BULK, wire.encode_map(act.opening(seal=_forged(act)), 2), head + bytes(20))
    yield 0.5
    if act.there.streams():
        raise BrokenError("the stream lives")


@behaviour()
def opens_and_resets_in_one_breath(act: Act) -> Script:
    act.mute()
    reset = wire.encode_map(wire.ResetStream(reason="cancelled"), 2)
    body = wire.encode_map(act.opening(), 2)[wire.HEADER_BYTES :]
    for stream_id in range(2, 2 + 2 * 1_500, 2):
        opening = wire.encode_frame(FrameType.OPEN_STREAM, stream_id, body, wire.FLAG_CRITICAL)
        act.push(BULK, opening, reset[:8] + stream_id.to_bytes(8, "big") + reset[16:])
        if stream_id % 200 == 0:
            yield 0.05
    yield 1.0
    if act.there.streams():
        raise BrokenError("streams live")


@behaviour("reset_flood")
def opens_what_is_refused_and_reads_nothing(act: Act) -> Script:
    """Its answers have nowhere to go: the carrier back to it is stuck."""
    act.mute()
    act.world.carriers[act.there].stuck = frozenset(TrafficClass)
    body = wire.encode_map(act.opening(service="nobody"), 2)[wire.HEADER_BYTES :]
    for stream_id in range(2, 2 + 2 * (limits.SESSION_PENDING_RESETS + 200), 2):
        act.push(BULK, wire.encode_frame(FrameType.OPEN_STREAM, stream_id, body, wire.FLAG_CRITICAL))
        if stream_id % 400 == 0:
            yield 0.2
    yield 1.0


@behaviour()
def copies_an_open_of_somebody_else(act: Act) -> Script:
    """Captured on the wire, from an honest client: it is not that client."""
    refusals = ("refused seal_initiator", "refused seal_signature")
    before = sum(act.world.fired[one] for one in refusals)
    while act.world.recorded_open is None:
        yield 1.0
    act.mute()
    act.push(LaneKey(act.world.recorded_open.traffic_class, 0), wire.encode_map(act.world.recorded_open, 2))
    yield 1.0
    if sum(act.world.fired[one] for one in refusals) <= before or act.there.streams():
        raise BrokenError("a copied OPEN was taken")


@behaviour(target=RELAY)
def asks_after_a_stream_before_it_exists(act: Act) -> Script:
    """A leased stream, and frames of the control lane about it while its OPEN waits for the next hop."""
    world = act.world
    onward = world.session_between(RELAY, world.host(FAR_RELAY).node_id)
    while onward is None:
        yield 0.5
        onward = world.session_between(RELAY, world.host(FAR_RELAY).node_id)
    carrier = world.carriers[onward]
    carrier.stuck = frozenset({TrafficClass.BULK})
    stream_id = act.stream("rogue").stream_id
    yield 1.0
    act.push(CONTROL_LANE, *(wire.encode_ping(stream_id, n, 0) for n in range(50)))
    act.push(CONTROL_LANE, wire.encode_ack(stream_id, 0, 1 << 40), wire.encode_pong(stream_id, 1, 1))
    yield 1.0
    carrier.stuck = frozenset()
    yield 2.0


@behaviour(target=RELAY)
def floods_a_relayed_stream_with_pings(act: Act) -> Script:
    act.stream("rogue")
    yield 2.0
    act.mute()
    for _ in range(10):
        act.push(CONTROL_LANE, wire.encode_ping(2, 7, 0) * 500)
        yield 0.2
    if act.there.streams() and not act.there.counters["pings_dropped"]:
        raise BrokenError("nothing was dropped")


@behaviour(target=RELAY)
def opens_and_resets_through_a_relay(act: Act) -> Script:
    for _ in range(150):
        stream = act.stream("rogue")
        act.mine.reset_stream(act.world.now, stream.stream_id, "cancelled")
        yield 0.02
    yield 1.0


@behaviour(target=RELAY)
def overruns_the_credit_of_a_stream(act: Act) -> Script:
    """To a deaf exit, so that the relays must hold it: the stream ends, the session lives."""
    act.stream("deaf")
    yield 2.0
    act.mute()
    record = wire.encode_data_head(2, 0, 0, 65_552) + bytes(65_552)
    for _ in range(6 * limits.STREAM_WINDOW_BYTES // len(record)):
        act.push(BULK, record)
    yield 20.0
    if act.there.streams():
        raise BrokenError("the stream lives")


@behaviour(target=RELAY)
def fills_the_relays_with_what_nobody_takes(act: Act) -> Script:
    """Twenty streams to a deaf exit, each as far as its credit goes."""
    for _ in range(20):
        act.stream("deaf")
    yield 2.0
    record = wire.encode_data_head(2, 0, 0, 65_552) + bytes(65_552)
    act.mute()
    world = act.world
    for session in (act.mine, world.session_between(RELAY, world.host(FAR_RELAY).node_id)):
        if session is not None and session in world.carriers:
            world.carriers[session].rate = 50e6  # or the time is over before they are full
    for stream in act.streams:
        for number in range(limits.STREAM_WINDOW_BYTES // len(record)):
            head = wire.encode_data_head(stream.stream_id, number * 65_536, 0, 65_552)
            act.push(BULK, head + record[24:])
        yield 0.3
    yield 12.0


@behaviour()
def reads_nothing(act: Act) -> Script:
    """Asks for a stream, accepts no byte of the answer and gives no credit."""
    stream = act.stream()
    yield 1.0
    stream.machine.write(b"question")
    yield 0.5
    act.mute()
    yield 2.0


@behaviour()
def sends_the_smallest_frames_there_are(act: Act) -> Script:
    """Of a dead stream, so that each is only looked at."""
    act.mute()
    act.push(BULK, wire.encode_map(act.opening(service="nobody", class_=4), 2))
    act.push(BULK, wire.encode_map(wire.ResetStream(reason="gone"), 2))
    act.push(BULK, (wire.encode_data_head(2, 0, 0, 0)) * 20_000)
    yield 3.0
    if act.there.counters["late_frames"] < 20_000:
        raise BrokenError("not all came")


@behaviour()
def lies_about_credit(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_credit(0, wire.U64_MAX), wire.encode_credit(0, 0))
    yield 0.5


@behaviour("bad_body")
def sends_noise(act: Act) -> Script:
    act.mute()
    act.push(CONTROL_LANE, wire.encode_frame(FrameType.GOAWAY, 0, b"\xc1", wire.FLAG_CRITICAL))
    yield 0.1


def _forged(act: Act) -> wire.SealOffer:
    seal = act.opening().seal
    return msgspec.structs.replace(seal, signature=bytes(64))


# -- relays that lie ---------------------------------------------------------------------------------------


def lying_relay(world: FabricWorld, number: int = FAR_RELAY) -> None:
    """The relay changes records of the streams that it passes, each way of changing them in turn."""
    ways = ("alters", "cuts", "moves", "marks", "swaps", "drops")
    kept: dict[tuple[Session, int], StreamRecord] = {}
    node = world.host(number)

    def tamper(session: Session, event: StreamRecord) -> SessionEvent:
        other = kept.get((session, event.stream_id))
        kept[session, event.stream_id] = event
        if world.chance.random() > 0.1 or len(event.payload) < 17:
            return event
        way = min(ways, key=lambda one: world.fired[f"relay {one}"])
        uid = _uid_of(world, session, event.stream_id)
        if uid is None:
            return event
        payload = bytearray(event.payload)
        changed: dict[str, Any] = {}
        if way == "alters":
            payload[world.chance.randrange(len(payload))] ^= 1 << world.chance.randrange(8)
            changed = {"payload": bytes(payload)}
        elif way == "cuts":
            changed = {"payload": bytes(payload[:-1])}
        elif way == "moves":
            changed = {"offset": event.offset + 65_536}
        elif way == "marks":
            changed = {"flags": event.flags ^ 0x0002}
        elif way == "swaps":
            if other is None or len(other.payload) != len(event.payload) or other.offset == event.offset:
                return event  # its own books would not balance
            changed = {"payload": other.payload}
        else:
            changed = {"payload": b""}
        world.tampered.add(uid)
        world.fired[f"relay {way}"] += 1
        return msgspec.structs.replace(event, **changed)

    node.tamper = tamper


def _uid_of(world: FabricWorld, session: Session, stream_id: int) -> bytes | None:
    relay = world.host(FAR_RELAY).relay
    leg = relay._legs.get(session, {}).get(stream_id) if relay is not None else None
    return leg.pair.open.uid if leg is not None else None


__all__ = ["BEHAVIOURS", "CLIENT", "invite", "lying_relay", "play"]
