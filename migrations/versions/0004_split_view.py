"""Split views: both signed heads of a log that has shown two histories."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "split_view",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("root", sa.LargeBinary(32), nullable=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
        sa.Column("larger_size", sa.BigInteger, nullable=False),
        sa.Column("larger_note", sa.LargeBinary, nullable=False),
        sa.Column("larger_root", sa.LargeBinary(32), nullable=False),
        sa.Column("proof", sa.LargeBinary, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("log", "size", "root", name="pk_split_view"),
    )


def downgrade() -> None:
    op.drop_table("split_view")
