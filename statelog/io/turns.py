"""A lock whose waiters go in the order in which they came.

Group commit needs it. With a plain lock, a thread whose record was just committed comes back with its next
one and takes the lock again before the others of its batch have even woken up, so batches shrink to one or
two records. In order, everybody who was served passes, and queues again, before the next commit begins.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turns:
    """A mutual exclusion lock, first come first served. Use as a context manager; not re-entrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held = False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._held:
                self._held = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()  # until the holder before us hands the lock over, still held

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._held = False
