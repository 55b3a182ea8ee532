"""Run by Alembic: applies the revisions on the connection that `statelog.io.database` hands over.

The caller's transaction is used, so that a schema is whole or not there.
"""

from __future__ import annotations

from alembic import context

context.configure(connection=context.config.attributes["connection"], transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
