"""A replica for tests: a real store with a signed cluster in it, witnesses at hand, the API over ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from control_api.app import create_app
from control_api.settings import Settings
from projections.io.writer import Writer
from statelog.canonical import encode
from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.io.database import open_database
from statelog.io.doorbell import ring
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.store import Store, StoredCosignature
from tests.support.aio import run
from tests.support.authority import Cluster, key_id, make_cluster, signer

WITNESSES = ("witness-1", "witness-2", "witness-3")


@dataclass
class Clock:
    now: float

    def __call__(self) -> float:
        return self.now


@dataclass
class Replica:
    """The control host's store, and what its daemon would do: cosign, mark final, project, ring."""

    folder: Path
    cluster: Cluster
    engine: sa.Engine
    clock: Clock
    settings: Settings

    @property
    def store(self) -> Store:
        return Store(self.engine)

    @property
    def unfinal(self) -> bool:
        """Whether the log goes on past its final head."""
        head = self.store.head()
        return head is not None and head.size > head.final_size

    def cosign(self, witnesses: tuple[str, ...] = WITNESSES, log: str = "authority") -> tuple[int, bytes]:
        """Store cosignatures of the newest checkpoint, as of now; answers with its size and root."""
        store = self.store.of(log)
        note = store.checkpoint()
        assert note is not None
        checkpoint, parsed = parse_signed_checkpoint(note)
        now = int(self.clock())
        lines = [
            StoredCosignature(
                key_id(name), name_of(name), now, cosign(parsed.text, name_of(name), signer(name), now).line()
            )
            for name in witnesses
        ]
        store.put_cosignatures(checkpoint.size, lines)
        return checkpoint.size, checkpoint.root

    def finalize(self, log: str = "authority") -> int:
        """Cosign the newest checkpoint, mark it final, fold it, ring the bell; the final size."""
        size, root = self.cosign(log=log)
        with self.store.writing() as connection:
            self.store.of(log).set_final(size, root, connection)
            Writer(self.engine, log).catch_up_from_store(size, connection)
        ring(self.settings.store)
        return size

    def sequence(self, *records: dict[str, Any]) -> list[Submitted]:
        """Append records behind the API's back, as the daemon does."""
        sequencer = Sequencer(self.store, self.cluster.anchor, signer("sequencer-1"))
        found = sequencer.submit_many([encode(record) for record in records], int(self.clock()))
        assert all(isinstance(one, Submitted) for one in found), found
        return [one for one in found if isinstance(one, Submitted)]

    @asynccontextmanager
    async def api(self, *, sequences: bool = True, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the running application, without sockets."""
        chosen = {**{name: getattr(self.settings, name) for name in Settings.__slots__}, **settings}
        app = create_app(
            Settings(**chosen), clock=self.clock, signer=signer("sequencer-1") if sequences else None
        )
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="https://replica") as client:
                yield client


def name_of(witness: str) -> str:
    """The name under which a witness of the cluster cosigns."""
    return f"{witness}.example"


def make_replica(folder: Path, cluster: Cluster | None = None) -> Replica:
    """A store with the cluster's log, final and projected."""
    cluster = cluster or make_cluster()
    url = f"sqlite:///{folder / 'node.db'}"
    engine = open_database(url, create=True)
    records = [entry[0] for entry in cluster.log.entries]
    sequencer = Sequencer.create(engine, records[0], records[1], signer("sequencer-1"), now=cluster.now)
    if records[2:]:
        found = sequencer.submit_many(records[2:], cluster.now)
        assert all(isinstance(one, Submitted) for one in found), found
    settings = Settings(store=url, anchor=cluster.anchor, wait_s=0.0)
    replica = Replica(folder, cluster, engine, Clock(float(cluster.now + 5)), settings)
    replica.finalize()
    return replica


async def post(client: httpx.AsyncClient, record: dict[str, Any] | bytes, **headers: str) -> httpx.Response:
    """Submit a record; header names are written with underscores."""
    sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await client.post(
        "/v1/records", content=record if isinstance(record, bytes) else encode(record), headers=sent
    )


async def get(client: httpx.AsyncClient, path: str, **headers: str) -> httpx.Response:
    """GET; header names are written with underscores."""
    return await client.get(path, headers={name.replace("_", "-"): text for name, text in headers.items()})


def play(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(main)
