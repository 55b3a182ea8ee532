"""A small fabric on a virtual clock: sessions, relays and sealed streams over carriers that delay, break and
are dialed anew, with honest streams in every class and both modes. What must always hold is checked after
every step; `tests.support.rogues` adds those who obey nothing.

    1 client -- 2 relay -- 3 relay -- 4 exit        5 client -- 2, 3 -- 6 exit        1 -- 4 directly, too

One seed gives one history.
"""

# Long on purpose: one world, whose carriers, nodes and checks know each other.
from __future__ import annotations

import hashlib
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random

from fabric import limits
from fabric.classes import Mode, TrafficClass
from fabric.errors import RESUMABLE_CODES, FabricError, StreamError
from fabric.events import HopLost
from fabric.failover import ROUTE_RESETS
from fabric.lanes import DATAGRAM_SHARD, LaneKey
from fabric.relay import Lease, Relay, check_lease
from fabric.session import (
    CarrierLost,
    DatagramData,
    LaneData,
    Session,
    SessionClosed,
    SessionConfig,
    SessionEvent,
    StreamOpened,
    StreamRecord,
    Timer,
)
from fabric.stream import (
    EndToEnd,
    Failed,
    Finished,
    HopInput,
    HopReset,
    Opened,
    Outcome,
    StreamTimer,
    perform,
)
from fabric.wire import OpenStream, RouteRef
from tests.support.fabric_net import CLUSTER, Host, Net, Stream
from tests.support.leases import hops

CLIENT, RELAY, FAR_RELAY, EXIT, OTHER_CLIENT, OTHER_EXIT = 1, 2, 3, 4, 5, 6
HONEST = frozenset({CLIENT, RELAY, FAR_RELAY, EXIT, OTHER_CLIENT, OTHER_EXIT})
LINKS = ((1, 2), (2, 3), (3, 4), (1, 4), (2, 4), (5, 2), (3, 6))
ROUTES = {"long": (1, 2, 3, 4), "short": (1, 2, 4), "other": (5, 2, 3, 6)}
REDIAL_S = (0.2, 2.0)
LANE_BYTES = limits.LANE_UNSENT_BYTES
POLL_S = 0.05
DEADLINE_S = 120.0
"""Virtual seconds of peace in which every honest stream must come to its end."""


class BrokenError(AssertionError):
    """Something that must always hold does not."""


class Carrier:
    """One direction of a connection: lanes keep their order, and share a rate; nothing else is promised."""

    def __init__(self, world: FabricWorld) -> None:
        chance = world.chance
        self.world = world
        self.rate = chance.choice((1e6, 4e6, 20e6))
        self.delay = chance.choice((0.002, 0.02, 0.08))
        self.jitter = chance.choice((0.0, 0.0, 0.03))
        self.ids: dict[LaneKey, int] = {}
        self.stuck: frozenset[TrafficClass] = frozenset()
        """Classes whose lanes take nothing any more."""
        self._free_at = world.now
        self._last: dict[int, float] = {}
        self._waiting: dict[int, deque[tuple[float, int]]] = {}  # by lane: when it leaves, and its size

    def send(self, key: LaneKey, data: bytes) -> tuple[int, float]:
        """The QUIC stream of the lane, and when these bytes arrive."""
        lane_id = self.ids.setdefault(key, 4 * len(self.ids) + 2)
        leaves = self._free_at = max(self._free_at, self.world.now) + len(data) / self.rate
        self._waiting.setdefault(lane_id, deque()).append((leaves, len(data)))
        arrives = leaves + self.delay + self.world.chance.random() * self.jitter
        if self.jitter and self.world.chance.random() < 0.01:
            arrives += 0.2  # lost and sent again
            self.world.fired["loss"] += 1
        arrives = self._last[lane_id] = max(arrives, self._last.get(lane_id, 0.0))
        return lane_id, arrives

    def room(self, key: LaneKey) -> int:
        """What the lane may still take; the rest must wait where it can be overtaken."""
        if key.traffic_class in self.stuck:
            return 0
        if key.shard == DATAGRAM_SHARD:
            return LANE_BYTES
        waiting = self._waiting.get(self.ids.get(key, -1))
        if not waiting:
            return LANE_BYTES
        while waiting and waiting[0][0] <= self.world.now:
            waiting.popleft()
        return max(0, LANE_BYTES - sum(size for _, size in waiting))

    def next_room(self) -> float | None:
        """When bytes leave next."""
        return min(
            (queue[0][0] for queue in self._waiting.values() if queue and queue[0][0] > self.world.now),
            default=None,
        )


class Talk:
    """An honest stream: the initiator sends `data`, the responder its hash; each byte is checked."""

    def __init__(self, world: FabricWorld, stream: Stream, data: bytes, *, slow: bool) -> None:
        self.stream, self.data = stream, data
        self.began = world.now
        self.sent = 0
        self.answer = b""
        self.slow = slow
        self.tried_at = world.now
        self.opened = self.ended = False
        self.failure = ""
        self._told = 0

    @property
    def over(self) -> bool:
        return self.ended or self.stream.machine.over

    def listen(self) -> None:
        """Take what the machine told since the last time."""
        events = self.stream.events
        while self._told < len(events):
            event = events[self._told]
            self._told += 1
            self.opened = self.opened or isinstance(event, Opened)
            self.ended = self.ended or isinstance(event, Finished)
            if isinstance(event, Failed):
                self.failure = event.reason


class Node(Host):
    """An honest node, or the honest half of one that is not."""

    def __init__(self, number: int, world: FabricWorld) -> None:
        super().__init__(number, world)
        self.world = world
        self.number = number
        self.talks: dict[bytes, Talk] = {}
        self.answering: dict[bytes, tuple[Stream, hashlib._Hash, list[int]]] = {}
        """By uid: the responder's end, what it heard so far, and how much."""
        self.deaf = False
        """Accepts streams, and neither looks at their records nor gives credit back."""
        self.tamper: Callable[[Session, StreamRecord], SessionEvent] | None = None

    def ends(self) -> list[Stream]:
        """Every stream that begins or ends here, with a carrier or without."""
        found = {id(one.stream): one.stream for one in self.talks.values()}
        found |= {id(one[0]): one[0] for one in self.answering.values()}
        found |= {id(one): one for one in self.streams.values()}
        return [one for one in found.values() if not one.machine.over]

    def timers(self) -> None:
        now = self.net.now
        for session in self.sessions:
            at = session.timer()
            if at is not None and at <= now:
                self.take(session, session.handle(now, Timer()))
        for stream in self.ends():
            at = stream.machine.timer()
            if at is not None and at <= now:
                self.act(stream, StreamTimer())
        if self.relay is not None and (at := self.relay.timer()) is not None and at <= now:
            self.relay.recheck(now)

    def take(self, session: Session, events: list[SessionEvent]) -> None:
        for number, event in enumerate(events):
            if not isinstance(event, SessionClosed):
                if self.deaf and isinstance(event, StreamRecord):
                    continue
                super().take(session, [self._changed(session, event)])
                continue
            if number != len(events) - 1:
                raise BrokenError(f"events after the end: {events[number + 1 :]}")
            self.world.session_ended(session, event)
            if self.relay is not None:
                self.relay.handle(self.net.now, session, event)
            self._carrier_lost(session, event.code)

    def _changed(self, session: Session, event: SessionEvent) -> SessionEvent:
        """What a relay that lies makes of it."""
        if self.tamper is None or self.relay is None or not isinstance(event, StreamRecord):
            return event
        return self.tamper(session, event) if event.stream_id in self.relay._legs.get(session, ()) else event

    def _carrier_lost(self, session: Session, code: str) -> None:
        lost = code in RESUMABLE_CODES
        for key in [key for key in self.streams if key[0] is session]:
            stream = self.streams.pop(key)
            self.act(stream, HopLost("route_failed", code) if lost else HopReset("route_failed", code))

    def act(self, stream: Stream, event: HopInput) -> None:
        if isinstance(event, HopReset) and event.reason in ROUTE_RESETS:
            event = HopLost(event.reason, event.detail)
        outcome = stream.machine.handle(self.net.now, event)
        stream.events += perform(self.net.now, stream.session, stream.stream_id, outcome)

    def _accept(self, session: Session, event: StreamOpened) -> None:
        now, body = self.net.now, event.open
        far = self.world.host_number(self.world.far[session])
        if body.route is None and body.resume is None and far in HONEST:
            self.world.recorded_open = body
        try:
            initiator = self._initiator(session, body)
            stream, outcome = (
                self._begin(session, event, initiator) if body.resume is None else self._go_on(session, event)
            )
        except StreamError as refusal:
            self.world.fired[f"refused {refusal.code}"] += 1
            session.reset_stream(now, event.stream_id, refusal.code, refusal.sentence)
            return
        self.streams[session, event.stream_id] = stream
        stream.events += perform(now, session, event.stream_id, outcome)

    def _begin(self, session: Session, event: StreamOpened, initiator: str) -> tuple[Stream, list[Outcome]]:
        now, body = self.net.now, event.open
        held = self.answering.get(body.uid)
        if held is not None and not held[0].machine.over and held[0].machine.peer_node_id == initiator:
            raise StreamError("uid_in_use", "")
        machine, outcome = EndToEnd.respond(
            now, self.identity, CLUSTER, initiator, body, self.random.randbytes, config=self.config
        )
        stream = Stream(machine, session, event.stream_id)
        self.answering[body.uid] = stream, hashlib.sha256(), [0]
        return stream, outcome

    def _go_on(self, session: Session, event: StreamOpened) -> tuple[Stream, list[Outcome]]:
        held = self.answering.get(event.open.uid)
        if held is None:
            raise StreamError("gone", "")
        stream = held[0]
        outcome = stream.machine.resumed(self.net.now, event.open)
        stream.session.reset_stream(self.net.now, stream.stream_id, "route_failed")
        self.streams.pop((stream.session, stream.stream_id), None)
        stream.session, stream.stream_id = session, event.stream_id
        return stream, outcome

    def _initiator(self, session: Session, body: OpenStream) -> str:
        if body.route is None:
            return session.peer_node_id
        lease = self.leases.get(body.route.route_id)
        refusal = check_lease(lease, self.node_id, session.peer_node_id, body, self.net.now)
        if refusal is not None or lease is None:
            raise StreamError(refusal.reason if refusal else "no_lease", "")
        return lease.hops[0]

    def pump(self) -> None:
        for talk in self.talks.values():
            if not talk.over:
                self._talk(talk)
        for uid, (stream, heard, count) in list(self.answering.items()):
            self._answer(uid, stream, heard, count)
        for key, stream in list(self.streams.items()):
            room, behind = stream.session.room(stream.stream_id), stream.session.waits(stream.stream_id)
            outcome = stream.machine.pull(self.net.now, room, behind=behind)
            self.world.fired["joined"] += stream.machine.joining
            stream.events += perform(self.net.now, stream.session, stream.stream_id, outcome)
            if stream.machine.over:
                del self.streams[key]

    def _talk(self, talk: Talk) -> None:
        machine = talk.stream.machine
        if machine.mode is Mode.DATAGRAM:
            if machine.bound and talk.sent < len(talk.data):
                outcome = machine.send(talk.data[talk.sent : talk.sent + 500])
                talk.stream.events += perform(
                    self.net.now, talk.stream.session, talk.stream.stream_id, outcome
                )
                talk.sent += 500
            elif talk.sent >= len(talk.data):
                machine.finish()
            return
        if talk.sent < len(talk.data):
            piece = len(talk.data) if machine.uid[0] & 1 else 2_000  # as a terminal writes, or as a file does
            talk.sent += machine.write(talk.data[talk.sent : talk.sent + piece])
        else:
            machine.finish()
        talk.answer += machine.read()

    def _answer(self, uid: bytes, stream: Stream, heard: hashlib._Hash, count: list[int]) -> None:
        machine = stream.machine
        if machine.over:
            del self.answering[uid]
            return
        if machine.mode is Mode.DATAGRAM:
            while (datagram := machine.receive()) is not None:
                self.world.check_datagram(uid, datagram)
            if machine.at_end:
                machine.finish()
            return
        talk = self.world.talk(uid)
        if talk is None or (talk.slow and self.world.chance.random() < 0.9):
            return  # a rogue's stream, which nobody reads, or a reader that takes its time
        data = machine.read(10_000 if talk.slow else -1)
        if data:
            if data != talk.data[count[0] : count[0] + len(data)]:
                raise BrokenError(f"bytes {count[0]} to {count[0] + len(data)} are not what was sent")
            heard.update(data)
            count[0] += len(data)
        if machine.at_end and not machine._sender.finishing:
            machine.write(heard.digest())
            machine.finish()

    def resume(self, talk: Talk) -> None:
        """Try the next way of a stream that lost its own, or should leave it."""
        now, stream = self.net.now, talk.stream
        ways = [way for way in self.world.ways(self.number, stream) if way[0].ready and not way[0].closed]
        if not ways:
            return
        session, route = self.world.chance.choice(ways)
        try:
            opening = stream.machine.resume(now, route)
            stream_id = session.open_stream(now, opening.open)
        except FabricError:
            return
        self.streams.pop((stream.session, stream.stream_id), None)
        stream.session.reset_stream(now, stream.stream_id, "route_failed")
        stream.session, stream.stream_id = session, stream_id
        self.streams[session, stream_id] = stream
        self.world.fired["resuming"] += 1


class FabricWorld(Net):
    """Everything, and the clock."""

    def __init__(self, seed: int, *, faults: bool = True) -> None:
        super().__init__()
        self.seed = seed
        self.chance = Random(seed)
        self.fired: Counter[str] = Counter()
        self.steps = 0
        self.faults = faults
        self.carriers: dict[Session, Carrier] = {}
        self.expected: dict[Session, str] = {}
        """Sessions that may end, with the code that they must end with, or "" for any."""
        self.tampered: set[bytes] = set()
        self.recorded_open: OpenStream | None = None
        """An OPEN of an honest node, as whoever carries packets sees it."""
        self.recorded_proof: list[bytes] = []
        self.tap: Callable[[Session, bytes], None] | None = None
        """Sees what is sent."""
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._uids: dict[bytes, Talk] = {}
        self._datagrams: dict[bytes, set[bytes]] = {}
        self._digest = hashlib.sha256()
        self._moved: set[Session] = set()
        for number in sorted(HONEST):
            self.host(number)
        for link in LINKS:
            self.link(*link)
        leases = {
            name: Lease(
                route_id=name,
                epoch=1,
                hops=hops(*way),
                service="echo",
                expires_at=1e12,
                allowed_classes=frozenset(TrafficClass),
                organization_id=f"org-{way[0]}",
            )
            for name, way in ROUTES.items()
        }
        for number in sorted(HONEST):
            self.node(number).leases.update(leases)
        for number in (RELAY, FAR_RELAY):
            self.node(number).relay = Relay(
                self.node(number).node_id,
                self.node(number).leases.get,
                partial(self.session_between, number),
            )
        self.run_for(1.0)

    # -- parts -----------------------------------------------------------------------------------------------

    def host(self, number: int) -> Node:
        found = self.hosts.get(number)
        if not isinstance(found, Node):
            found = self.hosts[number] = Node(number, self)
        return found

    node = host

    def link(
        self, dialer: int, listener: int, config: SessionConfig | None = None
    ) -> tuple[Session, Session]:
        """A connection, with carriers of its own."""
        ends = self.connect(dialer, listener, dialer_config=config)
        for session in ends:
            self.carriers[session] = Carrier(self)
        return ends

    def session_between(self, number: int, node_id: str) -> Session | None:
        found = [
            one
            for one in self.host(number).sessions
            if one.peer_node_id == node_id and one.ready and not one.closed
        ]
        return found[-1] if found else None

    def ways(self, number: int, stream: Stream) -> list[tuple[Session, RouteRef | None]]:
        """Sessions and routes that lead from a node to the stream's other end."""
        peer, found = stream.machine.peer_node_id, []
        direct = self.session_between(number, peer)
        if direct is not None:
            found.append((direct, None))
        for name, way in ROUTES.items():
            if way[0] == number and hops(way[-1]) == (peer,):
                first = self.session_between(number, hops(way[1])[0])
                lease = self.host(number).leases[name]
                if first is not None and not lease.fenced:
                    found.append((first, RouteRef(route_id=name, epoch=lease.epoch, position=1)))
        return found

    def talk(self, uid: bytes) -> Talk | None:
        return self._uids.get(uid)

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(when, self.now), next(self._order), action))

    # -- what honest nodes do --------------------------------------------------------------------------------

    def begin_talk(self) -> None:
        """An honest stream somewhere, over any way there is."""
        number, to = self.chance.choice(((CLIENT, EXIT), (CLIENT, EXIT), (OTHER_CLIENT, OTHER_EXIT)))
        traffic_class = self.chance.choice(list(TrafficClass))
        mode = Mode.DATAGRAM if self.chance.random() < 0.2 else Mode.STREAM
        node, target = self.node(number), self.node(to)
        ways = []
        for name, way in ROUTES.items():
            session = self.session_between(number, hops(way[1])[0]) if way[0] == number else None
            if way[-1] == to and session is not None and not node.leases[name].fenced:
                ways.append((session, RouteRef(route_id=name, epoch=node.leases[name].epoch, position=1)))
        direct = self.session_between(number, target.node_id)
        ways += [(direct, None)] if direct is not None else []
        if not ways:
            return
        session, route = self.chance.choice(ways)
        data = self.chance.randbytes(self.chance.choice((0, 1, 3_000, 70_000, 400_000)))
        try:
            stream = node.open(session, "echo", traffic_class, to=target, route=route, mode=mode)
        except FabricError:
            self.fired["nobody takes streams"] += 1  # it drains
            return
        talk = Talk(self, stream, data, slow=self.chance.random() < 0.2)
        node.talks[stream.machine.uid] = self._uids[stream.machine.uid] = talk
        self._datagrams[stream.machine.uid] = {data[i : i + 500] for i in range(0, len(data), 500)}
        kind = "datagrams" if mode is Mode.DATAGRAM else "stream"
        self.fired[f"{kind} {traffic_class.name.lower()}"] += 1
        self.fired["direct" if route is None else f"route {route.route_id}"] += 1

    # -- faults ----------------------------------------------------------------------------------------------

    def cut_something(self) -> None:
        """A carrier is gone, and dialed anew after a while."""
        dialer, listener = self.chance.choice(LINKS)
        session = self.session_between(dialer, self.host(listener).node_id)
        if session is not None:
            self.fired["cut"] += 1
            self.lose(session)
            self.redial(dialer, listener)

    def drain_something(self) -> None:
        """A node says GOAWAY on a session, and is dialed anew."""
        dialer, listener = self.chance.choice(LINKS)
        session = self.session_between(dialer, self.host(listener).node_id)
        if session is None:
            return
        session = self.chance.choice((session, self.far[session]))
        if session.closed or not session.ready:
            return
        self.fired["goaway"] += 1
        for end in (session, self.far[session]):
            self.expected[end] = ""
        session.goaway(self.now)
        self.redial(dialer, listener)

    def fence_something(self) -> None:
        """A relay learns that a route is fenced; its ends learn it later, and a new epoch after that."""
        name = self.chance.choice(("long", "short"))  # those from which there is another way
        if self.host(CLIENT).leases[name].fenced:
            return
        self.fired["fence"] += 1
        for number in sorted(HONEST):
            self.at(
                self.now + (0 if number == RELAY else 1), lambda number=number: self._know(number, name, True)
            )
            self.at(self.now + 10 + number, lambda number=number: self._know(number, name, False))

    def _know(self, number: int, name: str, fenced: bool) -> None:
        node = self.host(number)
        old = node.leases[name]
        epoch = old.epoch if fenced else old.epoch + 1
        node.leases[name] = replace(old, fenced=fenced, epoch=epoch)
        if node.relay is not None:
            node.relay.recheck(self.now)

    def redial(self, dialer: int, listener: int) -> None:
        self.at(self.now + self.chance.uniform(*REDIAL_S), lambda: self._dial(dialer, listener))

    def _dial(self, dialer: int, listener: int) -> None:
        self.link(dialer, listener)

    def lose(self, session: Session) -> None:
        """The carrier is gone; what was in flight is lost, and each end notices in its own time."""
        for end in (session, self.far[session]):
            self.expected[end] = ""
            self.carriers.pop(end, None)
            self.at(self.now + self.chance.random(), lambda end=end: self._notice(end))

    def _notice(self, end: Session) -> None:
        if not end.closed:
            self.owner[end].take(end, end.handle(self.now, CarrierLost()))

    # -- what must always hold -------------------------------------------------------------------------------

    def session_ended(self, session: Session, event: SessionClosed) -> None:
        """An end of a session; between honest nodes it must have a cause."""
        pair = {self.host_number(session), self.host_number(self.far[session])}
        if pair <= HONEST and session not in self.expected:
            raise BrokenError(f"a session between {sorted(pair)} ended: {event.code}: {event.reason}")
        wanted = self.expected.get(session)
        if wanted and event.code != wanted and not event.by_peer:
            raise BrokenError(f"{event.code} instead of {wanted}: {event.reason}")
        self.carriers.pop(session, None)
        far = self.far[session]
        if not event.by_peer and not far.closed:
            self.expected.setdefault(far, "")
            self.at(self.now + 0.05, lambda: self._told(far, event.code))

    def _told(self, far: Session, code: str) -> None:
        if not far.closed:
            self.owner[far].take(far, far.handle(self.now, CarrierLost(code)))

    def host_number(self, session: Session) -> int:
        host = self.owner[session]
        assert isinstance(host, Node)
        return host.number

    def check_datagram(self, uid: bytes, datagram: bytes) -> None:
        wanted = self._datagrams.get(uid)
        if wanted is not None and datagram not in wanted:
            raise BrokenError("a datagram that nobody sent")

    def check(self) -> None:
        for number in sorted(HONEST):
            node = self.node(number)
            for session in node.sessions:
                if session.closed:
                    continue
                if session in self._moved:
                    _check_bounds(session)
            if (
                node.relay is not None
                and node.relay.held > limits.RELAY_BYTES + limits.STREAM_WINDOW_BYTES_MAX
            ):
                raise BrokenError(f"relay {number} holds {node.relay.held} bytes")
            for uid, talk in list(node.talks.items()):
                talk.listen()
                if not talk.failure:
                    if talk.stream.machine.over:
                        self._judge(talk)
                        del node.talks[uid]
                    continue
                if talk.opened and uid not in self.tampered:
                    raise BrokenError(f"an honest stream failed: {talk.failure}: {talk.stream.events}")
                self.fired["tampering found" if uid in self.tampered else "never opened"] += 1
                del node.talks[uid]

    # -- time ------------------------------------------------------------------------------------------------

    def run_for(self, seconds: float) -> None:
        """Let so much virtual time pass."""
        until = self.now + seconds
        while True:
            self._settle()
            at = self._next()
            if at is None or at > until:
                self.now = until
                return
            self.now = at

    def storm(self, seconds: float, *, every: float = 0.4) -> None:
        """Honest streams begin, and things break, until the time is over."""
        until = self.now + seconds
        while self.now < until:
            self.begin_talk()
            if self.faults and self.chance.random() < 0.15:
                self.chance.choice((self.cut_something, self.drain_something, self.fence_something))()
            self.run_for(self.chance.expovariate(1 / every))

    def peace(self) -> None:
        """Nothing breaks any more: every honest stream comes to its end in time."""
        until = self.now + DEADLINE_S
        while self.now < until and any(not talk.over for talk in self._uids.values()):
            self.run_for(1.0)
        late = [talk for talk in self._uids.values() if not talk.over]
        if late:
            raise BrokenError(f"{len(late)} streams never ended, of {len(self._uids)}: {_story(late[0])}")
        for node in map(self.node, sorted(self.hosts)):
            for talk in node.talks.values():
                self._judge(talk)

    def _judge(self, talk: Talk) -> None:
        """The stream has come to its end: with its answer, or because a relay lied."""
        machine = talk.stream.machine
        talk.answer += machine.read()
        whole = machine.mode is Mode.DATAGRAM or talk.answer == hashlib.sha256(talk.data).digest()
        if not (talk.ended and whole) and machine.uid not in self.tampered:
            raise BrokenError(f"a stream ended without its answer: {_story(talk)}")
        self.fired["ended"] += 1

    def digest(self) -> str:
        return self._digest.hexdigest()

    def _settle(self) -> None:
        """Everything that is due now."""
        while self._events and self._events[0][0] <= self.now:
            heapq.heappop(self._events)[2]()
        for number in sorted(self.hosts):
            node = self.node(number)
            node.timers()
            node.pump()
            self._try_ways(node)
        self._flush()
        self.steps += 1
        self.check()
        self._moved.clear()
        for host in self.hosts.values():
            host.events.clear()
            host.sessions = [one for one in host.sessions if not one.closed]

    def _try_ways(self, node: Node) -> None:
        for talk in node.talks.values():
            machine = talk.stream.machine
            waits = not machine.bound and not machine.resuming and not machine.over
            if waits and self.now >= talk.tried_at + limits.RESUME_RETRY_FIRST_S:
                talk.tried_at = self.now
                node.resume(talk)
            elif machine.resuming and self.now >= talk.tried_at + limits.OPEN_TIMEOUT_S:
                node.act(talk.stream, HopLost("route_failed", "no answer"))

    def _flush(self) -> None:
        for session in list(self.carriers):
            carrier = self.carriers.get(session)
            if carrier is None or session.closed:
                continue
            total = limits.SESSION_UNSENT_BYTES
            for key, chunk in session.outgoing(self.now, carrier.room, total):
                self.ship(session, key, bytes(chunk))
            datagrams = session.datagrams_outgoing(self.now)
            self.owner[session].take(session, session.take_events())
            for data in datagrams:
                self._ship_datagram(session, data)

    def ship(self, session: Session, key: LaneKey, data: bytes) -> None:
        """Put bytes on a lane."""
        carrier = self.carriers.get(session)
        self._moved.add(session)
        if self.tap is not None:
            self.tap(session, data)
        if carrier is not None:
            lane_id, arrives = carrier.send(key, data)
            self.at(arrives, lambda: self._arrive(session, carrier, LaneData(lane_id, data)))

    def _ship_datagram(self, session: Session, data: bytes) -> None:
        carrier, draw = self.carriers.get(session), self.chance.random()
        if carrier is None or draw < 0.05:
            self.fired["datagram lost"] += 1
            return
        for _ in range(2 if draw > 0.97 else 1):
            delay = carrier.delay + self.chance.random() * (0.01 + carrier.jitter)
            self.at(self.now + delay, lambda: self._arrive(session, carrier, DatagramData(data)))

    def _arrive(self, source: Session, carrier: Carrier, event: LaneData | DatagramData) -> None:
        far = self.far[source]
        if self.carriers.get(source) is not carrier or far.closed:
            return  # it died on the way
        self._digest.update(repr((round(self.now, 6), len(event.data))).encode())
        self._moved.add(far)
        self.owner[far].take(far, far.handle(self.now, event))

    def _next(self) -> float | None:
        times: list[float] = [self._events[0][0]] if self._events else []
        for session, carrier in self.carriers.items():
            at = session.timer()
            times += [] if at is None else [at]
            if session.has_output():
                room = carrier.next_room()
                times.append(self.now + POLL_S if room is None else room)  # None: it waits for a token bucket
        for number in sorted(self.hosts):
            node = self.node(number)
            times += [at for stream in node.ends() if (at := stream.machine.timer()) is not None]
            for talk in node.talks.values():
                if not talk.over and (
                    not talk.stream.machine.bound or talk.stream.machine.mode is Mode.DATAGRAM
                ):
                    times.append(self.now + limits.RESUME_RETRY_FIRST_S)
            if any(talk.slow and not talk.over for talk in node.talks.values()):
                times.append(self.now + POLL_S)
        future = [at for at in times if at > self.now]
        return min(future, default=None)


def _check_bounds(session: Session) -> None:
    """What a peer can make a session hold, whatever it does."""
    mine = {
        "queued": (session.scheduler.queued, limits.SESSION_STREAMS * limits.STREAM_QUEUE_BYTES_MAX),
        "unconsumed": (session._window.held, session.config.session_window),
        "streams": (len(session._streams), 2 * limits.SESSION_STREAMS),
        "leaving": (len(session._leaving), limits.SESSION_STREAMS),
        "probes": (len(session._peer_probes), len(session._streams)),
        "resets": (len(session._outbox._resets), limits.SESSION_PENDING_RESETS),
        "ids": (session._peer_ids.unused, limits.SESSION_STREAM_ID_GAPS),
        "early": (session._early_bytes if not session.ready else 0, limits.PRE_READY_BYTES + (64 << 10)),
    }
    for name, (value, bound) in mine.items():
        if value > bound:
            raise BrokenError(f"{name}: {value} of {bound}")
    queues = [one for s in session._streams.values() for one in (s.queue, s.datagrams) if one is not None]
    if not session._leaving and session.scheduler.queued != sum(one.queued for one in queues):
        raise BrokenError("queues do not add up")


def _story(talk: Talk) -> str:
    machine = talk.stream.machine
    return (
        f"{machine.traffic_class.name} {machine.mode.name} sent {talk.sent} of {len(talk.data)}, "
        f"bound {machine.bound}, resuming {machine.resuming}, lost {machine.lost}, {talk.stream.events[-3:]}"
    )
