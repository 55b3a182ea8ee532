"""A replay of the log in this node's own store: after a start, and after another process has appended.

Signatures of entries below the newest stored checkpoint are not verified again. That is safe because of what
came before: an entry enters a store only through `Replay.append` with signatures verified (the sequencer's
own admission, or a replica's), and the checkpoint over it is signed by a sequencer of its term. The
checkpoint's signature is verified here, and the root computed from the stored bytes must be the signed one,
so the bytes, record signatures included, are those that passed. Everything but the cryptography is judged
again. Entries past the newest checkpoint have no such protection and are verified in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from statelog.errors import SourceUnreadable, UsageError
from statelog.io import saved_fold
from statelog.io.collector import collector_at_rest
from statelog.io.store import Store
from statelog.partition import AuthorityFeed, PartitionReplay
from statelog.replay import Entry, Replay
from statelog.state import AUTHORITY_LOG


class StoredAuthority:
    """The authority log of a store's database, as the logs that rest on it read it (`AuthorityFeed`).

    Its entries were judged when they were stored; the host's own word that they are final is taken.
    """

    def __init__(self, store: Store) -> None:
        self.store = store.of(AUTHORITY_LOG)
        self._connection: sa.Connection | None = None

    @contextmanager
    def within(self, connection: sa.Connection) -> Iterator[None]:
        """Read in this transaction until the end of the block."""
        self._connection = connection
        try:
            yield
        finally:
            self._connection = None

    def final_size(self) -> int:
        """How many entries the store calls final."""
        head = self.store.head(self._connection)
        return 0 if head is None else head.final_size

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """The leaves start … end - 1."""
        return (row.leaf for row in self.store.entries(start, end, self._connection))


def new_replay(store: Store, anchor: str, authority: AuthorityFeed | None = None) -> Replay:
    """A replay of the store's log, before its first entry; a partition's rests on the log beside it."""
    if store.log == AUTHORITY_LOG:
        return Replay(anchor)
    return PartitionReplay(anchor, store.log, authority or StoredAuthority(store))


def begin_replay(store: Store, anchor: str, authority: AuthorityFeed | None = None) -> Replay:
    """`new_replay`, standing where a saved fold beside the store stands when there is a sound one."""
    if authority is None and store.log != AUTHORITY_LOG:
        authority = StoredAuthority(store)
    path = saved_fold.path_beside(store)
    resumed = None if path is None else saved_fold.load(path, store, anchor, authority)
    return new_replay(store, anchor, authority) if resumed is None else resumed


def load_replay(store: Store, anchor: str, connection: sa.Connection | None = None) -> Replay:
    """A replay of everything in the store, from a saved fold where there is one; about 25 µs an entry.

    Raises UsageError when the store holds a log of another anchor, Refused when what it holds does not pass,
    SourceUnreadable when its parts do not fit together.
    """
    replay = begin_replay(store, anchor)
    follow(store, replay, connection)
    return replay


@collector_at_rest()
def follow(
    store: Store,
    replay: Replay,
    connection: sa.Connection | None = None,
    each: Callable[[Entry], None] | None = None,
) -> int:
    """Bring `replay` up to the stored head, one snapshot of the store; answers with the number of new
    entries.

    `each` sees every entry as it is appended, so that a caller can fold it further. Raises as `load_replay`;
    the replay is then of no use any more.
    """
    before = replay.size
    with store.reading(connection) as used:
        head = store.head(used)
        if head is None:
            return 0
        if head.anchor != replay.anchor:
            raise UsageError(f"the store holds the log of anchor {head.anchor}, not of {replay.anchor}")
        covered = store.newest_checkpoint_size(used)
        for row in store.entries(replay.size, head.size, used):
            entry = replay.append(row.leaf, verify_signatures=row.index >= covered)
            if replay.size == covered:
                _check_covered(store, replay, used)
            if each is not None:
                each(entry)
        if (replay.size, replay.root(), replay.term) != (head.size, head.root, head.term):
            raise SourceUnreadable(f"the entries of log {store.log} do not lead to its head at {head.size}")
    return replay.size - before


def _check_covered(store: Store, replay: Replay, connection: sa.Connection) -> None:
    """The signed head over the entries so far; the row is there, its size was just read."""
    note = store.checkpoint(replay.size, connection)
    if note is None:
        raise SourceUnreadable(f"the log {store.log} lost its checkpoint at {replay.size}")
    replay.verify_head(note)
