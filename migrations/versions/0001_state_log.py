"""The state log: entries, tree, checkpoints, cosignatures, head, and a node's working tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "log_entry",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("log_index", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("leaf", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("log", "log_index", name="pk_log_entry"),
        sa.UniqueConstraint("log", "record_id", name="uq_log_entry_log_record_id"),
    )
    op.create_table(
        "log_node",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("node_index", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("log", "level", "node_index", name="pk_log_node"),
    )
    op.create_table(
        "checkpoint",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("log", "size", name="pk_checkpoint"),
    )
    op.create_table(
        "cosignature",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("witness_key_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("timestamp", sa.BigInteger, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("log", "size", "witness_key_id", name="pk_cosignature"),
    )
    op.create_table(
        "log_head",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("anchor", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.Column("sequenced_at", sa.BigInteger, nullable=False),
        sa.Column("final_size", sa.BigInteger, nullable=False),
        sa.Column("final_root", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("log", name="pk_log_head"),
    )
    _working_tables()


def _working_tables() -> None:
    op.create_table(
        "outbox",
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("code", sa.Text),
        sa.Column("sentence", sa.Text),
        sa.Column("log_index", sa.BigInteger),
        sa.PrimaryKeyConstraint("record_id", name="pk_outbox"),
    )
    op.create_index("ix_outbox_state_received_at", "outbox", ["state", "received_at"])
    op.create_table(
        "witness_state",
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("term", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("origin", name="pk_witness_state"),
    )
    op.create_table(
        "evidence",
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, autoincrement=False, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("subject", "epoch", "record_id", name="pk_evidence"),
    )
    op.create_table(
        "ahead_record",
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("schema_version", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("record_id", name="pk_ahead_record"),
    )
    op.create_index("ix_ahead_record_subject", "ahead_record", ["subject"])


def downgrade() -> None:
    for name in (
        "ahead_record",
        "evidence",
        "witness_state",
        "outbox",
        "log_head",
        "cosignature",
        "checkpoint",
        "log_node",
        "log_entry",
    ):
        op.drop_table(name)
