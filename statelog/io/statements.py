"""The few statements of every commit, compiled once and handed to the driver: building and adapting them
anew, as SQLAlchemy does for each execution, costs several times what SQLite needs to run them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any, Final

import sqlalchemy as sa

from statelog.io import tables


class Prepared:
    """A statement that is compiled once for each kind of database and takes plain parameters.

    It runs in the transaction of the connection, which the caller has begun. Nothing is converted on the way
    in or out: integers, text and bytes only, and the reader checks what it gets. The driver's own errors are
    raised, which `statelog.io.database` translates as it does SQLAlchemy's.
    """

    def __init__(self, statement: sa.Insert | sa.Update | sa.Select[Any]) -> None:
        self._statement = statement
        self._compiled: dict[str, tuple[str, tuple[str, ...] | None]] = {}

    def run(self, connection: sa.Connection, *rows: dict[str, Any]) -> None:
        """Run it once for each row of named parameters, in one call of the driver."""
        text, given = self._given(connection, rows)
        with closing(connection.connection.cursor()) as cursor:
            if len(given) == 1:
                cursor.execute(text, given[0])
            else:
                cursor.executemany(text, given)

    def first(self, connection: sa.Connection, row: dict[str, Any]) -> tuple[Any, ...] | None:
        """The first row of its answer, None without one."""
        text, (given,) = self._given(connection, (row,))
        with closing(connection.connection.cursor()) as cursor:
            cursor.execute(text, given)
            found: tuple[Any, ...] | None = cursor.fetchone()
            return found

    def _given(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> tuple[str, Sequence[Any]]:
        """The text for this kind of database, and the parameters as its driver takes them."""
        found = self._compiled.get(connection.dialect.name)
        if found is None:
            made = self._statement.compile(dialect=connection.dialect)
            found = str(made), tuple(made.positiontup or ()) if made.positional else None
            self._compiled[connection.dialect.name] = found
        text, order = found
        return text, rows if order is None else [tuple([row[name] for name in order]) for row in rows]


_HEAD = tables.log_head
_SELECT_HEAD = sa.select(
    _HEAD.c.origin,
    _HEAD.c.anchor,
    _HEAD.c.size,
    _HEAD.c.root,
    _HEAD.c.term,
    _HEAD.c.sequenced_at,
    _HEAD.c.final_size,
    _HEAD.c.final_root,
).where(_HEAD.c.log == sa.bindparam("of_log"))

READ_HEAD: Final = Prepared(_SELECT_HEAD)  # of_log
LOCK_HEAD: Final = Prepared(_SELECT_HEAD.with_for_update())  # of_log
MOVE_HEAD: Final = Prepared(  # of_log, and each moved column with `new_` before it
    _HEAD.update()
    .where(_HEAD.c.log == sa.bindparam("of_log"))
    .values({name: sa.bindparam(f"new_{name}") for name in ("size", "root", "term", "sequenced_at")})
)
PUT_ENTRY: Final = Prepared(tables.log_entry.insert())  # every column by its name
PUT_NODE: Final = Prepared(tables.log_node.insert())  # the same
PUT_CHECKPOINT: Final = Prepared(tables.checkpoint.insert())  # the same
