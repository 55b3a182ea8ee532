"""Messages on a stream: what every service shell starts from."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from fabric.io.streams import Stream
from fabric.services.messages import MessageCodec

T = TypeVar("T")


class Channel(Generic[T]):
    """A stream read and written in messages of one codec. One task reads, one writes."""

    def __init__(self, stream: Stream, codec: MessageCodec[T]) -> None:
        self.stream = stream
        self._codec = codec
        self._reader = codec.reader()
        self._ready: deque[T] = deque()

    async def send(self, message: T) -> None:
        """Queue a message and wait until the stream has room again. Raises StreamError, MessageError."""
        self.stream.write(self._codec.encode(message))
        await self.stream.drain()

    async def receive(self) -> T | None:
        """The next message; None at the peer's end of data. Raises StreamError, MessageError."""
        while not self._ready:
            data = await self.stream.read()
            if not data:
                self._reader.finish()
                return None
            self._ready.extend(self._reader.feed(data))
        return self._ready.popleft()
