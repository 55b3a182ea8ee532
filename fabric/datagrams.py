"""The two directions of a stream in datagram mode: numbered packets that may be lost, doubled or reordered.

A datagram is sealed under its sequence number and never sent again. The receiver takes each number once, in
any order, as far as its replay window reaches back (RFC 6347 section 4.1.2.6), and keeps the newest where the
reader is slow. Only what shows the keys (EMPTY) and the end of the stream (END) are records on the lane.
Source: docs/wire.md, "Datagram mode".
"""

from __future__ import annotations

from collections import Counter, deque

from fabric import limits, wire
from fabric.errors import SealError, StreamError
from fabric.events import SendDatagram, SendRecord
from fabric.seal import RECORD_DATAGRAM, RECORD_EMPTY, RECORD_END, TAG_BYTES, StreamKeys

OVERHEAD_BYTES = wire.DATA_HEAD_BYTES + TAG_BYTES
"""What a datagram is longer than its plaintext."""


class DatagramSender:
    """Datagrams out. `sent` counts them: the next one's number."""

    def __init__(self) -> None:
        self.sent = 0
        self.finishing = False
        self.end_sent = False
        self.end_acknowledged = False
        self.owes_confirmation = False
        self.joining = False
        """Datagrams are never joined."""
        self._end: SendRecord | None = None
        self._again = False

    @property
    def unacknowledged(self) -> int:
        """Bytes kept for the peer: none, datagrams are not sent again."""
        return 0

    def datagram(self, keys: StreamKeys, data: wire.Buffer) -> SendDatagram:
        """Seal one datagram. Raises `stream_too_long` when the numbers are used up."""
        if self.sent >= limits.STREAM_BYTES_MAX:
            raise StreamError("stream_too_long", f"{self.sent} datagrams")
        number = self.sent
        self.sent += 1
        return SendDatagram(number, RECORD_DATAGRAM, keys.seal(number, RECORD_DATAGRAM, data))

    def allow(self, limit: int) -> None:
        """There is no window to obey."""
        del limit

    def became_writable(self) -> bool:
        """Nobody waits to send."""
        return False

    def next_record(self, keys: StreamKeys, *, behind: bool = False) -> SendRecord | None:
        """What goes on the lane now: END, once there is no more; EMPTY, to show the keys for certain."""
        del behind
        if self._again:
            self._again = False
            return self._end
        if self.finishing and self._end is None:
            self._end = SendRecord(self.sent, RECORD_END, keys.seal(self.sent, RECORD_END, b""))
            self.end_sent, self.owes_confirmation = True, False
            return self._end
        if self.owes_confirmation:
            self.owes_confirmation = False
            return SendRecord(0, RECORD_EMPTY, keys.seal(0, RECORD_EMPTY, b""))
        return None

    def acknowledge(self, upto: int) -> bool:
        """The peer has the END (1) or not yet (0); True when it has it for the first time."""
        if upto > self.end_sent:
            raise StreamError("bad_ack", f"{upto} acknowledged, the end was not sent")
        if not upto or self.end_acknowledged:
            return False
        self.end_acknowledged, self._again = True, False
        return True

    def kept(self) -> list[SendRecord]:
        """The END, until it is acknowledged."""
        return [] if self._end is None or self.end_acknowledged else [self._end]

    def resend(self) -> None:
        """An END that is not acknowledged goes again."""
        self._again = bool(self.kept())

    def clear(self) -> None:
        """Forget what was not acknowledged."""
        self._end, self._again = None, False


class DatagramReceiver:
    """Datagrams in, each at most once, bounded. `counters`: `datagrams_received`, `datagrams_replayed`,
    `datagrams_invalid`, `datagrams_overrun`.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self.counters = counters
        self.received = 0
        self.readable = 0
        self.ended = False
        self._queue: deque[bytes] = deque()
        self._end: int | None = None
        """How many datagrams there are in all, once the END said so."""
        self._highest = -1
        self._seen = 0
        """Bit n: number `_highest` - n was taken."""

    @property
    def position(self) -> int:
        """What an acknowledgement says: whether the END was taken."""
        return int(self.ended)

    @property
    def limit(self) -> int:
        """There is no window."""
        return 0

    def window_moved(self, now: float) -> bool:
        """Never: there is no window to tell of."""
        del now
        return False

    def datagram(self, keys: StreamKeys, number: int, flags: int, payload: wire.Buffer) -> bool:
        """Take a datagram; False when it was dropped. What a relay forged or played again is only counted:
        nothing depends on it. Raises `record_after_end` for a genuine one beyond those that the END counted.
        """
        if flags != RECORD_DATAGRAM or number >= limits.STREAM_BYTES_MAX:
            self.counters["datagrams_invalid"] += 1
            return False
        behind = self._highest - number
        if behind >= limits.DATAGRAM_REPLAY_WINDOW or (behind >= 0 and self._seen >> behind & 1):
            self.counters["datagrams_replayed"] += 1
            return False
        try:
            plaintext = keys.open(number, flags, payload)
        except SealError:
            self.counters["datagrams_invalid"] += 1
            return False
        if self._end is not None and number >= self._end:
            raise StreamError("record_after_end", f"datagram {number} of {self._end}")
        if behind < 0:
            mask = (1 << limits.DATAGRAM_REPLAY_WINDOW) - 1
            self._seen = (self._seen << min(-behind, limits.DATAGRAM_REPLAY_WINDOW) | 1) & mask
            self._highest = number
        else:
            self._seen |= 1 << behind
        self.counters["datagrams_received"] += 1
        self._queue.append(plaintext)
        self.readable += len(plaintext)
        while self.readable > limits.DATAGRAM_QUEUE_BYTES or len(self._queue) > limits.DATAGRAM_QUEUE:
            # The newest is worth most: what is late already will not become useful by waiting longer.
            self.readable -= len(self._queue.popleft())
            self.counters["datagrams_overrun"] += 1
        return True

    def discard(self) -> None:
        """Forget what was not read."""
        self._queue.clear()
        self.readable = 0

    def take(self, keys: StreamKeys, offset: int, flags: int, payload: wire.Buffer) -> bool:
        """A record of the lane: EMPTY or END, without plaintext. False for a copy. Raises `record_after_end`
        for another END than the first, or one that counts fewer datagrams than came.
        """
        if flags not in (RECORD_EMPTY, RECORD_END) or len(payload) != TAG_BYTES:
            raise StreamError("record_shape", f"{len(payload)} bytes with flags {flags:#x} in datagram mode")
        keys.open(offset, flags, payload)
        if flags == RECORD_EMPTY:
            return not self.ended
        if offset <= self._highest or self._end not in (None, offset):
            raise StreamError(
                "record_after_end", f"an end at {offset}, not at {self._end or self._highest + 1}"
            )
        if self.ended:
            return False
        self.ended, self._end = True, offset
        return True

    def next(self) -> bytes | None:
        """The oldest datagram that waits."""
        if not self._queue:
            return None
        data = self._queue.popleft()
        self.readable -= len(data)
        return data

    @property
    def at_end(self) -> bool:
        """Whether the END came and nothing waits."""
        return self.ended and not self._queue
