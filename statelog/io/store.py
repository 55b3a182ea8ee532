"""The log in a SQL database: entries, tree, checkpoints, cosignatures and the head, each append one
transaction.

Every method takes an optional connection, so that a caller can put several of them, and the projections'
rows, into one transaction (`Store.writing`). Costs are given in rows; n is the size of the log.
"""

# Long on purpose: every statement about the tables of the log, beside the transaction that joins them.
from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa

from statelog.errors import SourceUnreadable, UsageError
from statelog.io import tables
from statelog.io.database import read_transaction, write_transaction
from statelog.io.statements import LOCK_HEAD, MOVE_HEAD, PUT_CHECKPOINT, PUT_ENTRY, PUT_NODE, READ_HEAD
from statelog.io.tables import not_bytes, unchecked
from statelog.io.working import WorkingTables
from statelog.limits import STORE_BATCH_ENTRIES
from statelog.merkle import EMPTY_ROOT, CompactRange, ReadNode, complete_subtrees
from statelog.replay import Entry, Replay
from statelog.state import AUTHORITY_LOG


@dataclass(frozen=True, slots=True)
class Head:
    """Where a log ends and up to where it is final. `sequenced_at` (Unix seconds) is the newest entry's."""

    origin: str
    anchor: str
    size: int
    root: bytes
    term: int
    sequenced_at: int
    final_size: int
    final_root: bytes


class StoredEntry(NamedTuple):
    """A row of `log_entry`: its place in the log, the record's id, the leaf hash and the leaf's bytes."""

    index: int  # type: ignore[assignment]  # the field's own word; nobody searches in a row
    record_id: str
    leaf_hash: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class StoredCosignature:
    """A verified cosignature: hex key id of the witness, its name, the time it gave, its line with
    newline.
    """

    witness_key_id: str
    name: str
    timestamp: int
    line: str


class Store(WorkingTables):
    """One log of the database `engine`, and this node's working tables."""

    def __init__(self, engine: sa.Engine, log: str = AUTHORITY_LOG) -> None:
        super().__init__(engine)
        self.log = log

    @contextmanager
    def writing(self, connection: sa.Connection | None = None) -> Iterator[sa.Connection]:
        """`connection`, or a write transaction of its own that commits at the end of the block."""
        if connection is not None:
            yield connection
        else:
            with write_transaction(self.engine) as own:
                yield own

    @contextmanager
    def reading(self, connection: sa.Connection | None = None) -> Iterator[sa.Connection]:
        """`connection`, or a read transaction of its own: one snapshot of the database."""
        if connection is not None:
            yield connection
        else:
            with read_transaction(self.engine) as own:
                yield own

    def of(self, log: str) -> Store:
        """Another log of the same database."""
        return self if log == self.log else Store(self.engine, log)

    def logs(self, connection: sa.Connection | None = None) -> list[str]:
        """The names of all logs that the database holds a head of, the authority log first."""
        with self.reading(connection) as used:
            found = set(used.execute(sa.select(tables.log_head.c.log)).scalars())
        return _names_in_order(found)

    def logs_with_rows(self, connection: sa.Connection | None = None) -> list[str]:
        """The names of all logs of which the database holds anything, whether or not there is a head."""
        with self.reading(connection) as used:
            found = set(self.logs(used))
            for table in (tables.log_entry, tables.log_node, tables.checkpoint, tables.cosignature):
                column = table.c.log
                name: str | None = ""  # one look at the index for each log, however many entries it has
                while name is not None:
                    name = used.execute(sa.select(sa.func.min(column)).where(column > name)).scalar()
                    found |= set() if name is None else {name}
        return _names_in_order(found)

    def locate(self, record_id: str, connection: sa.Connection | None = None) -> tuple[Store, int] | None:
        """The log that carries a record, and the record's index there; one row for each log."""
        with self.reading(connection) as used:
            for log in self.logs(used):
                store = self.of(log)
                index = store.find(record_id, used)
                if index is not None:
                    return store, index
        return None

    # --- head ---

    def head(self, connection: sa.Connection | None = None, *, lock: bool = False) -> Head | None:
        """The head row, None before the log's first entry; one row. `lock` holds it to the
        transaction's end.
        """
        with self.reading(connection) as used:
            row = (LOCK_HEAD if lock else READ_HEAD).first(used, {"of_log": self.log})
        if row is None:
            return None
        head = Head(*row)
        for value in (head.root, head.final_root):
            if type(value) is not bytes:
                raise not_bytes(value)
        return head

    def set_final(self, size: int, root: bytes, connection: sa.Connection | None = None) -> bool:
        """Mark the head of `size` entries final; the caller has verified its cosignatures.

        Never goes back: False when the log was final up to `size` already. Records of the outbox below `size`
        become final with it. Raises UsageError when the checkpoint stored at `size` has another root or none.
        One row, and the outbox rows concerned.
        """
        with self.writing(connection) as used:
            head = self.head(used, lock=True)
            known = self._checkpoint_row(size, used)
            if head is None or known is None or known.root != root or size > head.size:
                raise UsageError(f"the log {self.log} has no checkpoint of size {size} with that root")
            if size <= head.final_size:
                return False
            row_of = tables.log_head
            used.execute(
                row_of.update().where(row_of.c.log == self.log).values(final_size=size, final_root=root)
            )
            self._outbox_finalize(size, used)
            return True

    # --- entries ---

    def append_entries(
        self,
        entries: Sequence[Entry],
        after: Replay,
        note: bytes | None,
        connection: sa.Connection | None = None,
        *,
        locked: Head | None = None,
    ) -> None:
        """Store new entries, the tree nodes they completed, the head and its signed checkpoint, all or
        nothing.

        `after` is the replay that accepted them, standing right behind them; `note` is the checkpoint of that
        size, verified or just signed. Only a replica in the middle of catching up passes None: until the next
        checkpoint its tail is not covered. `locked` is the head if this transaction has locked it already.
        Amortised two rows an entry and two more.

        Raises UsageError when the entries do not continue what is stored.
        """
        if not entries:
            raise UsageError("an append without entries")
        first, last = entries[0].index, entries[-1].index
        if last - first + 1 != len(entries) or after.size != last + 1:
            raise UsageError("the entries do not lead to the state that is to be stored with them")
        with self.writing(connection) as used:
            head = self.head(used, lock=True) if locked is None else locked
            if first != (0 if head is None else head.size):
                raise UsageError(
                    f"entry {first} does not continue a log of {0 if head is None else head.size}"
                )
            PUT_ENTRY.run(used, *map(self._entry_row, entries))
            nodes = [
                {"log": self.log, "level": level, "node_index": index, "hash": hash_}
                for entry in entries
                for level, index, hash_ in entry.new_nodes
                if level > 0
            ]
            if nodes:
                PUT_NODE.run(used, *nodes)
            self._move_head(head, after, used)
            if note is not None:
                row = {"log": self.log, "size": after.size, "root": after.root(), "note": note}
                PUT_CHECKPOINT.run(used, row)  # there is none at a size that the log never had

    def entries(
        self, start: int, end: int | None = None, connection: sa.Connection | None = None
    ) -> Iterator[StoredEntry]:
        """The entries start … end - 1 (to the head without `end`) in order, in batches of bounded memory.

        Ends early where the log ends. Without a connection each batch is a transaction: entries never change.
        """
        entry = tables.log_entry.c
        columns = (entry.log_index, entry.record_id, unchecked(entry.leaf_hash), unchecked(entry.leaf))
        for row in self._in_order(columns, (entry.log == self.log,), start, end, connection):
            stored = tuple.__new__(StoredEntry, row)  # made in C alone, as one is for every entry of a log
            if type(stored.leaf_hash) is not bytes or type(stored.leaf) is not bytes:
                raise not_bytes(stored.leaf if type(stored.leaf_hash) is bytes else stored.leaf_hash)
            yield stored

    def rows(self, connection: sa.Connection | None = None) -> Iterator[tuple[int, str, bytes]]:
        """(log index, record id, leaf hash) of every entry, without the leaves, read in batches."""
        entry = tables.log_entry.c
        columns = (entry.log_index, entry.record_id, unchecked(entry.leaf_hash))
        for index, record_id, hash_ in self._in_order(columns, (entry.log == self.log,), 0, None, connection):
            if type(hash_) is not bytes:
                raise not_bytes(hash_)
            yield index, record_id, hash_

    def _in_order(
        self,
        columns: Sequence[sa.ColumnElement[Any]],
        where: Sequence[sa.ColumnElement[bool]],
        start: int,
        end: int | None,
        connection: sa.Connection | None,
    ) -> Iterator[Any]:
        """Rows by their first column, an index, from `start` to `end` - 1 or to the last, read in batches.

        With a connection they are the answer to one statement, fetched as they are consumed.
        """
        index = columns[0]
        query = sa.select(*columns).order_by(index)
        if connection is not None:
            beyond = () if end is None else (index < end,)
            found = query.where(*where, index >= start, *beyond)
            with connection.execute(found, execution_options={"yield_per": STORE_BATCH_ENTRIES}) as answer:
                for batch in answer.partitions():
                    yield from batch
            return
        while end is None or start < end:
            limit = STORE_BATCH_ENTRIES if end is None else min(STORE_BATCH_ENTRIES, end - start)
            with self.reading() as used:
                batch = used.execute(query.where(*where, index >= start).limit(limit)).all()
            yield from batch
            if len(batch) < limit:
                return
            start = batch[-1][0] + 1

    def find(self, record_id: str, connection: sa.Connection | None = None) -> int | None:
        """The log index of a record, None when it is not in the log; one row."""
        columns = tables.log_entry.c
        query = sa.select(columns.log_index).where(columns.log == self.log, columns.record_id == record_id)
        with self.reading(connection) as used:
            return used.execute(query).scalar()

    def read_nodes(self, wanted: Iterable[tuple[int, int]], connection: sa.Connection) -> ReadNode:
        """The complete subtrees (level, index) in `wanted`, read at once: two statements however many.

        Answers with a reader of them for `statelog.merkle`, which raises SourceUnreadable for a node that is
        not stored.
        """
        nodes = set(wanted)
        leaves = [index for level, index in nodes if level == 0]
        above = [number for node in nodes if node[0] > 0 for number in node]
        found: dict[tuple[int, int], bytes] = {}
        if leaves:
            query = _leaf_hashes_query(len(leaves), connection.dialect.paramstyle)
            for index, hash_ in connection.exec_driver_sql(query, (self.log, *leaves)):
                found[0, index] = bytes(hash_)
        if above:
            query = _nodes_query(len(above) // 2, connection.dialect.paramstyle)
            for level, index, hash_ in connection.exec_driver_sql(query, (*above, self.log)):
                found[level, index] = bytes(hash_)

        def read(level: int, index: int) -> bytes:
            try:
                return found[level, index]
            except KeyError:
                sentence = f"the log {self.log} has no tree node {index} at level {level}"
                raise SourceUnreadable(sentence) from None

        return read

    def tree(self, size: int, connection: sa.Connection) -> CompactRange:
        """The right edge of the tree of the first `size` entries, from log2(size) nodes.

        Raises SourceUnreadable when one is not stored.
        """
        return CompactRange.from_nodes(size, self.read_nodes(complete_subtrees(0, size), connection))

    def nodes(self, level: int, connection: sa.Connection | None = None) -> Iterator[tuple[int, bytes]]:
        """The stored tree nodes (index, hash) of one level, 1 or higher, in order, read in batches."""
        node = tables.log_node.c
        where = (node.log == self.log, node.level == level)
        for index, hash_ in self._in_order(
            (node.node_index, unchecked(node.hash)), where, 0, None, connection
        ):
            if type(hash_) is not bytes:
                raise not_bytes(hash_)
            yield index, hash_

    # --- checkpoints and cosignatures ---

    def put_checkpoint(
        self, size: int, root: bytes, note: bytes, connection: sa.Connection | None = None
    ) -> None:
        """Store the verified checkpoint of `size`, with the sequencer's signature alone; one row.

        One that is there already stays. Raises UsageError when that one has another root.
        """
        with self.writing(connection) as used:
            known = self._checkpoint_row(size, used)
            if known is None:
                row = {"log": self.log, "size": size, "root": root, "note": note}
                used.execute(tables.checkpoint.insert(), row)
            elif known.root != root:
                raise UsageError(f"the log {self.log} has another checkpoint of size {size}")

    def checkpoint(self, size: int | None = None, connection: sa.Connection | None = None) -> bytes | None:
        """The signed note of the checkpoint at `size` (the newest without) with all stored cosignature lines.

        None when there is none. One row and one for each cosignature.
        """
        with self.reading(connection) as used:
            row = self._checkpoint_row(size, used)
            return None if row is None else self._with_lines(row.size, row.note, used)

    def newest_checkpoint_size(self, connection: sa.Connection | None = None) -> int:
        """The size of the newest stored checkpoint, 0 when there is none; one row."""
        with self.reading(connection) as used:
            row = self._checkpoint_row(None, used)
        return 0 if row is None else row.size

    def checkpoints(
        self, start: int = 0, connection: sa.Connection | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """(size, note with cosignature lines) of every checkpoint of at least `start` entries, by size."""
        columns = tables.checkpoint.c
        beyond = columns.size >= start
        while True:
            query = sa.select(columns.size, columns.note).where(columns.log == self.log, beyond)
            with self.reading(connection) as used:
                rows = used.execute(query.order_by(columns.size).limit(STORE_BATCH_ENTRIES)).all()
                found = [(row.size, self._with_lines(row.size, row.note, used)) for row in rows]
            yield from found
            if not rows:
                return
            beyond = columns.size > rows[-1].size

    def put_cosignatures(
        self, size: int, found: Sequence[StoredCosignature], connection: sa.Connection | None = None
    ) -> None:
        """Keep cosignatures of the checkpoint at `size`, each the newest of its witness.

        The caller has verified them (`statelog.checkpoint.verify_cosignature`): nothing else is ever stored.
        Two rows each.
        """
        columns = tables.cosignature.c
        with self.writing(connection) as used:
            for one in found:
                here = (columns.log == self.log) & (columns.size == size)
                here &= columns.witness_key_id == one.witness_key_id
                known = used.execute(sa.select(columns.timestamp).where(here)).scalar()
                if known is not None and known >= one.timestamp:
                    continue
                used.execute(tables.cosignature.delete().where(here))
                row = {name: getattr(one, name) for name in StoredCosignature.__dataclass_fields__}
                used.execute(tables.cosignature.insert(), {"log": self.log, "size": size, **row})

    def cosignatures(self, size: int, connection: sa.Connection | None = None) -> list[StoredCosignature]:
        """The cosignatures stored for the checkpoint at `size`, by witness name."""
        with self.reading(connection) as used:
            return [
                StoredCosignature(row.witness_key_id, row.name, row.timestamp, row.line)
                for row in used.execute(self._cosignature_query(size))
            ]

    def cosigned_size(self, witness_key_id: str, connection: sa.Connection | None = None) -> int:
        """The largest size that this witness is known to have cosigned, 0 when none; one row."""
        columns = tables.cosignature.c
        query = sa.select(sa.func.max(columns.size)).where(
            columns.log == self.log, columns.witness_key_id == witness_key_id
        )
        with self.reading(connection) as used:
            return used.execute(query).scalar() or 0

    # --- rows ---

    def _entry_row(self, entry: Entry) -> dict[str, object]:
        return {
            "log": self.log,
            "log_index": entry.index,
            "record_id": entry.record_id,
            "leaf_hash": entry.leaf_hash,
            "leaf": entry.data,
        }

    def _move_head(self, head: Head | None, after: Replay, connection: sa.Connection) -> None:
        moved = {
            "size": after.size,
            "root": after.root(),
            "term": after.term,
            "sequenced_at": after.last_sequenced_at,
        }
        if head is not None:
            values = {f"new_{name}": value for name, value in moved.items()}
            MOVE_HEAD.run(connection, {"of_log": self.log, **values})
            return
        new = {"log": self.log, "origin": after.origin, "anchor": after.anchor, "final_size": 0}
        connection.execute(tables.log_head.insert(), {**new, **moved, "final_root": EMPTY_ROOT})

    def _checkpoint_row(
        self, size: int | None, connection: sa.Connection
    ) -> sa.Row[int, bytes, bytes] | None:
        columns = tables.checkpoint.c
        query = sa.select(columns.size, columns.root, columns.note).where(columns.log == self.log)
        if size is None:
            return connection.execute(query.order_by(columns.size.desc()).limit(1)).first()
        return connection.execute(query.where(columns.size == size)).first()

    def _cosignature_query(self, size: int) -> sa.Select[str, int, str, str]:
        columns = tables.cosignature.c
        return (
            sa.select(columns.name, columns.timestamp, columns.line, columns.witness_key_id)
            .where(columns.log == self.log, columns.size == size)
            .order_by(columns.name, columns.witness_key_id)
        )

    def _with_lines(self, size: int, note: bytes, connection: sa.Connection) -> bytes:
        return note + b"".join(row.line.encode() for row in connection.execute(self._cosignature_query(size)))


# Statements in the driver's own words, one text for each count, so that the driver prepares them once:
# SQLAlchemy takes longer to compile a list of pairs than the database to look them up.


@functools.cache
def _leaf_hashes_query(count: int, paramstyle: str) -> str:
    mark = "?" if paramstyle == "qmark" else "%s"
    marks = ", ".join([mark] * count)
    return f"SELECT log_index, leaf_hash FROM log_entry WHERE log = {mark} AND log_index IN ({marks})"  # noqa: S608 - only marks


@functools.cache
def _nodes_query(count: int, paramstyle: str) -> str:
    mark = "?" if paramstyle == "qmark" else "%s"
    pairs = ", ".join([f"({mark}, {mark})"] * count)
    return (
        f"WITH wanted (level, node_index) AS (VALUES {pairs}) "  # noqa: S608 - only marks
        "SELECT n.level, n.node_index, n.hash FROM wanted AS w JOIN log_node AS n "
        f"ON n.log = {mark} AND n.level = w.level AND n.node_index = w.node_index"
    )


def _names_in_order(found: set[str]) -> list[str]:
    return sorted(found, key=lambda log: (log != AUTHORITY_LOG, log))
