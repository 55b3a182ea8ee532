"""All read models folded in memory, log by log: what snapshots are made of and audited with.

Registered as an entry point of group `statelog.folds`, so that the `statelog` commands need not know what a
read model is (`statelog.rowproofs.Fold`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from projections.all import FOLD_VERSION, TABLES, fold
from projections.base import AUTHORITY, Key, MemoryRows, Row, Table, fact_of_leaf


class Folding:
    """Rows as of the entries added so far."""

    def __init__(self) -> None:
        self._rows = MemoryRows(TABLES)

    def add(self, log: str, index: int, leaf: bytes) -> None:
        """The next entry of a log; it was admitted before. The authority log goes first."""
        self._rows.apply(fold(self._rows, fact_of_leaf(index, leaf, log)))

    def rows(self, log: str) -> Iterator[tuple[str, Iterable[tuple[Key, Row]]]]:
        """The rows that the entries of one log wrote, table by table.

        A table that only the authority log writes is no part of a partition's snapshot.
        """
        for table in TABLES:
            if log == AUTHORITY or "log" in table.columns:
                yield f"{table.name}.v{FOLD_VERSION}", self._of(table, log)

    def _of(self, table: Table, log: str) -> Iterator[tuple[Key, Row]]:
        shared = "log" in table.columns
        for row in self._rows.rows(table.name):
            if not shared or row["log"] == log:
                yield table.key_of(row), row
