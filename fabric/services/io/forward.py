"""TCP at both ends of a stream: a local port that leads to a service, a service that leads to a local port.

An adapter never picks a route: it asks for a stream to a name. The two directions end by themselves, so a
client that has sent everything still gets its answer; a broken stream ends the TCP connection with a reset,
never with an ordinary end that could be taken for the end of data.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable

from fabric import limits
from fabric.errors import FabricError, StreamError, count_code
from fabric.io.connection import Connection
from fabric.io.streams import Stream

_log = logging.getLogger(__name__)

OpenService = Callable[[str], Awaitable[Stream]]
"""`open_service(name)`: a stream to wherever the service is now. Raises FabricError."""


class ForwardError(FabricError):
    """A local port cannot be used. Code `port_taken` or `bad_address`."""


async def relay(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both ways until both ended, or one broke: then both end at once.

    Raises StreamError when the stream broke; a TCP connection that broke resets the stream.
    """
    up = asyncio.ensure_future(_to_stream(reader, stream))
    down = asyncio.ensure_future(_to_tcp(stream, writer))
    try:
        done, _ = await asyncio.wait((up, down), return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    except OSError:
        stream.reset("cancelled", "the TCP connection broke")
        abort(writer)
    except BaseException:
        abort(writer)
        raise
    finally:
        for task in (up, down):
            task.cancel()
        await asyncio.gather(up, down, return_exceptions=True)


async def _to_stream(reader: asyncio.StreamReader, stream: Stream) -> None:
    while data := await reader.read(limits.FORWARD_CHUNK_BYTES):
        stream.write(data)
        await stream.drain()
    await stream.end()


async def _to_tcp(stream: Stream, writer: asyncio.StreamWriter) -> None:
    while data := await stream.read(limits.FORWARD_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()


def abort(writer: asyncio.StreamWriter) -> None:
    """End a TCP connection by a reset, so that nobody takes the break for the end of data."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class TcpService:
    """A service whose streams lead to one TCP address of this host's choosing."""

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.counters: Counter[str] = Counter()

    async def serve(self, stream: Stream, connection: Connection) -> None:
        """The service handler."""
        del connection
        try:
            async with asyncio.timeout(limits.FORWARD_CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(
                    self.host, self.port, limit=limits.FORWARD_CHUNK_BYTES
                )
        except (OSError, TimeoutError) as error:
            self.counters["unreachable"] += 1
            _log.warning(
                "service %s: tcp://%s:%d does not answer: %s", self.name, self.host, self.port, error
            )
            stream.reset("refused", "the service behind this node does not answer")
            return
        self.counters["streams"] += 1
        try:
            await relay(stream, reader, writer)
        finally:
            writer.close()


class LocalPort:
    """A listening TCP port of this host; every connection becomes one stream to the service."""

    def __init__(self, service: str, open_service: OpenService) -> None:
        self.service = service
        self.counters: Counter[str] = Counter()
        self._open_service = open_service
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def listen(self, port: int, host: str = "127.0.0.1") -> None:
        """Raises ForwardError when the port is taken."""
        try:
            self._server = await asyncio.start_server(
                self._accepted, host, port, limit=limits.FORWARD_CHUNK_BYTES
            )
        except OSError as error:
            raise ForwardError("port_taken", f"{host}:{port}: {error.strerror or error}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end the connections that came through this port."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.counters["connections"] += 1
        try:
            async with await self._open_service(self.service) as stream:
                await relay(stream, reader, writer)
        except StreamError as error:
            count_code(self.counters, "broke", error.code)
            _log.info("a stream to %s broke: %s", self.service, error)
            abort(writer)
        except FabricError as error:
            count_code(self.counters, "failed", error.code)
            _log.warning("no stream to %s: %s", self.service, error)
            abort(writer)
        finally:
            writer.close()
