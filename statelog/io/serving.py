"""An HTTPS server for the programs of this project: TLS 1.3, bounded heads, bounded connections.

What a client may cost before it has said anything sensible is bounded here, for every server alike; what a
body may cost is bounded by `read_body`.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
from asyncio import TimerHandle, Transport
from pathlib import Path
from types import FrameType

import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from statelog import limits
from statelog.errors import UsageError
from statelog.io.files import require_file


class PatientProtocol(H11Protocol):
    """Hangs up on a client that does not finish its request's head in time, or take its answer;
    uvicorn alone waits for ever.
    """

    _head_timer: TimerHandle | None = None
    _drain_timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]  # as uvicorn narrows it
        """The connection is up, and the clock runs."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Bytes came; the clock stops once they make a whole head, and starts again with the next request."""
        if self._head_timer is None:
            self._await_head()
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._stop_clock()
        self._stop_drain_clock()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The buffer is full; the clock runs until the client has taken most of it."""
        super().pause_writing()
        self._stop_drain_clock()
        self._drain_timer = self.loop.call_later(limits.HTTPS_DRAIN_S, self.transport.abort)

    def resume_writing(self) -> None:
        """There is room again."""
        self._stop_drain_clock()
        super().resume_writing()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(limits.HTTPS_HEAD_TIMEOUT_S, self._hang_up)

    def _stop_clock(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_drain_clock(self) -> None:
        if self._drain_timer is not None:
            self._drain_timer.cancel()
            self._drain_timer = None

    def _hang_up(self) -> None:
        self._head_timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Server(uvicorn.Server):
    """Ends by itself when SIGINT or SIGTERM says so: that is how a server is meant to end. uvicorn alone
    raises the signal again afterwards, and its process dies of it.
    """

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Close within the time for it; at once at a second Ctrl-C."""
        del frame
        self.force_exit |= self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def https_server(
    app: ASGIApp, host: str, port: int, certificate: Path, key: Path
) -> tuple[uvicorn.Server, socket.socket]:
    """The server and its listening socket; `await server.serve(sockets=[listener])` runs it.

    What the operator can mend is found here, before anything listens. Raises UsageError: no usable
    certificate, no such address, a taken port.
    """
    require_file(certificate)
    require_file(key)
    config = uvicorn.Config(
        app,
        ssl_certfile=str(certificate),
        ssl_keyfile=str(key),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        http=PatientProtocol,
        h11_max_incomplete_event_size=limits.HTTPS_HEAD_BYTES,
        limit_concurrency=limits.HTTPS_CONNECTIONS,
        timeout_keep_alive=limits.HTTPS_KEEP_ALIVE_S,
        timeout_graceful_shutdown=limits.HTTPS_SHUTDOWN_S,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{certificate}, {key}: {error}") from error
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return Server(config), _listen(host, port)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise UsageError(f"host {host!r} has no address here: {error.strerror or error}") from error
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(limits.HTTPS_BACKLOG)
    except OSError as error:
        listener.close()
        raise UsageError(
            f"cannot listen on {host}:{port}: {(error.strerror or str(error)).lower()}"
        ) from error
    return listener


class BodyTooLongError(Exception):
    """A request's body is longer than the caller of `read_body` takes."""


class BodyTooSlowError(Exception):
    """A request's body did not come in time, or its sender went away in the middle of it."""


async def read_body(request: Request, max_bytes: int, timeout_s: float) -> bytes:
    """The whole body, counted while it is read, whatever `Content-Length` claims.

    Raises BodyTooLongError and BodyTooSlowError.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise BodyTooLongError
    except (TimeoutError, ClientDisconnect) as error:
        raise BodyTooSlowError from error
    return bytes(body)
