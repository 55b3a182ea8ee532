"""Where a witness reads the entries that it is asked to cosign: another replica's tiles, or a database.

A source is never believed: whoever reads here replays every entry and compares roots.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from statelog.errors import Refused, SourceUnreadable
from statelog.io.database import open_database
from statelog.io.resources import WebResources, is_address
from statelog.io.store import Store
from statelog.limits import MAX_LEAF_BYTES, STORE_BATCH_ENTRIES, TILE_WIDTH
from statelog.state import AUTHORITY_LOG
from statelog.tilelog import Resources
from statelog.tiles import decode_bundle, tile_path


class EntrySource(Protocol):
    """Leaves by index."""

    async def leaves(self, start: int, end: int) -> list[bytes]:
        """Leaves from `start` on, at most up to `end` - 1: none where the source ends, else at least one.

        Raises SourceUnreadable when the source cannot say.
        """
        ...


class StoreEntries:
    """The log in a database, not-final entries included."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def leaves(self, start: int, end: int) -> list[bytes]:
        """Up to `STORE_BATCH_ENTRIES` leaves, one read transaction, on a thread."""
        return await asyncio.to_thread(self._read, start, min(end, start + STORE_BATCH_ENTRIES))

    def _read(self, start: int, end: int) -> list[bytes]:
        return [row.leaf for row in self._store.entries(start, end)] if start < end else []


class TileEntries:
    """The entry bundles of a log that is served as static files (C2SP tlog-tiles)."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    async def leaves(self, start: int, end: int) -> list[bytes]:
        """The asked leaves of the one bundle that holds `start`, read on a thread.

        Where a static server has dropped a partial bundle for the full one, that is cut instead.
        """
        index, first = divmod(start, TILE_WIDTH)
        width = min(TILE_WIDTH, end - index * TILE_WIDTH)
        bundle = await asyncio.to_thread(self._bundle, index, width)
        if bundle is None and width < TILE_WIDTH:
            bundle = await asyncio.to_thread(self._bundle, index, TILE_WIDTH)
        return [] if bundle is None else bundle[first:width]

    def _bundle(self, index: int, width: int) -> list[bytes] | None:
        path = tile_path("entries", index, width)
        data = self._resources.get(path, width * (MAX_LEAF_BYTES + 2))
        try:
            return None if data is None else decode_bundle(data, width)
        except Refused as error:
            raise SourceUnreadable(f"{path}: {error.finding}") from error


@asynccontextmanager
async def open_entries(source: str, ca_file: Path | str | None = None) -> AsyncIterator[EntrySource]:
    """The source that `source` names: the address of a log's tiles, or a database URL.

    Raises UsageError, and SourceUnreadable for a database that cannot be opened.
    """
    if is_address(source):
        web = WebResources(source, ca_file)
        try:
            yield TileEntries(web)
        finally:
            await asyncio.to_thread(web.close)  # it has a loop of its own, and this thread runs one
        return
    engine = open_database(source)
    try:
        yield StoreEntries(Store(engine, AUTHORITY_LOG))
    finally:
        engine.dispose()
