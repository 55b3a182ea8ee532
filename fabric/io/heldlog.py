"""One log as this node holds it: its part of the store, and a replay at its last final head."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import sqlalchemy as sa

from fabric.sync import Batch, check_final
from projections.io.writer import Writer
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import UsageError, refuse
from statelog.finality import final_cosignatures, finality, freshness, is_final, needed_sets
from statelog.io import saved_fold
from statelog.io.collector import collector_at_rest
from statelog.io.loading import new_replay
from statelog.io.store import Store
from statelog.io.suffix import drop_suffix
from statelog.limits import STORE_BATCH_ENTRIES
from statelog.replay import Entry, Replay
from statelog.state import WitnessSet

_log = logging.getLogger(__name__)


class HeldLog:
    """Used on the replica's thread only. `authority` is what a partition's log rests on, None for that one.

    `final` is the replay at the last final head; it is never changed, only followed by another.
    """

    def __init__(self, store: Store, anchor: str, authority: HeldLog | None = None) -> None:
        self.store = store
        self.name = store.log
        self.anchor = anchor
        self.writer = Writer(store.engine, store.log)
        self._feed = None if authority is None else FinalAuthority(authority)
        self._judging: tuple[int, int, Replay] | None = None
        self._saved = saved_fold.path_beside(store)
        self._saved_size = 0
        self.final = self.fresh()

    def fresh(self) -> Replay:
        """A replay before the first entry."""
        return new_replay(self.store, self.anchor, self._feed)

    def judging(self) -> Replay:
        """The replay that judges what may come next: `final`, by all that is final of the authority log."""
        if self._feed is None:
            return self.final
        at = (self.final.size, self._feed.final_size())
        if self._judging is None or self._judging[:2] != at:
            replay = self.final.copy()
            replay.advance()
            self._judging = (*at, replay)
        return self._judging[2]

    # -- into the store --

    def append(self, batch: Batch, connection: sa.Connection) -> None:
        """Store the entries of a batch that a final head covers.

        A node that sequences may have gone on alone: what it appended and nobody made final gives way where
        it differs, because its term has ended. Its records wait in the outbox again.
        """
        self.store.head(connection, lock=True)
        first, entries = batch.entries[0].index, list(batch.entries)
        own = [row.leaf_hash for row in self.store.entries(first, first + len(entries), connection)]
        if own != [entry.leaf_hash for entry in entries[: len(own)]]:
            drop_suffix(self.store, first, connection)
            own = []
        entries = entries[len(own) :]
        if entries:
            self.store.append_entries(entries, batch.after, batch.note, connection)
        else:
            self.store.put_checkpoint(batch.size, batch.after.root(), batch.note, connection)

    # -- from the store --

    def resume(self, final_size: int) -> None:
        """Go on from the fold that this node saved, when it stands at a head that is final."""
        resumed = (
            None if self._saved is None else saved_fold.load(self._saved, self.store, self.anchor, self._feed)
        )
        if resumed is None or resumed.size > final_size:
            return
        note = parse_signed_checkpoint(self.store.checkpoint(resumed.size) or b"")[1]
        if final_cosignatures(note, resumed.state.witnesses).met:
            self.final, self._saved_size = resumed, resumed.size

    def save(self, least: int) -> None:
        """Keep the fold for the next start, when it is `least` entries further than the one kept."""
        if self._saved is None or self.final.size < self._saved_size + least:
            return
        try:
            saved_fold.save(self._saved, self.final)
        except UsageError as error:
            _log.warning("the fold could not be saved, the next start takes longer: %s", error)
        self._saved_size = self.final.size

    @collector_at_rest()
    def replay_stored(self, replay: Replay, size: int, entries: list[Entry] | None = None) -> None:
        """Brings `replay`, which stands at a final head, up to the stored final head of `size`, and adds
        what it passes to `entries`.

        On the way it passes every change of the witness set by the stored head that covers it.
        """
        heads = self.store.checkpoints(replay.size + 1)
        head = next(heads, None)
        final_size = replay.size
        for row in self.store.entries(replay.size, size):
            entry = replay.append(row.leaf, verify_signatures=False)
            if entries is not None:
                entries.append(entry)
            while head is not None and head[0] < replay.size:
                head = next(heads, None)
            if head is None or head[0] != replay.size or replay.size == size:
                continue
            sets = needed_sets(replay.state, final_size, replay.size)
            if len(sets) > 1 and is_final(finality(parse_signed_checkpoint(head[1])[1], sets)):
                final_size = replay.size
        note = self.store.checkpoint(size)
        if note is None or replay.size != size:
            raise refuse("SL-CHECKPOINT", "the store does not hold its own final head", found=replay.size)
        _, parsed = replay.verify_head(note)
        check_final(replay, parsed, final_size)

    @collector_at_rest()
    def replay_to(self, size: int) -> Replay:
        """A replay of the first `size` final entries."""
        replay = self.fresh()
        for row in self.store.entries(0, min(size, self.final.size)):
            replay.append(row.leaf, verify_signatures=False)
        return replay

    # -- serving --

    def batch_from(self, start: int) -> tuple[list[bytes], bytes] | None:
        """Leaves from `start` on up to a final head, and that head with its cosignatures; None when there is
        nothing beyond `start`.

        Of the stored heads within a batch the largest that is final *after `start`* is chosen: a follower
        that comes from far back must pass every change of the witness set by the head that covers it.
        """
        if start >= self.final.size:
            return None
        within = start + STORE_BATCH_ENTRIES
        found: tuple[int, bytes] | None = None
        for size, note in self.store.checkpoints(start + 1):
            if size > self.final.size or (found is not None and size > within):
                break
            if self._is_final_after(start, size, note):
                found = (size, note)
        if found is None:
            return None
        return [row.leaf for row in self.store.entries(start, found[0])], found[1]

    def _is_final_after(self, start: int, size: int, note: bytes) -> bool:
        _, parsed = parse_signed_checkpoint(note)
        return is_final(finality(parsed, needed_sets(self.final.state, start, size)))

    def head_note(self) -> bytes | None:
        """The final head with its newest cosignatures."""
        return self.store.checkpoint(self.final.size) if self.final.size else None

    def leaves(self, start: int, end: int) -> list[bytes]:
        """Stored leaves, not-final ones of a shared store too."""
        end = min(end, start + STORE_BATCH_ENTRIES)
        return [row.leaf for row in self.store.entries(start, end)] if start < end else []

    def freshness(self, witnesses: WitnessSet) -> int | None:
        """The Unix second from which the age of the final head counts; None without one.

        `witnesses` are those in force now. Those of a partition's last entry may have left since, and then
        their word is worth nothing any more.
        """
        note = self.head_note()
        if note is None:
            return None
        _, parsed = parse_signed_checkpoint(note)
        return freshness(final_cosignatures(parsed, witnesses), witnesses.faulty)


class FinalAuthority:
    """The authority log as far as this node has found it final (`statelog.partition.AuthorityFeed`)."""

    def __init__(self, held: HeldLog) -> None:
        self._held = held

    def final_size(self) -> int:
        """How many entries."""
        return self._held.final.size

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """The leaves start … end - 1."""
        return (row.leaf for row in self._held.store.entries(start, end))
