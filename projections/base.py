"""What a projection is: a pure fold of the logs into rows of one or more tables.

A projection sees one `Fact` at a time, in the order of its log, and answers with the row changes that the
fact means. It reads the rows that it (or another projection) wrote before through `Rows`. It has no clock:
the only time it knows is the entry's own `sequenced_at`, so a rebuild, an incremental run and a fresh fold by
an auditor give the same rows, byte for byte.

Each log has its own cursor. The facts of a partition's log may be folded as soon as the authority log has
been folded as far as they were judged by, and what they write does not depend on how much further it has
been. So every interleaving gives the same rows; what one log says about rows of another is laid over them
where they are read (`projections.leases.ended_elsewhere`).

Rows are plain mappings of canonical JSON values (integers, strings, booleans, lists, objects; see
docs/records/), so that a row can be proved later by the hash of its canonical bytes. Everything in these
rows comes from the logs; what a node learns by itself (a registry record verified by a live probe) is kept
elsewhere.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from statelog.admission import reread
from statelog.leaf import split_leaf
from statelog.times import parse_time

if TYPE_CHECKING:
    from statelog.replay import Entry

AUTHORITY = "authority"  # the name of the authority log
Key = tuple[str, ...]
Row = Mapping[str, Any]
ColumnType = Literal["text", "integer", "boolean", "json"]


@dataclass(frozen=True)
class Table:
    """The shape of one read model: its name, its key columns (a prefix of `columns`) and each column's
    type. A row has its columns in this order.
    """

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, ColumnType]
    indexes: tuple[tuple[str, ...], ...] = ()

    def key_of(self, row: Row) -> Key:
        """The key of a row."""
        return self._key(row)

    @cached_property
    def column_names(self) -> tuple[str, ...]:
        """The columns in order."""
        return tuple(self.columns)

    @cached_property
    def _key(self) -> Callable[[Row], Key]:
        return values_of(self.key)


def values_of(columns: Sequence[str]) -> Callable[[Row], tuple[Any, ...]]:
    """A function of a row that answers with its values in these columns."""
    if len(columns) > 1:
        return itemgetter(*columns)
    if not columns:
        return lambda row: ()
    (column,) = columns
    return lambda row: (row[column],)


class Put(NamedTuple):
    """The row under `key` is now `row`, whole: every column of the table is present."""

    table: str
    key: Key
    row: Row


class Delete(NamedTuple):
    """There is no row under `key` any more."""

    table: str
    key: Key


Change = Put | Delete


@dataclass(slots=True)  # not frozen: one is made for every entry of every fold
class Fact:
    """One sequenced record as the folds see it.

    `index` is the entry's index in `log`, `sequenced_at` its time in Unix seconds. In the log of a partition
    `authority_size` says how much of the authority log it was judged by.
    """

    record: Mapping[str, Any]
    record_id: str
    index: int
    sequenced_at: int
    log: str = AUTHORITY
    authority_size: int | None = None

    @property
    def judged_at(self) -> int:
        """The size of the authority log whose state admitted the record."""
        return self.index if self.authority_size is None else self.authority_size

    @property
    def schema(self) -> str:
        """The record's schema_version."""
        return str(self.record["schema_version"])

    @property
    def issued_at(self) -> int:
        """Unix seconds."""
        return parse_time(self.record["issued_at"])

    @property
    def expires_at(self) -> int:
        """Unix seconds."""
        return parse_time(self.record["expires_at"])


def fact_of_entry(entry: Entry, log: str = AUTHORITY) -> Fact:
    """The fact of an entry that `statelog.replay.Replay.append` has admitted."""
    return Fact(entry.record, entry.record_id, entry.index, entry.sequenced_at, log, entry.authority_size)


def fact_of_leaf(index: int, leaf_bytes: bytes, log: str = AUTHORITY) -> Fact:
    """The fact of stored leaf bytes, for a rebuild from entries that were admitted when they were stored."""
    leaf = split_leaf(leaf_bytes)
    record, record_id = reread(leaf.record)
    return Fact(record, record_id, index, leaf.sequenced_at, log, leaf.authority_size)


class Rows(Protocol):
    """The rows as they are before the fact is folded."""

    def get(self, table: str, key: Key) -> Row | None:
        """The row under `key`, or None."""
        ...

    def where(self, table: str, **equal: Any) -> Sequence[Row]:
        """All rows whose columns equal the given values, in the order of their keys."""
        ...

    def where_at_most(self, table: str, column: str, limit: int, **equal: Any) -> Sequence[Row]:
        """Those of `where` whose integer `column` is at most `limit`, without looking at the others."""
        ...


class Projection(Protocol):
    """One read model. `fold` is pure and total: a kind that is not of its `schemas` means no change."""

    @property
    def name(self) -> str: ...

    @property
    def table(self) -> Table: ...

    @property
    def schemas(self) -> tuple[str, ...]: ...

    def fold(self, rows: Rows, fact: Fact) -> list[Change]: ...


class _Equal:
    """Rows by their values in some columns."""

    __slots__ = ("columns", "found", "values")

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.values = values_of(columns)
        self.found: dict[tuple[Any, ...], dict[Key, Row]] = {}

    def add(self, key: Key, row: Row) -> None:
        """A new row."""
        values = self.values(row)
        rows = self.found.get(values)
        if rows is None:
            self.found[values] = {key: row}
        else:
            rows[key] = row

    def remove(self, key: Key, row: Row) -> None:
        """A row that was added."""
        values = self.values(row)
        rows = self.found[values]
        del rows[key]
        if not rows:
            del self.found[values]


class _AtMost:
    """Keys of rows by their values in some columns, each list in the order of one integer column."""

    __slots__ = ("column", "found", "values")

    def __init__(self, columns: tuple[str, ...], column: str) -> None:
        self.column = column
        self.values = values_of(columns)
        self.found: dict[tuple[Any, ...], list[tuple[int, Key]]] = {}

    def add(self, key: Key, row: Row) -> None:
        """A new row."""
        insort(self.found.setdefault(self.values(row), []), (row[self.column], key))

    def remove(self, key: Key, row: Row) -> None:
        """A row that was added."""
        values = self.values(row)
        order = self.found[values]
        del order[bisect_left(order, (row[self.column], key))]
        if not order:
            del self.found[values]


class MemoryRows:
    """Rows in dictionaries, with their declared indexes: for audits, simulations and tests.

    An index for `where_at_most` is made when it is first asked for.
    """

    def __init__(self, tables: Iterable[Table]) -> None:
        self._tables: dict[str, dict[Key, Row]] = {}
        self._equal: dict[str, list[_Equal]] = {}
        self._at_most: dict[str, dict[tuple[str, ...], _AtMost]] = {}
        self._indexes: dict[str, list[_Equal | _AtMost]] = {}  # all of a table
        for table in tables:
            self._tables[table.name] = {}
            self._equal[table.name] = [_Equal(columns) for columns in table.indexes]
            self._at_most[table.name] = {}
            self._indexes[table.name] = [*self._equal[table.name]]

    def get(self, table: str, key: Key) -> Row | None:
        """The row under `key`, or None."""
        return self._tables[table].get(key)

    def where(self, table: str, **equal: Any) -> Sequence[Row]:
        """All rows whose columns equal the given values, in the order of their keys."""
        among = self._tables[table]
        for index in self._equal[table]:
            if equal.keys() >= set(index.columns):
                among = index.found.get(tuple(equal[column] for column in index.columns), {})
                break
        found = [
            (key, row)
            for key, row in among.items()
            if all(row[column] == value for column, value in equal.items())
        ]
        return [row for _, row in sorted(found, key=_by_key)] if len(found) > 1 else [row for _, row in found]

    def where_at_most(self, table: str, column: str, limit: int, **equal: Any) -> Sequence[Row]:
        """Those of `where` whose integer `column` is at most `limit`; costs what it finds."""
        columns = (column, *equal)
        index = self._at_most[table].get(columns)
        if index is None:
            index = self._at_most[table][columns] = _AtMost(tuple(equal), column)
            self._indexes[table].append(index)
            for key, row in self._tables[table].items():
                index.add(key, row)
        order = index.found.get(tuple(equal.values()))
        if order is None or order[0][0] > limit:
            return ()
        keys = sorted(key for _, key in order[: bisect_left(order, (limit + 1,))])
        return [self._tables[table][key] for key in keys]

    def apply(self, changes: Iterable[Change]) -> None:
        """Make the changes, in order."""
        for change in changes:
            rows, indexes, key = self._tables[change.table], self._indexes[change.table], change.key
            old = rows.pop(key, None)
            if old is not None:
                for index in indexes:
                    index.remove(key, old)
            if isinstance(change, Put):
                rows[key] = change.row
                for index in indexes:
                    index.add(key, change.row)

    def rows(self, table: str) -> Iterator[Row]:
        """All rows of a table in the order of their keys."""
        yield from (row for _, row in sorted(self._tables[table].items(), key=_by_key))


def _by_key(item: tuple[Key, Row]) -> Key:
    return item[0]


def put(table: Table, row: Row) -> Put:
    """A `Put` of a whole row; a forgotten column fails here and not in a database."""
    if tuple(row) != table.column_names:
        strange = sorted(row.keys() ^ table.columns.keys()) or "their order"
        raise ValueError(f"{table.name}: columns differ by {strange}")
    return Put(table.name, table.key_of(row), row)
