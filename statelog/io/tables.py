"""The SQL tables of the state log, in the one metadata that every table of the store belongs to.

docs/sql-schema.md describes them for auditors who bring their own tools. The schema in a database is made and
changed by the revisions in `migrations` and by nothing else; a test holds the two together.

Only `log_entry.leaf` and `checkpoint.note` are evidence. Everything else is an index over them that
`statelog verify` computes again, or a node's own working state.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from statelog.errors import SourceUnreadable


class Blob(sa.types.TypeDecorator[bytes]):
    """Bytes, and nothing else: SQLite lets any column hold text, and a damaged store must say so."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> bytes | None:
        """The stored bytes. Raises SourceUnreadable for a value of another type."""
        if value is None or isinstance(value, bytes):
            return value
        raise not_bytes(value)


def not_bytes(value: object) -> SourceUnreadable:
    """The error of a column of bytes that holds something else."""
    return SourceUnreadable(f"a column of bytes holds {type(value).__name__}: {str(value)[:40]!r}")


def unchecked(column: sa.Column[bytes]) -> sa.ColumnElement[Any]:
    """A column of bytes as the database gives it, for readers of many rows that check the type themselves."""
    return sa.type_coerce(column, sa.types.NullType())


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# Entry `log_index` of log `log`: the leaf bytes, their leaf hash, and the record's id for looking it up.
log_entry = sa.Table(
    "log_entry",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("log_index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("record_id", sa.Text, nullable=False),
    sa.Column("leaf_hash", Blob(32), nullable=False),
    sa.Column("leaf", Blob, nullable=False),
    sa.UniqueConstraint("log", "record_id"),
)

# Roots of complete subtrees from level 1 up; level 0 is log_entry.leaf_hash. A row never changes.
log_node = sa.Table(
    "log_node",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("node_index", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hash", Blob(32), nullable=False),
    sqlite_with_rowid=False,  # rows hardly longer than their key: one tree in the file instead of two
)

# The log's signed checkpoints: `note` holds the sequencer's signature only, cosignatures are beside it.
checkpoint = sa.Table(
    "checkpoint",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", Blob(32), nullable=False),
    sa.Column("note", Blob, nullable=False),
)

# The newest cosignature of each witness at each size; `line` is the note's signature line with its newline.
cosignature = sa.Table(
    "cosignature",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("witness_key_id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),
    sa.Column("line", sa.Text, nullable=False),
)

# One row a log: who it is, where it ends, and up to where it is final. Writers lock this row first.
log_head = sa.Table(
    "log_head",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("anchor", sa.Text, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("root", Blob(32), nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False),
    sa.Column("sequenced_at", sa.BigInteger, nullable=False),
    sa.Column("final_size", sa.BigInteger, nullable=False),
    sa.Column("final_root", Blob(32), nullable=False),
)

# Records accepted for sequencing and not yet final; `state` is pending, final or refused. Which log carries a
# record, and where, is null until one does: a partition may get a log of its own while its records wait.
outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("record_id", sa.Text, primary_key=True),
    sa.Column("data", Blob, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("code", sa.Text),
    sa.Column("sentence", sa.Text),
    sa.Column("log", sa.Text),
    sa.Column("log_index", sa.BigInteger),
    sa.Index(None, "state", "received_at"),
)

# What this node's witness last cosigned, by origin.
witness_state = sa.Table(
    "witness_state",
    metadata,
    sa.Column("origin", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("root", Blob(32), nullable=False),
    sa.Column("term", sa.BigInteger, nullable=False),
)

# Proof of equivocation: at most two validly signed records of one subject and epoch.
evidence = sa.Table(
    "evidence",
    metadata,
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("record_id", sa.Text, primary_key=True),
    sa.Column("data", Blob, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)

# Proof that log `log` has shown two histories: the signed head `note` of `size` and `root`, and the signed
# head `larger_note`, whose history has `larger_root` at `size`; `proof` leads from there to it.
split_view = sa.Table(
    "split_view",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("root", Blob(32), primary_key=True),
    sa.Column("note", Blob, nullable=False),
    sa.Column("larger_size", sa.BigInteger, nullable=False),
    sa.Column("larger_note", Blob, nullable=False),
    sa.Column("larger_root", Blob(32), nullable=False),
    sa.Column("proof", Blob, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)

# Sources that showed the final head `earlier_note` of log `log` and then, asked again, the older `note`;
# `over_at` is when one showed a head of `earlier_size` or more again.
rollback = sa.Table(
    "rollback",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("note", Blob, nullable=False),
    sa.Column("earlier_size", sa.BigInteger, nullable=False),
    sa.Column("earlier_note", Blob, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
    sa.Column("over_at", sa.BigInteger, nullable=True),
)

# The largest head of log `log` that each source has shown, as far as this store's own log confirms it.
shown_head = sa.Table(
    "shown_head",
    metadata,
    sa.Column("log", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("note", Blob, nullable=False),
    sa.Column("seen_at", sa.BigInteger, nullable=False),
)

# Records that act ahead of the log on this node: registry records, revocations and fences.
ahead_record = sa.Table(
    "ahead_record",
    metadata,
    sa.Column("record_id", sa.Text, primary_key=True),
    sa.Column("schema_version", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("expires_at", sa.BigInteger, nullable=False),
    sa.Column("received_at", sa.BigInteger, nullable=False),
    sa.Column("data", Blob, nullable=False),
    sa.Index(None, "subject"),
)
