"""One sealed stream between two nodes, bound to one hop stream at a time; no input or output of its own.

Plaintext in, records out; records in, plaintext out. Everything that a relay or a network may do to records
is found out here, and ends the stream with a named reason. A carrier that is lost is no end: the stream waits
`hold_s` for another and goes on at the record where it was.

    phase    OPENING -> OPEN        initiator, at ACCEPTED
             UNCONFIRMED -> OPEN    responder, at the first proof of the keys: a record, or a resumption
             OPEN -> DONE -> OVER   both directions ended -> the other end knows it too (its CLOSE)
    hop      BOUND -> LOST -> RESUMING -> BOUND; a responder goes from LOST, or BOUND, to BOUND at once

Source: docs/wire.md, "Sealed streams" and "Resumption".
"""

# Long on purpose: the states of one end, and every way from one to another, read in one place.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Self

from fabric import wire
from fabric.binding import Binding
from fabric.classes import Mode, TrafficClass
from fabric.datagrams import DatagramReceiver, DatagramSender
from fabric.errors import StreamError
from fabric.events import (
    DataReadable,
    Failed,
    Finished,
    HopAccepted,
    HopAck,
    HopClosed,
    HopDatagram,
    HopInput,
    HopLost,
    HopRecord,
    HopReset,
    Opened,
    Resumed,
    SendAccepted,
    SendAck,
    SendClose,
    SendDatagram,
    SendOpen,
    SendRecord,
    SendReset,
    StreamConfig,
    StreamEffect,
    StreamEvent,
    StreamTimer,
    Suspended,
    Writable,
)
from fabric.handshake import Identity
from fabric.records import RecordReceiver, RecordSender
from fabric.seal import RECORD_EMPTY, SealContext
from fabric.session import Session
from fabric.wire import OpenStream, Resume, RouteRef, StreamAccepted

__all__ = [
    "DataReadable",
    "EndToEnd",
    "Failed",
    "Finished",
    "HopAccepted",
    "HopAck",
    "HopClosed",
    "HopDatagram",
    "HopInput",
    "HopLost",
    "HopRecord",
    "HopReset",
    "Opened",
    "Resumed",
    "SendAccepted",
    "SendAck",
    "SendClose",
    "SendDatagram",
    "SendOpen",
    "SendRecord",
    "SendReset",
    "StreamConfig",
    "StreamEffect",
    "StreamEvent",
    "StreamTimer",
    "Suspended",
    "Writable",
    "perform",
]

Outcome = StreamEffect | StreamEvent


class _Phase(Enum):
    OPENING = "opening"  # initiator: waiting for ACCEPTED
    UNCONFIRMED = "unconfirmed"  # responder: waiting for the first valid record
    OPEN = "open"
    DONE = "done"  # both directions ended here; the other end may still need to hear so
    OVER = "over"


class _Hop(Enum):
    BOUND = "bound"
    LOST = "lost"
    RESUMING = "resuming"  # initiator: an OPEN is on its way over another hop stream


class EndToEnd:
    """One end of a sealed stream.

    A shell drives it so: `handle(now, HopRecord(...))` and the like for events of its hop stream; `write`,
    `finish`, `read`, `reset` for the service above; then `pull(now, session.room(id))` whenever something may
    have become sendable: after any of those calls, and on `StreamWritable`. They return effects and events in
    one list; `perform` carries the effects out on a `Session` and returns the events.
    """

    __slots__ = (
        "_ack_due",
        "_binding",
        "_counters",
        "_deadline",
        "_held_until",
        "_hop",
        "_lost",
        "_peer_closed",
        "_phase",
        "_receiver",
        "_sender",
        "hold_s",
        "is_initiator",
    )

    def __init__(
        self,
        now: float,
        phase: _Phase,
        binding: Binding,
        config: StreamConfig,
        hold_s: int,
    ) -> None:
        """Use `initiate` or `respond`."""
        self.is_initiator = phase is _Phase.OPENING
        self.hold_s = hold_s
        """How long the stream is kept without a carrier."""
        self._counters: Counter[str] | None = None
        self._phase = phase
        self._hop = _Hop.BOUND
        self._binding = binding
        self._deadline: float | None = now + (
            config.accept_timeout_s if phase is _Phase.OPENING else config.confirm_timeout_s
        )
        self._held_until = 0.0
        self._lost = ("", "")
        self._peer_closed = False
        self._sender: RecordSender | DatagramSender
        self._receiver: RecordReceiver | DatagramReceiver
        if binding.context.mode is Mode.DATAGRAM:
            self._sender, self._receiver = DatagramSender(), DatagramReceiver(self.counters)
        else:
            self._sender, self._receiver = RecordSender(config), RecordReceiver(config, now)
        self._ack_due = False

    @classmethod
    def initiate(
        cls,
        now: float,
        identity: Identity,
        cluster_id: str,
        responder: str,
        service: str,
        traffic_class: TrafficClass,
        random_bytes: Callable[[int], bytes],
        *,
        mode: Mode = Mode.STREAM,
        route: RouteRef | None = None,
        config: StreamConfig | None = None,
    ) -> tuple[Self, SendOpen]:
        """Start a stream to the node id `responder`, which may be hops away."""
        config = config or StreamConfig()
        context = SealContext(
            cluster_id=cluster_id,
            initiator=identity.node_id,
            responder=responder,
            uid=random_bytes(16),
            service=service,
            traffic_class=traffic_class,
            mode=mode,
            route=route,
        )
        binding = Binding.initiate(context, identity, random_bytes(32), config.suites)
        self = cls(now, _Phase.OPENING, binding, config, 0 if mode is Mode.PROBE else config.hold_s)
        return self, SendOpen(binding.opening(self._receiver.limit, self.hold_s))

    @classmethod
    def respond(
        cls,
        now: float,
        identity: Identity,
        cluster_id: str,
        expected_initiator: str,
        open_body: OpenStream,
        random_bytes: Callable[[int], bytes],
        *,
        config: StreamConfig | None = None,
    ) -> tuple[Self, list[Outcome]]:
        """Answer an OPEN that `expected_initiator` must have signed: the peer, or the lease's first hop.

        Raises `SealError` (`seal_initiator`, `seal_key`, `seal_signature`, `seal_suite`); reset the hop
        stream with it.
        """
        mode = open_body.stream_mode
        config = config or StreamConfig()
        context = SealContext(
            cluster_id=cluster_id,
            initiator=expected_initiator,
            responder=identity.node_id,
            uid=open_body.uid,
            service=open_body.service,
            traffic_class=open_body.traffic_class,
            mode=mode,
            route=open_body.route,
        )
        binding = Binding.respond(context, identity, open_body.seal, random_bytes(32), config.suites)
        hold_s = 0 if mode is Mode.PROBE else min(config.hold_s, open_body.hold_s)
        self = cls(now, _Phase.UNCONFIRMED, binding, config, hold_s)
        self._sender.allow(open_body.limit)
        outcome: list[Outcome] = [SendAccepted(binding.acceptance(self._receiver.limit))]
        if mode is Mode.PROBE:
            outcome.append(SendClose())
        return self, outcome

    @property
    def uid(self) -> bytes:
        """16 bytes, the same on all hops."""
        return self._binding.context.uid

    @property
    def service(self) -> str:
        """The logical name of the OPEN."""
        return self._binding.context.service

    @property
    def traffic_class(self) -> TrafficClass:
        """The class that was asked for."""
        return self._binding.context.traffic_class

    @property
    def mode(self) -> Mode:
        """The mode of the OPEN."""
        return self._binding.context.mode

    @property
    def peer_node_id(self) -> str:
        """The node at the other end."""
        context = self._binding.context
        return context.responder if self.is_initiator else context.initiator

    @property
    def route(self) -> RouteRef | None:
        """The leased route of the hop stream: the one it takes, is trying to take, or took last."""
        return self._binding.next_route if self._hop is _Hop.RESUMING else self._binding.context.route

    @property
    def over(self) -> bool:
        """Whether nothing is expected any more, not even a resumption."""
        return self._phase is _Phase.OVER

    @property
    def bound(self) -> bool:
        """Whether the stream has a carrier, rather than waiting for one."""
        return self._hop is _Hop.BOUND

    @property
    def lost(self) -> tuple[str, str]:
        """Why the stream has no carrier: reason and detail of how it lost the last one."""
        return self._lost

    @property
    def resuming(self) -> bool:
        """Whether an OPEN of ours is on its way over another hop stream."""
        return self._hop is _Hop.RESUMING and self._phase is not _Phase.OVER

    # -- resumption ------------------------------------------------------------------------------------------

    def resume(self, now: float, route: RouteRef | None = None) -> SendOpen:
        """Initiator: go on over a new hop stream, on `route`; opens it with the returned OPEN.

        From now on give this machine that hop stream's events, not the old one's. `Resumed` follows, or
        `Suspended` when this way failed. Raises `StreamError` (`stream_state`) when it cannot be resumed.
        """
        if not self.is_initiator or not self._resumable:
            raise StreamError("stream_state", "the stream cannot be resumed")
        if self._hop is _Hop.BOUND:
            self._held_until = now + self.hold_s
            self._lost = ("route_failed", "the stream left its carrier")
        self._hop = _Hop.RESUMING
        self._receiver.window_moved(now)
        receiver = self._receiver
        return SendOpen(self._binding.reopening(route, receiver.position, receiver.limit, self.hold_s))

    def resumed(self, now: float, open_body: OpenStream) -> list[Outcome]:
        """Responder: the initiator goes on over the hop stream of this OPEN, whether or not the old one is
        known to be lost. The effects are for the new hop stream; reset the old one.

        Raises `StreamError` (`gone`, `resume_invalid`, `resume_stale`, `bad_ack`) and leaves the stream as it
        is; reset the new hop stream with its code.
        """
        if self.is_initiator or not self._resumable:
            raise StreamError("gone", "the stream cannot be resumed")
        resume = self._binding.reopened(open_body)
        self._receiver.window_moved(now)
        outcome = self._go_on(resume)
        accepted = self._binding.reacceptance(self._receiver.position, self._receiver.limit)
        return [SendAccepted(accepted), *outcome]

    @property
    def _resumable(self) -> bool:
        keyed = self._phase in (_Phase.UNCONFIRMED, _Phase.OPEN, _Phase.DONE)
        return keyed and self.hold_s > 0

    def _go_on(self, resume: Resume) -> list[Outcome]:
        """Both ends know where each other is: send again what is missing."""
        self._sender.allow(resume.limit)
        self._sender.acknowledge(resume.received_up_to)
        self._sender.resend()
        self._hop, self._ack_due, self._peer_closed = _Hop.BOUND, False, False
        self.counters["resumed"] += 1
        self.counters["records_resent"] += len(self._sender.kept())
        # The proof shows what the first record would: that the initiator holds the keys.
        outcome: list[Outcome] = [Resumed(), *self._confirmed()]
        if self._sender.end_acknowledged:
            outcome += [SendClose(), *self._finished()]
        return outcome

    def _suspend(self, now: float, reason: str, detail: str) -> list[Outcome]:
        if not self._resumable:
            return self._fail(reason, detail, tell_peer=False)
        if self._hop is _Hop.BOUND:
            self._held_until = now + self.hold_s
            self._lost = (reason, detail)
        self._hop = _Hop.LOST
        return [Suspended(reason)]

    @property
    def counters(self) -> Counter[str]:
        """`records_sent`, `records_received`, `records_resent`, `duplicate_records`, `resumed`; of datagrams,
        `datagrams_sent` and the ways of not arriving.
        """
        if self._counters is None:  # most streams of a node have carried nothing yet
            self._counters = Counter()
        return self._counters

    # -- the hop stream --------------------------------------------------------------------------------------

    def handle(self, now: float, event: HopInput) -> list[Outcome]:
        """Take one input from the hop stream or the timer."""
        if self._phase is _Phase.OVER:
            return []
        try:
            if isinstance(event, HopRecord):
                return self._record(event)
            if isinstance(event, HopDatagram):
                return self._datagram(event)
            if isinstance(event, HopAck):
                return self._ack(event)
            if isinstance(event, HopAccepted):
                return self._accepted(now, event.accepted)
            if isinstance(event, HopClosed):
                return self._closed()
            if isinstance(event, HopReset):
                return self._reset(now, event)
            if isinstance(event, HopLost):
                return self._suspend(now, event.reason, event.detail)
            return self._timeout(now)
        except StreamError as error:
            return self._fail(error.code, error.sentence)

    def pull(self, now: float, room: int, *, behind: bool = False) -> list[Outcome]:
        """What may be sent now: records of about `room` bytes of frames in all, at least one if room > 0.

        `behind`: frames of this stream wait in the session already. Then a few bytes stay where others can
        join them (`joining`), and the shell pulls again when those have left.
        """
        outcome: list[Outcome] = []
        if self._phase is _Phase.OVER or self._hop is not _Hop.BOUND:
            return outcome
        if self._receiver.window_moved(now) or self._ack_due:
            outcome.append(self._acknowledge())
        sender, keys = self._sender, self._binding.keys
        if self._phase is _Phase.OPEN and keys is not None:
            while room > 0 and (record := sender.next_record(keys, behind=behind)) is not None:
                room -= wire.DATA_HEAD_BYTES + len(record.ciphertext)
                outcome.append(record)
                if record.flags != RECORD_EMPTY:
                    self.counters["records_sent"] += 1
            if sender.became_writable():
                outcome.append(Writable())
        return outcome

    def timer(self) -> float | None:
        """When `handle(now, StreamTimer())` is due, if at all."""
        if self._phase is _Phase.OVER:
            return None
        return self._deadline if self._hop is _Hop.BOUND else self._held_until

    # -- the service above -----------------------------------------------------------------------------------

    def write(self, data: wire.Buffer) -> int:
        """Take bytes to send, all or as many as the send buffer holds; returns how many.

        When it took fewer, `Writable` follows. Raises `StreamError` (`stream_state`) after `finish` or on a
        stream that is over, `stream_too_long` past what one key may seal.
        """
        sender = self._sender
        if not isinstance(sender, RecordSender) or not self._takes_data:
            raise StreamError("stream_state", "the stream takes no more data")
        return sender.write(data)

    def send(self, data: wire.Buffer) -> list[Outcome]:
        """Datagram mode: seal one datagram for the hop stream. While the stream has no carrier or is not
        confirmed, the datagram is lost (`datagrams_unsent`), as any may be. Raises as `write` does.
        """
        sender, keys = self._sender, self._binding.keys
        if not isinstance(sender, DatagramSender) or not self._takes_data:
            raise StreamError("stream_state", "the stream takes no datagrams")
        if keys is None or self._phase is not _Phase.OPEN or self._hop is not _Hop.BOUND:
            self.counters["datagrams_unsent"] += 1
            return []
        self.counters["datagrams_sent"] += 1
        return [sender.datagram(keys, data)]

    def receive(self) -> bytes | None:
        """Datagram mode: the oldest datagram that waits; None when there is none."""
        return self._receiver.next() if isinstance(self._receiver, DatagramReceiver) else None

    @property
    def _takes_data(self) -> bool:
        over = self._phase in (_Phase.DONE, _Phase.OVER)
        return not (self._sender.finishing or over or self.mode is Mode.PROBE)

    def finish(self) -> None:
        """End of data after what was written; nothing if it was said before."""
        self._sender.finishing = True

    def read(self, max_bytes: int = -1) -> bytes:
        """Bytes that arrived, in order; b"" when there are none now. Frees window; follow with `pull`."""
        return self._receiver.read(max_bytes) if isinstance(self._receiver, RecordReceiver) else b""

    def discard(self) -> None:
        """Forget what was not read: nobody will."""
        self._receiver.discard()

    @property
    def readable(self) -> int:
        """Bytes that `read` would give."""
        return self._receiver.readable

    @property
    def at_end(self) -> bool:
        """Whether the peer's sealed end was reached and everything before it was read."""
        return self._receiver.at_end

    @property
    def moved(self) -> tuple[int, int]:
        """Plaintext bytes sealed and received; in datagram mode the counters tell instead."""
        if self.mode is Mode.DATAGRAM:
            return 0, 0
        return self._sender.sent, self._receiver.received

    @property
    def joining(self) -> bool:
        """Whether the last `pull` left bytes to be joined with others."""
        return self._sender.joining

    @property
    def unacknowledged(self) -> int:
        """Plaintext bytes written that the peer has not acknowledged, unsealed or in flight."""
        return self._sender.unacknowledged

    @property
    def end_acknowledged(self) -> bool:
        """Whether the peer has acknowledged our end of data."""
        return self._sender.end_acknowledged

    def reset(self, reason: str = "cancelled", detail: str = "") -> list[Outcome]:
        """Give the stream up in both directions."""
        return [] if self._phase is _Phase.OVER else self._fail(reason, detail)

    # -- parts -----------------------------------------------------------------------------------------------

    def _accepted(self, now: float, accepted: StreamAccepted) -> list[Outcome]:
        if self._hop is _Hop.RESUMING:
            try:
                return self._go_on(self._binding.reaccepted(accepted))
            except StreamError as error:
                # Whoever answered is not the other end, or lies: another way may lead to it.
                return [
                    SendReset(error.code, error.sentence),
                    *self._suspend(now, error.code, error.sentence),
                ]
        if self._phase is not _Phase.OPENING:
            raise StreamError("stream_state", "ACCEPTED is not due")
        self._binding.accepted(accepted)
        self._deadline = None
        if self.mode is Mode.PROBE:
            self._phase = _Phase.OVER
            return [SendClose(), Opened(self.peer_node_id), Finished()]
        self._phase = _Phase.OPEN
        self._sender.allow(accepted.limit)
        self._sender.owes_confirmation = True
        return [Opened(self.peer_node_id)]

    def _record(self, record: HopRecord) -> list[Outcome]:
        receiver, keys = self._receiver, self._binding.keys
        if keys is None or self._hop is not _Hop.BOUND or self.mode is Mode.PROBE:
            raise StreamError("stream_state", "a record is not due")
        before = receiver.received
        if not receiver.take(keys, record.offset, record.flags, record.payload):
            self.counters["duplicate_records"] += 1
            return []
        if record.flags != RECORD_EMPTY:
            self.counters["records_received"] += 1
        outcome: list[Outcome] = []
        outcome += self._confirmed()
        if receiver.ended:
            # At once and not by `pull`: when this finishes the stream, nobody pulls any more.
            outcome.append(self._acknowledge())
        elif receiver.received > before:
            self._ack_due = True
        if receiver.ended or receiver.received > before:
            outcome.append(DataReadable())
        return outcome + self._finished()

    def _datagram(self, datagram: HopDatagram) -> list[Outcome]:
        receiver, keys = self._receiver, self._binding.keys
        if keys is None or not isinstance(receiver, DatagramReceiver) or self._hop is not _Hop.BOUND:
            raise StreamError("stream_state", "a datagram is not due")
        if receiver.datagram(keys, datagram.number, datagram.flags, datagram.payload):
            return [*self._confirmed(), DataReadable()]
        return []

    def _confirmed(self) -> list[Outcome]:
        """Something showed that the initiator holds the keys; a responder learns it once."""
        if self._phase is not _Phase.UNCONFIRMED:
            return []
        self._phase, self._deadline = _Phase.OPEN, None
        return [Opened(self.peer_node_id)]

    def _ack(self, ack: HopAck) -> list[Outcome]:
        self._sender.allow(ack.limit)
        if self._sender.acknowledge(ack.received_up_to):
            return [SendClose(), *self._finished()]
        return []

    def _closed(self) -> list[Outcome]:
        if self.mode is Mode.PROBE:
            self._phase = _Phase.OVER
            return [Finished()]
        if not self._receiver.ended:
            raise StreamError("stream_truncated", f"closed at {self._receiver.received} without a sealed end")
        self._peer_closed = True
        if self._phase is _Phase.DONE:
            self._phase = _Phase.OVER
        return []

    def _reset(self, now: float, reset: HopReset) -> list[Outcome]:
        if self._hop is _Hop.RESUMING and reset.reason != "gone":
            return self._suspend(now, reset.reason, reset.detail)
        return self._fail(reset.reason, reset.detail, tell_peer=False)

    def _timeout(self, now: float) -> list[Outcome]:
        at = self.timer()
        if at is None or now < at:
            return []
        if self._hop is not _Hop.BOUND:
            reason, detail = self._lost
            return self._fail(reason, f"{detail}; no other way in {self.hold_s} s".lstrip("; "))
        raise StreamError("accept_timeout" if self._phase is _Phase.OPENING else "confirm_timeout")

    def _acknowledge(self) -> SendAck:
        self._ack_due = False
        return SendAck(self._receiver.position, self._receiver.limit)

    def _finished(self) -> list[Outcome]:
        if self._phase is _Phase.DONE or not (self._receiver.ended and self._sender.end_acknowledged):
            return []
        self._phase = _Phase.DONE if self.hold_s and not self._peer_closed else _Phase.OVER
        return [Finished()]

    def _fail(self, reason: str, detail: str, *, tell_peer: bool = True) -> list[Outcome]:
        if self._phase is _Phase.DONE:
            # All was delivered both ways, and said so; nothing is lost with the hop stream.
            self._phase = _Phase.OVER
            return [SendReset(reason, detail)] if tell_peer else []
        self._phase = _Phase.OVER
        self._sender.clear()
        failed: list[Outcome] = [Failed(reason, detail)]
        return [SendReset(reason, detail), *failed] if tell_peer else failed


def perform(now: float, session: Session, stream_id: int, outcome: Sequence[Outcome]) -> list[StreamEvent]:
    """Carry out the effects on the hop stream; returns the events among them, in order."""
    events: list[StreamEvent] = []
    for item in outcome:
        if isinstance(item, SendRecord):
            session.send_data(now, stream_id, item.offset, item.flags, item.ciphertext)
        elif isinstance(item, SendDatagram):
            session.send_datagram(now, stream_id, item.number, item.flags, item.ciphertext)
        elif isinstance(item, SendAck):
            session.send_ack(now, stream_id, item.received_up_to, item.limit)
        elif isinstance(item, SendAccepted):
            session.accept_stream(now, stream_id, item.accepted)
        elif isinstance(item, SendClose):
            session.close_stream(now, stream_id)
        elif isinstance(item, SendReset):
            session.reset_stream(now, stream_id, item.reason, item.detail)
        else:
            events.append(item)
    return events
