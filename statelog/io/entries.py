"""Where a witness reads the entries that it is asked to cosign: another replica's tiles, or a database.

A source is never believed: whoever reads here replays every entry and compares roots.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol, Self

from statelog.errors import Refused, SourceUnreadable
from statelog.io.database import open_database
from statelog.io.resources import WebResources, is_address
from statelog.io.store import Store
from statelog.limits import MAX_LEAF_BYTES, STORE_BATCH_ENTRIES, TILE_WIDTH
from statelog.state import AUTHORITY_LOG
from statelog.tilelog import Below, Resources, TileLog
from statelog.tiles import decode_bundle, tile_path


class EntrySource(Protocol):
    """One log's leaves by index, and its final heads. All reads wait for files or the network."""

    def of(self, log: str) -> Self:
        """Another log of the same replica."""
        ...

    def read(self, start: int, end: int) -> list[bytes]:
        """Leaves from `start` on, at most up to `end` - 1: none where the source ends, else at least one.

        Raises SourceUnreadable when the source cannot say.
        """
        ...

    def heads(self, start: int) -> Iterator[tuple[int, bytes]]:
        """(size, signed note) of heads of at least `start` entries that the source calls final, by size:
        those over a change of the witnesses and the newest, perhaps others.

        Raises SourceUnreadable.
        """
        ...


def leaves_of(source: EntrySource, start: int, end: int) -> Iterator[bytes]:
    """The leaves start … end - 1, a batch in memory at a time. Raises SourceUnreadable where they run out."""
    while start < end:
        read = source.read(start, min(end, start + STORE_BATCH_ENTRIES))
        if not read:
            raise SourceUnreadable(f"the source ends at {start}, before entry {end - 1}")
        yield from read
        start += len(read)


class StoreEntries:
    """The log in a database, not-final entries included."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, log: str) -> StoreEntries:
        """Another log in the same database."""
        return StoreEntries(self._store.of(log))

    def read(self, start: int, end: int) -> list[bytes]:
        """Up to `STORE_BATCH_ENTRIES` leaves, one read transaction."""
        end = min(end, start + STORE_BATCH_ENTRIES)
        return [row.leaf for row in self._store.entries(start, end)] if start < end else []

    def heads(self, start: int) -> Iterator[tuple[int, bytes]]:
        """Every stored checkpoint up to the final one."""
        head = self._store.head()
        for size, note in self._store.checkpoints(start):
            if head is None or size > head.final_size:
                return
            yield size, note


class TileEntries:
    """A log that is served as static files (C2SP tlog-tiles); those of partitions stand below it."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def of(self, log: str) -> TileEntries:
        """The log in the folder `log` below."""
        return TileEntries(Below(self._resources, log))

    def read(self, start: int, end: int) -> list[bytes]:
        """The asked leaves of the one bundle that holds `start`.

        Where a static server has dropped a partial bundle for the full one, that is cut instead.
        """
        index, first = divmod(start, TILE_WIDTH)
        width = min(TILE_WIDTH, end - index * TILE_WIDTH)
        bundle = self._bundle(index, width)
        if bundle is None and width < TILE_WIDTH:
            bundle = self._bundle(index, TILE_WIDTH)
        return [] if bundle is None else bundle[first:width]

    def heads(self, start: int) -> Iterator[tuple[int, bytes]]:
        """The kept heads and the newest. Raises SourceUnreadable for one that is not of its form, too."""
        try:
            log = TileLog(self._resources)
            yield from ((size, note) for size, note in log.checkpoints(start))
        except Refused as error:
            raise SourceUnreadable(f"the source's heads: {error.finding}") from error

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
