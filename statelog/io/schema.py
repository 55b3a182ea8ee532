"""The schema of a store: the revisions that make it, and whether a database has it and nothing beside it.

A store may come from a stranger (`statelog verify`, `statelog restore`). A view in place of a table, a
trigger, or a column that compares without case would make one reader see what another does not, so what is
there must be what the revisions in `migrations` make, not merely something that answers the same questions.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

import migrations
from statelog.errors import SourceUnreadable, UsageError, refuse

# What ANALYZE keeps for the planner: it changes how fast an answer comes, never the answer.
_STATISTICS: Final = {
    "sqlite_stat1": "CREATE TABLE sqlite_stat1(tbl,idx,stat)",
    "sqlite_stat4": "CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)",
}
# What SQLite's columns hold by their type; it would let any of them hold anything.
_HOLDS: Final = {
    "TEXT": "text",
    "VARCHAR(32)": "text",
    "BLOB": "blob",
    "BIGINT": "integer",
    "INTEGER": "integer",
    "BOOLEAN": "integer",
}
# (table, name) of what acts on a table by itself.
_ACTING: Final = """
    SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = current_schema() AND NOT t.tgisinternal
    UNION ALL SELECT tablename, rulename FROM pg_rules WHERE schemaname = current_schema()
"""


class _Schema(NamedTuple):
    """What the revisions make: (type, table, SQL text) by name in SQLite, and the columns by table."""

    parts: Mapping[str, tuple[str, str, str]]
    columns: Mapping[str, Mapping[str, tuple[str, bool]]]


def migrate(connection: sa.Connection) -> None:
    """Make the schema, or bring it up to the newest revision, in the transaction of the connection."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def check_revision(connection: sa.Connection, url: str, *, older: bool = False, empty: bool = False) -> None:
    """Raises UsageError for a database of another revision than the newest, or of none; not for one of an
    `older` revision, or an `empty` one, where that will do. Raises SourceUnreadable for a revision that is
    no text.
    """
    script = ScriptDirectory.from_config(_config())
    found, wanted = MigrationContext.configure(connection).get_current_heads(), script.get_heads()
    if not found:
        if empty:
            return
        raise UsageError(f"{url} is not a store: it has no schema version; `statelog init` makes one")
    if not all(isinstance(one, str) for one in found):  # as a damaged SQLite file may have it
        raise SourceUnreadable("the column alembic_version.version_num holds a value that is no text")
    known = set(found) <= {revision.revision for revision in script.walk_revisions()}
    if set(found) == set(wanted) or (older and known):
        return
    advice = "run `statelog upgrade`" if known else "it was made by a newer version"
    raise UsageError(f"{url} has schema {', '.join(found)} instead of {', '.join(wanted)}: {advice}")


def check_schema(connection: sa.Connection) -> None:
    """Raises Refused SL-STORED, naming the table, for a schema that is not what the revisions make.

    A SQLite file is compared part for part and holds nothing else. A database server may be shared: there
    each of our tables must be a table with our columns, and nothing may act on it by itself.
    """
    if connection.dialect.name == "sqlite":
        _check_file(connection)
    else:
        _check_server(connection)


def check_values(connection: sa.Connection) -> None:
    """Raises SourceUnreadable, naming table and column, for a SQLite file in which some value is not of its
    column's type. Reads every row; a database server sees to it itself.
    """
    if connection.dialect.name != "sqlite":
        return
    for table, columns in _wanted().columns.items():
        wrong = {
            name: f"typeof({name}) <> '{_HOLDS[type_]}'" + (f" AND {name} IS NOT NULL" if nullable else "")
            for name, (type_, nullable) in columns.items()
        }
        which = " ".join(f"WHEN {test} THEN '{name}'" for name, test in wrong.items())
        where = " OR ".join(wrong.values())
        query = f"SELECT CASE {which} END FROM {table} WHERE {where} LIMIT 1"  # noqa: S608 - our own names
        name = connection.exec_driver_sql(query).scalar()
        if name is not None:
            raise SourceUnreadable(f"the column {table}.{name} holds a value that is no {columns[name][0]}")


def _check_file(connection: sa.Connection) -> None:
    wanted, found = _wanted().parts, _parts(connection)
    for name, (kind, table, text) in found.items():
        if kind == "table" and text == _STATISTICS.get(name):
            continue
        if name not in wanted:
            raise _refused(table, f"no {kind} {name}", text or kind)
        if found[name] != wanted[name]:
            raise _refused(table, wanted[name][2], text)
    for name, (kind, table, _) in wanted.items():
        if name not in found:
            raise _refused(table, f"the {kind} {name}", "none")


def _check_server(connection: sa.Connection) -> None:
    there = _columns(connection)  # of tables: a view is none
    for table, wanted in _wanted().columns.items():
        found = there.get(table, {})
        for name in sorted(wanted.keys() | found.keys()):
            if wanted.get(name) != found.get(name):
                raise _refused(f"{table}.{name}", str(wanted.get(name)), str(found.get(name)))
    for table, name in connection.exec_driver_sql(_ACTING):
        if table in _wanted().columns:
            raise _refused(table, "no triggers and no rules", name)


def _refused(path: str, expected: str, found: str) -> Exception:
    sentence = "the database has another schema than this version makes"
    return refuse("SL-STORED", sentence, path=path, expected=expected[:300], found=found[:300])


@functools.cache
def _wanted() -> _Schema:
    """Made once a process, in memory."""
    engine = sa.create_engine("sqlite://")
    try:
        with engine.begin() as connection:
            migrate(connection)
            return _Schema(_parts(connection), _columns(connection))
    finally:
        engine.dispose()


def _parts(connection: sa.Connection) -> dict[str, tuple[str, str, str]]:
    rows = connection.exec_driver_sql("SELECT type, name, tbl_name, sql FROM sqlite_master")
    return {str(name): (str(kind), str(table), _plain_sql(text)) for kind, name, table, text in rows}


def _plain_sql(text: object) -> str:
    """Without the white space that versions of SQLAlchemy and SQLite lay out differently."""
    return "" if text is None else re.sub(r"\s*([(),])\s*", r"\1", " ".join(str(text).split()))


def _columns(connection: sa.Connection) -> dict[str, dict[str, tuple[str, bool]]]:
    """Of each table: (type, whether it may be null) by column, the type in SQLite's word for it."""
    return {
        table: {one["name"]: (str(one["type"]).replace("BYTEA", "BLOB"), one["nullable"]) for one in found}
        for (_, table), found in sa.inspect(connection).get_multi_columns().items()
    }


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
