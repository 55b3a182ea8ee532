"""`Rows` over SQL inside one transaction: reads through, gathers writes, and writes them in bulk at the
end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from projections.all import TABLES
from projections.base import Change, Delete, Key, MemoryRows, Put, Row
from projections.io.tables import SQL_TABLES

_SHAPES = {table.name: table for table in TABLES}


class SqlRows:
    """The rows of one open transaction. Nothing reaches the database before `settle` or `flush`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._changed: dict[str, dict[Key, Row | None]] = {name: {} for name in _SHAPES}
        self._net: dict[str, dict[Key, Row | None]] = {name: {} for name in _SHAPES}

    def get(self, table: str, key: Key) -> Row | None:
        """The row under `key` as this transaction leaves it, or None."""
        changed = self._changed[table]
        if key in changed:
            return changed[key]
        found = self._select(table, dict(zip(_SHAPES[table].key, key, strict=True)))
        return found[0] if found else None

    def where(self, table: str, **equal: Any) -> Sequence[Row]:
        """Rows whose columns equal the given values as this transaction leaves them, by key."""
        return self._merged(table, self._select(table, equal), lambda row: _equals(row, equal))

    def where_at_most(self, table: str, column: str, limit: int, **equal: Any) -> Sequence[Row]:
        """Those of `where` whose integer `column` is at most `limit`."""
        below = SQL_TABLES[table].c[column] <= limit
        stored = select_rows(self._connection, table, equal, below)
        return self._merged(table, stored, lambda row: row[column] <= limit and _equals(row, equal))

    def _merged(self, table: str, stored: Iterable[Row], wanted: Callable[[Row], bool]) -> Sequence[Row]:
        """Stored rows and the gathered changes that are `wanted`, by key."""
        shape = _SHAPES[table]
        merged: dict[Key, Row | None] = {shape.key_of(row): row for row in stored}
        for key, row in self._changed[table].items():
            merged[key] = row if row is not None and wanted(row) else None
        return [row for _, row in sorted(merged.items(), key=lambda pair: pair[0]) if row is not None]

    def apply(self, changes: Iterable[Change]) -> None:
        """Gather changes, in order."""
        for change in changes:
            self._changed[change.table][change.key] = change.row if isinstance(change, Put) else None

    def settle(self) -> None:
        """Writes what was gathered: every reading looks through it, so a long fold must not gather it all."""
        for name, changed in self._changed.items():
            if changed:
                self._write(name, changed)
                self._net[name].update(changed)
                changed.clear()

    def flush(self) -> list[Change]:
        """Writes what was gathered and answers with the net changes since the last flush."""
        self.settle()
        net: list[Change] = [
            Delete(name, key) if row is None else Put(name, key, row)
            for name, changed in self._net.items()
            for key, row in changed.items()
        ]
        self._net = {name: {} for name in _SHAPES}
        return net

    def _write(self, name: str, changed: dict[Key, Row | None]) -> None:
        table, key_columns = SQL_TABLES[name], _SHAPES[name].key
        bound: dict[str, sa.BindParameter[str]] = {
            column: sa.bindparam(f"key_{column}") for column in key_columns
        }
        condition = sa.and_(*(table.c[column] == bind for column, bind in bound.items()))
        self._connection.execute(
            table.delete().where(condition),
            [
                {f"key_{column}": part for column, part in zip(key_columns, key, strict=True)}
                for key in changed
            ],
        )
        rows = [dict(row) for row in changed.values() if row is not None]
        if rows:
            self._connection.execute(table.insert(), rows)

    def _select(self, name: str, equal: dict[str, Any]) -> Sequence[Row]:
        return select_rows(self._connection, name, equal)


def write_all(connection: sa.Connection, rows: MemoryRows) -> list[Change]:
    """Fill the empty tables with rows folded in memory; answers with them as changes."""
    changes: list[Change] = []
    for table in TABLES:
        puts = [Put(table.name, table.key_of(row), row) for row in rows.rows(table.name)]
        if puts:
            connection.execute(SQL_TABLES[table.name].insert(), [dict(put.row) for put in puts])
        changes += puts
    return changes


def _equals(row: Row, equal: dict[str, Any]) -> bool:
    return all(row[column] == value for column, value in equal.items())


def select_rows(
    connection: sa.Connection,
    name: str,
    equal: dict[str, Any] | None = None,
    *more: sa.ColumnElement[bool],
    most: int | None = None,
) -> list[dict[str, Any]]:
    """Stored rows of a projection table in the order of their keys, under further conditions `more`; the
    first `most` of them.
    """
    table, shape = SQL_TABLES[name], _SHAPES[name]
    query = sa.select(table).where(*more).order_by(*(table.c[column] for column in shape.key)).limit(most)
    for column, value in (equal or {}).items():
        query = query.where(table.c[column] == value)
    return plain_rows(connection, name, query)


def plain_rows(
    connection: sa.Connection, name: str, query: sa.Select[tuple[Any, ...]]
) -> list[dict[str, Any]]:
    """Rows of a query over a projection's table, under plain names as canonical JSON wants them."""
    columns = _SHAPES[name].columns
    found = connection.execute(query).mappings()
    return [{column: row[column] for column in columns} for row in found]
