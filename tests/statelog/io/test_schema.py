"""The schema of a store: what the revisions make is accepted, and nothing beside it or instead of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.errors import Refused
from statelog.io.database import open_database, write_transaction
from tests.support.postgres import new_database

HIDING = "CREATE VIEW {0} AS SELECT * FROM {0}_real"
CASELESS = (
    "CREATE TABLE witness_state (origin TEXT NOT NULL COLLATE NOCASE, size BIGINT NOT NULL, "
    "root BLOB NOT NULL, term BIGINT NOT NULL, CONSTRAINT pk_witness_state PRIMARY KEY (origin))"
)
FORGED: dict[str, tuple[str, list[str]]] = {
    "a view in place of a table": (
        "log_entry",
        ["ALTER TABLE log_entry RENAME TO log_entry_real", HIDING.format("log_entry")],
    ),
    "a view beside the tables": ("more", ["CREATE VIEW more AS SELECT 1"]),
    "a trigger": (
        "outbox",
        ["CREATE TRIGGER t AFTER INSERT ON outbox BEGIN DELETE FROM log_entry; END"],
    ),
    "a table beside ours": ("more", ["CREATE TABLE more (x INTEGER)"]),
    "a virtual table": ("more", ["CREATE VIRTUAL TABLE more USING fts5(x)"]),
    "an index that hides rows": (
        "ahead_record",
        [
            "DROP INDEX ix_ahead_record_subject",
            "CREATE INDEX ix_ahead_record_subject ON ahead_record (subject) WHERE epoch > 5",
        ],
    ),
    "an index that is not there": ("ahead_record", ["DROP INDEX ix_ahead_record_subject"]),
    "one column more": ("log_head", ["ALTER TABLE log_head ADD COLUMN more TEXT"]),
    "another collation": (
        "witness_state",
        [
            "DROP TABLE witness_state",
            CASELESS,
        ],
    ),
    "no table": ("shown_head", ["DROP TABLE shown_head"]),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "state.db"
    open_database(f"sqlite:///{path}", create=True).dispose()
    return path


def change(path: Path, statements: list[str]) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize("what", FORGED)
def test_another_schema_is_refused_by_name(path: Path, what: str) -> None:
    table, statements = FORGED[what]
    change(path, statements)
    for create in (False, True):
        with pytest.raises(Refused) as refused:
            open_database(f"sqlite:///{path}", create=create)
        assert (refused.value.code, refused.value.finding.path.partition("_real")[0]) == ("SL-STORED", table)


def test_what_changes_no_answer_is_accepted(path: Path) -> None:
    change(path, ["ANALYZE", "VACUUM"])
    change(path, ["PRAGMA writable_schema=ON", "UPDATE sqlite_master SET sql = replace(sql, char(9), '  ')"])
    engine = open_database(f"sqlite:///{path}")
    assert "sqlite_stat1" in sa.inspect(engine).get_table_names(sqlite_include_internal=True)
    engine.dispose()


# --- on a server ---


@pytest.fixture
def server() -> Iterator[sa.Engine]:
    engine = open_database(new_database(), create=True)
    yield engine
    engine.dispose()


def reopen(engine: sa.Engine, *statements: str) -> None:
    with write_transaction(engine) as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    open_database(engine.url.render_as_string(hide_password=False)).dispose()


@pytest.mark.parametrize(
    ("path", "statements"),
    [
        (
            "evidence.data",
            ["ALTER TABLE evidence RENAME TO evidence_real", HIDING.format("evidence")],
        ),
        ("outbox.more", ["ALTER TABLE outbox ADD COLUMN more TEXT"]),
        ("outbox.state", ["ALTER TABLE outbox ALTER COLUMN state TYPE VARCHAR(9)"]),
        ("log_entry", ["CREATE RULE r AS ON INSERT TO log_entry DO INSTEAD NOTHING"]),
        (
            "log_node",
            [
                "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
                "CREATE TRIGGER t BEFORE INSERT ON log_node FOR EACH ROW EXECUTE FUNCTION f()",
            ],
        ),
    ],
)
def test_a_server_has_our_tables_and_nothing_acts_on_them(
    server: sa.Engine, path: str, statements: list[str]
) -> None:
    reopen(server, "CREATE TABLE others (x INTEGER)", "CREATE VIEW more AS SELECT 1 AS one")  # not ours
    with pytest.raises(Refused) as refused:
        reopen(server, *statements)
    assert (refused.value.code, refused.value.finding.path) == ("SL-STORED", path)
