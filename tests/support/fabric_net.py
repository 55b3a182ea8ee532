"""Sessions, sealed streams and relays joined in memory under a virtual clock: a shell without a world."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from random import Random

from fabric.classes import Mode, TrafficClass
from fabric.errors import StreamError
from fabric.identity import NodeIdentity
from fabric.lanes import CONTROL_LANE, PREFACE_BYTES, LaneKey, encode_preface
from fabric.relay import Lease, Relay, check_lease
from fabric.session import (
    CarrierLost,
    DatagramData,
    LaneData,
    Session,
    SessionClosed,
    SessionConfig,
    SessionEvent,
    Side,
    StreamAcceptedEvent,
    StreamAck,
    StreamClosed,
    StreamDatagram,
    StreamOpened,
    StreamPing,
    StreamRecord,
    StreamReset,
    Timer,
)
from fabric.stream import (
    EndToEnd,
    HopAccepted,
    HopAck,
    HopClosed,
    HopDatagram,
    HopInput,
    HopRecord,
    HopReset,
    Opened,
    StreamConfig,
    StreamEvent,
    StreamTimer,
    perform,
)
from fabric.wire import Body, FrameDecoder, RouteRef, decode_frame

CLUSTER = "test.aaaaaaaaaaaaaaaaaaaaaaaaaa"
PLENTY = 1 << 22


def identity(number: int) -> NodeIdentity:
    """A node identity that depends on `number` alone."""
    return NodeIdentity.from_seed(bytes([number]) * 32)


class Chop:
    """How a carrier cuts a lane's bytes: whole, or in pieces chosen by `rng`, each at most `largest`."""

    def __init__(self, rng: Random | None = None, largest: int = 0) -> None:
        self.rng = rng
        self.largest = largest

    def __call__(self, data: bytes) -> list[bytes]:
        if self.rng is None:
            return [data]
        pieces = []
        at = 0
        while at < len(data):
            size = self.rng.randint(1, self.largest)
            pieces.append(data[at : at + size])
            at += size
        return pieces


class Flow:
    """One direction of a carrier: lanes in order each, in any order among themselves."""

    def __init__(self) -> None:
        self.ids: dict[LaneKey, int] = {}
        self.lanes: dict[int, deque[bytes]] = {}

    def send(self, key: LaneKey, data: bytes) -> None:
        lane_id = self.ids.setdefault(key, 4 * len(self.ids) + 2)
        self.lanes.setdefault(lane_id, deque()).append(data)

    def ready(self) -> list[int]:
        return [lane_id for lane_id, queue in self.lanes.items() if queue]


class Stream:
    """A sealed stream as a service sees it, with everything it was told."""

    def __init__(self, machine: EndToEnd, session: Session, stream_id: int) -> None:
        self.machine = machine
        self.session = session
        self.stream_id = stream_id
        self.events: list[StreamEvent] = []

    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


class Host:
    """One node: its sessions, the streams that end at it, and perhaps a relay."""

    def __init__(self, number: int, net: Net) -> None:
        self.identity = identity(number)
        self.net = net
        self.random = Random(number)
        self.sessions: list[Session] = []
        self.events: list[SessionEvent] = []
        self.streams: dict[tuple[Session, int], Stream] = {}
        self.accepted: list[Stream] = []
        self.relay: Relay | None = None
        self.leases: dict[str, Lease] = {}
        self.accepts = True
        self.config = StreamConfig()

    @property
    def node_id(self) -> str:
        return self.identity.node_id

    def relays(self) -> Relay:
        def onward(node_id: str) -> Session | None:
            found = [s for s in self.sessions if s.peer_node_id == node_id and s.ready and not s.closed]
            return found[0] if found else None

        self.relay = Relay(self.node_id, self.leases.get, onward)
        return self.relay

    def open(
        self,
        session: Session,
        service: str = "echo",
        traffic_class: TrafficClass = TrafficClass.RELIABLE,
        *,
        to: Host | None = None,
        route: RouteRef | None = None,
        mode: Mode = Mode.STREAM,
    ) -> Stream:
        now = self.net.now
        responder = to.node_id if to else self.net.peer(session).node_id
        machine, opening = EndToEnd.initiate(
            now,
            self.identity,
            CLUSTER,
            responder,
            service,
            traffic_class,
            self.random.randbytes,
            mode=mode,
            route=route,
            config=self.config,
        )
        stream = Stream(machine, session, session.open_stream(now, opening.open))
        self.streams[session, stream.stream_id] = stream
        return stream

    def take(self, session: Session, events: list[SessionEvent]) -> None:
        """Act on a session's events as a shell does."""
        for event in events:
            self.events.append(event)
            if self.relay is not None and self.relay.handle(self.net.now, session, event):
                continue
            if isinstance(event, SessionClosed):
                for key, stream in self.streams.items():
                    if key[0] is session:
                        self.act(stream, HopReset("route_failed", event.code))
            elif isinstance(event, StreamOpened):
                if self.accepts:
                    self._accept(session, event)
            else:
                self._stream_event(session, event)

    def _accept(self, session: Session, event: StreamOpened) -> None:
        now = self.net.now
        initiator = session.peer_node_id
        if event.open.route is not None:
            lease = self.leases.get(event.open.route.route_id)
            refusal = check_lease(lease, self.node_id, initiator, event.open, now)
            if refusal is not None or lease is None:
                session.reset_stream(now, event.stream_id, refusal.reason if refusal else "no_lease")
                return
            initiator = lease.hops[0]
        try:
            machine, outcome = EndToEnd.respond(
                now,
                self.identity,
                CLUSTER,
                initiator,
                event.open,
                self.random.randbytes,
                config=self.config,
            )
        except StreamError as error:
            session.reset_stream(now, event.stream_id, error.code, error.sentence)
            return
        stream = Stream(machine, session, event.stream_id)
        self.streams[session, event.stream_id] = stream
        stream.events += perform(now, session, event.stream_id, outcome)

    def _stream_event(self, session: Session, event: SessionEvent) -> None:
        stream = self.streams.get((session, getattr(event, "stream_id", 0)))
        if stream is None:
            return
        if isinstance(event, StreamRecord):
            self.act(stream, HopRecord(event.offset, event.flags, event.payload))
            session.consumed(self.net.now, event.stream_id, event.carried)
        elif isinstance(event, StreamDatagram):
            self.act(stream, HopDatagram(event.number, event.flags, event.payload))
        elif isinstance(event, StreamAck):
            self.act(stream, HopAck(event.received_up_to, event.limit))
        elif isinstance(event, StreamAcceptedEvent):
            self.act(stream, HopAccepted(event.accepted))
        elif isinstance(event, StreamClosed):
            self.act(stream, HopClosed())
        elif isinstance(event, StreamReset):
            self.act(stream, HopReset(event.reason, event.detail))
        elif isinstance(event, StreamPing):
            session.pong(self.net.now, event.stream_id, event.nonce, event.time)

    def act(self, stream: Stream, event: HopInput) -> None:
        outcome = stream.machine.handle(self.net.now, event)
        before = len(stream.events)
        stream.events += perform(self.net.now, stream.session, stream.stream_id, outcome)
        if any(isinstance(e, Opened) for e in stream.events[before:]) and stream.stream_id % 2 != (
            stream.session._own_ids.next % 2
        ):
            self.accepted.append(stream)

    def pump(self) -> None:
        """Move what the streams want to send into their sessions."""
        now = self.net.now
        for stream in self.streams.values():
            room, behind = stream.session.room(stream.stream_id), stream.session.waits(stream.stream_id)
            outcome = stream.machine.pull(now, room, behind=behind)
            stream.events += perform(now, stream.session, stream.stream_id, outcome)

    def timers(self) -> None:
        now = self.net.now
        for session in self.sessions:
            at = session.timer()
            if at is not None and at <= now:
                self.take(session, session.handle(now, Timer()))
        for stream in list(self.streams.values()):
            at = stream.machine.timer()
            if at is not None and at <= now:
                self.act(stream, StreamTimer())
        if self.relay is not None and (at := self.relay.timer()) is not None and at <= now:
            self.relay.recheck(now)


class Net:
    """Hosts, the carriers between them, and the clock."""

    def __init__(self, chop: Chop | None = None) -> None:
        self.now = 1000.0
        self.chop = chop or Chop()
        self.hosts: dict[int, Host] = {}
        self.flows: dict[Session, Flow] = {}
        self.far: dict[Session, Session] = {}
        self.owner: dict[Session, Host] = {}
        self.room: Callable[[Session, LaneKey], int] = lambda _session, _lane: PLENTY
        self.total = PLENTY
        self.datagrams = 0
        self.datagram_loss = 0.0
        """The share that is lost, where `chop` has a random source."""

    def host(self, number: int) -> Host:
        if number not in self.hosts:
            self.hosts[number] = Host(number, self)
        return self.hosts[number]

    def peer(self, session: Session) -> Host:
        return self.owner[self.far[session]]

    def connect(
        self,
        dialer: int,
        listener: int,
        *,
        dialer_config: SessionConfig | None = None,
        listener_config: SessionConfig | None = None,
    ) -> tuple[Session, Session]:
        a, b = self.host(dialer), self.host(listener)
        pin = b.identity.certificate_sha256
        one = Session(
            Side.DIALER,
            a.identity,
            CLUSTER,
            self.now,
            a.random.randbytes,
            listener_certificate_sha256=pin,
            expected_peer=b.node_id,
            config=dialer_config,
        )
        other = Session(
            Side.LISTENER,
            b.identity,
            CLUSTER,
            self.now,
            b.random.randbytes,
            listener_certificate_sha256=pin,
            config=listener_config,
        )
        for host, session, far in ((a, one, other), (b, other, one)):
            host.sessions.append(session)
            self.owner[session], self.far[session], self.flows[session] = host, far, Flow()
        return one, other

    def step(self) -> bool:
        """Everybody sends once, everything sent arrives; whether anything moved."""
        for host in self.hosts.values():
            host.timers()
            host.pump()
        moved = False
        arriving: list[tuple[Session, bytes]] = []
        for session, flow in self.flows.items():
            for key, chunk in session.outgoing(self.now, partial(self.room, session), self.total):
                for piece in self.chop(bytes(chunk)):
                    flow.send(key, piece)
            self.owner[session].take(session, session.take_events())
            arriving += [(self.far[session], data) for data in session.datagrams_outgoing(self.now)]
        for session, flow in self.flows.items():
            moved |= self.deliver(session, flow)
        for far, data in arriving:
            moved = True
            self.datagrams += 1
            if self.chop.rng is None or self.chop.rng.random() > self.datagram_loss:
                self.owner[far].take(far, far.handle(self.now, DatagramData(data)))
        return moved

    def deliver(self, session: Session, flow: Flow) -> bool:
        far = self.far[session]
        moved = False
        while ready := flow.ready():
            moved = True
            lane_id = self.chop.rng.choice(ready) if self.chop.rng else ready[0]
            data = flow.lanes[lane_id].popleft()
            self.owner[far].take(far, far.handle(self.now, LaneData(lane_id, data)))
        return moved

    def run(self, steps: int = 2000) -> None:
        """Step until nothing moves."""
        for _ in range(steps):
            if not self.step():
                return
        raise AssertionError(f"still moving after {steps} steps")

    def settle(self, seconds: float, every: float = 0.05) -> None:
        """Let time pass, running timers."""
        until = self.now + seconds
        while self.now < until:
            self.now += every
            self.run()

    def cut(self, session: Session, code: str = "carrier_lost") -> None:
        """The carrier of `session` is gone at both ends."""
        for end in (session, self.far[session]):
            self.owner[end].take(end, end.handle(self.now, CarrierLost(code)))


def ready_pair(**kwargs: SessionConfig) -> tuple[Net, Session, Session]:
    """Host 1 dialed host 2 and both are ready."""
    net = Net()
    dialer, listener = net.connect(1, 2, **kwargs)
    net.run()
    assert dialer.ready
    assert listener.ready
    return net, dialer, listener


class Raw:
    """A peer that says what it likes: frames into a ready session, as if its other end had sent them."""

    def __init__(self, net: Net, session: Session) -> None:
        self.net = net
        self.session = session
        self.flow = net.flows[net.far[session]]

    def send(self, data: bytes, lane: LaneKey = CONTROL_LANE) -> list[SessionEvent]:
        if lane not in self.flow.ids:
            data = encode_preface(lane) + data
        lane_id = self.flow.ids.setdefault(lane, 4 * len(self.flow.ids) + 2)
        return self.session.handle(self.net.now, LaneData(lane_id, data))

    def closes(self, data: bytes, lane: LaneKey = CONTROL_LANE) -> str:
        """Send, and say with which code the session closed; empty if it lives."""
        return next((e.code for e in self.send(data, lane) if isinstance(e, SessionClosed)), "")


def sent_frames(session: Session, now: float) -> list[tuple[LaneKey, int, Body]]:
    """What a session sends now, decoded: (lane, stream id, body)."""
    fresh = set(session._opened_lanes)
    lanes: dict[LaneKey, bytes] = {}
    for lane, chunk in session.outgoing(now, lambda _lane: PLENTY):
        lanes[lane] = lanes.get(lane, b"") + bytes(chunk)
    found = []
    for lane, data in lanes.items():
        frames = FrameDecoder().feed(data if lane in fresh else data[PREFACE_BYTES:])
        found += [(lane, frame.stream_id, decode_frame(frame)) for frame in frames]
    return found
