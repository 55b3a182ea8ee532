"""Snapshots of a store's logs: their rows folded anew, and single ones proved."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from typing import Any

import sqlalchemy as sa

from statelog.errors import UsageError, refuse
from statelog.io.proving import prove
from statelog.io.store import Store
from statelog.leaf import decode_leaf
from statelog.rowproofs import SNAPSHOT_SCHEMA, Fold, Key, RowTree, summaries, trees_of
from statelog.state import AUTHORITY_LOG

FOLDS_GROUP = "statelog.folds"


def installed_fold() -> Callable[[], Fold] | None:
    """What makes a fresh fold of all read models: the one entry point of group `statelog.folds`, if any.

    Raises UsageError when it does not load, or when there are several: a snapshot has one meaning.
    """
    points = list(metadata.entry_points(group=FOLDS_GROUP))
    if len(points) > 1:
        raise UsageError(f"several packages fold read models: {', '.join(point.value for point in points)}")
    for point in points:
        try:
            made: Callable[[], Fold] = point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(f"the installed fold {point.value} does not load: {error}") from error
        return made
    return None


def row_trees(store: Store, size: int) -> dict[str, RowTree]:
    """The rows of the store's log as of `size` of its entries, folded from the stored entries.

    O(entries of this log and the authority log). Raises UsageError without an installed fold.
    """
    new = installed_fold()
    if new is None:
        raise UsageError("nothing installed here folds read models, so there are no rows to speak of")
    fold = new()
    with store.reading() as connection:
        if store.log != AUTHORITY_LOG:
            _fold(fold, store.of(AUTHORITY_LOG), None, connection)
        _fold(fold, store, size, connection)
    return trees_of(fold, store.log)


def _fold(fold: Fold, store: Store, size: int | None, connection: sa.Connection) -> None:
    for row in store.entries(0, size, connection):
        fold.add(store.log, row.index, row.leaf)


def prove_row(store: Store, anchor: str, projection: str, key: Key, now: int) -> bytes:
    """The proof file of one row, or of its absence, under the newest final snapshot of the store's log.

    Raises UsageError without a snapshot or such a read model, Refused SL-FOLD when the snapshot does not say
    what the store's entries say: a wrong one proves nothing.
    """
    index, record = _newest_snapshot(store)
    trees = row_trees(store, record["size"])
    if summaries(trees) != record["projections"]:
        raise refuse("SL-FOLD", "the newest snapshot does not say what the log says").at(index)
    named = {name.partition(".")[0]: tree for name, tree in trees.items()}
    if projection not in named:
        raise UsageError(f"there are no rows called {projection!r}; there are {', '.join(named)}")
    return prove(store, anchor, index, now, named[projection].show(key))


def _newest_snapshot(store: Store) -> tuple[int, dict[str, Any]]:
    head, found = store.head(), None
    for row in store.entries(0, 0 if head is None else head.final_size):
        if SNAPSHOT_SCHEMA.encode() in row.leaf:  # the cheap look first
            record = decode_leaf(row.leaf).record
            if record["schema_version"] == SNAPSHOT_SCHEMA:
                found = row.index, record
    if found is None:
        raise UsageError(
            f"the log {store.log} has no final snapshot; `statelog propose log.snapshot` drafts one"
        )
    return found
