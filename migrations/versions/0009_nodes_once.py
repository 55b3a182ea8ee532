"""SQLite keeps a tree node once, in the order of its key, and no longer in a table and an index of it.

A database server has no such choice, and nothing changes there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_again(with_rowid=False)


def downgrade() -> None:
    _make_again(with_rowid=True)


def _make_again(*, with_rowid: bool) -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    op.rename_table("log_node", "log_node_before")
    op.create_table(
        "log_node",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("level", sa.Integer, nullable=False),
        sa.Column("node_index", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("log", "level", "node_index", name="pk_log_node"),
        sqlite_with_rowid=with_rowid,
    )
    op.execute(
        "INSERT INTO log_node SELECT log, level, node_index, hash FROM log_node_before ORDER BY 1, 2, 3"
    )
    op.drop_table("log_node_before")
