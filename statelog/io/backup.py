"""A store's logs and queues in one file, and back into a store.

A backup is a SQLite store, made in one read transaction and audited before it gets its name.
It leaves out what can be folded anew (the projections) and what must not come back: a witness that signs from
an older memory than its last cosignature may sign a fork (docs/statelog-cli.md, "Backups").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from statelog.errors import SourceUnreadable, UsageError, refuse
from statelog.io import tables
from statelog.io.database import (
    database_path,
    integrity,
    open_database,
    read_transaction,
    write_transaction,
)
from statelog.io.files import BESIDE_A_DATABASE, replacing
from statelog.io.schema import check_values
from statelog.io.sources import StoreSource
from statelog.io.store import Store
from statelog.limits import STORE_BATCH_ENTRIES

KEPT: Final = (
    tables.log_entry,
    tables.log_node,
    tables.checkpoint,
    tables.cosignature,
    tables.log_head,
    tables.outbox,
    tables.evidence,
    tables.split_view,
    tables.rollback,
    tables.shown_head,
    tables.ahead_record,
)

Judge = Callable[[StoreSource], None]  # audits what was copied; raises what it will when that is not sound


def backup(
    source: sa.Engine, path: Path, judge: Judge, progress: Callable[[int], None] | None = None
) -> None:
    """Write the store to `path`, in place of an older backup, unless `judge` raises.

    `progress(entries)` is called after each batch of entries. Raises UsageError and SourceUnreadable.
    """
    with read_transaction(source) as connection, _new_file(path) as url:
        _fill(connection, url, judge, progress)


def restore(path: Path, url: str, judge: Judge, progress: Callable[[int], None] | None = None) -> None:
    """Put a backup into the store at `url`, a new file or a database without a log, unless `judge` raises.

    What it judges is the copy, before it is committed: whoever writes to the backup by then changes nothing.
    Raises UsageError when there is a log already, SourceUnreadable, Refused SL-STORED for a damaged file.
    """
    source = open_database(f"sqlite:///{path}", distrusted=True)
    try:
        with read_transaction(source) as connection:
            check_values(connection)
            damage = integrity(connection)  # a damaged index may hide rows from whoever copies them
            if damage:
                raise refuse(
                    "SL-STORED", "the database file is damaged", path=str(path), found=damage[0][:300]
                )
            target = database_path(url)
            if target is not None and not target.exists():
                with _new_file(target) as fresh:
                    _fill(connection, fresh, judge, progress)
            else:
                _fill(connection, url, judge, progress)
    finally:
        source.dispose()


@contextmanager
def _new_file(target: Path) -> Iterator[str]:
    """The URL of a store in the making that becomes `target`, one file, when the block ends well.

    Raises UsageError when SQLite's files of another store lie beside `target`: they would become part of it.
    """
    _require_alone(target)
    with replacing(target, 0o600) as copy:
        yield f"sqlite:///{copy}"
        if any(copy.with_name(copy.name + beside).exists() for beside in BESIDE_A_DATABASE):
            raise SourceUnreadable(f"{target}: the database was not closed; is the disk full?")
        _require_alone(target)


def _require_alone(target: Path) -> None:
    for beside in BESIDE_A_DATABASE:
        other = target.with_name(target.name + beside)
        if other.exists():
            raise UsageError(f"{other} is of another store: close that, or move the file away")


def _fill(source: sa.Connection, url: str, judge: Judge, progress: Callable[[int], None] | None) -> None:
    """All kept rows into the store at `url`, judged there, in one transaction."""
    engine = open_database(url, create=True)
    try:
        with write_transaction(engine) as target:
            if Store(engine).logs_with_rows(target):
                raise UsageError(f"{url} holds a log already; restore into a new store")
            for table in KEPT:
                _copy(table, source, target, progress if table is tables.log_entry else None)
            judge(StoreSource(Store(engine), target))
    finally:
        engine.dispose()


def _copy(
    table: sa.Table, source: sa.Connection, target: sa.Connection, progress: Callable[[int], None] | None
) -> None:
    done = 0
    rows = source.execution_options(yield_per=STORE_BATCH_ENTRIES).execute(sa.select(table))
    for batch in rows.mappings().partitions():
        target.execute(table.insert(), [dict(row) for row in batch])
        done += len(batch)
        if progress is not None:
            progress(done)
