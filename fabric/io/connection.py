"""One session with a neighbour: the pure `Session` machine driven over one QUIC carrier, as asyncio sees it.

Made by the endpoint, which feeds it datagrams and asks it to flush once per turn of the loop. In between,
the connection turns carrier events into session inputs and session events into stream events, and lets the
session fill each lane only as far as bytes really leave: what is queued in the engine cannot be overtaken.
"""

# Long on purpose: everything between one carrier, one session and its streams, in the order it happens.
from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque

from fabric import events, limits
from fabric.classes import EXPRESS, Mode, TrafficClass
from fabric.errors import (
    CLOSE_CODES,
    RESUMABLE_CODES,
    CloseNumber,
    FabricError,
    SessionError,
    StreamError,
    close_number,
)
from fabric.events import SessionEvent, StreamConfig
from fabric.failover import reason_of
from fabric.handshake import Side
from fabric.identity import certificate_sha256, check_listener
from fabric.io.engines import (
    Address,
    Carrier,
    DatagramBytes,
    DatagramProbed,
    Handshaken,
    LaneBytes,
    LaneReset,
    Negotiated,
    Terminated,
)
from fabric.io.hosts import ConnectionHost
from fabric.io.lanewriter import LaneWriter
from fabric.io.pathsize import PathSize
from fabric.io.streams import Stream
from fabric.lanes import LaneKey
from fabric.session import Session
from fabric.stream import EndToEnd, HopLost, HopReset, perform
from fabric.wire import RouteRef, RouteUpdate

_UNIDIRECTIONAL = 0x02
"""The bit of a QUIC stream id that says so: RFC 9000 section 2.1."""

_FLUSH_ROUNDS = 4
"""Refills of the lanes in one flush; what is left over waits for the next turn, so that others get theirs."""


class Connection:
    """A session with a neighbour. Made by `Endpoint.dial`, or handed to the endpoint's `on_connection`."""

    def __init__(
        self,
        host: ConnectionHost,
        carrier: Carrier,
        now: float,
        *,
        pin: str | None = None,
        node_id: str | None = None,
        dialed_at: str | None = None,
    ) -> None:
        """`pin` and `node_id` are what a dialer expects of the listener; a listener expects nothing.

        `dialed_at`: the `quic://` address that was dialed, by which the session can be dialed again.
        """
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._pin = pin
        self._expected_node_id = node_id
        self._session: Session | None = None
        self._lanes = LaneWriter(carrier, now)
        self._streams: dict[int, Stream] = {}
        self._dirty_streams: dict[Stream, None] = {}
        self._pings: dict[int, asyncio.Future[float]] = {}
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._failure: FabricError | None = None
        self._unproved_bytes = 0
        self._unread: deque[LaneBytes] = deque()
        """What lanes brought and the session has not taken."""
        self._on_purpose = False
        self._handshake_deadline = now + limits.SESSION_HANDSHAKE_TIMEOUT_S
        self.carrier = carrier
        self._path = PathSize(carrier)
        self.is_dialer = carrier.is_dialer
        self.dialed_at = dialed_at
        self.peer_node_id = ""
        self.peer_public = b""
        self.capabilities: tuple[str, ...] = ()
        self.peer_route_epoch = 0
        """Entries of the authority log that the peer said it had when the session began."""
        self.peer_epoch = 0
        """Likewise the epoch of its candidate set."""
        self.draining = False
        self.suspected = ""
        """Why the peer may be out of reach, since the last time something came from it; else empty."""
        self.heard_at = now
        """When something came from the peer last."""
        self.given_up = False
        """Whether the peer has been silent for too long: nothing new is begun here while it is."""
        self._used_at = now
        self.rtt_s: float | None = None
        self.closed: asyncio.Future[str] = self._loop.create_future()
        """Done with the stable close code when the session is over; never raises."""

    # -- for those who use the session -----------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The hop machine; there is one once the carrier's handshake allows it."""
        if self._session is None:
            raise SessionError("carrier_lost", "the carrier's handshake is not done")
        return self._session

    @property
    def has_session(self) -> bool:
        """Whether `session` may be asked for."""
        return self._session is not None

    @property
    def is_ready(self) -> bool:
        """Both ends are proved and the session is open."""
        return self._ready.done() and not self.closed.done()

    @property
    def usable(self) -> bool:
        """Whether something new may be begun here."""
        return self.is_ready and not self.draining and not self.given_up

    @property
    def is_stranger(self) -> bool:
        """A dialer that has not proved who it is."""
        return not self.is_dialer and not self._ready.done()

    @property
    def remote(self) -> Address:
        """Where the peer's datagrams come from now."""
        return self.carrier.remote

    def idle_since(self, now: float) -> float | None:
        """When a stream was open here last, passing ones included; None while one is."""
        if self._session is not None and self._session.in_use:
            self._used_at = now
            return None
        return self._used_at

    def streams(self) -> list[Stream]:
        """The end-to-end streams that begin or end here and ride on this session."""
        return list(self._streams.values())

    async def ready(self) -> None:
        """Wait until the peer is proved and the session open; raises `FabricError` when it failed."""
        await asyncio.wait((self._ready, self.closed), return_when=asyncio.FIRST_COMPLETED)
        self._raise_if_closed()

    async def open(
        self,
        service: str,
        traffic_class: TrafficClass,
        *,
        target_node_id: str | None = None,
        route: RouteRef | None = None,
        mode: Mode = Mode.STREAM,
        resume: bool = True,
    ) -> Stream:
        """Open a sealed stream to `service` at the target: the peer itself unless `route` leads further.

        With `resume` the stream outlives this session: when its carrier is lost, both ends wait for another
        (`limits.RESUME_TIMEOUT_S`). A protocol that is about this very session opens its streams without.

        The target's public key is not asked for: its node id is the key's hash. A dialer may open before the
        session is ready; the OPEN then rides in the flight that proves it. Returns once the target accepted;
        raises `StreamError` with its reason, or `SessionError` when the session is gone.
        """
        if not self._started.done():
            await asyncio.wait((self._started, self.closed), return_when=asyncio.FIRST_COMPLETED)
        if not self.is_dialer and not self._ready.done():
            await self.ready()
        self._raise_if_closed()
        host, target, now = self._host, target_node_id or self.peer_node_id, self._host.now()
        machine, opening = EndToEnd.initiate(
            now,
            host.identity,
            host.cluster_id,
            target,
            service,
            traffic_class,
            os.urandom,
            mode=mode,
            route=route,
            config=StreamConfig(hold_s=limits.RESUME_TIMEOUT_S if resume else 0, suites=host.suites),
        )
        stream_id = self.session.open_stream(now, opening.open)
        stream = self._bind(machine, stream_id)
        self._host.connection_dirty(self)
        try:
            await stream.opened()
        except BaseException:
            stream.reset()
            self._host.connection_dirty(self)
            raise
        return stream

    async def ping(self) -> float:
        """Round-trip time of the hop in seconds; `SessionError` when the session ends first, or `ping_lost`
        when nothing comes back for `limits.PING_TIMEOUT_S` of asking.
        """
        waiter: asyncio.Future[float] = self._loop.create_future()
        nonces: list[int] = []
        until = self._host.now() + limits.PING_TIMEOUT_S
        try:
            while not waiter.done():
                self._raise_if_closed()
                now = self._host.now()
                if now >= until:
                    raise SessionError("ping_lost", f"no answer in {limits.PING_TIMEOUT_S} s")
                nonces.append(self.session.ping(now))
                self._pings[nonces[-1]] = waiter
                self._host.connection_dirty(self)
                await asyncio.wait(
                    (waiter, self.closed),
                    timeout=min(limits.PING_REPEAT_S, until - now),
                    return_when=asyncio.FIRST_COMPLETED,
                )
        finally:
            for nonce in nonces:
                self._pings.pop(nonce, None)
        return waiter.result()

    def goaway(self, reason: str = "going_away", drain_s: int = int(limits.SESSION_DRAIN_S)) -> None:
        """Take no new streams; the session closes once the open ones ended, or after `drain_s`."""
        if self._session is None or not self._ready.done():
            self.close("going_away")
            return
        self.draining = True
        self._session.goaway(self._host.now(), reason, drain_s)
        self._host.connection_dirty(self)

    def close(self, code: str = "done", reason: str = "") -> None:
        """End the session now, telling the peer `code`; its streams end with it."""
        self._on_purpose = True
        self._shut(code, reason)

    def leave(self) -> None:
        """Begin nothing new here; what this end opened goes on elsewhere at once, where it can."""
        self.draining = True
        for stream in self.streams():
            self._host.resuming.leave(stream, "peer_unavailable", self._host.now())

    def lose(self, code: str = "carrier_lost") -> None:
        """End the session as a network would: its streams are not meant, and go on over another."""
        self._shut(code, "")

    async def aclose(self, code: str = "done") -> None:
        """Close and wait until everybody who waits on this session was told."""
        self.close(code)
        await self.closed

    # -- for the endpoint ------------------------------------------------------------------------------

    def receive(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        """Take datagrams that came for this connection, none perhaps, and act on what they bring. Where
        `unread` says so afterwards, there is more to act on.
        """
        if self.is_stranger:
            # All that a stranger can make the engine hold, out of order or not, is in these bytes.
            self._unproved_bytes += sum(map(len, datagrams))
            if self._unproved_bytes > limits.CARRIER_PRE_AUTH_DATAGRAM_BYTES:
                self.close("pre_auth_overflow")
        if datagrams:
            self.suspected, self.given_up, self.heard_at = "", False, now
            self.carrier.receive(datagrams, addr, now)
        self.work(now, sum(map(len, datagrams)))

    @property
    def unread(self) -> bool:
        """Whether lanes brought more than the session has taken."""
        return bool(self._unread)

    def suspect(self, reason: str) -> None:
        """The network says that the peer is out of reach. Anybody can say so: only silence will prove it, so
        ask at once.
        """
        if not self.suspected and self.is_ready:
            self.session.ping(self._host.now())
            self._host.connection_dirty(self)
        self.suspected = reason
        self._host.watching.alarm(self)

    def too_big(self, size: int) -> None:
        """The network says that it carries UDP payloads of `size` bytes at most. Anybody can say so."""
        self._path.too_big(self._host.now(), size)

    def moved(self) -> None:
        """Our datagrams leave from another address from now on: let the peer see and prove it."""
        self.carrier.moved()
        self._path.moved(self._host.now())
        if self.is_ready:
            self.session.ping(self._host.now())
        self._host.connection_dirty(self)

    def work(self, now: float, came: int = 0) -> None:
        """Act on the carrier's events, which `came` bytes of datagrams brought."""
        for event in self.carrier.events():
            if isinstance(event, LaneBytes):
                if event.quic_stream_id & _UNIDIRECTIONAL:
                    self._unread.append(event)
                else:
                    self.close("wrong_lane", f"QUIC stream {event.quic_stream_id} goes both ways")
            elif isinstance(event, DatagramBytes):
                if self._session is not None:
                    self._session_events(now, self._session.handle(now, events.DatagramData(event.data)))
            elif isinstance(event, DatagramProbed):
                self._path.probed(now, event)
                self._host.connection_dirty(self)
            elif isinstance(event, LaneReset):
                self.close("lane_ended", f"lane {event.quic_stream_id} was abandoned")
            elif isinstance(event, Negotiated):
                if not self.is_dialer:
                    self._start(now, self._host.identity.certificate_sha256, None)
            elif isinstance(event, Handshaken):
                if self.is_dialer:
                    self._prove_listener(now, event.peer_certificate_der)
            elif isinstance(event, Terminated):
                self._read_lanes(now, came)
                self._carrier_ended(now, event)
        self._read_lanes(now, came)

    def _read_lanes(self, now: float, came: int) -> None:
        """Let the session take what lanes brought; of much more than came just now only a part, so that
        others get their turn.
        """
        session, unread = self._session, self._unread
        if session is None:
            unread.clear()
        left = max(came, limits.SESSION_INPUT_BYTES)
        while unread and session is not None and left > 0:
            event = unread.popleft()
            part, fin = event.data, event.fin
            if len(part) > left:
                whole = memoryview(part)  # a window at once in small parts: the rest is not copied for each
                part, fin = whole[:left], False
                unread.appendleft(LaneBytes(event.quic_stream_id, whole[left:], event.fin))
            left -= len(part)
            self._session_events(now, session.handle(now, events.LaneData(event.quic_stream_id, part, fin)))

    def tell_route(self, update: RouteUpdate) -> None:
        """Tell the peer that a route changed."""
        self.session.send_route_update(self._host.now(), update)
        self._host.connection_dirty(self)

    def lanes_sent(self) -> dict[LaneKey, tuple[int, int]]:
        """By lane of ours: bytes given to the carrier, and how many of them wait to be sent."""
        return self._lanes.sent()

    def timer(self) -> float | None:
        """When `handle_timer` is due."""
        at = self.carrier.timer()
        if self.closed.done():
            return at
        other = self._handshake_deadline if self._session is None else self._session.timer()
        return min((due for due in (at, other, self._path.timer()) if due is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Let carrier and session do what is due."""
        carrier_at = self.carrier.timer()
        if carrier_at is not None and carrier_at <= now:
            self.carrier.handle_timer(now)
            self.work(now)
        if self.closed.done():
            return
        self._path.handle_timer(now)
        if self._session is not None:
            self._session_events(now, self._session.handle(now, events.Timer()))
        elif now >= self._handshake_deadline:
            self.close("handshake_timeout")

    def flush(self, now: float) -> tuple[list[tuple[bytes, Address]], bool]:
        """Datagrams to send now, and whether more would come if asked again at once."""
        datagrams: list[tuple[bytes, Address]] = []
        moved = False
        self._path.look(now)
        self.idle_since(now)
        for _ in range(_FLUSH_ROUNDS):
            moved = self._fill_lanes(now)
            sent = self.carrier.datagrams_to_send(now)
            datagrams += sent
            if self._session is not None:
                self._lanes.left(self._session, sent, now)
            if not moved:
                break
        return datagrams, bool(self._dirty_streams) or moved

    def internal_error(self, error: Exception) -> None:
        """A defect of ours or of the engine, reached by this peer's bytes: only this session ends."""
        self._on_purpose = True  # what broke it would come again
        if self._session is not None and not self._session.closed:
            self._session.close(self._host.now(), "carrier_lost", repr(error))
            for event in self._session.take_events():
                self._host.relayed(self, self._host.now(), event)
        self._end(SessionError("carrier_lost", repr(error)), CloseNumber.PROTOCOL, "carrier_lost")

    @property
    def datagram_room(self) -> int:
        """The largest DATAGRAM payload that the carrier takes; 0 when the peer takes none."""
        return self.carrier.datagram_room()

    # -- for the streams -------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds of the steady clock."""
        return self._host.now()

    def stream_dirty(self, stream: Stream) -> None:
        """Pump the stream and flush before the loop waits again."""
        self._dirty_streams[stream] = None
        self._host.connection_dirty(self)

    def stream_confirmed(self, stream: Stream) -> None:
        """Start the service of a stream that the peer opened, now that it proved its first record."""
        if stream.is_initiator:
            stream.way = self._host.watching.join(stream)
        else:
            self._host.start_service(self, stream)

    def stream_suspended(self, stream: Stream, code: str) -> None:
        """The stream has lost its hop stream here, and waits for another."""
        since = None if stream.way is None else stream.way.watch.asked_at
        self.release(stream)
        if self.closed.done():
            code = self.closed.result()
        self._host.resuming.suspended(stream, reason_of(code, self.suspected), since)

    def stream_resumed(self, stream: Stream) -> None:
        """The stream goes on here."""
        stream.way = self._host.watching.join(stream)
        self._host.resuming.resumed(stream)

    def stream_sent(self, stream: Stream, now: float, *, owed: bool = True) -> None:
        """Let the stream's route be watched while an answer is owed, or a person may wait."""
        way, urgent = stream.way, stream.traffic_class in EXPRESS
        if way is not None and way.watch.sent(now, urgent=urgent, owed=owed):
            self._host.watching.arm(way)

    def stream_holds(self, stream: Stream, held: int) -> None:
        """Count what the stream holds; where that is too much, the one that holds most is ended."""
        memory = self._host.memory
        victim = memory.hold(stream, self.peer_node_id, self, held)
        while victim is not None:
            self._host.counters["memory_exceeded"] += 1
            victim.forfeit("memory_exceeded", f"{victim.held_bytes} bytes were not read or acknowledged")
            memory.hold(victim, victim.peer_node_id, self, 0)
            victim = memory.excess(self.peer_node_id, self)

    def write_room(self, stream: Stream) -> int:
        """All there may be, unless much is held already: then a record's worth for each stream."""
        if not self._host.memory.crowded(self.peer_node_id, self):
            return limits.STREAM_BYTES_MAX
        return limits.MEMORY_STREAM_BYTES - stream.machine.unacknowledged

    def stream_over(self, stream: Stream) -> None:
        """Forget a stream that ended or failed."""
        self.release(stream)
        self._host.resuming.forget(stream, self._initiator(stream))
        self._host.connection_dirty(self)

    def release(self, stream: Stream) -> None:
        """Events of the hop stream are not for this stream any more."""
        self._host.memory.hold(stream, self.peer_node_id, self, 0)
        if stream.way is not None:
            self._host.watching.leave(stream, stream.way)
            stream.way = None
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]
        self._dirty_streams.pop(stream, None)

    def adopt(self, stream: Stream) -> None:
        """The stream rides on this session from now on."""
        self._streams[stream.stream_id] = stream
        self.stream_dirty(stream)

    # -- the carrier's handshake -----------------------------------------------------------------------

    def _prove_listener(self, now: float, certificate_der: bytes | None) -> None:
        try:
            public, node_id = check_listener(certificate_der, pin=self._pin, node_id=self._expected_node_id)
        except FabricError as error:
            self._end(error, close_number("unexpected_peer"), "unexpected_peer")
            return
        if certificate_der is None:
            raise AssertionError("check_listener refuses a missing certificate")
        self.peer_public, self.peer_node_id = public, node_id
        self._start(now, certificate_sha256(certificate_der), node_id)

    def _start(self, now: float, listener_certificate_sha256: str, expected_peer: str | None) -> None:
        self._session = Session(
            Side.DIALER if self.is_dialer else Side.LISTENER,
            self._host.identity,
            self._host.cluster_id,
            now,
            os.urandom,
            listener_certificate_sha256=listener_certificate_sha256,
            expected_peer=expected_peer,
            config=self._host.session_config,
        )
        self._started.set_result(None)
        self._host.connection_dirty(self)

    def _carrier_ended(self, now: float, event: Terminated) -> None:
        if self.closed.done():
            return
        stable = event.by_application and event.reason in CLOSE_CODES
        code = event.reason if stable else "carrier_lost"
        if self._session is not None:
            self._session_events(now, self._session.handle(now, events.CarrierLost(code, event.reason)))
            self._session_events(now, self._session.take_events())
        if not self.closed.done():
            self._end(SessionError(code, f"{event.reason} (QUIC error {event.code:#x})"), None, code)

    # -- session events --------------------------------------------------------------------------------

    def _session_events(self, now: float, happened: list[SessionEvent]) -> None:
        streams = self._streams
        for event in happened:
            stream = streams.get(getattr(event, "stream_id", 0))
            if stream is not None:
                stream.session_event(now, event)
            else:
                self._other_event(now, event)
        if happened:
            self._host.connection_dirty(self)

    def _other_event(self, now: float, event: SessionEvent) -> None:
        """An event of the session itself, or of a stream that does not end here."""
        match event:
            case events.Ready():
                self.peer_node_id, self.peer_public = event.peer_node_id, event.peer_public
                self.capabilities = event.capabilities
                self.peer_route_epoch, self.peer_epoch = event.route_epoch, event.peer_epoch
                self._path.start(now)
                self._ready.set_result(None)
                self._host.connection_ready(self)
            case events.SessionClosed():
                self._host.relayed(self, now, event)
                number = None if event.by_peer else close_number(event.code)
                self._end(SessionError(event.code, event.reason), number, event.code)
            case events.StreamOpened():
                if not self._host.relayed(self, now, event):
                    self._accept(now, event)
            case events.Pong():
                self.rtt_s = event.rtt_s
                waiter = self._pings.get(event.nonce)
                if waiter is not None and not waiter.done():
                    waiter.set_result(event.rtt_s)
            case events.PeerGoaway():
                self.leave()
            case events.PeerRouteUpdate():
                self._host.route_told(self, event.update)
            case events.StreamRecord():
                if not self._host.relayed(self, now, event):
                    # Its stream has ended here; the peer has said that it had, and goes on.
                    detail = f"a record at {event.offset} of a stream that is over"
                    self.session.reset_stream(now, event.stream_id, "record_after_end", detail)
            case _:
                self._host.relayed(self, now, event)

    def _accept(self, now: float, event: events.StreamOpened) -> None:
        resuming, opening = self._host.resuming, event.open
        try:
            initiator = self._host.judge_open(self, opening)
            if opening.resume is not None:
                resuming.opened(self, now, event, initiator)
                return
            resuming.check_new(initiator, opening.uid)
            machine, effects = EndToEnd.respond(
                now,
                self._host.identity,
                self._host.cluster_id,
                initiator,
                opening,
                os.urandom,
                config=StreamConfig(suites=self._host.suites),
            )
        except StreamError as refusal:
            self.session.reset_stream(now, event.stream_id, refusal.code, refusal.sentence)
            return
        stream = Stream(self, machine, event.stream_id)
        self._streams[event.stream_id] = stream
        resuming.keep(stream, initiator)
        perform(now, self.session, event.stream_id, effects)
        self._dirty_streams[stream] = None

    def _shut(self, code: str, reason: str) -> None:
        if self.closed.done():
            return
        now = self._host.now()
        if self._session is not None and not self._session.closed:
            self._session.close(now, code, reason)
            self._session_events(now, self._session.take_events())
        else:
            self._end(SessionError(code, reason), close_number(code), code)

    def _bind(self, machine: EndToEnd, stream_id: int) -> Stream:
        stream = Stream(self, machine, stream_id)
        self._streams[stream_id] = stream
        self._dirty_streams[stream] = None
        self._host.resuming.keep(stream, self._host.identity.node_id)
        return stream

    def _initiator(self, stream: Stream) -> str:
        return self._host.identity.node_id if stream.is_initiator else stream.peer_node_id

    # -- output ----------------------------------------------------------------------------------------

    def _fill_lanes(self, now: float) -> bool:
        """Move records into the session and chunks into the lanes; whether anything moved."""
        session = self._session
        if session is None or self.closed.done():
            return False
        while self._dirty_streams:
            self._dirty_streams.popitem()[0].pump(now)
        moved = self._lanes.fill(session, now)
        self._session_events(now, session.take_events())
        return moved

    # -- the end ---------------------------------------------------------------------------------------

    def _raise_if_closed(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)

    def _end(self, failure: FabricError, number: CloseNumber | None, code: str) -> None:
        """Once: close the carrier (unless the peer did), fail the streams, tell everybody who waits."""
        if self.closed.done():
            return
        self._failure = failure
        self.closed.set_result(code)
        if number is not None:
            self.carrier.close(int(number), code)
        now = self._host.now()
        lost = code in RESUMABLE_CODES and not self._on_purpose
        for stream in list(self._streams.values()):
            with contextlib.suppress(StreamError):
                detail = f"the session ended: {code}"
                stream.hop_event(
                    now, HopLost("route_failed", detail) if lost else HopReset("route_failed", detail)
                )
        self._streams.clear()
        self._dirty_streams.clear()
        self._unread.clear()
        self._host.connection_closed(self)
        self._host.connection_dirty(self)
