"""Services of a node: which are offered, who may use them, and the tasks that run them."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

from fabric import limits
from fabric.errors import FabricError, StreamError
from fabric.io.connection import Connection
from fabric.io.streams import Stream
from fabric.wire import OpenStream

_log = logging.getLogger(__name__)

StreamHandler = Callable[[Stream, Connection], Awaitable[None]]
"""A service: called as a task once the first sealed record of a stream opened to it proved valid."""

Authorize = Callable[[Connection, OpenStream, str], str | None]
"""`authorize(connection, open, initiator_node_id)`: a reset reason to refuse a stream, or None."""


class Services:
    """Handlers by logical service name; may change while the endpoint runs."""

    def __init__(
        self,
        handlers: Mapping[str, StreamHandler] | None,
        authorize: Authorize | None,
        counters: Counter[str],
    ) -> None:
        self.handlers = dict(handlers or {})
        self._authorize = authorize
        self._counters = counters
        self._tasks: set[asyncio.Task[None]] = set()

    def judge(self, connection: Connection, body: OpenStream, initiator: str) -> None:
        """Raise `StreamError` with the reason why a stream is not served here."""
        if body.service not in self.handlers:
            raise StreamError("unknown_service", body.service)
        reason = None if self._authorize is None else self._authorize(connection, body, initiator)
        if reason is not None:
            raise StreamError(reason, body.service)

    def start(self, connection: Connection, stream: Stream) -> None:
        """Run the handler of a stream that proved its first record."""
        handler = self.handlers.get(stream.service)
        if handler is None:
            stream.reset("unknown_service")
            return
        task = asyncio.get_running_loop().create_task(
            self._run(handler, stream, connection), name=f"service {stream.service}"
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Cancel what runs and wait for it, but not for ever (`limits.SERVICE_STOP_S`)."""
        tasks = self.cancel()
        if not tasks:
            return
        _, stuck = await asyncio.wait(tasks, timeout=limits.SERVICE_STOP_S)
        for task in stuck:
            self._counters["services_stuck"] += 1
            _log.error("%s was cancelled and does not end", task.get_name())

    def cancel(self) -> set[asyncio.Task[None]]:
        """Cancel what runs; returns it."""
        for task in self._tasks:
            task.cancel()
        return set(self._tasks)

    async def _run(self, handler: StreamHandler, stream: Stream, connection: Connection) -> None:
        try:
            try:
                await handler(stream, connection)
            except BaseException:
                stream.reset()
                raise
            if not await stream.aclose(patience_s=limits.SERVICE_END_S):
                self._counters["services_not_read"] += 1
        except FabricError as error:
            # The stream broke, or the peer sent what the service does not take; the stream was reset.
            _log.debug("service %s: stream ended: %s", stream.service, error)
        except Exception:
            # The service's defect; its stream was reset, the node goes on.
            self._counters["service_errors"] += 1
            _log.exception("service %s failed", stream.service)
