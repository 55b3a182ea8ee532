"""What a store keeps against others: two records of one epoch, split views, rollbacks, and the heads shown.

None of it is part of the log. `split_view`, `rollback` and `shown_head` are of one log, equivocation of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
import sqlalchemy as sa

from statelog.errors import refuse
from statelog.io import tables
from statelog.limits import (
    HASH_BYTES,
    MAX_EVIDENCE_EPOCHS,
    MAX_EVIDENCE_PER_EPOCH,
    MAX_ROLLBACKS,
    MAX_SHOWN_HEADS,
    MAX_SPLIT_VIEWS,
    STORE_BATCH_ENTRIES,
)
from statelog.rollback import Rollback
from statelog.splitview import SplitView
from statelog.times import format_time


@dataclass(frozen=True, slots=True)
class Evidence:
    """One of two validly signed records with one subject and epoch."""

    subject: str
    epoch: int
    record_id: str
    data: bytes
    seen_at: int

    def document(self) -> dict[str, Any]:
        """As JSON shows it; a record that cannot be read, as text."""
        return {
            "subject": self.subject,
            "epoch": self.epoch,
            "record_id": self.record_id,
            "record": _readable(self.data),
            "seen_at": format_time(self.seen_at),
        }


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

    def document(self, log: str) -> dict[str, Any]:
        """As JSON shows it, with the name of its log."""
        return {
            "log": log,
            "source": self.source,
            "size": self.size,
            "note": _text(self.found.later),
            "earlier_size": self.earlier_size,
            "earlier_note": _text(self.found.earlier),
            "seen_at": format_time(self.seen_at),
            "over_at": None if self.over_at is None else format_time(self.over_at),
        }


class ShownHead(NamedTuple):
    """The size of a head that somebody showed, and its signed note."""

    size: int
    note: bytes


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

    def document(self, log: str) -> dict[str, Any]:
        """As JSON shows it, with the name of its log."""
        return {
            "log": log,
            "size": self.size,
            "root": self.root.hex(),
            "note": _text(self.found.smaller),
            "larger_size": self.larger_size,
            "larger_root": self.found.root.hex(),
            "larger_note": _text(self.found.larger),
            "proof": [item.hex() for item in self.found.proof],
            "source": self.source,
            "seen_at": format_time(self.seen_at),
        }


class EvidenceTables(ABC):
    """The part of `statelog.io.store.Store` that keeps evidence."""

    log: str

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @abstractmethod
    def writing(self, connection: sa.Connection | None = None) -> AbstractContextManager[sa.Connection]:
        """A write transaction: the given one, or one of its own."""

    @abstractmethod
    def reading(self, connection: sa.Connection | None = None) -> AbstractContextManager[sa.Connection]:
        """A read transaction: the given one, or one of its own."""

    def evidence_add(self, item: Evidence, connection: sa.Connection | None = None) -> bool:
        """Keep a validly signed record as proof of equivocation; False when two of its epoch are kept, or of
        enough other epochs of its kind.
        """
        table = tables.evidence
        here = (table.c.subject == item.subject) & (table.c.epoch == item.epoch)
        with self.writing(connection) as used:
            known = used.execute(sa.select(table.c.record_id).where(here)).scalars().all()
            if item.record_id in known or len(known) >= MAX_EVIDENCE_PER_EPOCH:
                return False
            if not known and _kept_epochs(item.subject, used) >= MAX_EVIDENCE_EPOCHS:
                return False  # one that has begun gets its second record
            row = {name: getattr(item, name) for name in Evidence.__dataclass_fields__}
            used.execute(table.insert(), row)
            return True

    def evidence(self, connection: sa.Connection | None = None) -> Iterator[Evidence]:
        """All evidence, by subject, epoch and record id; read as it is asked for."""
        columns = tables.evidence.c
        query = sa.select(*(columns[name] for name in Evidence.__dataclass_fields__))
        query = query.order_by(columns.subject, columns.epoch, columns.record_id)
        with self.reading(connection) as used:
            for row in used.execute(query.execution_options(yield_per=STORE_BATCH_ENTRIES)):
                yield Evidence(*row)

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
        """The kept split views of this log, by size and root. Raises Refused SL-STORED for more than are
        kept.
        """
        table = tables.split_view
        query = sa.select(table).where(table.c.log == self.log).order_by(table.c.size, table.c.root)
        rows = self._at_most(MAX_SPLIT_VIEWS, query, "split_view", connection)
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

    def rollback_from(self, source: str, connection: sa.Connection | None = None) -> int | None:
        """The size that a source showed before it went back, None when it has not, or is back; one row."""
        table = tables.rollback.c
        here = (table.log == self.log) & (table.source == source) & table.over_at.is_(None)
        with self.reading(connection) as used:
            return used.execute(sa.select(table.earlier_size).where(here)).scalar()

    def rollback_over(self, source: str, now: int, connection: sa.Connection | None = None) -> None:
        """The source has come back to where it was."""
        table = tables.rollback
        here = (table.c.log == self.log) & (table.c.source == source) & table.c.over_at.is_(None)
        with self.writing(connection) as used:
            used.execute(table.update().where(here).values(over_at=now))

    def shown_head(self, source: str, connection: sa.Connection | None = None) -> ShownHead | None:
        """The largest head of this log that a source has shown; one row."""
        table = tables.shown_head.c
        query = sa.select(table.size, table.note).where((table.log == self.log) & (table.source == source))
        with self.reading(connection) as used:
            row = used.execute(query).first()
        return None if row is None else ShownHead(*row)

    def shown_heads(self, connection: sa.Connection | None = None) -> dict[str, ShownHead]:
        """The largest head of this log that each source has shown, the one seen longest ago first."""
        table = tables.shown_head.c
        query = sa.select(table.source, table.size, table.note).where(table.log == self.log)
        with self.reading(connection) as used:
            rows = used.execute(query.order_by(table.seen_at, table.source)).all()
        return {row.source: ShownHead(row.size, row.note) for row in rows}

    def shown_head_keep(
        self, source: str, head: ShownHead, now: int, connection: sa.Connection | None = None
    ) -> None:
        """Keep the largest head that a source has shown, in place of a smaller one; O(sources) rows for a new
        one when there are enough: then the one seen longest ago goes.
        """
        table = tables.shown_head
        of_log = table.c.log == self.log
        row = {"size": head.size, "note": head.note, "seen_at": now}
        with self.writing(connection) as used:
            here = of_log & (table.c.source == source)
            if used.execute(table.update().where(here & (table.c.size < head.size)).values(**row)).rowcount:
                return
            sources = used.execute(sa.select(table.c.source).where(of_log).order_by(table.c.seen_at))
            known = sources.scalars().all()
            if source in known:
                return
            for oldest in known[: len(known) - MAX_SHOWN_HEADS + 1]:
                used.execute(table.delete().where(of_log & (table.c.source == oldest)))
            used.execute(table.insert(), {"log": self.log, "source": source, **row})

    def rollbacks(self, connection: sa.Connection | None = None) -> list[KeptRollback]:
        """The kept rollbacks of this log, by when they were seen. Raises Refused SL-STORED for more than are
        kept.
        """
        table = tables.rollback
        query = sa.select(table).where(table.c.log == self.log).order_by(table.c.seen_at, table.c.source)
        rows = self._at_most(MAX_ROLLBACKS, query, "rollback", connection)
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

    def _at_most(
        self, most: int, query: sa.Select[Any], table: str, connection: sa.Connection | None
    ) -> Sequence[sa.Row[Any]]:
        """The rows, unless somebody else has put so many there that memory would not do."""
        with self.reading(connection) as used:
            rows = used.execute(query.limit(most + 1)).all()
        if len(rows) > most:
            sentence = "the table holds more rows of one log than a store keeps"
            raise refuse("SL-STORED", sentence, path=table, expected=f"at most {most}", found=self.log[:80])
        return rows

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


def _kept_epochs(subject: str, connection: sa.Connection) -> int:
    """How many pairs of the subject's kind are kept."""
    columns = tables.evidence.c
    of_kind = columns.subject.startswith(subject.partition("/")[0] + "/", autoescape=True)
    pairs = sa.select(columns.subject, columns.epoch).where(of_kind).distinct().subquery()
    return connection.execute(sa.select(sa.func.count()).select_from(pairs)).scalar() or 0


def _hashes(joined: bytes) -> tuple[bytes, ...]:
    """Hashes that stand one after the other; the last one is short when a row was damaged."""
    return tuple(joined[at : at + HASH_BYTES] for at in range(0, len(joined), HASH_BYTES))


def _text(note: bytes) -> str:
    return note.decode("utf-8", "replace")  # whoever damages the store must not hide the rest


def _readable(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except ValueError:  # a damaged row: shown as it is
        return _text(data)
