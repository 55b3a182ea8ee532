"""What others show of a log, beside this node's own: two histories and peers that go back are found out here.

Peers exchange heads when they meet and now and then (`SyncClient.compare`). What contradicts, or is less than
was shown before, is kept in the store with both signed heads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from fabric import limits
from fabric.io.heldlog import HeldLog
from statelog.checkpoint import parse_signed_checkpoint
from statelog.io.comparing import Relation, compare_head
from statelog.io.working import KeptRollback
from statelog.rollback import Rollback

_log = logging.getLogger(__name__)
V = TypeVar("V")
Place = tuple[str, str]  # a log's name, and who shows a head of it


class Shown(NamedTuple):
    """The size of a head that a peer showed, and its signed note."""

    size: int
    note: bytes


class Heads:
    """The heads that peers have shown, of every log that this node holds. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float], counters: dict[str, int]) -> None:
        self._clock = clock
        self._counters = counters
        self._newer: dict[Place, bytes] = {}  # the newest beyond our own
        self._shown: dict[Place, Shown] = {}  # the largest that our own log confirms
        self._behind: dict[Place, int] = {}  # where a peer was before it went back
        self._splits: dict[str, int] = {}  # split views that are kept, by log

    def restore(self, held: Iterable[HeldLog]) -> None:
        """Learn from the store what is known, and who has gone back and was not seen where it was since."""
        self._behind = {}
        for one in held:
            self._splits[one.name] = one.store.evidence_counts().split_views
            for kept in one.store.rollbacks():
                if kept.over_at is None:
                    self._behind[one.name, kept.source] = kept.earlier_size

    def shown(self, peer: str, log: str) -> Shown | None:
        """The largest head that `peer` has shown of a log, as far as this node's own reaches."""
        return self._shown.get((log, peer))

    def compare(
        self, held: HeldLog, note: bytes, peer: str, after: Shown | None = None
    ) -> tuple[Relation, bool]:
        """How a head that `peer` shows relates to the log here, and whether the kept evidence changed.

        One beyond the log is looked at again by `compare_newer`. `after` is what `shown` said before the peer
        was asked for this head: an older one is a rollback. Raises Refused for what is no head at all,
        SourceUnreadable for our own store.
        """
        if not held.final.size:
            return Relation.NEWER, False
        relation = compare_head(held.store, held.final, note, peer, int(self._clock()))
        self._counters[f"heads_{relation}"] = self._counters.get(f"heads_{relation}", 0) + 1
        place = held.name, peer
        self._newer.pop(place, None)
        if relation is Relation.NEWER:
            _put_bounded(self._newer, place, note, limits.HEADS_NEWER)
        elif relation is Relation.SPLIT:
            known_splits = self._splits.get(held.name, 0)
            self._splits[held.name] = held.store.evidence_counts().split_views
            return relation, self._splits[held.name] != known_splits
        elif relation in (Relation.SAME, Relation.OLDER):
            head = Shown(parse_signed_checkpoint(note)[0].size, note)
            known = self._shown.get(place)
            if known is None or head.size > known.size:
                _put_bounded(self._shown, place, head, limits.HEADS_SHOWN)
            return relation, self._look_back(held, peer, head, after)
        return relation, False

    def compare_newer(self, held: Callable[[str], HeldLog]) -> bool:
        """A log is longer now: compare what was beyond it. Whether the kept evidence changed."""
        changed = False
        for (log, peer), note in list(self._newer.items()):
            if parse_signed_checkpoint(note)[0].size <= held(log).final.size:
                changed |= self.compare(held(log), note, peer)[1]
        return changed

    def _look_back(self, held: HeldLog, peer: str, head: Shown, after: Shown | None) -> bool:
        """Keep that a peer shows less than before, or that it is back where it was; whether either is so."""
        place, now = (held.name, peer), int(self._clock())
        behind = self._behind.get(place)
        if behind is not None:
            if head.size < behind:
                return False
            held.store.rollback_over(peer, now)
            del self._behind[place]
            return True
        if after is None or head.size >= after.size:
            return False
        found = KeptRollback(peer, head.size, after.size, Rollback(after.note, head.note), now)
        if not held.store.rollback_keep(found):
            return False
        self._behind[place] = after.size
        sentence = "node %s went back: its final head of %s was of %d and is of %d"
        _log.error(sentence, peer[:12], held.name, after.size, head.size)
        return True


def _put_bounded(found: dict[Place, V], place: Place, value: V, most: int) -> None:
    """Keep the value as the newest; the oldest goes when there are `most` others."""
    found.pop(place, None)
    if len(found) >= most:
        del found[next(iter(found))]
    found[place] = value
