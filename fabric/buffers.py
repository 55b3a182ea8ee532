"""Plaintext that waits to be sealed: large writes kept as they are, small ones gathered."""

from __future__ import annotations

from collections import deque

from fabric import limits
from fabric.wire import Buffer


class SendBuffer:
    """A queue of bytes, taken out in pieces of any size.

    A large immutable write is only referred to; a small one is copied behind its neighbours, so that a flood
    of tiny writes costs a few bytes each and leaves in full records.
    """

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: deque[memoryview | bytearray] | None = None  # while there are any
        self.size = 0

    def append(self, data: Buffer) -> None:
        """Take all of `data`. What may change afterwards is copied."""
        self.size += len(data)
        parts = self._parts
        if len(data) <= limits.CHUNK_JOIN_BYTES:
            if parts and isinstance(last := parts[-1], bytearray) and len(last) < limits.RECORD_BYTES:
                last += data
                return
            part: memoryview | bytearray = bytearray(data)
        else:
            owner = data.obj if isinstance(data, memoryview) else data
            part = memoryview(data if isinstance(owner, bytes) else bytes(data))
        if parts is not None:
            parts.append(part)
        elif part:
            self._parts = deque((part,))

    def take(self, count: int) -> memoryview | bytearray:
        """The next `count` bytes; there must be so many. The result is the caller's alone."""
        if count > self.size:
            raise ValueError(f"{count} of {self.size} bytes")
        parts = self._parts
        if parts is None:
            return bytearray()
        self.size -= count
        taken = _take(parts, count)
        if not parts:
            self._parts = None
        return taken

    def clear(self) -> None:
        """Forget everything."""
        self._parts, self.size = None, 0


def _take(parts: deque[memoryview | bytearray], count: int) -> memoryview | bytearray:
    """The first `count` bytes of parts that hold so many, with as few copies as may be."""
    head = parts[0]
    if len(head) == count:
        return parts.popleft()
    if isinstance(head, memoryview) and len(head) > count:
        parts[0] = head[count:]
        return head[:count]
    gathered = bytearray()
    while len(gathered) < count:
        head = parts[0]
        missing = count - len(gathered)
        if len(head) <= missing:
            gathered += head
            parts.popleft()
        elif isinstance(head, memoryview):
            gathered += head[:missing]
            parts[0] = head[missing:]
        else:
            gathered += head[:missing]
            del head[:missing]
    return gathered
