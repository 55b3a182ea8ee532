"""A node's working tables: the outbox, its witness's memory, evidence, and records that act ahead of the log.

None of it is part of the log. What is lost here costs a retry, with one exception: `witness_state` is the
memory that keeps a witness from cosigning two histories.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import sqlalchemy as sa

from statelog.findings import Finding
from statelog.io import tables
from statelog.limits import HASH_BYTES, MAX_EVIDENCE_PER_EPOCH, MAX_ROLLBACKS, MAX_SPLIT_VIEWS
from statelog.rollback import Rollback
from statelog.splitview import SplitView
from statelog.witness import WitnessState

OutboxState = Literal["pending", "final", "refused"]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A submitted record. Pending with a `log_index` means sequenced in `log` and not yet final.

    `code` and `sentence` say why it was refused; `received_at` is Unix seconds.
    """

    record_id: str
    data: bytes
    received_at: int
    state: OutboxState
    code: str | None
    sentence: str | None
    log: str | None
    log_index: int | None


@dataclass(frozen=True, slots=True)
class AheadRecord:
    """A record that acts on this node before a log carries it. Times are Unix seconds."""

    record_id: str
    schema_version: str
    subject: str
    epoch: int
    expires_at: int
    received_at: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Evidence:
    """One of two validly signed records with one subject and epoch."""

    subject: str
    epoch: int
    record_id: str
    data: bytes
    seen_at: int


class EvidenceCounts(NamedTuple):
    """Equivocations (subject and epoch), split views, and rollbacks whose source is still behind."""

    equivocations: int = 0
    split_views: int = 0
    rollbacks: int = 0


@dataclass(frozen=True, slots=True)
class KeptRollback:
    """`source` showed a head of `earlier_size` and at Unix second `seen_at` one of `size`; `over_at` is when
    it was back, None while it is not.
    """

    source: str
    size: int
    earlier_size: int
    found: Rollback
    seen_at: int
    over_at: int | None = None


@dataclass(frozen=True, slots=True)
class KeptSplitView:
    """A proved split view: size and root of the smaller head, size of the larger, who showed one of them, and
    when (Unix seconds).
    """

    size: int
    root: bytes
    larger_size: int
    found: SplitView
    source: str
    seen_at: int


class WorkingTables(ABC):
    """The part of `statelog.io.store.Store` that is not the log; all logs of a database share it."""

    log: str

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @abstractmethod
    def writing(self, connection: sa.Connection | None = None) -> AbstractContextManager[sa.Connection]:
        """A write transaction: the given one, or one of its own."""

    @abstractmethod
    def reading(self, connection: sa.Connection | None = None) -> AbstractContextManager[sa.Connection]:
        """A read transaction: the given one, or one of its own."""

    # --- outbox ---

    def outbox_put(
        self, record_id: str, data: bytes, received_at: int, connection: sa.Connection | None = None
    ) -> OutboxRow:
        """Queue a record for sequencing and answer with its row.

        The caller has admitted this copy. A record that is pending or final stays as it is; one that was
        refused is queued anew, because another copy of the same record may pass. Two rows.
        """
        with self.writing(connection) as used:
            known = self.outbox_row(record_id, used)
            if known is not None and known.state != "refused":
                return known
            table = tables.outbox
            used.execute(table.delete().where(table.c.record_id == record_id))
            row = OutboxRow(record_id, data, received_at, "pending", None, None, None, None)
            used.execute(
                table.insert(), {name: getattr(row, name) for name in OutboxRow.__dataclass_fields__}
            )
            return row

    def outbox_row(self, record_id: str, connection: sa.Connection | None = None) -> OutboxRow | None:
        """What became of a submitted record, None when it never was in the outbox; one row."""
        columns = tables.outbox.c
        query = sa.select(*(columns[name] for name in OutboxRow.__dataclass_fields__))
        with self.reading(connection) as used:
            row = used.execute(query.where(columns.record_id == record_id)).first()
        return None if row is None else OutboxRow(*row)

    def outbox_pending(self, limit: int, connection: sa.Connection | None = None) -> list[OutboxRow]:
        """Up to `limit` records that wait to be sequenced, oldest first."""
        columns = tables.outbox.c
        query = (
            sa.select(*(columns[name] for name in OutboxRow.__dataclass_fields__))
            .where(columns.state == "pending", columns.log_index.is_(None))
            .order_by(columns.received_at, columns.record_id)
            .limit(limit)
        )
        with self.reading(connection) as used:
            return [OutboxRow(*row) for row in used.execute(query)]

    def outbox_sequenced(
        self, record_id: str, log_index: int, connection: sa.Connection | None = None
    ) -> None:
        """The record is in this log at `log_index`, and final if the log is final beyond it; one row."""
        head = tables.log_head.c
        table = tables.outbox
        with self.writing(connection) as used:
            final = used.execute(sa.select(head.final_size).where(head.log == self.log)).scalar() or 0
            state: OutboxState = "final" if log_index < final else "pending"
            place = {"log": self.log, "log_index": log_index}
            values = {"state": state, "code": None, "sentence": None, **place}
            used.execute(table.update().where(table.c.record_id == record_id).values(**values))

    def outbox_refused(self, record_id: str, why: Finding, connection: sa.Connection | None = None) -> None:
        """The record was refused; it leaves the queue and its finding stays. One row."""
        table = tables.outbox
        with self.writing(connection) as used:
            waiting = (table.c.record_id == record_id) & table.c.log_index.is_(None)
            values = {"state": "refused", "code": why.code, "sentence": why.sentence}
            used.execute(table.update().where(waiting).values(**values))

    def _outbox_finalize(self, size: int, connection: sa.Connection) -> None:
        table = tables.outbox
        done = (table.c.state == "pending") & (table.c.log == self.log) & (table.c.log_index < size)
        connection.execute(table.update().where(done).values(state="final"))

    def outbox_dropped(self, size: int, connection: sa.Connection) -> None:
        """What this log carried from `size` on and lost was never acknowledged: it waits once more."""
        table = tables.outbox
        lost = (table.c.state == "pending") & (table.c.log == self.log) & (table.c.log_index >= size)
        connection.execute(table.update().where(lost).values(log=None, log_index=None))

    # --- witness ---

    def witness_state(self, origin: str, connection: sa.Connection | None = None) -> WitnessState | None:
        """What this node's witness last cosigned of the log `origin`; one row."""
        columns = tables.witness_state.c
        query = sa.select(columns.origin, columns.size, columns.root, columns.term)
        with self.reading(connection) as used:
            row = used.execute(query.where(columns.origin == origin)).first()
        return None if row is None else WitnessState(*row)

    def witness_compare_and_set(
        self, expected: WitnessState, new: WitnessState, connection: sa.Connection | None = None
    ) -> bool:
        """Remember `new` if what is stored is still `expected`; False, and no change, when it is not.

        A witness without memory expects size 0. Durable when this returns without a connection given.
        """
        if expected.origin != new.origin or new.size < expected.size or new.term < expected.term:
            raise ValueError("a witness only moves forward")
        table = tables.witness_state
        with self.writing(connection) as used:
            # Lock the row, or on SQLite the whole database, before comparing.
            row_of = sa.select(table.c.size, table.c.root, table.c.term).where(
                table.c.origin == expected.origin
            )
            row = used.execute(row_of.with_for_update()).first()
            values = {"size": new.size, "root": new.root, "term": new.term}
            if row is None:
                if expected.size != 0:
                    return False
                used.execute(table.insert(), {"origin": new.origin, **values})
                return True
            if (row.size, bytes(row.root), row.term) != (expected.size, expected.root, expected.term):
                return False
            used.execute(table.update().where(table.c.origin == new.origin).values(**values))
            return True

    # --- evidence ---

    def evidence_add(self, item: Evidence, connection: sa.Connection | None = None) -> bool:
        """Keep a validly signed record as proof of equivocation; False when two of its epoch are kept."""
        table = tables.evidence
        here = (table.c.subject == item.subject) & (table.c.epoch == item.epoch)
        with self.writing(connection) as used:
            known = used.execute(sa.select(table.c.record_id).where(here)).scalars().all()
            if item.record_id in known or len(known) >= MAX_EVIDENCE_PER_EPOCH:
                return False
            row = {name: getattr(item, name) for name in Evidence.__dataclass_fields__}
            used.execute(table.insert(), row)
            return True

    def evidence(self, connection: sa.Connection | None = None) -> Iterator[Evidence]:
        """All evidence, by subject, epoch and record id."""
        columns = tables.evidence.c
        query = sa.select(*(columns[name] for name in Evidence.__dataclass_fields__))
        with self.reading(connection) as used:
            rows = used.execute(query.order_by(columns.subject, columns.epoch, columns.record_id)).all()
        yield from (Evidence(*row) for row in rows)

    def split_view_add(self, item: KeptSplitView, connection: sa.Connection | None = None) -> bool:
        """Keep a proved split view; False when that head is kept already, or enough are."""
        table = tables.split_view
        with self.writing(connection) as used:
            known = used.execute(sa.select(table.c.size, table.c.root).where(table.c.log == self.log)).all()
            if len(known) >= MAX_SPLIT_VIEWS or any(tuple(row) == (item.size, item.root) for row in known):
                return False
            row = {
                "log": self.log,
                "size": item.size,
                "root": item.root,
                "note": item.found.smaller,
                "larger_size": item.larger_size,
                "larger_note": item.found.larger,
                "larger_root": item.found.root,
                "proof": b"".join(item.found.proof),
                "source": item.source,
                "seen_at": item.seen_at,
            }
            used.execute(table.insert(), row)
            return True

    def split_views(self, connection: sa.Connection | None = None) -> list[KeptSplitView]:
        """The kept split views of this log, by size and root."""
        table = tables.split_view
        query = sa.select(table).where(table.c.log == self.log).order_by(table.c.size, table.c.root)
        with self.reading(connection) as used:
            rows = used.execute(query).all()
        return [
            KeptSplitView(
                row.size,
                row.root,
                row.larger_size,
                SplitView(row.note, row.larger_note, row.larger_root, _hashes(row.proof)),
                row.source,
                row.seen_at,
            )
            for row in rows
        ]

    def rollback_keep(self, item: KeptRollback, connection: sa.Connection | None = None) -> bool:
        """Keep the newest rollback of a source; False when one is under way, or those of enough others are
        kept.
        """
        table = tables.rollback
        here = (table.c.log == self.log) & (table.c.source == item.source)
        row = {
            "size": item.size,
            "note": item.found.later,
            "earlier_size": item.earlier_size,
            "earlier_note": item.found.earlier,
            "seen_at": item.seen_at,
            "over_at": item.over_at,
        }
        with self.writing(connection) as used:
            of_log = sa.select(table.c.source, table.c.over_at).where(table.c.log == self.log)
            over = {row.source: row.over_at for row in used.execute(of_log)}
            if item.source in over:
                if over[item.source] is None:
                    return False
                used.execute(table.update().where(here).values(**row))
                return True
            if len(over) >= MAX_ROLLBACKS:
                return False
            used.execute(table.insert(), {"log": self.log, "source": item.source, **row})
            return True

    def rollback_over(self, source: str, now: int, connection: sa.Connection | None = None) -> None:
        """The source has come back to where it was."""
        table = tables.rollback
        here = (table.c.log == self.log) & (table.c.source == source) & table.c.over_at.is_(None)
        with self.writing(connection) as used:
            used.execute(table.update().where(here).values(over_at=now))

    def rollbacks(self, connection: sa.Connection | None = None) -> list[KeptRollback]:
        """The kept rollbacks of this log, by when they were seen."""
        table = tables.rollback
        query = sa.select(table).where(table.c.log == self.log).order_by(table.c.seen_at, table.c.source)
        with self.reading(connection) as used:
            rows = used.execute(query).all()
        return [
            KeptRollback(
                row.source,
                row.size,
                row.earlier_size,
                Rollback(row.earlier_note, row.note),
                row.seen_at,
                row.over_at,
            )
            for row in rows
        ]

    def evidence_counts(self, connection: sa.Connection | None = None) -> EvidenceCounts:
        """What is kept, of this log where it is about heads."""
        pairs = sa.select(tables.evidence.c.subject, tables.evidence.c.epoch).distinct().subquery()
        views = sa.select(sa.func.count()).where(tables.split_view.c.log == self.log)
        back = tables.rollback.c
        behind = sa.select(sa.func.count()).where((back.log == self.log) & back.over_at.is_(None))
        with self.reading(connection) as used:
            return EvidenceCounts(
                used.execute(sa.select(sa.func.count()).select_from(pairs)).scalar() or 0,
                used.execute(views).scalar() or 0,
                used.execute(behind).scalar() or 0,
            )

    # --- ahead of the log ---

    def ahead_put(self, item: AheadRecord, connection: sa.Connection | None = None) -> None:
        """Keep a record that acts ahead of the log until the log decides; replaces the same record."""
        table = tables.ahead_record
        with self.writing(connection) as used:
            used.execute(table.delete().where(table.c.record_id == item.record_id))
            used.execute(
                table.insert(), {name: getattr(item, name) for name in AheadRecord.__dataclass_fields__}
            )

    def ahead_drop(self, record_id: str, connection: sa.Connection | None = None) -> bool:
        """Forget a record that the log now carries or has refused; False when it was not there."""
        table = tables.ahead_record
        with self.writing(connection) as used:
            return used.execute(table.delete().where(table.c.record_id == record_id)).rowcount == 1

    def ahead_records(self, connection: sa.Connection | None = None) -> list[AheadRecord]:
        """All records that act ahead of the log, oldest first."""
        columns = tables.ahead_record.c
        query = sa.select(*(columns[name] for name in AheadRecord.__dataclass_fields__))
        with self.reading(connection) as used:
            rows = used.execute(query.order_by(columns.received_at, columns.record_id)).all()
        return [AheadRecord(*row) for row in rows]


def _hashes(joined: bytes) -> tuple[bytes, ...]:
    """Hashes that stand one after the other; the last one is short when a row was damaged."""
    return tuple(joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES))
