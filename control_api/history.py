"""The kept checkpoints of each log (docs/tiles.md, "History"), found once and then followed."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.io.export import final_heads
from statelog.io.loading import begin_replay, follow
from statelog.io.proving import FollowedTrail
from statelog.io.store import Store
from statelog.note import Note
from statelog.replay import Replay
from statelog.state import AUTHORITY_LOG


class History:
    """For the reading threads of one application: one at a time looks for what is new.

    Of the authority log it holds what changed the authority; of the log of a partition, whose witnesses stand
    there, a replay.
    """

    def __init__(self, store: Store, anchor: str) -> None:
        self._anchor = anchor
        self._trail = FollowedTrail(store, anchor)
        self._replays: dict[str, Replay] = {}
        self._lock = threading.Lock()

    def kept(self, store: Store, connection: sa.Connection) -> dict[int, bytes]:
        """The signed notes of the kept heads of the store's log by size, the newest final head not among
        them.

        Reads the whole log when it is asked first, or what is beyond its saved fold, and what is new later.
        Raises UsageError before anything is final, Refused or SourceUnreadable for a store whose log is not
        what it says.
        """
        with self._lock:
            of_authority = store.log == AUTHORITY_LOG
            heads = self._trail.heads(connection) if of_authority else self._beside(store, connection)
            return {size: note.format() for size, note in heads[:-1]}

    def _beside(self, store: Store, connection: sa.Connection) -> list[tuple[int, Note]]:
        head = store.head(connection)
        if head is None or not head.final_size:
            raise UsageError(f"the log {store.log} has no final entries yet")
        replay = self._replays.pop(store.log, None) or begin_replay(store, self._anchor)
        try:
            follow(store, replay, connection)
        except (Refused, SourceUnreadable):  # another term's log has replaced what this one saw
            replay = begin_replay(store, self._anchor)
            follow(store, replay, connection)
        self._replays[store.log] = replay
        return final_heads(store, replay.state, head.final_size, connection)
