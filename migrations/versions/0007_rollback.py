"""Rollbacks: both signed heads of a replica that went back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollback",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("note", sa.LargeBinary, nullable=False),
        sa.Column("earlier_size", sa.BigInteger, nullable=False),
        sa.Column("earlier_note", sa.LargeBinary, nullable=False),
        sa.Column("seen_at", sa.BigInteger, nullable=False),
        sa.Column("over_at", sa.BigInteger, nullable=True),
        sa.PrimaryKeyConstraint("log", "source", name="pk_rollback"),
    )


def downgrade() -> None:
    op.drop_table("rollback")
