"""The live read model of one node: the log's rows, what travels ahead of the log, and what probes proved.

Pure: the shell tells it what happened and publishes `snapshot` after each call. Every method answers with the
registry statuses that changed, for the store (`projections.io.writer.Writer.save_statuses`) and the log line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from projections.base import Change, Fact, Put
from projections.registry import SCHEMA as REGISTRY
from projections.registry import TABLE as REGISTRY_TABLE
from projections.registry import RegistryBook, StatusChange, record_from_row, record_from_signed
from projections.snapshot import Ahead, Snapshot
from statelog.times import parse_time


class LiveView:
    """Single-threaded; `snapshot` may be handed to any thread."""

    def __init__(self, snapshot: Snapshot | None = None, book: RegistryBook | None = None) -> None:
        self.book = book if book is not None else RegistryBook()
        self.snapshot = (snapshot if snapshot is not None else Snapshot()).with_registry(self.book.views)
        self._ahead: dict[str, Mapping[str, Any]] = {}

    def logged(
        self, facts: Iterable[Fact], changes: Iterable[Change], size: int | None = None
    ) -> list[StatusChange]:
        """Final entries, with the row changes that folding them gave (`Writer.catch_up`) and the new size of
        the authority log; without a size they are of a partition's log.
        """
        changes, told = list(changes), list[StatusChange]()
        for change in changes:
            if change.table == REGISTRY_TABLE.name and isinstance(change, Put):
                record = record_from_row(change.row)
                told += self.book.accepted(record, record.record_id, record.log_index)
        snapshot = self.snapshot.advance(changes, size).with_registry(self.book.views)
        logged_ids = {fact.record_id for fact in facts}
        if not logged_ids.isdisjoint(self._ahead):
            self._ahead = {key: value for key, value in self._ahead.items() if key not in logged_ids}
            snapshot = snapshot.with_ahead(Ahead.of(self._ahead.values()))
        self.snapshot = snapshot
        return told

    def unlogged(self, record: Mapping[str, Any], record_id: str) -> list[StatusChange]:
        """A record admitted ahead of the log: a registry record, a revocation or a fence."""
        if record["schema_version"] == REGISTRY:
            signed = record_from_signed(record, record_id, None, bootstrap=self._bootstrap)
            return self._registry(self.book.accepted(signed, record_id, None))
        self._set_ahead({**self._ahead, record_id: record})
        return []

    def refused(self, record_id: str) -> list[StatusChange]:
        """The log refused a record that acted ahead of it: its effect ends and what it displaced is back."""
        if record_id in self._ahead:
            self._set_ahead({key: value for key, value in self._ahead.items() if key != record_id})
            return []
        return self._registry(self.book.dropped(record_id))

    def verified(self, record_id: str, now: float) -> list[StatusChange]:
        """A live probe proved one endpoint of a registry record."""
        return self._registry(self.book.verified(record_id, now))

    def expired(self, now: float) -> list[StatusChange]:
        """Time moved. A revocation or fence that expired unlogged can never be logged, so it ends too."""
        kept = {key: value for key, value in self._ahead.items() if parse_time(value["expires_at"]) > now}
        if len(kept) != len(self._ahead):
            self._set_ahead(kept)
        return self._registry(self.book.expired(now))

    @property
    def _bootstrap(self) -> bool:
        return self.snapshot.cluster is not None and self.snapshot.cluster.mode == "development"

    def _set_ahead(self, records: dict[str, Mapping[str, Any]]) -> None:
        self._ahead = records
        self.snapshot = self.snapshot.with_ahead(Ahead.of(records.values()))

    def _registry(self, told: list[StatusChange]) -> list[StatusChange]:
        if told:
            self.snapshot = self.snapshot.with_registry(self.book.views)
        return told
