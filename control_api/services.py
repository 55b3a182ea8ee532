"""What the routes share: settings, store, desk and watch of one application."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import anyio
import anyio.to_thread
import orjson
import sqlalchemy as sa
from starlette.requests import Request
from starlette.responses import Response

from control_api import reads
from control_api.desk import Desk
from control_api.history import History
from control_api.limits import READ_THREADS
from control_api.settings import Settings
from control_api.watch import Watch
from statelog.io.store import Store

T = TypeVar("T")

_ETAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(slots=True)
class Services:
    """Made when the application starts and closed when it ends; belongs to its event loop."""

    settings: Settings
    store: Store
    desk: Desk
    watch: Watch
    clock: Callable[[], float]
    limiter: anyio.CapacityLimiter
    history: History

    async def read(self, function: Callable[[sa.Connection], T]) -> T:
        """`function` in a worker thread, in one read transaction."""

        def run() -> T:
            with self.store.reading() as connection:
                return function(connection)

        return await anyio.to_thread.run_sync(run, limiter=self.limiter)


def new_limiter() -> anyio.CapacityLimiter:
    """A bound on reading threads, for the running loop."""
    return anyio.CapacityLimiter(READ_THREADS)


def services_of(request: Request) -> Services:
    """The services of the application that serves this request."""
    return cast("Services", request.app.state.services)


def json_answer(value: Any, status: int = 200, **headers: str) -> Response:
    """JSON that is not to be kept by caches unless the headers say so."""
    sent = {"Cache-Control": "no-store", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return Response(orjson.dumps(value), status, sent, "application/json")


async def tagged(
    request: Request,
    read: Callable[[sa.Connection, Store], Any],
    *,
    also: Callable[[sa.Connection], str] | None = None,
) -> Response:
    """An answer that changes only with the logs: 304 without reading more when the caller's copy is of these
    sizes.

    `also` adds to the tag what changes without the log. The tag and the rows come from one transaction.
    """
    services = services_of(request)

    def run(connection: sa.Connection) -> tuple[str, Any]:
        tag = reads.etag(connection, services.store)
        if also is not None:
            tag = f'{tag[:-1]}.{also(connection)}"'
        return tag, None if matches(request, tag) else read(connection, services.store)

    tag, value = await services.read(run)
    kept = {"Cache-Control": "private, no-cache", "ETag": tag}
    if value is None:
        return Response(None, 304, kept)
    return Response(orjson.dumps(value), 200, kept, "application/json")


def matches(request: Request, tag: str) -> bool:
    """Whether If-None-Match names the tag, by weak comparison (RFC 9110 section 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or tag.removeprefix("W/") in _ETAG.findall(given)
