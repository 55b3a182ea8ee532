"""The SQL tables of the projections, made from the pure table shapes, in the one metadata of the store.

`projection_cursor` says how much of a log the rows stand for and which version of the folds wrote them;
`registry_local` is this node's own finding about registry records and no part of what can be rebuilt from
the log.
"""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from projections import registry
from projections.all import TABLES
from projections.base import Table
from statelog.errors import SourceUnreadable
from statelog.io.tables import metadata


class CanonicalJson(sa.TypeDecorator[Any]):
    """A JSON value as text with sorted keys, so that equal values are equal bytes in every database."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        del dialect
        return None if value is None else orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        """The stored value. Raises SourceUnreadable for text that is no JSON: a damaged store says so."""
        del dialect
        try:
            return None if value is None else orjson.loads(value)
        except (orjson.JSONDecodeError, TypeError) as error:
            raise SourceUnreadable(f"a column of JSON holds {str(value)[:40]!r}") from error


_TYPES: dict[str, type[sa.types.TypeEngine[Any]]] = {
    "text": sa.Text,
    "integer": sa.BigInteger,
    "boolean": sa.Boolean,
    "json": CanonicalJson,
}


def _sql_table(table: Table) -> sa.Table:
    columns = [
        sa.Column(name, _TYPES[kind], primary_key=name in table.key, nullable=False)
        for name, kind in table.columns.items()
    ]
    indexes = [sa.Index(None, *names) for names in table.indexes]
    return sa.Table(table.name, metadata, *columns, *indexes)


SQL_TABLES: dict[str, sa.Table] = {table.name: _sql_table(table) for table in TABLES}

registry_record = SQL_TABLES[registry.TABLE.name]

registry_local = sa.Table(
    "registry_local",
    metadata,
    sa.Column("record_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("verified_at", sa.BigInteger),
)

projection_cursor = sa.Table(
    "projection_cursor",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("fold_version", sa.Integer, nullable=False),
)
