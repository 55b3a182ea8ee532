"""What others show of a log, beside this node's own: two histories and peers that go back are found out here.

Peers exchange heads when they meet and now and then (`SyncClient.compare`), and whoever is followed shows one
with every batch. What contradicts, or is less than was shown before, is kept in the store with both signed
heads.

Streams overtake each other, so a head that merely arrives after a larger one proves nothing: it is `doubted`,
and the peer is asked. What it answers, it says after all that it had shown by then (`Asked`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from fabric import limits
from fabric.io.heldlog import HeldLog
from statelog.checkpoint import parse_signed_checkpoint
from statelog.io.comparing import Relation, compare_head, look_back
from statelog.io.evidence import ShownHead

V = TypeVar("V")
Place = tuple[str, str]  # a log's name, and who shows a head of it


class Asked(NamedTuple):
    """The largest head that a peer had shown when it was asked for one; None for one that is new here."""

    before: ShownHead | None


class Compared(NamedTuple):
    """How a head relates to the log here, whether the kept evidence `changed`, and whether it is `doubted`:
    less than the peer showed before, unless it was said before that.
    """

    relation: Relation
    changed: bool = False
    doubted: bool = False


class Heads:
    """The heads that peers have shown, of every log that this node holds. `clock` gives Unix seconds."""

    def __init__(self, clock: Callable[[], float], counters: dict[str, int]) -> None:
        self._clock = clock
        self._counters = counters
        self._newer: dict[Place, bytes] = {}  # the newest beyond our own
        self._shown: dict[Place, ShownHead] = {}  # the largest that our own log confirms
        self._behind: set[Place] = set()  # who has gone back and was not seen where it was since
        self._splits: dict[str, int] = {}  # split views that are kept, by log

    def restore(self, held: Iterable[HeldLog]) -> None:
        """Learn from the store what is known."""
        self._behind = set()
        for one in held:
            self._splits[one.name] = one.store.evidence_counts().split_views
            for source, head in one.store.shown_heads().items():
                self._grow((one.name, source), head)
            self._behind.update((one.name, kept.source) for kept in one.store.rollbacks() if not kept.over_at)

    def asking(self, peer: str, log: str) -> Asked:
        """To be called before `peer` is asked for a head of a log, and given to `compare` with the answer."""
        return Asked(self._shown.get((log, peer)))

    def compare(self, held: HeldLog, note: bytes, peer: str, asked: Asked | None = None) -> Compared:
        """Compare a head that `peer` shows with the log here.

        One beyond the log is looked at again by `compare_newer`. Raises Refused for what is no head at all,
        SourceUnreadable for our own store.
        """
        if not held.final.size:
            return Compared(Relation.NEWER)
        relation = compare_head(held.store, held.final, note, peer, int(self._clock()))
        self._counters[f"heads_{relation}"] = self._counters.get(f"heads_{relation}", 0) + 1
        place = held.name, peer
        self._newer.pop(place, None)
        if relation is Relation.NEWER:
            _put_bounded(self._newer, place, note, limits.HEADS_NEWER)
        elif relation is Relation.SPLIT:
            known_splits = self._splits.get(held.name, 0)
            self._splits[held.name] = held.store.evidence_counts().split_views
            return Compared(relation, changed=self._splits[held.name] != known_splits)
        elif relation in (Relation.SAME, Relation.OLDER):
            head = ShownHead(parse_signed_checkpoint(note)[0].size, note)
            return self._look_back(relation, held, peer, head, asked)
        return Compared(relation)

    def compare_newer(self, held: Callable[[str], HeldLog]) -> bool:
        """A log is longer now: compare what was beyond it. Whether the kept evidence changed."""
        changed = False
        for (log, peer), note in list(self._newer.items()):
            if parse_signed_checkpoint(note)[0].size <= held(log).final.size:
                changed |= self.compare(held(log), note, peer).changed
        return changed

    def _look_back(
        self, relation: Relation, held: HeldLog, peer: str, head: ShownHead, asked: Asked | None
    ) -> Compared:
        """What the peer has shown stands in the store as of when it was last asked: that is once a minute."""
        place = held.name, peer
        was_behind, known = place in self._behind, self._shown.get(place)
        self._grow(place, head)
        if asked is None and not was_behind:
            return Compared(relation, doubted=known is not None and head.size < known.size)
        before = None if asked is None else asked.before
        if look_back(held.store, peer, head, before, int(self._clock())):
            self._behind.add(place)
        else:
            self._behind.discard(place)
        return Compared(relation, changed=was_behind != (place in self._behind))

    def _grow(self, place: Place, head: ShownHead) -> None:
        known = self._shown.get(place)
        if known is None or head.size > known.size:
            _put_bounded(self._shown, place, head, limits.HEADS_SHOWN)


def _put_bounded(found: dict[Place, V], place: Place, value: V, most: int) -> None:
    """Keep the value as the newest; the oldest goes when there are `most` others."""
    found.pop(place, None)
    if len(found) >= most:
        del found[next(iter(found))]
    found[place] = value
