"""Forgetting what a dead sequencer appended alone: the end of a stored log that was never final.

A new term may start below it, and the log then goes on differently (docs/records.md, "Terms"). Nothing final
is ever forgotten.
"""

from __future__ import annotations

import sqlalchemy as sa

from statelog.errors import UsageError
from statelog.io import tables
from statelog.io.store import Store
from statelog.leaf import split_leaf


def drop_suffix(store: Store, size: int, connection: sa.Connection | None = None) -> list[str]:
    """Forget the entries of the store's log from `size` on, with tree, checkpoints and cosignatures; of a log
    of which nothing is final all of them, with its head.

    Their records wait in the outbox (`wait_again`). Answers with the record ids. Raises UsageError when it
    would forget what is final. Two rows an entry dropped, all or nothing.
    """
    entry, node, head_of = tables.log_entry.c, tables.log_node.c, tables.log_head
    with store.writing(connection) as used:
        head = store.head(used, lock=True)
        if head is None or head.final_size > size or (size and not head.final_size):
            raise UsageError(f"the log {store.log} is final beyond {size}, or holds nothing that is")
        gone = wait_again(store, size, used)
        here = (entry.log == store.log) & (entry.log_index >= size)
        used.execute(tables.log_entry.delete().where(here))
        for level in range(1, head.size.bit_length()):
            beyond = (node.level == level) & (node.node_index >= size >> level)
            used.execute(tables.log_node.delete().where((node.log == store.log) & beyond))
        for table in (tables.checkpoint, tables.cosignature):
            used.execute(table.delete().where((table.c.log == store.log) & (table.c.size > size)))
        if not size:
            used.execute(head_of.delete().where(head_of.c.log == store.log))
            return gone
        (last,) = store.entries(size - 1, size, used)
        parts = split_leaf(last.leaf)
        moved = {"size": size, "root": store.tree(size, used).root()}
        moved |= {"term": parts.term, "sequenced_at": parts.sequenced_at}
        used.execute(head_of.update().where(head_of.c.log == store.log).values(**moved))
    return gone


def wait_again(store: Store, size: int, connection: sa.Connection) -> list[str]:
    """Have the records that the store's log carries from `size` on and that are not final wait in the outbox
    for whoever writes the log next: they were taken here, so nobody need hand them in again.

    One that ends in the log after all is done with there (`Store.outbox_sequenced`). Answers with the record
    ids. Two rows an entry.
    """
    store.outbox_dropped(size, connection)
    found: list[str] = []
    for one in store.entries(size, None, connection):
        parts = split_leaf(one.leaf)
        store.outbox_put(one.record_id, parts.record, parts.sequenced_at, connection)
        found.append(one.record_id)
    return found
