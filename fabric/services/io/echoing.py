"""`fabric.echo/1`: sends back what comes, bytes or datagrams. It is what `fabric smoke` talks to."""

from __future__ import annotations

from collections import Counter

from fabric import limits
from fabric.classes import Mode
from fabric.io.connection import Connection
from fabric.io.streams import Stream

SERVICE = "fabric.echo/1"


class EchoService:
    """The service of one node. `counters`: `streams`, `bytes`, `refused`."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self._open = 0

    async def serve(self, stream: Stream, connection: Connection) -> None:
        """The service handler. A reader that is slow here is the asker's own: it waits for itself."""
        del connection
        if self._open >= limits.ECHO_STREAMS:
            self.counters["refused"] += 1
            stream.reset("refused", "too many echo streams")
            return
        self._open += 1
        self.counters["streams"] += 1
        try:
            await (self._datagrams if stream.mode is Mode.DATAGRAM else self._bytes)(stream)
        finally:
            self._open -= 1

    async def _bytes(self, stream: Stream) -> None:
        left = limits.ECHO_BYTES
        while data := await stream.read(limits.FORWARD_CHUNK_BYTES):
            left -= len(data)
            if left < 0:
                stream.reset("refused", f"an echo ends after {limits.ECHO_BYTES} bytes")
                return
            self.counters["bytes"] += len(data)
            stream.write(data)
            await stream.drain()

    async def _datagrams(self, stream: Stream) -> None:
        while (data := await stream.receive()) is not None:
            self.counters["bytes"] += len(data)
            if len(data) <= stream.datagram_room:
                stream.send(data)
