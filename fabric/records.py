"""The two directions of a sealed stream: what is sealed, sent and kept; what is opened, ordered and bounded.

Offsets count plaintext. The end of data takes one more position, so that it is acknowledged like a byte.
Source: docs/wire.md, "Records".
"""

from __future__ import annotations

from collections import deque
from typing import Final

from fabric import limits, wire
from fabric.buffers import SendBuffer
from fabric.credit import ReceiveWindow
from fabric.errors import StreamError
from fabric.events import SendRecord, StreamConfig
from fabric.seal import RECORD_EMPTY, RECORD_END, TAG_BYTES, StreamKeys

_FLAGS: Final = frozenset({0, RECORD_END, RECORD_EMPTY})


class RecordSender:
    """Plaintext in, records out. Records are kept until they are acknowledged, never more than a window."""

    __slots__ = (
        "_again",
        "_kept",
        "_kept_max",
        "_limit",
        "_send_buffer",
        "_unsealed",
        "_writer_waits",
        "acknowledged",
        "end_acknowledged",
        "end_sent",
        "finishing",
        "joining",
        "owes_confirmation",
        "sent",
    )

    def __init__(self, config: StreamConfig) -> None:
        self._send_buffer = config.send_buffer
        self._kept_max = config.window_max
        self._unsealed = SendBuffer()
        self._kept: deque[SendRecord] | None = None  # while there are any
        self._again = 0  # how many of those kept, the last ones, are still to be sent again
        self._limit = 0
        self._writer_waits = False
        self.sent = 0
        """Plaintext bytes sealed so far: the next record's offset."""
        self.acknowledged = 0
        self.finishing = False
        self.end_sent = False
        self.end_acknowledged = False
        self.owes_confirmation = False
        """An initiator has not shown yet that it holds the keys."""
        self.joining = False
        """Whether the last look left bytes unsealed, to be joined with what comes."""

    @property
    def unacknowledged(self) -> int:
        """Plaintext bytes written and not acknowledged, unsealed or in flight."""
        return self._unsealed.size + self.sent - self.acknowledged

    def write(self, data: wire.Buffer) -> int:
        """Take as many bytes as the send buffer holds; returns how many. Raises `stream_too_long`."""
        if self.sent + self._unsealed.size + len(data) > limits.STREAM_BYTES_MAX:
            raise StreamError("stream_too_long", f"over {limits.STREAM_BYTES_MAX} bytes")
        count = max(0, min(len(data), self._send_buffer - self._unsealed.size))
        if count < len(data):
            self._writer_waits = True
            data = memoryview(data)[:count]
        if count:
            self._unsealed.append(data)
        return count

    def became_writable(self) -> bool:
        """Whether a writer that was told to wait may go on; says so once."""
        if not self._writer_waits or self._unsealed.size > self._send_buffer // 2:
            return False
        self._writer_waits = False
        return True

    def allow(self, limit: int) -> None:
        """The peer's window reaches to this offset; an older, smaller one changes nothing."""
        self._limit = max(self._limit, limit)

    def next_record(self, keys: StreamKeys, *, behind: bool = False) -> SendRecord | None:
        """What goes next: a record that is sent again, or one sealed now; None when nothing may go.

        `behind`: it would wait behind others of this stream, so a small one is not sealed yet (`joining`).
        """
        self.joining = False
        if self._again and self._kept:
            self._again -= 1
            return self._kept[-1 - self._again]
        waiting = self._unsealed.size
        size = self._record_size(waiting)
        if behind and 0 < size < limits.JOINED_BYTES and not (self.finishing or self.owes_confirmation):
            self.joining = True
            return None
        if size:
            flags = RECORD_END if self.finishing and size == waiting else 0
        elif self.finishing and not waiting and not self.end_sent:
            flags = RECORD_END
        elif self.owes_confirmation:
            flags = RECORD_EMPTY
        else:
            return None
        plaintext = self._unsealed.take(size) if size else b""
        record = SendRecord(self.sent, flags, keys.seal(self.sent, flags, plaintext))
        self.sent += size
        self.end_sent = flags == RECORD_END
        self.owes_confirmation = False
        if flags == RECORD_EMPTY:
            return record
        if self._kept is None:
            self._kept = deque()
        self._kept.append(record)
        return record

    def acknowledge(self, upto: int) -> bool:
        """The peer has everything below `upto`; True when that now includes our end of data.

        `bad_ack` for what was never sent, or for a position within a record.
        """
        if upto > self.sent + self.end_sent:
            raise StreamError("bad_ack", f"{upto} acknowledged, {self.sent} sent")
        self.acknowledged = max(self.acknowledged, min(upto, self.sent))
        kept = self._kept
        if kept is not None:
            while kept and _position_after(kept[0]) <= upto:
                kept.popleft()
            self._again = min(self._again, len(kept))
            if not kept:
                self._kept = None
            elif kept[0].offset < self.acknowledged:
                raise StreamError("bad_ack", f"{upto} is within the record at {kept[0].offset}")
        if self.end_acknowledged or not self.end_sent or upto <= self.sent:
            return False
        self.end_acknowledged = True
        return True

    def kept(self) -> list[SendRecord]:
        """Records that are not acknowledged, as they were sealed, in order."""
        return list(self._kept or ())

    def resend(self) -> None:
        """Everything that is not acknowledged goes again, as it was sealed, before anything new."""
        self._again = len(self._kept or ())

    def clear(self) -> None:
        """Forget what was not sent or not acknowledged."""
        self._unsealed.clear()
        self._kept, self._again = None, 0

    def _record_size(self, waiting: int) -> int:
        # However much the peer allows, what is kept for a resend stays within our own bound.
        limit = min(self._limit, self.acknowledged + self._kept_max)
        size = min(waiting, limits.RECORD_BYTES, limit - self.sent)
        if size <= 0:
            return 0
        # A window that is almost closed is not worth a small record: its update is on the way.
        if size < waiting and size < limits.RECORD_BYTES and self.sent > self.acknowledged:
            return 0
        return size


class RecordReceiver(ReceiveWindow):
    """Records in, plaintext out, within the window that the peer was given: `limit` is the offset up to which
    it may send, `received` the next record's.
    """

    __slots__ = ("_chunks", "_empty_end", "_freed", "ended", "readable")

    def __init__(self, config: StreamConfig, now: float) -> None:
        super().__init__(config.window, config.window_max, now)
        self._chunks: deque[bytes | memoryview] | None = None  # while there are any
        self._freed = 0
        self._empty_end = False
        self.readable = 0
        self.ended = False

    @property
    def position(self) -> int:
        """What an acknowledgement says; the end of data counts one."""
        return self.received + self.ended

    def take(self, keys: StreamKeys, offset: int, flags: int, payload: bytes | memoryview) -> bool:
        """Open a record; False for a copy of one taken before, which is dropped unread.

        Raises `StreamError`: `record_shape`, `stream_too_long`, `record_gap`, `record_overlap`,
        `record_after_end`, `window_exceeded`, `record_invalid`.
        """
        size = len(payload) - TAG_BYTES
        _check_shape(offset, flags, size)
        if self._is_copy(offset, flags, size):
            return False
        if self.received + size > self.limit:
            raise StreamError("window_exceeded", f"{self.received + size} of {self.limit} bytes")
        plaintext = keys.open(offset, flags, payload)
        if size:
            self.receive(size)
            if self._chunks is None:
                self._chunks = deque()
            self._chunks.append(plaintext)
            self.readable += size
        self.ended = flags == RECORD_END
        self._empty_end = self.ended and not size
        return True

    def read(self, max_bytes: int = -1) -> bytes:
        """Bytes in order; b"" when there are none now."""
        chunks = self._chunks
        if not chunks or not max_bytes:
            return b""
        if max_bytes < 0 or max_bytes >= self.readable:
            data = bytes(chunks[0]) if len(chunks) == 1 else b"".join(chunks)
            self._chunks = None
        else:
            data = _read_some(chunks, max_bytes)
        self.readable -= len(data)
        self._freed += len(data)
        return data

    @property
    def at_end(self) -> bool:
        """Whether the sealed end was reached and everything before it was read."""
        return self.ended and not self.readable

    def discard(self) -> None:
        """Forget what was not read."""
        self._chunks = None
        self.readable = 0

    def window_moved(self, now: float) -> bool:
        """Count what was read since the last call; whether the peer should hear of a new `limit`."""
        freed, self._freed = self._freed, 0
        return bool(freed) and self.consume(now, freed) and not self.ended

    def _is_copy(self, offset: int, flags: int, size: int) -> bool:
        """A sender's records never change and leave no gap, so one wholly below what was received is a copy;
        anything else must start exactly there. After the end there is nothing but copies.
        """
        expected = self.received
        if self.ended:
            end_again = self._empty_end and flags == RECORD_END and offset == expected and not size
            if not end_again and (offset >= expected or offset + size > expected):
                raise StreamError("record_after_end", f"a record at {offset}, the end is at {expected}")
            return True
        if offset > expected:
            raise StreamError("record_gap", f"a record at {offset}, expected {expected}")
        if offset < expected < offset + size:
            raise StreamError("record_overlap", f"a record from {offset} to {offset + size}, not {expected}")
        return offset < expected


def _read_some(chunks: deque[bytes | memoryview], count: int) -> bytes:
    """The first `count` bytes of chunks that hold more. What is left of a record is a view of it: whoever
    reads a few bytes at a time must not have the rest copied each time.
    """
    parts: list[bytes | memoryview] = []
    while count:
        head = chunks[0]
        if len(head) <= count:
            parts.append(chunks.popleft())
        else:
            head = memoryview(head)
            parts.append(head[:count])
            chunks[0] = head[count:]
        count -= len(parts[-1])
    return b"".join(parts)


def _check_shape(offset: int, flags: int, size: int) -> None:
    # An empty record without a flag, or a flagged one with bytes, would share its nonce with another record.
    if (
        flags not in _FLAGS
        or not 0 <= size <= limits.RECORD_BYTES
        or (flags == 0 and not size)
        or (flags == RECORD_EMPTY and size)
    ):
        raise StreamError("record_shape", f"{size} bytes with flags {flags:#x}")
    if offset + size > limits.STREAM_BYTES_MAX:
        raise StreamError("stream_too_long", f"over {limits.STREAM_BYTES_MAX} bytes")


def _position_after(record: SendRecord) -> int:
    """What an acknowledgement of this record says at least; the end of data counts one."""
    return record.offset + len(record.ciphertext) - TAG_BYTES + (record.flags == RECORD_END)
