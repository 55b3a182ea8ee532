"""Reading the projections out of the store."""

from __future__ import annotations

import sqlalchemy as sa

from projections.all import TABLES
from projections.base import AUTHORITY, Put
from projections.io.rows import select_rows
from projections.io.tables import registry_local
from projections.io.writer import cursors
from projections.live import LiveView
from projections.registry import TABLE as REGISTRY
from projections.registry import RegistryBook, record_from_row
from projections.snapshot import Snapshot
from statelog import canonical
from statelog.io.database import read_transaction
from statelog.io.tables import ahead_record


def read_live(engine: sa.Engine, now: float) -> LiveView:
    """The live view as this node left it, for its next start: rows, records ahead of the log, proofs of
    probes.

    One read transaction, so rows and cursor belong together. `now` in Unix seconds ends what has expired.
    Bytes in the store were admitted before they got there and are not judged again.
    """
    with read_transaction(engine) as connection:
        size = cursors(connection).get(AUTHORITY, 0)
        rows = {table.name: select_rows(connection, table.name) for table in TABLES}
        ahead = connection.execute(sa.select(ahead_record.c.record_id, ahead_record.c.data)).all()
        local = connection.execute(
            sa.select(registry_local.c.record_id, registry_local.c.verified_at).where(
                registry_local.c.verified_at.is_not(None)
            )
        ).all()
    puts = [Put(table.name, table.key_of(row), row) for table in TABLES for row in rows[table.name]]
    book = RegistryBook()
    book.restored(map(record_from_row, rows[REGISTRY.name]))
    view = LiveView(Snapshot().advance(puts, size), book)
    for record_id, data in ahead:
        view.unlogged(canonical.decode(data), record_id)
    for record_id, verified_at in local:
        view.verified(record_id, verified_at)
    view.expired(now)
    return view
