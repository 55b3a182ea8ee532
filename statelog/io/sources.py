"""Where an audit reads a log from."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from statelog.audit_store import (
    CosignatureRow,
    StoredAhead,
    StoredEvidence,
    StoredHead,
    StoredRollback,
    StoredSplitView,
)
from statelog.errors import SourceUnreadable, refuse
from statelog.io.database import integrity, open_database, read_transaction
from statelog.io.resources import FolderResources, WebResources, is_address
from statelog.io.schema import check_values
from statelog.io.store import Store, StoredEntry
from statelog.io.tables import ahead_record, checkpoint, cosignature
from statelog.limits import STORE_BATCH_ENTRIES
from statelog.state import AUTHORITY_LOG, PARTITION_LOG_PREFIX
from statelog.tilelog import Resources, TileLog


class StoreSource:
    """A log in a database, within one read transaction: the audit sees one moment of a live store.

    Satisfies `statelog.audit.LogSource` and `statelog.audit_store.StoredLog`. Made by `open_source`, whose
    sources of one database share one `check` of its file.
    """

    def __init__(self, store: Store, connection: sa.Connection, check: FileCheck | None = None) -> None:
        self._store = store
        self._connection = connection
        self._check = check

    def logs(self) -> list[str]:
        """The names of the logs that the database holds, the authority log first."""
        return self._store.logs(self._connection)

    def logs_with_rows(self) -> list[str]:
        """Likewise, and those of which only the head is missing. Raises Refused SL-STORED for a log of a name
        that no log has.
        """
        found = self._store.logs_with_rows(self._connection)
        for log in found:
            if log != AUTHORITY_LOG and not log.startswith(PARTITION_LOG_PREFIX):
                raise refuse("SL-STORED", "the store holds rows of a log that no cluster has", found=log[:80])
        return found

    def of(self, log: str) -> StoreSource:
        """Another log of the same database, at the same moment."""
        return StoreSource(self._store.of(log), self._connection, self._check)

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """(log index, leaf bytes) of every entry."""
        return ((row.index, row.leaf) for row in self.stored_entries())

    def stored_entries(self) -> Iterator[StoredEntry]:
        """(log index, stored record id, stored leaf hash, leaf bytes) of every entry, from one row."""
        if self._check is not None:
            self._check.begin()
        return self._store.entries(0, None, self._connection)

    def checkpoints(self) -> Iterator[tuple[int, bytes]]:
        """(size, note with cosignature lines) of every checkpoint."""
        return self._store.checkpoints(0, self._connection)

    def rows(self) -> Iterator[tuple[int, str, bytes]]:
        """(log index, record id, leaf hash) of every entry."""
        return self._store.rows(self._connection)

    def nodes(self, level: int) -> Iterator[tuple[int, bytes]]:
        """(index, hash) of the stored tree nodes of one level."""
        return self._store.nodes(level, self._connection)

    def read_node(self, level: int, index: int) -> bytes:
        """One stored tree node. Raises SourceUnreadable when it is absent."""
        return self._store.read_nodes([(level, index)], self._connection)(level, index)

    def head(self) -> StoredHead | None:
        """The head row."""
        head = self._store.head(self._connection)
        if head is None:
            return None
        return StoredHead(**{name: getattr(head, name) for name in StoredHead.__dataclass_fields__})

    def cosignatures(self) -> Iterator[CosignatureRow]:
        """The cosignature table, read in batches."""
        return _cosignature_rows(self._connection, self._store.log)

    def roots(self) -> Iterator[tuple[int, bytes, bytes]]:
        """The checkpoint table, read in batches."""
        return _checkpoint_rows(self._connection, self._store.log)

    def damage(self) -> Iterator[str]:
        """What SQLite finds wrong with its file; a database server looks after its own."""
        return iter(integrity(self._connection) if self._check is None else self._check.found())

    def evidence(self) -> Iterator[StoredEvidence]:
        """The evidence table."""
        for item in self._store.evidence(self._connection):
            yield StoredEvidence(item.subject, item.epoch, item.record_id, item.data)

    def split_views(self) -> Iterator[StoredSplitView]:
        """The kept split views."""
        for item in self._store.split_views(self._connection):
            yield StoredSplitView(item.size, item.root, item.larger_size, item.found)

    def rollbacks(self) -> Iterator[StoredRollback]:
        """The kept rollbacks."""
        for item in self._store.rollbacks(self._connection):
            yield StoredRollback(item.source, item.size, item.earlier_size, item.found)

    def ahead(self) -> Iterator[StoredAhead]:
        """The records that act ahead of the log, read in batches."""
        return _ahead_rows(self._connection)


class FileCheck:
    """SQLite's check of its own file, once for all logs in it and beside the audit: it needs nothing from
    that but a core that is idle, now and then.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "statelog-file-check")
        self._begun: Future[list[str]] | None = None

    def begin(self) -> Future[list[str]]:
        """Start it, unless it was started."""
        if self._begun is None:
            self._begun = self._thread.submit(self._run)
        return self._begun

    def found(self) -> list[str]:
        """What is wrong with the file, when that is known. Raises SourceUnreadable when it cannot be read."""
        return self.begin().result()

    def close(self) -> None:
        """Wait for what was started."""
        self._thread.shutdown(cancel_futures=True)

    def _run(self) -> list[str]:
        with read_transaction(self._engine) as connection:
            return integrity(connection)


def _ahead_rows(connection: sa.Connection) -> Iterator[StoredAhead]:
    own, beyond = ahead_record.c, sa.true()
    query = sa.select(*(own[name] for name in StoredAhead.__dataclass_fields__))
    query = query.order_by(own.record_id).limit(STORE_BATCH_ENTRIES)
    while True:
        rows = connection.execute(query.where(beyond)).all()
        yield from (StoredAhead(*row) for row in rows)
        if not rows:
            return
        beyond = own.record_id > rows[-1].record_id


def _checkpoint_rows(connection: sa.Connection, log: str) -> Iterator[tuple[int, bytes, bytes]]:
    own, beyond = checkpoint.c, sa.true()
    query = sa.select(own.size, own.root, own.note).where(own.log == log)
    query = query.order_by(own.size).limit(STORE_BATCH_ENTRIES)
    while True:
        rows = connection.execute(query.where(beyond)).all()
        yield from ((size, root, note) for size, root, note in rows)
        if not rows:
            return
        beyond = own.size > rows[-1].size


def _cosignature_rows(connection: sa.Connection, log: str) -> Iterator[CosignatureRow]:
    own, heads = cosignature.c, checkpoint.c
    stray = ~sa.exists().where(heads.log == own.log, heads.size == own.size)
    query = (
        sa.select(own.size, own.witness_key_id, own.name, own.timestamp, own.line, stray)
        .where(own.log == log)
        .order_by(own.size, own.witness_key_id)
        .limit(STORE_BATCH_ENTRIES)
    )
    last: tuple[int, str] | None = None
    while True:
        beyond = sa.true() if last is None else sa.tuple_(own.size, own.witness_key_id) > sa.tuple_(*last)
        rows = connection.execute(query.where(beyond)).all()
        for size, key_id, name, timestamp, line, alone in rows:
            yield CosignatureRow(size, key_id, name, timestamp, line, bool(alone))
        if not rows:
            return
        last = (rows[-1].size, rows[-1].witness_key_id)


@contextmanager
def open_source(url: str, log: str = AUTHORITY_LOG) -> Iterator[StoreSource]:
    """The log in the database at `url`. Raises as `open_database` does, and SourceUnreadable for values that
    are not of their columns' types.
    """
    engine = open_database(url, distrusted=True)
    check = FileCheck(engine)
    try:
        with read_transaction(engine) as connection:
            check_values(connection)
            yield StoreSource(Store(engine, log), connection, check)
    finally:
        check.close()
        engine.dispose()


@contextmanager
def open_resources(source: str, ca_file: Path | None = None) -> Iterator[Resources]:
    """The files in the folder, or at the web address, `source`.

    Raises UsageError for an address that is not https (or this machine), SourceUnreadable without a folder.
    """
    if is_address(source):
        with WebResources(source, ca_file) as web:
            yield web
        return
    if not Path(source).is_dir():
        raise SourceUnreadable(f"there is no folder {source}, and it is no https:// address")
    yield FolderResources(Path(source))


@contextmanager
def open_tiles(source: str, ca_file: Path | None = None) -> Iterator[TileLog]:
    """The authority log in tiles in the folder, or at the web address, `source`.

    Raises as `open_resources`, SourceUnreadable without a checkpoint, Refused when the checkpoint is none.
    """
    with open_resources(source, ca_file) as resources:
        yield TileLog(resources)
