"""The tiles of a log in a store (C2SP tlog-tiles): what is final never changes and may be cached for ever.

A tile that reaches beyond the final size can be read too, for witnesses and impatient auditors, but is not to
be kept: a new term may drop what was not final.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from statelog.io import tables
from statelog.io.store import Store
from statelog.limits import TILE_WIDTH
from statelog.tiles import TILE_HEIGHT, Tile, encode_bundle, encode_tile


@dataclass(frozen=True, slots=True)
class Content:
    """A tile's bytes; `final` when all under it is, so that it never changes."""

    data: bytes
    final: bool


def read_tile(connection: sa.Connection, store: Store, tile: Tile) -> Content | None:
    """The tile from the store, None when the log does not reach that far. At most 256 rows."""
    head = store.head(connection)
    _, end = tile.entries
    if head is None or end > head.size:
        return None
    start = tile.index * TILE_WIDTH
    if tile.level is None:
        leaves = [entry.leaf for entry in store.entries(start, start + tile.width, connection)]
        return Content(encode_bundle(leaves), end <= head.final_size)
    hashes = _hashes(connection, store.log, tile.level, start, start + tile.width)
    return Content(encode_tile(hashes), end <= head.final_size) if len(hashes) == tile.width else None


def _hashes(connection: sa.Connection, log: str, level: int, start: int, end: int) -> list[bytes]:
    """Hashes of the complete subtrees start … end - 1 of a tile level (height 8 × level)."""
    if level == 0:
        entry = tables.log_entry.c
        query = (
            sa.select(entry.leaf_hash)
            .where(entry.log == log, entry.log_index >= start, entry.log_index < end)
            .order_by(entry.log_index)
        )
    else:
        node = tables.log_node.c
        query = (
            sa.select(node.hash)
            .where(
                node.log == log,
                node.level == level * TILE_HEIGHT,
                node.node_index >= start,
                node.node_index < end,
            )
            .order_by(node.node_index)
        )
    return [bytes(found) for found in connection.execute(query).scalars()]


def read_checkpoint(connection: sa.Connection, store: Store, *, final: bool) -> bytes | None:
    """The newest final checkpoint, or the newest of all, with every cosignature stored for it."""
    if not final:
        return store.checkpoint(None, connection)
    head = store.head(connection)
    return store.checkpoint(head.final_size, connection) if head is not None and head.final_size else None
