"""The hop machine: one fabric session over one QUIC connection, without input or output of its own.

It knows the handshake, hop streams, hop credit, pings and GOAWAY; it knows nothing of what is sealed in DATA.
Every frame a peer may not send ends the session with a named code; a stream that breaks ends alone.
Source: docs/wire.md, "Sessions".
"""

# Long on purpose: the session is one table of what may come when; its inputs and outputs are named with it.
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from fabric import limits, wire
from fabric.buckets import TokenBucket
from fabric.errors import SessionError, WireError
from fabric.events import (
    CarrierLost,
    DatagramData,
    LaneData,
    PeerGoaway,
    PeerPressure,
    PeerRouteUpdate,
    Pong,
    Ready,
    SessionClosed,
    SessionConfig,
    SessionEvent,
    SessionInput,
    StreamAcceptedEvent,
    StreamAck,
    StreamClosed,
    StreamDatagram,
    StreamOpened,
    StreamPing,
    StreamPong,
    StreamRecord,
    StreamReset,
    StreamSent,
    StreamWritable,
    Timer,
)
from fabric.handshake import Handshake, Identity, Side
from fabric.hopstreams import HopStreams
from fabric.lanes import CONTROL_LANE, DATAGRAM_SHARD, LaneKey, LaneReader, encode_preface
from fabric.pressure import highest
from fabric.wire import Frame, FrameType, NodePressure, RouteUpdate, SessionReady

__all__ = [
    "CarrierLost",
    "DatagramData",
    "Identity",
    "LaneData",
    "PeerGoaway",
    "PeerPressure",
    "PeerRouteUpdate",
    "Pong",
    "Ready",
    "Session",
    "SessionClosed",
    "SessionConfig",
    "SessionEvent",
    "SessionInput",
    "Side",
    "StreamAcceptedEvent",
    "StreamAck",
    "StreamClosed",
    "StreamDatagram",
    "StreamOpened",
    "StreamPing",
    "StreamPong",
    "StreamRecord",
    "StreamReset",
    "StreamSent",
    "StreamWritable",
    "Timer",
]

Chunk = bytes | memoryview

_ON_STREAM_LANES: Final = frozenset(
    {FrameType.OPEN_STREAM, FrameType.DATA, FrameType.STREAM_ACCEPTED, FrameType.CLOSE_STREAM}
)  # RESET_STREAM may, where it takes back an OPEN
_SMOOTHING: Final = 0.125  # of a new round-trip time, as in RFC 6298 section 2


class Session(HopStreams):
    """One fabric session.

    A shell drives it in this order, once per turn of its loop:

    1. `events = session.handle(now, LaneData(...))` for everything that came, and act on the events;
    2. commands (`open_stream`, `send_data`, ...), which only queue;
    3. `session.outgoing(now, room, total)` and give the chunks to the carrier in order;
    4. `session.take_events()`: what commands and output caused (`StreamWritable`, `StreamSent`, a close);
    5. set a timer for `session.timer()` and answer it with `handle(now, Timer())`.

    `now` is seconds of a clock that never goes back. Commands on a stream that is dead meanwhile are ignored,
    because the peer may reset at any time; misuse raises `SessionError` or `StreamError`.
    """

    def __init__(
        self,
        side: Side,
        identity: Identity,
        cluster_id: str,
        now: float,
        random_bytes: Callable[[int], bytes],
        *,
        listener_certificate_sha256: str,
        expected_peer: str | None = None,
        config: SessionConfig | None = None,
    ) -> None:
        """`listener_certificate_sha256`: lower-case hex; a listener gives its own, a dialer what TLS showed.

        `expected_peer`: node id; required of a dialer, optional for a listener. A dialer's shell has checked
        that the certificate belongs to that node (`fabric.identity.check_listener`).
        """
        super().__init__(side, config or SessionConfig(), now)
        self._random_bytes = random_bytes
        self._handshake = Handshake(
            side,
            identity,
            cluster_id,
            random_bytes,
            SessionReady(
                body_limit=self.config.body_limit,
                session_credit=self.config.session_window,
                session_reserve=self.config.session_reserve,
                stream_credit=self.config.stream_window,
                max_streams=self.config.max_streams,
                idle_timeout_s=self.config.idle_timeout_s,
                route_epoch=self.config.route_epoch,
                peer_epoch=self.config.peer_epoch,
            ),
            listener_certificate_sha256=listener_certificate_sha256,
            expected_peer=expected_peer,
            capabilities=self.config.capabilities,
            token=self.config.token,
        )
        self._may_send = side is Side.LISTENER
        """A dialer says nothing before it has the listener's HELLO."""
        for frame in self._handshake.start():
            self._outbox.session(frame)
        self._readers: dict[int, LaneReader] = {}
        self._keys: set[LaneKey] = set()
        self._early: list[tuple[LaneKey, Frame]] = []
        self._early_bytes = 0
        self._opened_lanes: set[LaneKey] = set()
        self._handshake_until = now + self.config.handshake_timeout_s
        self._heard_at = now
        self._pinged_at = now
        self._keepalive_s = self.config.keepalive_s
        self._pings: dict[int, float] = {}
        self._news = TokenBucket(limits.SESSION_NEWS_PER_S, limits.SESSION_NEWS_BURST, now)
        self._datagrams: list[bytes] = []
        self._drain_until: float | None = None
        self._stuck_at: float | None = None
        """Since when the control lane has had no room for what waits for it."""
        self.rtt_s: float | None = None
        """Smoothed round-trip time of the hop, once a PING came back."""
        self.rtt_var_s: float | None = None
        """Its mean deviation: jitter."""
        self.rtt_best_s: float | None = None
        """The shortest so far."""

    @property
    def peer_node_id(self) -> str:
        """The peer's node id once its HELLO came, else empty; proved only after `Ready`."""
        return self._handshake.peer_node_id

    def lanes(self) -> tuple[LaneKey, ...]:
        """The lanes this end has opened so far."""
        return tuple(self._opened_lanes)

    def lanes_received(self) -> dict[LaneKey, int]:
        """Bytes that came on each lane of the peer's."""
        return {reader.key: reader.received for reader in self._readers.values() if reader.key is not None}

    # -- inputs ----------------------------------------------------------------------------------------------

    def handle(self, now: float, event: SessionInput) -> list[SessionEvent]:
        """Take one input; return what happened, oldest first."""
        if not self.closed:
            try:
                self._handle(now, event)
                self._close_when_drained()
            except (WireError, SessionError) as error:
                self._fail(error)
        return self.take_events()

    def take_events(self) -> list[SessionEvent]:
        """Events made by commands and output since the last call of this or `handle`."""
        events, self._events = self._events, []
        return events

    def timer(self) -> float | None:
        """When `handle(now, Timer())` is due, or None once closed."""
        if self.closed:
            return None
        if not self.ready:
            return self._handshake_until
        due = [self._heard_at + self.config.idle_timeout_s]
        if self._keepalive_s is not None:
            due.append(max(self._heard_at, self._pinged_at) + self._keepalive_s)
        if self._drain_until is not None:
            due.append(self._drain_until)
        if self._stuck_at is not None:
            due.append(self._stuck_at + self.config.slow_peer_s)
        return min(due)

    # -- output ----------------------------------------------------------------------------------------------

    def outgoing(
        self, now: float, room: Callable[[LaneKey], int], total: int = wire.U64_MAX
    ) -> list[tuple[LaneKey, Chunk]]:
        """The next chunks to send.

        `room(lane)` says how many untransmitted bytes the lane may still take, `total` how many the session
        may; both are obeyed but for a frame larger than the whole allowance, and control, dns and interactive
        do not wait for `total`. A lane's chunks are in order and follow each other; its first starts with the
        preface, so the shell opens a QUIC stream for a key it has not seen. Small frames are joined; a large
        payload is a chunk of its own, not copied.
        """
        if self.closed or not self._may_send:
            return []
        lanes: dict[LaneKey, list[Chunk]] = {}
        self._datagrams.clear()  # what the carrier did not fetch is late by now
        control_room = room(CONTROL_LANE)
        control = self._outbox.take(control_room)
        if control or not self._outbox:
            self._stuck_at = None
        elif self._stuck_at is None:
            self._stuck_at = now
        if control:
            lanes[CONTROL_LANE] = [*control]
            control_room -= sum(map(len, control))
        if self.scheduler.has_output():
            pulled = self.scheduler.pull(
                now, lambda lane: control_room if lane == CONTROL_LANE else room(lane), total
            )
            for queue, item in pulled:
                if queue.lane.shard == DATAGRAM_SHARD:
                    self._datagrams.append(b"".join((item.head, item.payload)))
                    continue
                lanes.setdefault(queue.lane, []).append(item.head)
                if item.payload:
                    lanes[queue.lane].append(item.payload)
            self._left(now, pulled)
        else:
            self._wake()
        self._close_when_drained()
        return [(lane, chunk) for lane, parts in lanes.items() for chunk in self._chunks(lane, parts)]

    def datagrams_outgoing(self, now: float) -> list[bytes]:
        """DATAGRAM payloads to send, which the call of `outgoing` before this one chose. That one's `room` is
        asked for (class, `DATAGRAM_SHARD`) as for a lane.
        """
        datagrams, self._datagrams = self._datagrams, []
        return datagrams

    def has_output(self) -> bool:
        """Whether `outgoing` would give something if every lane had room."""
        return not self.closed and self._may_send and bool(self._outbox or self.scheduler.has_output())

    # -- commands about the session --------------------------------------------------------------------------

    def ping(self, now: float, stream_id: int = 0) -> int:
        """Queue a PING; returns its nonce. Stream 0 measures the hop (`Pong`), others the whole path
        (`StreamPong`).
        """
        self._check_ready()
        nonce = int.from_bytes(self._random_bytes(8))
        time_us = int(now * 1_000_000)
        if stream_id:
            self.forward_ping(now, stream_id, nonce, time_us)
            return nonce
        self._pinged_at = now
        if len(self._pings) >= limits.PENDING_PINGS:
            del self._pings[next(iter(self._pings))]
        self._pings[nonce] = now
        self._answer(wire.encode_ping(0, nonce, time_us))
        return nonce

    def send_pressure(self, now: float, pressure: NodePressure) -> None:
        """Queue a NODE_PRESSURE; only the newest is sent."""
        self._check_ready()
        self._outbox.pressure(pressure)

    def send_route_update(self, now: float, update: RouteUpdate) -> None:
        """Queue a ROUTE_UPDATE; only the newest of a route is sent."""
        self._check_ready()
        self._outbox.route(update)

    def goaway(
        self, now: float, reason: str = "going_away", drain_s: int = int(limits.SESSION_DRAIN_S)
    ) -> None:
        """Take no new streams; close with `going_away` once the open ones ended, or after `drain_s`."""
        self._check_ready()
        if self._drain_until is not None:
            return
        self._last_taken = self._peer_ids.highest
        self._drain_until = now + drain_s
        body = wire.Goaway(last_id=self._last_taken, drain_s=drain_s, reason=reason)
        self._outbox.session(wire.encode_map(body))

    def close(self, now: float, code: str = "done", reason: str = "") -> None:
        """End the session now. `SessionClosed` follows in `take_events`."""
        self._end(code, reason, by_peer=False)

    # -- parts -----------------------------------------------------------------------------------------------

    def _handle(self, now: float, event: SessionInput) -> None:
        if isinstance(event, LaneData):
            self._heard_at = now
            self._lane_data(now, event)
        elif isinstance(event, Timer):
            self._timeouts(now)
        elif isinstance(event, DatagramData):
            self._heard_at = now
            if not self.ready:
                self.counters["datagrams_dropped"] += 1
                return
            frame = wire.decode_datagram(event.data)
            if frame.type == FrameType.DATA:
                self._datagram(now, frame)
            else:
                self._skip(now, frame)
        elif isinstance(event, CarrierLost):
            self._end(event.code, event.reason, by_peer=True)

    def _lane_data(self, now: float, event: LaneData) -> None:
        reader = self._readers.get(event.lane_id)
        if reader is None:
            if len(self._readers) >= limits.SESSION_LANES:
                raise WireError("too_many_lanes", f"more than {limits.SESSION_LANES}")
            reader = self._readers[event.lane_id] = LaneReader(self.config.body_limit)
        known = reader.key is not None
        if not self.ready:
            self._count_early(len(event.data))
        frames = reader.feed(event.data)
        if reader.key is not None:
            if not known:
                self._new_lane(reader.key)
            for frame in frames:
                self._frame(now, reader.key, frame)
                if self.closed:
                    return
        if event.fin:
            reader.finish()

    def _new_lane(self, key: LaneKey) -> None:
        if key in self._keys:
            raise WireError("duplicate_lane", f"a second {key}")
        self._keys.add(key)

    def _count_early(self, size: int) -> None:
        self._early_bytes += size
        allowed = limits.PRE_READY_BYTES if self._handshake.proved else limits.PRE_AUTH_BYTES
        if self._early_bytes > allowed:
            raise SessionError("pre_auth_overflow", f"{self._early_bytes} bytes before the session is ready")

    def _frame(self, now: float, lane: LaneKey, frame: Frame) -> None:
        if self.ready:
            self._ready_frame(now, lane, frame)
        elif lane != CONTROL_LANE:
            self._early.append((lane, frame))
        elif frame.type not in wire.FRAME_TYPES:
            self._skip(now, frame)
        else:
            for answer in self._handshake.receive(frame):
                self._outbox.session(answer)
                self._may_send = True
            if self._handshake.complete:
                self._become_ready(now)

    def _become_ready(self, now: float) -> None:
        peer, peer_limits = self._handshake.peer, self._handshake.peer_ready
        if peer is None or peer_limits is None:
            raise SessionError("unexpected_frame", "the handshake is not complete")
        self.ready = True
        self._limits_known(peer_limits)
        if self._keepalive_s is not None:
            # Our pings must come well within what the peer takes for silence.
            self._keepalive_s = min(self._keepalive_s, peer_limits.idle_timeout_s / 3)
        self._events.append(
            Ready(
                self.peer_node_id,
                peer.public,
                tuple(peer.capabilities),
                self._handshake.token,
                peer_limits.route_epoch,
                peer_limits.peer_epoch,
            )
        )
        early, self._early = self._early, []
        for lane, frame in early:
            self._ready_frame(now, lane, frame)

    def _ready_frame(self, now: float, lane: LaneKey, frame: Frame) -> None:
        frame_type = frame.type
        if frame_type == FrameType.DATA:
            self._data(now, lane, frame)
            return
        if frame_type not in wire.FRAME_TYPES:
            self._skip(now, frame)
        elif frame_type in _ON_STREAM_LANES:
            if frame_type == FrameType.OPEN_STREAM:
                self._open(now, lane, frame)
            elif frame_type == FrameType.STREAM_ACCEPTED:
                self._accepted(now, lane, frame)
            else:
                self._close(now, lane, frame)
        elif frame_type == FrameType.RESET_STREAM:
            self._reset(now, lane, frame)
        elif lane != CONTROL_LANE:
            raise WireError("wrong_lane", f"{FrameType(frame_type).name} on {lane}")
        elif frame.stream_id:
            self._about_stream(now, frame)
        else:
            self._about_session(now, frame)

    def _skip(self, now: float, frame: Frame) -> None:
        """A frame of a later version's type, unless it says that it must not be skipped."""
        wire.decode_frame(frame)
        self._count_news(now)
        self.counters["unknown_frames"] += 1

    def _about_session(self, now: float, frame: Frame) -> None:
        self._count_news(now)
        body = wire.decode_frame(frame)
        if isinstance(body, wire.StreamCredit):
            self.scheduler.session_credit.allow(body.allowed)
        elif isinstance(body, wire.Ping):
            self._answer(wire.encode_pong(0, body.nonce, body.time))
        elif isinstance(body, wire.Pong):
            sent = self._pings.pop(body.nonce, None)
            if sent is not None:
                rtt = now - sent
                self._measured(rtt)
                self._events.append(Pong(body.nonce, rtt))
        elif isinstance(body, wire.Goaway):
            if self._peer_goaway(now, body.last_id):
                self._events.append(PeerGoaway(body.last_id, body.drain_s, body.reason))
        elif isinstance(body, NodePressure):
            self.scheduler.peer_pressed(now, highest(body))
            self._events.append(PeerPressure(body))
        elif isinstance(body, RouteUpdate):
            self._events.append(PeerRouteUpdate(body))
        else:
            raise SessionError("unexpected_frame", f"{FrameType(frame.type).name} in a ready session")

    def _answer(self, frame: bytes) -> None:
        """A PING or PONG of the hop."""
        if not self._outbox.probe(frame):
            self.counters["pings_dropped"] += 1

    def _count_news(self, now: float) -> None:
        if not self._news.take(now, 1):
            raise SessionError("frame_flood", f"over {limits.SESSION_NEWS_PER_S} a second about the session")

    def _measured(self, rtt: float) -> None:
        """RFC 6298 section 2."""
        if self.rtt_s is None or self.rtt_var_s is None or self.rtt_best_s is None:
            self.rtt_s, self.rtt_var_s, self.rtt_best_s = rtt, rtt / 2, rtt
            return
        self.rtt_var_s += 2 * _SMOOTHING * (abs(self.rtt_s - rtt) - self.rtt_var_s)
        self.rtt_s += _SMOOTHING * (rtt - self.rtt_s)
        self.rtt_best_s = min(self.rtt_best_s, rtt)

    def _timeouts(self, now: float) -> None:
        if not self.ready:
            if now >= self._handshake_until:
                raise SessionError("handshake_timeout", f"{self.config.handshake_timeout_s} s without proof")
            return
        if now >= self._heard_at + self.config.idle_timeout_s:
            raise SessionError("idle_timeout", f"silent for {now - self._heard_at:.1f} s")
        if self._stuck_at is not None and now >= self._stuck_at + self.config.slow_peer_s:
            raise SessionError("slow_peer", f"takes nothing for {now - self._stuck_at:.1f} s")
        if self._drain_until is not None and now >= self._drain_until:
            self._end("going_away", "the time to drain is over", by_peer=False)
        elif (
            self._keepalive_s is not None and now >= max(self._heard_at, self._pinged_at) + self._keepalive_s
        ):
            self.ping(now)

    def _close_when_drained(self) -> None:
        waits = self._streams or self._leaving or self._outbox
        if self._drain_until is not None and not waits and not self.closed:
            self._end("going_away", "all streams ended", by_peer=False)

    def _chunks(self, lane: LaneKey, parts: list[Chunk]) -> list[Chunk]:
        """The lane's parts with small ones joined, after its preface if this is its first."""
        chunks: list[Chunk] = []
        small: list[Chunk] = []
        if lane not in self._opened_lanes:
            self._opened_lanes.add(lane)
            small.append(encode_preface(lane))
        for part in parts:
            if len(part) <= limits.CHUNK_JOIN_BYTES:
                small.append(part)
                continue
            if small:
                chunks.append(b"".join(small))
                small = []
            chunks.append(part)
        if small:
            chunks.append(b"".join(small))
        return chunks

    def _check_ready(self) -> None:
        self._check_open()
        if not self.ready:
            raise SessionError("not_ready", "the session is not ready")

    def _end(self, code: str, reason: str, *, by_peer: bool) -> None:
        super()._end(code, reason, by_peer=by_peer)
        self._readers.clear()
        self._early.clear()
