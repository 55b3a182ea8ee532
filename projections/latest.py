"""Read models that hold the newest record of each subject and nothing that other kinds change.

Their rows say what was signed. Whether a node that a row names has been revoked since, its own row says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from projections.base import Change, ColumnType, Fact, Row, Rows, Table, put
from projections.cluster import bootstrap

_HEADER: dict[str, ColumnType] = {
    "epoch": "integer",
    "record_id": "text",
    "issued_at": "integer",
    "expires_at": "integer",
    "log": "text",
    "log_index": "integer",
    "bootstrap": "boolean",
}


def latest_table(name: str, key: tuple[str, ...], own: Mapping[str, ColumnType]) -> Table:
    """A table of newest records: the kind's `own` columns, `key` first, and where the record stands."""
    return Table(name, key, {**own, **_HEADER})


class LatestProjection(ABC):
    """A read model of one kind. A subclass says which columns of a record are its own."""

    name: ClassVar[str]
    table: ClassVar[Table]
    schemas: ClassVar[tuple[str]]

    @abstractmethod
    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """The row of the record; nothing for any other kind."""
        if fact.schema not in self.schemas:
            return []
        row = {
            **self.own(fact.record),
            "epoch": fact.record["epoch"],
            "record_id": fact.record_id,
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "log": fact.log,
            "log_index": fact.index,
            "bootstrap": bootstrap(rows, fact),
        }
        return [put(self.table, row)]
