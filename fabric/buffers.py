"""Plaintext that waits to be sealed: large writes kept as they are, small ones gathered."""

from __future__ import annotations

from fabric import limits
from fabric.fifo import Fifo
from fabric.wire import Buffer


class SendBuffer:
    """A queue of bytes, taken out in pieces of any size.

    A large immutable write is only referred to; a small one is copied behind its neighbours, so that a flood
    of tiny writes costs a few bytes each and leaves in full records.
    """

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: Fifo[memoryview | bytearray] = Fifo()
        self.size = 0

    def append(self, data: Buffer) -> None:
        """Take all of `data`. What may change afterwards is copied."""
        self.size += len(data)
        parts = self._parts
        if len(data) <= limits.CHUNK_JOIN_BYTES:
            if parts and isinstance(last := parts.last, bytearray) and len(last) < limits.RECORD_BYTES:
                last += data
            elif data:
                parts.append(bytearray(data))
            return
        owner = data.obj if isinstance(data, memoryview) else data
        parts.append(memoryview(data if isinstance(owner, bytes) else bytes(data)))

    def take(self, count: int) -> memoryview | bytearray:
        """The next `count` bytes; there must be so many. The result is the caller's alone."""
        if count > self.size:
            raise ValueError(f"{count} of {self.size} bytes")
        self.size -= count
        parts = self._parts
        if parts and len(parts.first) == count:
            return parts.popleft()
        if parts and isinstance(head := parts.first, memoryview) and len(head) > count:
            parts.first = head[count:]
            return head[:count]
        gathered = bytearray()
        while len(gathered) < count:
            head = parts.first
            missing = count - len(gathered)
            if len(head) <= missing:
                gathered += head
                parts.popleft()
            elif isinstance(head, memoryview):
                gathered += head[:missing]
                parts.first = head[missing:]
            else:
                gathered += head[:missing]
                del head[:missing]
        return gathered

    def clear(self) -> None:
        """Forget everything."""
        self._parts.clear()
        self.size = 0
