"""A node's working tables: the outbox, its witness's memory, and records that act ahead of the log.

None of it is part of the log. What is lost here costs a retry, with one exception: `witness_state` is the
memory that keeps a witness from cosigning two histories.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from statelog.audit_store import StoredAhead
from statelog.findings import Finding
from statelog.io import tables
from statelog.io.evidence import EvidenceTables
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


class Waiting(NamedTuple):
    """The place of a record in the queue of the outbox."""

    received_at: int
    record_id: str


class WorkingTables(EvidenceTables):
    """The part of `statelog.io.store.Store` that is not the log; all logs of a database share it."""

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

    def outbox_pending(
        self, limit: int, connection: sa.Connection | None = None, *, after: Waiting | None = None
    ) -> list[OutboxRow]:
        """Up to `limit` records that wait to be sequenced, oldest first, those behind the place `after`."""
        columns = tables.outbox.c
        query = sa.select(*(columns[name] for name in OutboxRow.__dataclass_fields__))
        with self.reading(connection) as used:
            return [OutboxRow(*row) for row in used.execute(_waiting(query, limit, after))]

    def outbox_waiting(
        self, limit: int, connection: sa.Connection | None = None, *, after: Waiting | None = None
    ) -> list[Waiting]:
        """The places of such records, without their bytes."""
        query = sa.select(tables.outbox.c.received_at, tables.outbox.c.record_id)
        with self.reading(connection) as used:
            return [Waiting(*row) for row in used.execute(_waiting(query, limit, after))]

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

    # --- ahead of the log ---

    def ahead_put(self, item: StoredAhead, connection: sa.Connection | None = None) -> None:
        """Keep a record that acts ahead of the log until the log decides; replaces the same record."""
        table = tables.ahead_record
        with self.writing(connection) as used:
            used.execute(table.delete().where(table.c.record_id == item.record_id))
            used.execute(
                table.insert(), {name: getattr(item, name) for name in StoredAhead.__dataclass_fields__}
            )

    def ahead_drop(self, record_id: str, connection: sa.Connection | None = None) -> bool:
        """Forget a record that the log now carries or has refused; False when it was not there."""
        table = tables.ahead_record
        with self.writing(connection) as used:
            return used.execute(table.delete().where(table.c.record_id == record_id)).rowcount == 1

    def ahead_records(self, connection: sa.Connection | None = None) -> list[StoredAhead]:
        """All records that act ahead of the log, oldest first."""
        columns = tables.ahead_record.c
        query = sa.select(*(columns[name] for name in StoredAhead.__dataclass_fields__))
        with self.reading(connection) as used:
            rows = used.execute(query.order_by(columns.received_at, columns.record_id)).all()
        return [StoredAhead(*row) for row in rows]


def _waiting(query: sa.Select[Any], limit: int, after: Waiting | None) -> sa.Select[Any]:
    columns = tables.outbox.c
    place = sa.tuple_(columns.received_at, columns.record_id)
    beyond = () if after is None else (place > sa.tuple_(*after),)
    query = query.where(columns.state == "pending", columns.log_index.is_(None), *beyond)
    return query.order_by(columns.received_at, columns.record_id).limit(limit)
