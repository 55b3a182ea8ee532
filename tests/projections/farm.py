"""A live view fed by a growing log."""

from __future__ import annotations

from typing import Any

from projections.all import TABLES, fold
from projections.base import Change, MemoryRows
from projections.live import LiveView
from projections.snapshot import Snapshot
from tests.projections import facts
from tests.projections.facts import T0

NOW = T0 + 60


class Farm:
    """A live view fed by a growing log."""

    def __init__(self, mode: str = "production") -> None:
        self.rows = MemoryRows(TABLES)
        self.view = LiveView()
        self.size = 0
        self.log(facts.descriptor(mode))

    def log(self, *records: dict[str, Any], at: int | None = None) -> Snapshot:
        entries = facts.log(*records, start=self.size, at=T0 + self.size if at is None else at)
        changes: list[Change] = []
        for fact in entries:
            made = fold(self.rows, fact)
            self.rows.apply(made)
            changes += made
        self.size += len(entries)
        self.view.logged(entries, changes, self.size)
        return self.view.snapshot
