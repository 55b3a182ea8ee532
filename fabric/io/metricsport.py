"""`GET /metrics` over HTTP on a loopback address, for a Prometheus on this machine. Off unless configured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fabric import limits
from fabric.errors import FabricError

_log = logging.getLogger(__name__)


class MetricsPort:
    """Serves `text()` at `http://host:port/metrics`. Nothing else is answered but with an error."""

    def __init__(self, host: str, port: int, text: Callable[[], str], content_type: str) -> None:
        self._host = host
        self._port = port
        self._text = text
        self._content_type = content_type
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """The port that is bound, once started."""
        return 0 if self._server is None else int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Raises FabricError `port_taken`."""
        try:
            self._server = await asyncio.start_server(
                self._accepted, self._host, self._port, limit=limits.METRICS_REQUEST_BYTES
            )
        except OSError as error:
            raise FabricError("port_taken", f"metrics at {self._host}:{self._port}: {error}") from error

    async def close(self) -> None:
        """Stop listening and end what is under way."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= limits.METRICS_CLIENTS:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(limits.METRICS_TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head.split(b"\r\n", 1)[0]))
                await writer.drain()
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.LimitOverrunError) as error:
            _log.debug("a metrics request ended: %s", error)
        finally:
            writer.close()

    def _answer(self, request_line: bytes) -> bytes:
        parts = request_line.split(b" ")
        if len(parts) != 3 or parts[0] not in (b"GET", b"HEAD"):
            return _response(b"405 Method Not Allowed", "text/plain", b"")
        if parts[1].split(b"?", 1)[0] != b"/metrics":
            return _response(b"404 Not Found", "text/plain", b"metrics are at /metrics\n")
        body = self._text().encode()
        return _response(b"200 OK", self._content_type, body, head_only=parts[0] == b"HEAD")


def _response(status: bytes, content_type: str, body: bytes, *, head_only: bool = False) -> bytes:
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % (
        status,
        content_type.encode(),
        len(body),
    )
    return head if head_only else head + body
