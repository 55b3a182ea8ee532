"""Writing the projections: rows and cursor in one transaction.

Each log has its own cursor and its own `Writer`. The rows are a function of the logs up to their cursors, so
a writer needs no lock of its own: the transaction reads the cursor, folds the entries from there on and moves
the cursor, and whoever loses a race folds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from projections.all import FOLD_VERSION, TABLES, fold
from projections.base import AUTHORITY, Change, Delete, Fact, MemoryRows, fact_of_leaf
from projections.io.rows import SqlRows, write_all
from projections.io.tables import SQL_TABLES, projection_cursor, registry_local
from projections.registry import TABLE as REGISTRY
from projections.registry import StatusChange
from statelog.io.database import read_transaction, write_transaction
from statelog.io.tables import log_entry

BATCH = 256  # entries read at once while folding from the store; bounds memory, as the batches of log replay


class Writer:
    """Folds sequenced entries into the tables of one store."""

    def __init__(self, engine: sa.Engine, log: str = AUTHORITY) -> None:
        self.engine = engine
        self.log = log

    def size(self, connection: sa.Connection | None = None) -> int:
        """The log size that the rows stand for; 0 when nothing was folded yet."""
        if connection is not None:
            return self._cursor(connection)[0]
        with read_transaction(self.engine) as own:
            return self._cursor(own)[0]

    def catch_up(self, facts: Iterable[Fact], connection: sa.Connection | None = None) -> list[Change]:
        """Folds facts in log order. Those below the cursor are skipped; a gap is a ValueError.

        `facts` come from `projections.base.fact_of_entry` (fresh from `Replay.append`) or `fact_of_leaf`
        (from the store). With `connection` the caller's transaction is used, so that entries, final head
        and rows are one commit; without, one is made. Returns the net row changes for `Snapshot.advance`;
        when the rows were written by folds of another version, they are first folded anew from the store,
        which is part of the answer.
        """
        with self._transaction(connection) as used:
            size = self._current(used)
            anew = self._refold(used) if size is None else []
            size = self._cursor(used)[0] if size is None else size
            changes, after = self._fold(used, facts, size)
            _forget_local(used, changes)
            if after != size:
                self._move(used, after)
            return [*anew, *changes]

    def catch_up_from_store(self, size: int, connection: sa.Connection | None = None) -> list[Change]:
        """Folds the stored entries from the cursor up to `size` (the final size)."""
        with self._transaction(connection) as used:
            return self.catch_up(stored_facts(used, self.log, self._cursor(used)[0], size), used)

    def rebuild(self, size: int | None = None) -> int:
        """Empties the tables and folds the stored entries anew up to `size`, or to where the cursor was, and
        those of other logs to their cursors.

        One transaction: readers see the old rows or the new ones. What the node found out itself stays.
        Returns the size folded.
        """
        with self._transaction(None) as used:
            self._refold(used, size)
            return self._cursor(used)[0]

    def save_statuses(self, changes: Iterable[StatusChange], connection: sa.Connection | None = None) -> None:
        """Keeps what a `RegistryBook` found, for the next start and for readers in other processes."""
        latest = {change.record_id: change for change in changes}
        if not latest:
            return
        kept = [
            {"record_id": change.record_id, "status": change.after, "verified_at": change.verified_at}
            for change in latest.values()
            if change.after is not None
        ]
        with self._transaction(connection) as used:
            used.execute(registry_local.delete().where(registry_local.c.record_id.in_(latest)))
            if kept:
                used.execute(registry_local.insert(), kept)

    @contextmanager
    def _transaction(self, connection: sa.Connection | None) -> Iterator[sa.Connection]:
        if connection is not None:
            yield connection
        else:
            with write_transaction(self.engine) as own:
                yield own

    def _cursor(self, connection: sa.Connection) -> tuple[int, int]:
        """Size and fold version, with the row locked where the database locks rows."""
        query = sa.select(projection_cursor.c.size, projection_cursor.c.fold_version)
        row = connection.execute(query.where(projection_cursor.c.log == self.log).with_for_update()).first()
        return (row.size, row.fold_version) if row is not None else (0, FOLD_VERSION)

    def _current(self, connection: sa.Connection) -> int | None:
        """The cursor's size, or None when folds of another version wrote the rows."""
        size, version = self._cursor(connection)
        return size if version == FOLD_VERSION else None

    def _fold(self, connection: sa.Connection, facts: Iterable[Fact], size: int) -> tuple[list[Change], int]:
        """Folds facts onto the stored rows; the net changes, and the size after them."""
        if not cursors(connection):  # the tables are empty
            fresh = MemoryRows(TABLES)
            after = _fold_from(fresh, facts, size, self._law(connection))
            return write_all(connection, fresh), after
        rows = SqlRows(connection)
        after = _fold_from(rows, facts, size, self._law(connection))
        return rows.flush(), after

    def _refold(self, connection: sa.Connection, size: int | None = None) -> list[Change]:
        """Folds the store anew, in memory, into emptied tables; moves the cursors; answers with all rows."""
        until = cursors(connection)
        if size is not None or self.log not in until:
            until[self.log] = size or 0
        for table in TABLES:
            connection.execute(SQL_TABLES[table.name].delete())
        rows = MemoryRows(TABLES)
        for log in sorted(until, key=_authority_first):
            after = _fold_from(rows, stored_facts(connection, log, 0, until[log]), 0)
            self._move(connection, after, log)
        return write_all(connection, rows)

    def _law(self, connection: sa.Connection) -> int | None:
        """How far the authority log is folded, None where this is its writer: it waits for no other."""
        return None if self.log == AUTHORITY else cursors(connection).get(AUTHORITY, 0)

    def _move(self, connection: sa.Connection, size: int, log: str | None = None) -> None:
        log = log or self.log
        connection.execute(projection_cursor.delete().where(projection_cursor.c.log == log))
        connection.execute(
            projection_cursor.insert(), {"log": log, "size": size, "fold_version": FOLD_VERSION}
        )


def cursors(connection: sa.Connection) -> dict[str, int]:
    """How far each log is folded, by name."""
    rows = connection.execute(sa.select(projection_cursor.c.log, projection_cursor.c.size))
    return {row.log: row.size for row in rows}


def _authority_first(log: str) -> tuple[bool, str]:
    return (log != AUTHORITY, log)


def stored_facts(connection: sa.Connection, log: str, start: int, end: int) -> Iterator[Fact]:
    """The facts of the stored entries start … end - 1, in batches. The log ending before `end` ends them
    early.
    """
    entry = log_entry.c
    for low in range(start, end, BATCH):
        query = sa.select(entry.log_index, entry.leaf).where(
            entry.log == log, entry.log_index >= low, entry.log_index < min(low + BATCH, end)
        )
        for row in connection.execute(query.order_by(entry.log_index)).all():
            yield fact_of_leaf(row.log_index, row.leaf, log)


def _forget_local(connection: sa.Connection, changes: Iterable[Change]) -> None:
    """What this node found out about a registry record goes with its row."""
    gone = [one.key[0] for one in changes if isinstance(one, Delete) and one.table == REGISTRY.name]
    if gone:
        connection.execute(registry_local.delete().where(registry_local.c.record_id.in_(gone)))


def _fold_from(rows: SqlRows | MemoryRows, facts: Iterable[Fact], size: int, law: int | None = None) -> int:
    """Folds facts onto rows that stand for `size` of their log and `law` of the authority log.

    Answers with the size after them.
    """
    for fact in facts:
        if fact.index < size:
            continue
        if fact.index > size:
            raise ValueError(f"entry {fact.index} cannot follow a projection of size {size}")
        if law is not None and fact.judged_at > law:
            raise ValueError(f"entry {fact.index} was judged beyond the {law} authority entries folded")
        rows.apply(fold(rows, fact))
        size += 1
        if size % BATCH == 0 and isinstance(rows, SqlRows):
            rows.settle()
    return size
