"""The application of one replica: `create_app(settings)`.

Everything that it serves is read from the store that it shares with the node daemon; everything that it
accepts is a signed record. It holds no authority: with its database, its TLS key and its tokens one can
withhold and delay.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.metadata import version
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from control_api import problems
from control_api.desk import Desk, OutboxBackend, Receipt, SequencingBackend
from control_api.history import History
from control_api.routes import log, models, pages, records, status
from control_api.services import Services, new_limiter
from control_api.settings import Settings
from control_api.shield import Shield
from control_api.watch import Watch
from statelog.errors import StatelogError
from statelog.io.database import database_path, open_database
from statelog.io.desk import Backend
from statelog.io.doorbell import Doorbell, ring
from statelog.io.sequencers import Sequencers
from statelog.io.signers import load_signer
from statelog.io.store import Store
from statelog.signing import Signer

_LOG = logging.getLogger(__name__)


class Replica(FastAPI):
    """A FastAPI application behind a `Shield`, which its error pages pass too."""

    shield: Shield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.shield(scope, receive, send)

    async def unshielded(self, scope: Scope, receive: Receive, send: Send) -> None:
        await super().__call__(scope, receive, send)


def create_app(
    settings: Settings, *, clock: Callable[[], float] = time.time, signer: Signer | None = None
) -> FastAPI:
    """The ASGI application. Opens the store and the sequencer key when it starts, closes them when it ends.

    `signer` stands in for the key at `settings.sequencer_key`. At start-up it raises UsageError (another
    cluster's database, no database, another schema) and Refused (a key file that does not open).
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as closing:
            app.state.services = await _open(settings, clock, signer, closing)
            yield

    app = Replica(
        title="Fabric control API",
        version=version("fabric-node"),
        summary="A replica of a signed state log: it serves and accepts signed records, and owns nothing.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    problems.install(app)
    for router in (status.router, records.router, models.router, log.router, pages.router):
        app.include_router(router)
    app.shield = Shield(app.unshielded, settings.api_token())
    return app


def open_store(settings: Settings) -> sa.Engine:
    """The store of the settings, its schema and its anchor checked. Raises UsageError, SourceUnreadable."""
    return open_database(settings.store, anchor=settings.anchor)


async def _open(
    settings: Settings, clock: Callable[[], float], signer: Signer | None, closing: AsyncExitStack
) -> Services:
    engine = open_store(settings)
    closing.callback(engine.dispose)
    store = Store(engine)
    if signer is None and settings.sequencer_key is not None:
        signer = load_signer(settings.sequencer_key)
    backend: Backend[Any, Receipt] = (
        OutboxBackend(store, settings.anchor)
        if signer is None
        else SequencingBackend(Sequencers(engine, settings.anchor, signer))
    )
    bell = closing.enter_context(Doorbell(settings.store)) if database_path(settings.store) else None
    watch = Watch(store, bell)
    watch.start()
    closing.push_async_callback(watch.close)
    desk = Desk(backend, clock, lambda: _ring(settings.store))
    desk.start()
    closing.callback(desk.close)
    history = History(store, settings.anchor)
    return Services(settings, store, desk, watch, clock, new_limiter(), history)


def _ring(store_url: str) -> None:
    """Wakes the daemon and everybody else on this store; the commit stands whether or not it is heard."""
    try:
        ring(store_url)
    except (OSError, StatelogError) as error:
        _LOG.warning("the doorbell of %s does not ring: %s", store_url, error)
