"""Waiting for finality: one look into the store for all who wait, at each ring of the doorbell.

The daemon on this host collects the cosignatures and rings; nobody polls. A ring may be lost, so while
somebody waits the store is also looked at every RECHECK_S.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

from control_api.limits import RECHECK_S
from statelog.errors import SourceUnreadable
from statelog.io import tables
from statelog.io.store import Store

_LOG = logging.getLogger(__name__)


class Bell(Protocol):
    """`statelog.io.doorbell.Doorbell`, as far as it is needed here."""

    def fileno(self) -> int: ...

    def drain(self) -> object: ...


@dataclass(eq=False, slots=True)
class _Waiter:
    record_id: str
    done: asyncio.Future[None]


class Watch:
    """Wakes those who wait for a record to become final or refused. All methods belong to one event loop."""

    def __init__(self, store: Store, bell: Bell | None) -> None:
        self._store = store
        self._bell = bell
        self._waiters: set[_Waiter] = set()
        self._rung = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen, on the running loop."""
        if self._bell is not None:
            asyncio.get_running_loop().add_reader(self._bell.fileno(), self._on_bell)
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop listening; those who still wait time out."""
        if self._bell is not None:
            asyncio.get_running_loop().remove_reader(self._bell.fileno())
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def look(self) -> None:
        """Something may have changed."""
        self._rung.set()

    async def settled(self, record_id: str, wait_s: float) -> bool:
        """Whether the record became final or refused within `wait_s` seconds. The store says which."""
        if wait_s <= 0:
            return False
        waiter = _Waiter(record_id, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        self.look()
        try:
            async with asyncio.timeout(wait_s):
                await waiter.done
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True

    def _on_bell(self) -> None:
        if self._bell is not None:
            self._bell.drain()
        self.look()

    async def _rung_or_due(self) -> None:
        """Until the next ring; while somebody waits also until the slow look, for a ring that was lost."""
        due = asyncio.get_running_loop().call_later(RECHECK_S, self.look) if self._waiters else None
        try:
            await self._rung.wait()
        finally:
            if due is not None:
                due.cancel()

    async def _run(self) -> None:
        while True:
            await self._rung_or_due()
            self._rung.clear()
            if not self._waiters:
                continue
            asked = {waiter.record_id for waiter in self._waiters}
            try:
                settled = await asyncio.to_thread(settled_among, self._store, asked)
            except SourceUnreadable as error:
                _LOG.warning("cannot look for finality, will look again: %s", error)
                continue
            for waiter in list(self._waiters):
                if waiter.record_id in settled and not waiter.done.done():
                    waiter.done.set_result(None)


def settled_among(store: Store, record_ids: Iterable[str]) -> set[str]:
    """Which of the records are final in a log, or were refused on their way into one; a few queries a log."""
    asked = list(record_ids)
    entry, outbox = tables.log_entry.c, tables.outbox.c
    found, in_log = set[str](), set[str]()
    with store.reading() as connection:
        for log in store.logs(connection):
            head = store.of(log).head(connection)
            final = head.final_size if head is not None else 0
            query = sa.select(entry.record_id, entry.log_index)
            rows = connection.execute(query.where(entry.log == log, entry.record_id.in_(asked))).all()
            in_log.update(record_id for record_id, _ in rows)
            found.update(record_id for record_id, index in rows if index < final)
        refused = sa.select(outbox.record_id).where(outbox.record_id.in_(asked), outbox.state == "refused")
        found |= set(connection.execute(refused).scalars()) - in_log
    return found
