"""What of a store's outbox is to be forwarded, a share for each log.

The queue is read page by page, places first and a record's bytes only when there is room for it. A log whose
writer is gone may leave thousands of records in front of everybody else's: each log has a share, what waits
for a full one is passed over, and which log that is stays known for a while.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from fabric import limits
from statelog.io.store import Store


class ToForward(NamedTuple):
    """A record that waits, and its home log as far as this node knows."""

    record_id: str
    data: bytes
    log: str


class OutboxReader:
    """Used on the replica's thread only. `home(data)` names a record's log; `clock` gives Unix seconds."""

    def __init__(self, store: Store, home: Callable[[bytes], str], clock: Callable[[], float]) -> None:
        self._store = store
        self._home = home
        self._clock = clock
        self._homes: dict[str, str] = {}  # a hint: a record's home may change as logs are opened
        self._known_since = clock()

    def read(self, known: Mapping[str, str], own: Callable[[bytes], bool]) -> list[ToForward]:
        """Records that are not `known` (record id -> log) to whoever asks, oldest first, as many of each log
        as its share has room for; without those that are this node's `own` to sequence.
        """
        if self._clock() >= self._known_since + limits.OUTBOX_HOMES_S:
            self._homes.clear()
            self._known_since = self._clock()
        taken, found = Counter(known.values()), list[ToForward]()
        page = self._store.outbox_waiting(limits.OUTBOX_PAGE)
        while page:
            for _, record_id in page:
                home = self._homes.get(record_id)
                if record_id in known or (home is not None and taken[home] >= limits.SUBMIT_PENDING_PER_LOG):
                    continue
                row = self._store.outbox_row(record_id)
                if row is None:
                    continue  # another process was faster
                home = self._homes[record_id] = self._home(row.data)
                if taken[home] < limits.SUBMIT_PENDING_PER_LOG:
                    taken[home] += 1
                    if not own(row.data):
                        found.append(ToForward(record_id, row.data, home))
            page = self._store.outbox_waiting(limits.OUTBOX_PAGE, after=page[-1])
        return found
