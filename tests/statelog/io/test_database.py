"""Opening a store: what is refused and how it is said, what a transaction is, and the schema."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

import projections.io.tables as projection_tables
from statelog.errors import SourceUnreadable, UsageError
from statelog.io import database, schema
from statelog.io.database import (
    CommitUnknownError,
    database_path,
    open_database,
    read_transaction,
    upgrade,
    write_transaction,
)
from statelog.io.tables import log_node, metadata, witness_state


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'state.db'}"


@pytest.fixture
def engine(url: str) -> Iterator[sa.Engine]:
    engine = open_database(url, create=True)
    yield engine
    engine.dispose()


def put(connection: sa.Connection, origin: str) -> None:
    connection.execute(witness_state.insert(), {"origin": origin, "size": 1, "root": b"", "term": 1})


def origins(engine: sa.Engine) -> list[str]:
    with read_transaction(engine) as connection:
        return list(connection.execute(sa.select(witness_state.c.origin)).scalars())


# --- opening ---


def test_a_new_store_has_the_schema_of_the_tables(engine: sa.Engine) -> None:
    assert projection_tables.metadata is metadata
    with read_transaction(engine) as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_sqlite_survives_a_power_cut(engine: sa.Engine) -> None:
    with read_transaction(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_opening_again_and_upgrading_twice_change_nothing(url: str, engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        put(connection, "o")
    upgrade(url)
    for create in (False, True):
        again = open_database(url, create=create)
        assert origins(again) == ["o"]
        again.dispose()


def test_tree_nodes_survive_being_stored_otherwise(url: str, engine: sa.Engine) -> None:
    nodes = [
        (log, level, index, bytes([level, index]) * 16)
        for log in ("authority", "routes-eu-1")
        for level, count in ((1, 4), (2, 2))
        for index in range(count)
    ]
    config = schema._config()
    with write_transaction(engine) as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0008")
        connection.execute(
            log_node.insert(), [dict(zip(log_node.c.keys(), one, strict=True)) for one in reversed(nodes)]
        )
    with pytest.raises(UsageError, match="statelog upgrade"):
        open_database(url)
    upgrade(url)
    with read_transaction(engine) as connection:
        schema.check_schema(connection)
        assert [tuple(row) for row in connection.execute(sa.select(log_node))] == nodes
        with pytest.raises(sa.exc.OperationalError, match="rowid"):
            connection.exec_driver_sql("SELECT rowid FROM log_node")


def test_a_store_that_is_not_there(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no store at"):
        open_database(url)
    assert not (tmp_path / "state.db").exists()
    with pytest.raises(UsageError, match="there is no directory"):
        open_database(f"sqlite:///{tmp_path / 'no' / 'state.db'}", create=True)


def test_a_database_that_is_not_a_store(url: str, tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    with pytest.raises(UsageError, match="not a store"):
        open_database(url)
    (tmp_path / "state.db").write_bytes(b"no database at all, but long enough to be one" * 100)
    with pytest.raises(SourceUnreadable, match="not a database"):
        open_database(url)


def test_another_schema_version(url: str, engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for create in (False, True):
        with pytest.raises(UsageError, match="newer version"):
            open_database(url, create=create)
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(UsageError, match="statelog upgrade"):
        open_database(url)


def test_a_schema_version_that_is_no_text(url: str, engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = CAST(version_num AS BLOB)")
    for opened in (open_database, partial(open_database, create=True), upgrade):
        with pytest.raises(SourceUnreadable, match=r"version_num holds a value that is no text"):
            opened(url)
    with write_transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = CAST(version_num AS TEXT)")
    open_database(url).dispose()


@pytest.mark.parametrize(
    "url", ["", "state.db", "mysql://localhost/x", "nothing://x", "sqlite://", "sqlite:///:memory:"]
)
def test_urls_that_name_no_store(url: str) -> None:
    with pytest.raises(UsageError):
        open_database(url)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:state.db?uri=true"])
def test_a_store_is_a_file_that_others_can_find(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="names no file"):
        open_database(url, create=True)
    assert list(tmp_path.iterdir()) == []


def test_the_file_of_a_url(tmp_path: Path) -> None:
    assert database_path(f"sqlite:///{tmp_path / 'a.db'}") == tmp_path / "a.db"


# --- transactions ---


def test_a_transaction_is_all_or_nothing(engine: sa.Engine) -> None:
    def write(then: Exception | None) -> None:
        with write_transaction(engine) as connection:
            put(connection, "o")
            if then is not None:
                raise then

    with pytest.raises(KeyError):
        write(KeyError("after the insert"))
    assert origins(engine) == []
    write(None)
    assert origins(engine) == ["o"]


def test_a_writer_holds_the_lock_before_it_reads(
    engine: sa.Engine, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STORE_BUSY_TIMEOUT_S", 0.01)
    impatient = open_database(url)
    with write_transaction(engine) as connection:
        put(connection, "o")
        with pytest.raises(SourceUnreadable, match="locked"), write_transaction(impatient):
            pytest.fail("two writers at once")
        assert origins(impatient) == []  # a reader is not kept waiting, and sees the last commit
    assert origins(impatient) == ["o"]
    impatient.dispose()


def test_writers_wait_for_one_another(engine: sa.Engine) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with write_transaction(engine) as connection:
            put(connection, "first")
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    threading.Timer(0.05, leave.set).start()
    with write_transaction(engine) as connection:
        assert connection.execute(sa.select(witness_state.c.origin)).scalars().all() == ["first"]
        put(connection, "second")
    thread.join()
    assert origins(engine) == ["first", "second"]


def test_a_reader_sees_one_snapshot(engine: sa.Engine) -> None:
    with read_transaction(engine) as reader:
        query = sa.select(sa.func.count()).select_from(witness_state)
        assert reader.execute(query).scalar() == 0
        with write_transaction(engine) as connection:
            put(connection, "o")
        assert reader.execute(query).scalar() == 0
    assert origins(engine) == ["o"]


def test_errors_of_the_database_are_translated(engine: sa.Engine) -> None:
    with (
        pytest.raises(SourceUnreadable, match=rf"failed: .*\({engine.url.database}\)$"),
        read_transaction(engine) as connection,
    ):
        connection.exec_driver_sql("SELECT nothing FROM nowhere")
    with pytest.raises(SourceUnreadable, match="store failed"), write_transaction(engine) as connection:
        connection.exec_driver_sql("SELECT nothing FROM nowhere")
    assert origins(engine) == []


def test_a_commit_that_fails_leaves_its_outcome_open(engine: sa.Engine) -> None:
    def fail(_connection: sa.Connection) -> None:
        raise sa.exc.OperationalError("COMMIT", {}, OSError("disk I/O error"))

    sa.event.listen(engine, "commit", fail)
    with pytest.raises(CommitUnknownError, match="disk I/O error"), write_transaction(engine) as connection:
        put(connection, "o")
    sa.event.remove(engine, "commit", fail)
    with write_transaction(engine) as connection:
        put(connection, "p")
    assert origins(engine) == ["p"]


# --- cluster ---


def test_another_clusters_store_is_refused(engine: sa.Engine, url: str) -> None:
    with write_transaction(engine) as connection:
        connection.exec_driver_sql(
            "INSERT INTO log_head VALUES ('authority','c/authority','aa',0,x'',0,0,0,x'')"
        )
    open_database(url, anchor="aa").dispose()
    with pytest.raises(UsageError, match="holds the log c/authority of anchor aa, not of anchor bb"):
        open_database(url, anchor="bb")
