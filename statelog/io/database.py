"""Opening the store: engine settings, transactions, the schema's version, and the one place that translates
database errors.

SQLite runs in WAL mode with `synchronous=FULL`: a commit that returned survives a power cut. Python's own
transaction guessing is off; every transaction begins explicitly, a writing one with BEGIN IMMEDIATE, so that
it holds the write lock before it reads and never fails half-way for having read too early. On PostgreSQL a
lock of the store does the same.

WAL mode writes beside the file even to read. What lies on a read-only file system, such as a backup on a
stick that an auditor was given, is opened as a file that cannot change; nothing can be written to it.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from statelog.errors import SourceUnreadable, UsageError
from statelog.io.files import BESIDE_A_DATABASE
from statelog.io.schema import check_revision, check_schema, migrate
from statelog.io.tables import log_head
from statelog.limits import MAX_AUDITED_VALUE_BYTES, MAX_INTEGRITY_FAULTS, STORE_BUSY_TIMEOUT_S

_WRITES = "statelog_writes"
# A schema is a store; the lock ends with its transaction, however that ends.
_LOCK_WRITES = "SELECT pg_advisory_xact_lock(hashtext('statelog writes ' || current_schema()))"


class CommitUnknownError(SourceUnreadable):
    """A commit failed in a way that leaves open whether it happened. Look for what it would have written."""


def open_database(
    url: str, *, create: bool = False, anchor: str | None = None, distrusted: bool = False
) -> sa.Engine:
    """The engine for `url` (sqlite:///PATH or a PostgreSQL URL), its schema checked.

    With `create` a missing database is made and an old schema brought up to date. `anchor` (hex record id of
    entry 0), when given, must be the one of the log stored there, if any. A SQLite file that is `distrusted`
    fails on values longer than any that an audit reads.

    Raises UsageError: bad URL, no database, other schema version, another cluster's log; SourceUnreadable:
    the database cannot be opened; Refused SL-STORED: its schema is not what the revisions make.
    """
    engine = _engine(url, create=create)
    if distrusted and engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _bound_values)
    try:
        if create:
            with write_transaction(engine) as connection:
                check_revision(connection, url, older=True, empty=True)
                migrate(connection)
        with read_transaction(engine) as connection:
            check_revision(connection, url)
            check_schema(connection)
            if anchor is not None:
                _check_anchor(connection, url, anchor)
    except BaseException:
        engine.dispose()
        raise
    return engine


def upgrade(url: str) -> None:
    """Bring a store's schema up to the newest revision, in one transaction.

    Raises UsageError for what is no store, and for a store of a newer version; SourceUnreadable as
    `open_database`.
    """
    engine = _engine(url, create=False)
    try:
        with write_transaction(engine) as connection:
            check_revision(connection, url, older=True)
            migrate(connection)
    finally:
        engine.dispose()


def database_path(url: str) -> Path | None:
    """The file of a SQLite URL, None for a database server. Raises UsageError for an in-memory database."""
    parsed = _parse(url)
    if parsed.get_backend_name() != "sqlite":
        return None
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise UsageError(f"{url} names no file; several processes must find the same store")
    return Path(parsed.database)


@contextmanager
def write_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that may write. It waits for the store's one write lock and holds it to the end: what it
    reads nobody changes before it writes.

    Commits when the block ends, rolls back when it raises. Raises SourceUnreadable when the database fails,
    CommitUnknownError when the commit itself does.
    """
    with _translated(engine), engine.connect() as connection:
        connection = connection.execution_options(**{_WRITES: True})  # noqa: PLW2901 - the same connection, marked
        server = engine.dialect.name == "postgresql"  # SQLite has its own lock, and BEGIN IMMEDIATE takes it
        if server:  # whoever has waited must see what was written meanwhile, whatever the server's default
            connection = connection.execution_options(isolation_level="READ COMMITTED")  # noqa: PLW2901 - same one
        transaction = connection.begin()
        if server:
            connection.exec_driver_sql(_LOCK_WRITES)
        try:
            yield connection
        except BaseException:
            transaction.rollback()
            raise
        try:
            transaction.commit()
        except DBAPIError as error:
            connection.invalidate()  # it may still be inside the transaction: nobody else must get it
            raise CommitUnknownError(f"the store did not confirm a commit: {error.orig}") from error


@contextmanager
def read_transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that only reads one snapshot of the store, and never blocks a writer."""
    with _translated(engine), engine.connect() as connection:
        if engine.dialect.name == "postgresql":  # SQLite reads a snapshot by itself
            connection = connection.execution_options(isolation_level="REPEATABLE READ")  # noqa: PLW2901 - same one
        with connection.begin():
            yield connection


def integrity(connection: sa.Connection) -> list[str]:
    """What SQLite finds wrong with its file, at most `MAX_INTEGRITY_FAULTS`; nothing on a database server."""
    if connection.dialect.name != "sqlite":
        return []
    rows = connection.exec_driver_sql(f"PRAGMA integrity_check({MAX_INTEGRITY_FAULTS})").scalars().all()
    return [str(row) for row in rows if row != "ok"]


@contextmanager
def _translated(engine: sa.Engine) -> Iterator[None]:
    try:
        yield
    except (DBAPIError, engine.dialect.loaded_dbapi.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise SourceUnreadable(f"the store failed: {cause} ({engine.url.database})") from error
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema in its complaint, as it is
        raise SourceUnreadable(f"the store failed: it holds text that is not UTF-8 ({error})") from error


def _parse(url: str) -> sa.URL:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":  # the driver that comes with this project
            parsed = parsed.set(drivername="postgresql+psycopg")
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(f"{url!r} is not a database URL such as sqlite:///state.db") from error
    if parsed.get_backend_name() not in ("sqlite", "postgresql"):
        raise UsageError(f"{url!r}: the store runs on SQLite and PostgreSQL")
    return parsed


def _engine(url: str, *, create: bool) -> sa.Engine:
    parsed, path = _parse(url), database_path(url)
    if path is None:
        engine = sa.create_engine(parsed, pool_pre_ping=True)
        sa.event.listen(engine, "connect", _on_server_connect)
        return engine
    if not create and not path.is_file():
        raise UsageError(f"there is no store at {path}; `statelog init` makes one for a new cluster")
    if not path.parent.is_dir():
        raise UsageError(f"there is no directory {path.parent} to keep a store in")
    _require_files_beside(path)
    arguments: dict[str, Any] = {"connect_args": {"timeout": STORE_BUSY_TIMEOUT_S}}
    if not create and _cannot_change(path):
        arguments = {"creator": lambda: _connect_unchanging(path)}
    engine = sa.create_engine(parsed, **arguments)
    sa.event.listen(engine, "connect", _on_connect)
    if create:  # who only reads leaves a file as it is
        sa.event.listen(engine, "connect", _keep_wal)
    sa.event.listen(engine, "begin", _on_begin)
    return engine


def _require_files_beside(path: Path) -> None:
    """Raises SourceUnreadable for what is no plain file under a name that SQLite opens by itself: on a pipe
    it would wait for ever.
    """
    for beside in BESIDE_A_DATABASE:
        other = Path(f"{path.resolve()}{beside}")
        if os.path.lexists(other) and not stat.S_ISREG(other.lstat().st_mode):
            raise SourceUnreadable(f"{other} is not a file")


def _cannot_change(path: Path) -> bool:
    """Whether a SQLite file lies on a read-only file system. Raises SourceUnreadable when the `-wal` beside
    it holds commits that are not in the file: SQLite would have to write to put them together.
    """
    if not os.statvfs(path).f_flag & os.ST_RDONLY:
        return False
    wal = path.with_name(path.name + "-wal")
    if wal.exists() and wal.stat().st_size:
        raise SourceUnreadable(f"{path} cannot be read without writing: copy it and {wal.name} elsewhere")
    return True


def _connect_unchanging(path: Path) -> sqlite3.Connection:
    # Threads share connections through the pool, one at a time, just as with the dialect's own.
    name = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(name, uri=True, check_same_thread=False)


def _on_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # no BEGIN but ours
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA trusted_schema=OFF")  # until the schema is checked, nothing in it may call out
    cursor.close()


def _on_server_connect(connection: Any, _record: object) -> None:
    connection.autocommit = True  # else the setting would end with a transaction that is rolled back
    connection.execute(f"SET lock_timeout = '{STORE_BUSY_TIMEOUT_S:g}s'")
    connection.autocommit = False


def _keep_wal(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")  # the file remembers it
    cursor.close()


def _bound_values(connection: Any, _record: object) -> None:
    # Rows of a file that was made for it share the pages of their long values: a small file of huge batches.
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_AUDITED_VALUE_BYTES)


def _on_begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_anchor(connection: sa.Connection, url: str, anchor: str) -> None:
    for origin, found in connection.execute(sa.select(log_head.c.origin, log_head.c.anchor)):
        if found != anchor:
            raise UsageError(f"{url} holds the log {origin} of anchor {found}, not of anchor {anchor}")
