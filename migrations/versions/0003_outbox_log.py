"""The outbox serves several logs: which of them carries a record."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("outbox", sa.Column("log", sa.Text))
    outbox = sa.table("outbox", sa.column("log", sa.Text), sa.column("log_index", sa.BigInteger))
    op.execute(outbox.update().where(outbox.c.log_index.is_not(None)).values(log="authority"))


def downgrade() -> None:
    op.drop_column("outbox", "log")
