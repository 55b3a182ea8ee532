"""The streams of one hop: ids, states, credit, queues. The part of a session that is about streams.

A stream lives from OPEN until both directions are closed, or until a RESET by either end. Whatever arrives
for a dead stream is counted and dropped, because the peer may not know yet. Source: docs/wire.md, "Streams".
"""

# Long on purpose: every frame about a stream, from both sides, against the same few states.
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fabric import limits, wire
from fabric.buckets import TokenBucket
from fabric.classes import EXPRESS, Mode, TrafficClass
from fabric.credit import ReceiveWindow
from fabric.errors import RESET_REASONS, SessionError, StreamError, WireError
from fabric.events import (
    SessionClosed,
    SessionConfig,
    SessionEvent,
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
)
from fabric.handshake import Side
from fabric.lanes import CONTROL_LANE, DATAGRAM_SHARD, LaneKey, lane_for
from fabric.outbox import Outbox, encode_reset
from fabric.scheduler import Item, Pulled, Scheduler, StreamQueue
from fabric.streamids import OwnIds, PeerIds
from fabric.wire import Frame, FrameType, OpenStream, SessionReady, StreamAccepted
from fabric.writers import Writers


class HopStream(ReceiveWindow):
    """One live stream of a session, and the window that its peer has. `ours`: this end opened it."""

    __slots__ = (
        "accepted",
        "closing",
        "datagrams",
        "local_closed",
        "ours",
        "queue",
        "remote_closed",
    )

    def __init__(self, queue: StreamQueue, config: SessionConfig, now: float, *, ours: bool) -> None:
        super().__init__(config.stream_window, config.stream_window_max, now)
        self.queue = queue
        self.ours = ours
        self.accepted = False
        self.closing = False  # CLOSE is queued: nothing more may be
        self.local_closed = False  # CLOSE has left for the carrier
        self.remote_closed = False
        self.datagrams: StreamQueue | None = None  # in datagram mode: what waits for DATAGRAM frames

    @property
    def stream_id(self) -> int:
        """Of this hop."""
        return self.queue.stream_id

    @property
    def relayed(self) -> bool:
        """A relay passes it on."""
        return self.queue.relayed

    @property
    def traffic_class(self) -> TrafficClass:
        return self.queue.lane.traffic_class


class HopStreams:
    """Streams and the frames about them; `fabric.session.Session` adds the session around it."""

    def __init__(self, side: Side, config: SessionConfig, now: float) -> None:
        self.config = config
        self.counters: Counter[str] = Counter()
        """Wire errors by code, and `late_frames`, `unknown_frames`, `datagrams_dropped`, `pings_dropped`."""
        self.ready = False
        self.closed = False
        self.scheduler = Scheduler(now)
        self.received_by_class = dict.fromkeys(TrafficClass, 0)
        """Bytes of DATA frames and datagrams, since the session began."""
        self.opened_by_class = dict.fromkeys(TrafficClass, 0)
        """Streams that either end opened."""
        self.resets_sent: Counter[str] = Counter()
        """By reason; one that is not in `errors.RESET_REASONS` counts as `other`."""
        self.resets_received: Counter[str] = Counter()
        self._side = side
        self._outbox = Outbox()
        self._events: list[SessionEvent] = []
        self._streams: dict[int, HopStream] = {}
        self._ours = 0
        self._own_ids = OwnIds(2 if side is Side.DIALER else 1)
        self._peer_opens = TokenBucket(limits.SESSION_OPENS_PER_S, limits.SESSION_OPENS_BURST, now)
        self._peer_ids = PeerIds(1 if side is Side.DIALER else 2)
        self._leaving: set[int] = set()
        """Given up before the peer is known to know them: their OPEN and RESET wait for the lane."""
        self._peer_probes: dict[int, TokenBucket] = {}
        """What the peer may still ask and answer about a stream, once it did."""
        self._window = ReceiveWindow(config.session_window, config.session_window, now)
        self._peer_limits: SessionReady | None = None
        self._first_flight = 0
        self._writers = {True: Writers(), False: Writers()}
        """Streams whose writer was told to wait, by whether they are express."""
        self._last_taken = wire.U64_MAX
        """After our GOAWAY: the highest stream of the peer's that we take."""
        self._peer_drains = False
        self._peer_takes = wire.U64_MAX
        """After the peer's GOAWAY: the highest stream of ours that it takes."""

    # -- commands --------------------------------------------------------------------------------------------

    def streams(self) -> Sequence[int]:
        """Ids of live streams."""
        return tuple(self._streams)

    @property
    def in_use(self) -> bool:
        """Whether any stream is open."""
        return bool(self._streams)

    def lives(self, stream_id: int) -> bool:
        """Whether a stream is open in either direction."""
        return stream_id in self._streams

    def windows(self) -> dict[TrafficClass, tuple[int, int]]:
        """By class: how many streams live, and how many bytes their hop credit allows now."""
        found = dict.fromkeys(TrafficClass, (0, 0))
        for stream in self._streams.values():
            count, allowed = found[stream.traffic_class]
            found[stream.traffic_class] = count + 1, allowed + stream.queue.left
        return found

    def queued_by_lane(self) -> dict[LaneKey, tuple[int, int]]:
        """By lane: how many streams live on it, and how many bytes they have queued."""
        found: dict[LaneKey, tuple[int, int]] = {}
        for stream in self._streams.values():
            count, queued = found.get(stream.queue.lane, (0, 0))
            found[stream.queue.lane] = count + 1, queued + stream.queue.queued
        return found

    def queued_memory(self, stream_id: int) -> int:
        """Bytes of memory that the frames which wait to leave on a stream take, datagrams included; 0 for a
        dead one.
        """
        stream = self._live(stream_id)
        if stream is None:
            return 0
        return stream.queue.memory + (stream.datagrams.memory if stream.datagrams is not None else 0)

    def open_stream(
        self,
        now: float,
        body: OpenStream | bytes,
        *,
        lane: LaneKey | None = None,
    ) -> int:
        """Queue OPEN_STREAM and return its id.

        A dialer may open before `Ready`: a few OPENs ride in its first flight. `body` may be a raw OPEN body
        (a relay's). Raises `StreamError` (`too_many_streams`, `going_away`, `mode_not_supported`,
        `not_ready`), and `SessionError` when closed.
        """
        raw = b"" if isinstance(body, OpenStream) else body
        if not isinstance(body, OpenStream):
            body = _open_of(Frame(FrameType.OPEN_STREAM, wire.FLAG_CRITICAL, 1, body))
        self.check_room(now, body.stream_mode)
        stream_id = self._own_ids.next
        head = (
            wire.encode_frame(FrameType.OPEN_STREAM, stream_id, raw, wire.FLAG_CRITICAL)
            if raw
            else wire.encode_map(body, stream_id)
        )
        self._check_first_flight(len(head))
        self._ours += 1
        if lane is None:
            lane = lane_for(body.traffic_class, body.uid, self.config.shards.get(body.traffic_class, 1))
        self._own_ids.open(lane)
        stream = self._add(now, stream_id, lane, body.stream_mode, ours=True)
        self.scheduler.push(stream.queue, Item(head))
        return stream_id

    def check_room(self, now: float, mode: Mode) -> None:
        """Raise what `open_stream` would (but `not_ready`), were it asked now for a stream of this mode."""
        self._check_open()
        if mode is Mode.DATAGRAM and not self.config.datagrams:
            raise StreamError("mode_not_supported", "this node carries no datagrams")
        if self._peer_drains or self._last_taken != wire.U64_MAX:
            raise StreamError("going_away", "the session drains")
        alive = self._ours + len(self._leaving)
        if self._peer_limits is not None and alive >= self._peer_limits.max_streams:
            raise StreamError("too_many_streams", f"the peer takes {self._peer_limits.max_streams} at once")
        if not self._own_ids.may_open(now):
            raise StreamError("too_many_streams", "the peer may lack an OPEN from thousands of streams ago")

    def accept_stream(self, now: float, stream_id: int, body: StreamAccepted | bytes) -> None:
        """Answer a `StreamOpened`; a relay gives the raw body. Data may follow."""
        stream = self._live(stream_id)
        if stream is None:
            return
        if stream.ours or stream.accepted:
            raise StreamError("stream_state", f"stream {stream_id} is not waiting to be accepted")
        stream.accepted = True
        head = (
            wire.encode_map(body, stream_id)
            if isinstance(body, StreamAccepted)
            else wire.encode_frame(FrameType.STREAM_ACCEPTED, stream_id, body, wire.FLAG_CRITICAL)
        )
        self.scheduler.push(stream.queue, Item(head))

    def room(self, stream_id: int) -> int:
        """Bytes of frames until the stream's writer should wait; 0 also for a dead stream.

        After 0, `StreamWritable` tells when there is room again.
        """
        stream = self._streams.get(stream_id)
        if stream is None or self.closed or stream.closing:
            return 0
        left = self._room(stream)
        if left <= 0:
            full = stream.queue.queued >= limits.STREAM_QUEUE_BYTES
            self._waiting(stream).wait(stream_id, full=full)
        return max(0, left)

    def waits(self, stream_id: int) -> bool:
        """Whether frames of the stream have not left for its lane yet."""
        stream = self._streams.get(stream_id)
        return stream is not None and stream.queue.queued > 0

    def tell_when_left(self, stream_id: int) -> None:
        """`StreamWritable` follows when frames of the stream that wait have left."""
        stream = self._live(stream_id)
        if stream is not None and stream.queue.queued and not stream.closing:
            self._waiting(stream).wait(stream_id, full=True)

    def send_data(
        self, now: float, stream_id: int, offset: int, flags: int, payload: bytes | memoryview
    ) -> None:
        """Queue a record. `StreamError`: `queue_full` past the hard bound, far above what `room` allows;
        `stream_state` before ACCEPTED or after `close_stream`; `record_shape` over the peer's body limit.
        """
        stream = self._live(stream_id)
        if stream is None or self._peer_limits is None:
            return
        if not stream.accepted or stream.closing:
            raise StreamError("stream_state", f"stream {stream_id} takes no data now")
        if 8 + len(payload) > self._peer_limits.body_limit:
            raise StreamError("record_shape", f"bodies are limited to {self._peer_limits.body_limit} bytes")
        if stream.queue.queued >= limits.STREAM_QUEUE_BYTES_MAX:
            raise StreamError("queue_full", f"stream {stream_id} has {stream.queue.queued} bytes queued")
        head = wire.encode_data_head(stream_id, offset, flags, len(payload))
        self.scheduler.push(stream.queue, Item(head, payload, data=True))

    def send_datagram(
        self, now: float, stream_id: int, number: int, flags: int, payload: bytes | memoryview
    ) -> None:
        """Queue a datagram for a DATAGRAM frame; where too many wait, the stream's oldest is dropped.

        `stream_state` on a stream of another mode. Before ACCEPTED and after `close_stream` it is dropped.
        """
        stream = self._live(stream_id)
        if stream is None:
            return
        queue = stream.datagrams
        if queue is None:
            raise StreamError("stream_state", f"stream {stream_id} is not in datagram mode")
        if not stream.accepted or stream.closing:
            self.counters["datagrams_dropped"] += 1
            return
        head = wire.encode_data_head(stream_id, number, flags, len(payload))
        self.scheduler.push(queue, Item(head, payload))
        while queue.queued > limits.DATAGRAM_QUEUE_BYTES or len(queue) > limits.DATAGRAM_QUEUE:
            self.scheduler.drop_oldest(queue)
            self.counters["datagrams_dropped"] += 1

    def send_ack(self, now: float, stream_id: int, received_up_to: int, limit: int) -> None:
        """Queue an end-to-end ACK; only the newest of a stream is sent. Dropped before ACCEPTED."""
        if self._known(stream_id):
            self._outbox.ack(stream_id, received_up_to, limit)

    def consumed(self, now: float, stream_id: int, carried: int) -> None:
        """`carried` bytes of received DATA are no longer held; their credit goes back to the peer."""
        stream = self._live(stream_id)
        if stream is None:
            return  # its credit went back when it died
        if carried > stream.held:
            raise StreamError("stream_state", f"consumed {carried} of {stream.held} bytes held")
        if stream.consume(now, carried) and not stream.remote_closed:
            self._outbox.credit(stream_id, stream.limit)
        if not stream.relayed:
            self._return(now, carried)

    def adopt(self, stream_id: int, *, tenant: str) -> None:
        """A relay passes this stream on: report what leaves (`StreamSent`), and let tenants take turns.

        What comes in on it gives the session's credit back at once, so that one that cannot be passed on
        holds up nothing but itself; the relay bounds what it holds.
        """
        stream = self._live(stream_id)
        if stream is not None:
            stream.queue.relayed = True
            self.scheduler.move(stream.queue, tenant)
            if stream.datagrams is not None:
                stream.datagrams.relayed = True
                self.scheduler.move(stream.datagrams, tenant)

    def close_stream(self, now: float, stream_id: int) -> None:
        """Close our direction after everything queued; nothing if it is closed already."""
        stream = self._live(stream_id)
        if stream is not None and not stream.closing:
            stream.closing = True
            self._waiting(stream).forget(stream_id)
            self.scheduler.push(stream.queue, Item(wire.encode_map(wire.CloseStream(), stream_id), last=True))

    def reset_stream(self, now: float, stream_id: int, reason: str, detail: str = "") -> None:
        """Kill the stream in both directions at once; what is queued is dropped."""
        stream = self._live(stream_id)
        if stream is not None:
            self._give_up(now, stream, reason, detail)

    def forward_ping(self, now: float, stream_id: int, nonce: int, time: int) -> None:
        """Pass on the `StreamPing` of another hop; only the newest is sent. Dropped before ACCEPTED."""
        if self._known(stream_id):
            self._outbox.ping(stream_id, nonce, time)

    def pong(self, now: float, stream_id: int, nonce: int, time: int) -> None:
        """Answer a `StreamPing`, or pass on the `StreamPong` of another hop; as `forward_ping`."""
        if self._known(stream_id):
            self._outbox.pong(stream_id, nonce, time)

    # -- frames ----------------------------------------------------------------------------------------------

    def _data(self, now: float, lane: LaneKey, frame: Frame) -> None:
        carried = frame.size
        if not self._window.receive(carried):
            raise SessionError("credit_exceeded", f"{self._window.received} of {self._window.limit} bytes")
        self.received_by_class[lane.traffic_class] += carried
        data = wire.decode_data(frame)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id)
            self._return(now, carried)
            return
        self._check_lane(lane, stream)
        if not stream.accepted or stream.remote_closed:
            self._return(now, carried)
            reason = "record_after_end" if stream.remote_closed else "stream_state"
            self._break(now, stream, reason, "DATA before ACCEPTED or after CLOSE")
        elif not stream.receive(carried):
            if stream.relayed:
                self._return(now, carried)  # what it held before has gone back already
            self._break(now, stream, "credit_exceeded", f"{stream.limit} bytes were allowed")
        else:
            if stream.relayed:
                self._return(now, carried)
            self._events.append(StreamRecord(frame.stream_id, data.offset, data.flags, data.payload, carried))

    def _datagram(self, now: float, frame: Frame) -> None:
        """From a DATAGRAM frame. It may come before its stream's OPEN or ACCEPTED, or long after the end."""
        stream = self._streams.get(frame.stream_id)
        if stream is None or not stream.accepted or stream.remote_closed:
            self.counters["datagrams_dropped"] += 1
        elif stream.datagrams is None:
            self._break(now, stream, "stream_state", "a datagram of a stream in another mode")
        else:
            body = wire.decode_data(frame)
            self.received_by_class[stream.traffic_class] += frame.size
            self._events.append(
                StreamDatagram(frame.stream_id, body.offset, body.flags, body.payload, frame.size)
            )

    def _open(self, now: float, lane: LaneKey, frame: Frame) -> None:
        body = _open_of(frame)
        if body.class_ != lane.traffic_class:
            raise WireError("wrong_lane", f"OPEN of class {body.class_} on {lane}")
        stream_id = frame.stream_id
        self._peer_ids.open(stream_id)
        refusal = self._refusal(now, stream_id, body)
        if refusal:
            self._owe_reset(stream_id, refusal, "")
            return
        self._add(now, stream_id, lane, body.stream_mode, ours=False)
        self._events.append(StreamOpened(stream_id, body, bytes(frame.body)))

    def _accepted(self, now: float, lane: LaneKey, frame: Frame) -> None:
        body = wire.decode_frame(frame)
        stream = self._streams.get(frame.stream_id)
        self._own_ids.heard(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id)  # our RESET follows the OPEN
            return
        self._check_lane(lane, stream)
        if stream.accepted or not stream.ours:
            self._break(now, stream, "stream_state", "ACCEPTED is not due")
        elif isinstance(body, StreamAccepted):
            stream.accepted = True
            self._events.append(StreamAcceptedEvent(frame.stream_id, body, bytes(frame.body)))

    def _close(self, now: float, lane: LaneKey, frame: Frame) -> None:
        wire.decode_frame(frame)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id)
            return
        self._check_lane(lane, stream)
        if stream.remote_closed or not stream.accepted:
            self._break(now, stream, "stream_state", "CLOSE is not due")
            return
        stream.remote_closed = True
        dead = stream.local_closed
        if dead:
            self._bury(now, stream)
        self._events.append(StreamClosed(frame.stream_id, dead))

    def _reset(self, now: float, lane: LaneKey, frame: Frame) -> None:
        """On the control lane, or right behind an OPEN that it takes back on the stream's own."""
        body = wire.decode_frame(frame)
        stream_id = frame.stream_id
        stream = self._streams.get(stream_id)
        self._own_ids.heard(stream_id)
        if stream is None:
            self._late(stream_id)
            return
        if lane != CONTROL_LANE:
            self._check_lane(lane, stream)
        if isinstance(body, wire.ResetStream):
            self._bury(now, stream)
            self.resets_received[_known_reason(body.reason)] += 1
            self._events.append(StreamReset(stream_id, body.reason, body.detail))

    def _about_stream(self, now: float, frame: Frame) -> None:
        """ACK, STREAM_CREDIT, PING and PONG of a stream, from the control lane."""
        body = wire.decode_frame(frame)
        stream = self._streams.get(frame.stream_id)
        if stream is None:
            self._late(frame.stream_id)
        elif isinstance(body, wire.Ack):
            self._events.append(StreamAck(frame.stream_id, body.received_up_to, body.limit))
        elif isinstance(body, wire.StreamCredit):
            self.scheduler.allow(stream.queue, body.allowed)
        elif not self._may_probe(now, frame.stream_id):
            self.counters["pings_dropped"] += 1
        elif isinstance(body, wire.Ping):
            self._events.append(StreamPing(frame.stream_id, body.nonce, body.time))
        elif isinstance(body, wire.Pong):
            self._events.append(StreamPong(frame.stream_id, body.nonce, body.time))

    def _limits_known(self, peer_limits: SessionReady) -> None:
        """The peer's SESSION_READY: streams opened in the first flight get their credit."""
        self._peer_limits = peer_limits
        self.scheduler.session_credit.allow(peer_limits.session_credit)
        self.scheduler.reserve = min(peer_limits.session_reserve, peer_limits.session_credit // 2)
        for stream in self._streams.values():
            self.scheduler.allow(stream.queue, peer_limits.stream_credit)

    def _peer_goaway(self, now: float, last_id: int) -> bool:
        """The peer takes none of ours above `last_id`. False where an earlier GOAWAY said as much: then
        nobody looks at every stream again.
        """
        first, self._peer_drains = not self._peer_drains, True
        if last_id >= min(self._peer_takes, self._own_ids.next):
            return first
        self._peer_takes = last_id
        gone = [s for s in self._streams.values() if s.ours and s.stream_id > last_id]
        for stream in gone:
            self._bury(now, stream)
            self._events.append(StreamReset(stream.stream_id, "going_away"))
        return first or bool(gone)

    def _left(self, now: float, pulled: list[Pulled]) -> None:
        """Frames left for the carrier: close what closed, report what was asked for."""
        sent: dict[int, int] = {}
        for queue, item in pulled:
            stream = self._streams.get(queue.stream_id)
            self._own_ids.left(now, queue.stream_id)
            if stream is None:
                if item.last:
                    self._leaving.discard(queue.stream_id)
                continue
            if item.last:
                stream.local_closed = True
                if stream.remote_closed:
                    self._bury(now, stream)
            if stream.relayed:
                sent[queue.stream_id] = sent.get(queue.stream_id, 0) + item.carried
        self._events += [StreamSent(stream_id, carried) for stream_id, carried in sent.items()]
        self._wake(dict.fromkeys(queue.stream_id for queue, _ in pulled))

    def _wake(self, drained: Iterable[int] = ()) -> None:
        """Tell writers that waited and may go on; `drained` are streams of which frames left."""
        for express, writers in self._writers.items():
            if writers:
                shared = None if express else self._shared_room()
                woken = writers.wake(drained, self._own_room, limits.STREAM_QUEUE_BYTES // 2, shared)
                self._events += map(StreamWritable, woken)

    # -- parts -----------------------------------------------------------------------------------------------

    def _fail(self, error: WireError | SessionError) -> None:
        self.counters[error.code] += 1
        self._end(error.code, error.sentence, by_peer=False)

    def _end(self, code: str, reason: str, *, by_peer: bool) -> None:
        """The session is over; nothing follows this event."""
        if not self.closed:
            self.closed = True
            self._streams.clear()
            self._leaving.clear()
            self._events.append(SessionClosed(code, reason, by_peer))

    def _check_open(self) -> None:
        if self.closed:
            raise SessionError("closed", "the session is over")

    def _check_first_flight(self, size: int) -> None:
        if self.ready:
            return
        if self._side is Side.LISTENER or self._first_flight + size > limits.SESSION_FIRST_FLIGHT_BYTES:
            raise StreamError("not_ready", "the session is not ready")
        self._first_flight += size

    def _live(self, stream_id: int) -> HopStream | None:
        return None if self.closed else self._streams.get(stream_id)

    def _known(self, stream_id: int) -> bool:
        """Whether the peer knows a live stream for sure: frames of the control lane may pass its OPEN."""
        stream = self._live(stream_id)
        return stream is not None and (stream.accepted or not stream.ours)

    def _may_probe(self, now: float, stream_id: int) -> bool:
        bucket = self._peer_probes.get(stream_id)
        if bucket is None:
            bucket = TokenBucket(limits.STREAM_PROBES_PER_S, limits.STREAM_PROBES_BURST, now)
            self._peer_probes[stream_id] = bucket
        return bucket.take(now, 1)

    def _add(self, now: float, stream_id: int, lane: LaneKey, mode: Mode, *, ours: bool) -> HopStream:
        credit = self._peer_limits.stream_credit if self._peer_limits is not None else 0
        queue = StreamQueue(stream_id, lane, credit, now)
        self.opened_by_class[lane.traffic_class] += 1
        stream = self._streams[stream_id] = HopStream(queue, self.config, now, ours=ours)
        if mode is Mode.DATAGRAM:
            stream.datagrams = StreamQueue(stream_id, LaneKey(lane.traffic_class, DATAGRAM_SHARD), 0, now)
        return stream

    def _bury(self, now: float, stream: HopStream) -> None:
        """The stream is dead; what it held goes back to the session's credit."""
        del self._streams[stream.stream_id]
        self._ours -= stream.ours
        self._waiting(stream).forget(stream.stream_id)
        self.scheduler.drop(stream.queue)
        if stream.datagrams is not None:
            self.scheduler.drop(stream.datagrams)
        self._outbox.forget(stream.stream_id)
        self._peer_probes.pop(stream.stream_id, None)
        if not stream.relayed:
            self._return(now, stream.held)

    def _give_up(self, now: float, stream: HopStream, reason: str, detail: str) -> None:
        """Bury the stream and tell the peer: behind the OPEN where it may not have come yet."""
        stream_id, queue = stream.stream_id, stream.queue
        if self._known(stream_id):
            self._bury(now, stream)
            self._owe_reset(stream_id, reason, detail)
            return
        unsent = queue.first if queue.queued and not queue.first.last else None
        self._bury(now, stream)
        self.resets_sent[_known_reason(reason)] += 1
        self._leaving.add(stream_id)
        if unsent is not None:
            self.scheduler.push(queue, unsent)
        self.scheduler.push(queue, Item(encode_reset(stream_id, reason, detail), last=True))

    def _break(self, now: float, stream: HopStream, reason: str, detail: str) -> None:
        """The peer broke this stream's rules: reset it and tell both ends."""
        self._give_up(now, stream, reason, detail)
        self._events.append(StreamReset(stream.stream_id, reason, detail))

    def _return(self, now: float, carried: int) -> None:
        if carried and self._window.consume(now, carried):
            self._outbox.credit(0, self._window.limit)

    def _refusal(self, now: float, stream_id: int, body: OpenStream) -> str:
        if stream_id > self._last_taken:
            return "going_away"
        if len(self._streams) - self._ours >= self.config.max_streams:
            return "too_many_streams"
        if not self._peer_opens.take(now, 1):
            # A stream that is opened and reset at once is never one of too many, and costs as much.
            return "too_many_streams"
        refused = body.mode == Mode.DATAGRAM and not self.config.datagrams
        return "mode_not_supported" if refused else ""

    def _waiting(self, stream: HopStream) -> Writers:
        return self._writers[stream.queue.lane.traffic_class in EXPRESS]

    def _own_room(self, stream_id: int) -> int:
        return limits.STREAM_QUEUE_BYTES - self._streams[stream_id].queue.queued

    def _room(self, stream: HopStream) -> int:
        left = limits.STREAM_QUEUE_BYTES - stream.queue.queued
        if stream.queue.lane.traffic_class in EXPRESS:
            return left
        return min(left, self._shared_room())

    def _shared_room(self) -> int:
        """What streams that wait for their own credit have queued holds up nobody else, nor does what a relay
        passes on: of that there is always more, and the node's own streams take their turns with it.
        """
        return limits.SESSION_QUEUE_BYTES - self.scheduler.queued + self.scheduler.stuck

    def _late(self, stream_id: int) -> None:
        """A frame of a stream that is not alive: normal after a RESET, an error for one that never was."""
        if self._peer_ids.mine(stream_id):
            unopened = stream_id > self._peer_ids.highest
        else:
            unopened = stream_id >= self._own_ids.next
        if unopened:
            raise WireError("bad_stream_id", f"stream {stream_id} was never opened")
        self.counters["late_frames"] += 1

    def _owe_reset(self, stream_id: int, reason: str, detail: str) -> None:
        self.resets_sent[_known_reason(reason)] += 1
        if not self._outbox.reset(stream_id, reason, detail):
            self._fail(SessionError("reset_flood", f"{limits.SESSION_PENDING_RESETS} wait to be read"))

    @staticmethod
    def _check_lane(lane: LaneKey, stream: HopStream) -> None:
        if lane != stream.queue.lane:
            raise WireError("wrong_lane", f"stream {stream.stream_id} is on {stream.queue.lane}, not {lane}")


def _known_reason(reason: str) -> str:
    return reason if reason in RESET_REASONS else "other"


def _open_of(frame: Frame) -> OpenStream:
    body = wire.decode_frame(frame)
    if not isinstance(body, OpenStream):
        raise WireError("bad_body", "not an OPEN_STREAM")
    return body
