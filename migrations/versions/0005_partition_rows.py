"""Projections of several logs: which log a lease stands in, the fences, and when production began.

The defaults stand until the next fold: rows that other folds wrote are folded anew.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "route_fence",
        sa.Column("target_kind", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("target_kind", "target", name="pk_route_fence"),
    )
    op.add_column("route_lease", sa.Column("log", sa.Text, nullable=False, server_default="authority"))
    op.add_column("route_lease", _number("authority_size"))
    op.add_column("cluster", _number("production_from"))


def downgrade() -> None:
    op.drop_column("cluster", "production_from")
    op.drop_column("route_lease", "authority_size")
    op.drop_column("route_lease", "log")
    op.drop_table("route_fence")


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
