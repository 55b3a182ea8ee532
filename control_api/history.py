"""The authority log's kept checkpoints (docs/tiles.md, "History"), found once and then followed."""

from __future__ import annotations

import threading

import sqlalchemy as sa

from statelog.io.proving import FollowedTrail
from statelog.io.store import Store


class History:
    """For the reading threads of one application: one at a time looks for what is new."""

    def __init__(self, store: Store, anchor: str) -> None:
        self._trail = FollowedTrail(store, anchor)
        self._lock = threading.Lock()

    def kept(self, connection: sa.Connection) -> dict[int, bytes]:
        """The signed notes of the kept heads by size, the newest final head not among them.

        Reads the whole log when it is asked first, and what is new later. Raises UsageError before anything
        is final, Refused for a store whose log is not what it says.
        """
        with self._lock:
            return {size: note.format() for size, note in self._trail.heads(connection)[:-1]}
