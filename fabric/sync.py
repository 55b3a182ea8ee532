"""Replicating the log over the fabric, service `statelog.sync/1`. Pure: messages, the follower's checks, and
the choice of a source.

    Follow log, size, anchor   ->
                               <-  Entries start, leaves      up to a final head, in batches
                               <-  Head note                  the final checkpoint with its cosignatures
                               <-  …                          and again for every new final head, as it comes
    Fetch start, end           ->                             single entries, not-final ones too
                               <-  Entries
    Compare note               ->                             the asker's final head, for the one of this node
                               <-  Head note

A source is never believed. The follower replays every entry through `statelog.replay` (the sequencer's own
admission), computes its own tree, and takes a batch only when a head of exactly that tree carries enough
cosignatures of the witnesses that its own state names. What no head has covered yet is bounded.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from fabric import limits
from fabric.services.messages import MessageCodec, MessageError
from statelog.checkpoint import parse_signed_checkpoint, verify_cosignature, witness_key
from statelog.errors import Refused, refuse
from statelog.finality import finality, is_final, needed_sets
from statelog.note import Note
from statelog.replay import Entry, Replay
from statelog.state import WitnessKey, WitnessSet

SERVICE = "statelog.sync/1"
AUTHORITY = "authority"

Leaves = Annotated[list[bytes], msgspec.Meta(min_length=1, max_length=limits.SYNC_BATCH_ENTRIES)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class Follow(msgspec.Struct, tag_field="t", tag="follow"):
    """Send what is final from `size` on, and go on as more becomes final. `entries` false: heads only."""

    log: str
    size: Index
    anchor: str
    entries: bool = True


class Fetch(msgspec.Struct, tag_field="t", tag="fetch"):
    """Send the entries `start` up to, not including, `end`, as far as there are any."""

    log: str
    start: Index
    end: Index


class Entries(msgspec.Struct, tag_field="t", tag="entries"):
    start: Index
    leaves: Leaves


class Head(msgspec.Struct, tag_field="t", tag="head"):
    """A final checkpoint: a C2SP signed note with the log's signature and the cosignatures."""

    note: bytes


class Compare(msgspec.Struct, tag_field="t", tag="compare"):
    """The asker's final head, to be compared, and a question for the answerer's: both look for a split."""

    log: str
    note: bytes


class Refuse(msgspec.Struct, tag_field="t", tag="refuse"):
    """The source cannot serve this. Codes: `unknown_log`, `other_anchor`, `unavailable`."""

    code: str
    sentence: str = ""


Message = Follow | Fetch | Entries | Head | Compare | Refuse
CODEC: MessageCodec[Message] = MessageCodec(Message, limits.SERVICE_MESSAGE_BYTES)


def batches(start: int, leaves: list[bytes]) -> list[Entries]:
    """The leaves as messages within the bounds of entries and bytes."""
    messages: list[Entries] = []
    part: list[bytes] = []
    part_bytes = 0
    for index, leaf in enumerate(leaves, start):
        full = len(part) >= limits.SYNC_BATCH_ENTRIES or part_bytes + len(leaf) > limits.SYNC_BATCH_BYTES
        if part and full:
            messages.append(Entries(index - len(part), part))
            part, part_bytes = [], 0
        part.append(leaf)
        part_bytes += len(leaf)
    if part:
        messages.append(Entries(start + len(leaves) - len(part), part))
    return messages


# -- the follower's checks --


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A cosignature that was verified: the witness, the Unix second it gave, and the note's line."""

    witness: WitnessKey
    timestamp: int
    line: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Entries that a final head covers; none when the head is known and only its cosignatures are newer.

    `after` stands right behind them. `note` carries the log's own signatures only, `cosigned` what was
    verified beside them.
    """

    entries: tuple[Entry, ...]
    after: Replay
    note: bytes
    cosigned: tuple[Cosigned, ...]

    @property
    def size(self) -> int:
        return self.after.size


def cosignatures(note: Note, sets: Sequence[WitnessSet]) -> tuple[Cosigned, ...]:
    """The valid cosignatures of `note` by witnesses of any of the sets, each witness's newest."""
    found: dict[str, Cosigned] = {}
    for line in note.signatures:
        for witness in (one.by_name[line.name] for one in sets if line.name in one.by_name):
            key = witness_key(witness.name, witness.public)
            if not line.is_by(key):
                continue
            try:
                timestamp = verify_cosignature(note.text, line, key)
            except Refused:
                continue  # counts for nobody; whether enough others signed is judged by `finality`
            known = found.get(witness.key_id)
            if known is None or known.timestamp < timestamp:
                found[witness.key_id] = Cosigned(witness, timestamp, line.line())
    return tuple(found.values())


def check_final(replay: Replay, note: Note, final_size: int) -> tuple[Cosigned, ...]:
    """The cosignatures that make the head `note` of exactly `replay` final after a final head of
    `final_size`.

    Raises Refused SL-FINALITY.
    """
    sets = needed_sets(replay.state, min(final_size, replay.size), replay.size)
    results = finality(note, sets)
    if not is_final(results):
        counts = ", ".join(str(one) for one in results) or "no witness set"
        raise refuse("SL-FINALITY", "the head carries too few cosignatures", found=counts).at(replay.size - 1)
    return cosignatures(note, sets)


class Intake:
    """Judges what one source sends. Starts at a final head and moves only from final head to final head.

    `final` is the replay at the last final head; it is never changed, only followed by another (`accept`).
    """

    def __init__(self, final: Replay) -> None:
        self.final = final
        self._tip: Replay | None = None
        self._entries: list[Entry] = []
        self._bytes = 0

    @property
    def size(self) -> int:
        """The index of the entry expected next."""
        return self.final.size if self._tip is None else self._tip.size

    def entries(self, message: Entries) -> None:
        """Entries in order; what is known already is skipped.

        Raises Refused with the finding of the first bad one, MessageError for a gap or for more than may
        wait for a head. After an error the intake is of no use.
        """
        if message.start > self.size:
            raise MessageError("message_unexpected", f"entry {message.start} instead of {self.size}")
        for leaf in message.leaves[self.size - message.start :]:
            self._bytes += len(leaf)
            too_many = len(self._entries) >= limits.SYNC_UNPROVEN_ENTRIES
            if too_many or self._bytes > limits.SYNC_UNPROVEN_BYTES:
                raise MessageError("message_unexpected", "too many entries without a final head")
            if self._tip is None:
                self._tip = self.final.copy()
            self._entries.append(self._tip.append(leaf))

    def head(self, data: bytes) -> Batch | None:
        """A final head over all entries so far: what may be stored now, or None when it is old.

        Raises Refused: SL-NOTE, SL-CHECKPOINT, SL-ROOT, SL-FINALITY; MessageError when the head lies beyond
        the entries that came.
        """
        checkpoint, _ = parse_signed_checkpoint(data)
        if checkpoint.size < self.final.size:
            return None
        if checkpoint.size != self.size:
            raise MessageError("message_unexpected", f"a head of {checkpoint.size} after {self.size} entries")
        replay = self._tip or self.final
        _, note = replay.verify_head(data)
        cosigned = check_final(replay, note, self.final.size)
        own = Note(note.text, tuple(s for s in note.signatures if s.name == replay.origin))
        return Batch(tuple(self._entries), replay, own.format(), cosigned)

    def accept(self, batch: Batch) -> None:
        """The batch is stored: go on from there."""
        self.final = batch.after
        self._tip, self._entries, self._bytes = None, [], 0


# -- which source to follow --


@dataclass(frozen=True, slots=True)
class Start:
    """Follow this peer: with entries, or its heads only."""

    peer: str
    entries: bool


@dataclass(frozen=True, slots=True)
class Stop:
    peer: str


@dataclass(slots=True)
class _Source:
    preferred: bool
    shown: int = 0
    """How many entries it said it had when its session began; no proof of any."""
    failures: int = 0
    retry_at: float = 0.0
    barred: bool = False  # sent what no honest source sends


class Sources:
    """Follows one peer for entries and watches the heads of others, so that one that withholds, or is itself
    left behind, is noticed.

    `preferred`: a peer that sequences. A source that fails is left for a while; one that sent what an auditor
    refuses is never asked again while the session lives.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._sources: dict[str, _Source] = {}
        self._main: str | None = None
        self._watched: dict[str, None] = {}
        self._size = 0
        self._behind: tuple[float, str] | None = None  # since when, and who showed it

    @property
    def main(self) -> str | None:
        """The peer that entries come from."""
        return self._main

    def up(self, now: float, peer: str, *, preferred: bool, shown: int = 0) -> list[Start | Stop]:
        """A session with a peer that serves the log is ready; it says that it has `shown` entries."""
        self._leave(peer)
        self._sources[peer] = _Source(preferred, shown)
        return self._choose(now)

    def down(self, now: float, peer: str) -> list[Start | Stop]:
        """Its session ended."""
        self._leave(peer)
        self._sources.pop(peer, None)
        return self._choose(now)

    def failed(self, now: float, peer: str, *, barred: bool = False) -> list[Start | Stop]:
        """Its stream ended, or it sent something refused (`barred`)."""
        source = self._sources.get(peer)
        if source is None:
            return []
        source.barred = source.barred or barred
        pause = min(limits.PEER_REDIAL_FIRST_S * 2**source.failures, limits.PEER_REDIAL_MAX_S)
        source.failures = min(source.failures + 1, 16)  # past that the pause is at its longest
        source.retry_at = now + pause
        self._leave(peer)
        return self._choose(now)

    def advanced(self, size: int) -> None:
        """This node is final up to `size`."""
        self._size = max(self._size, size)
        self._behind = None
        if self._main is not None:
            self._sources[self._main].failures = 0

    def seen(self, now: float, peer: str, size: int) -> list[Start | Stop]:
        """A watched peer showed a head of `size`, validly cosigned by witnesses known here."""
        if size > self._size and self._behind is None and peer in self._watched:
            self._behind = (now, peer)
        return self._choose(now)

    def timer(self, now: float) -> list[Start | Stop]:
        """The deadline came."""
        if self._behind is None or self._main is None or now < self._behind[0] + limits.SYNC_STALL_S:
            return self._choose(now)
        stalled, better = self._main, self._behind[1]
        self._leave(stalled)
        effects: list[Start | Stop] = [Stop(stalled)]
        if better in self._watched:  # it has the news: follow it for entries too
            self._leave(better)
            self._main = better
            effects += [Stop(better), Start(better, entries=True)]
        return [*effects, *self.failed(now, stalled)]

    def deadline(self) -> float | None:
        """When `timer` is due, or None."""
        times: list[float] = []
        if self._main is None or len(self._watched) < limits.SYNC_WATCHED:
            times += [s.retry_at for n, s in self._sources.items() if self._is_free(n)]
        if self._behind is not None and self._main is not None:
            times.append(self._behind[0] + limits.SYNC_STALL_S)
        return min(times, default=None)

    def _leave(self, peer: str) -> None:
        """Stop counting on a peer. `_behind` is about a main source, and goes with it."""
        if self._main == peer:
            self._main, self._behind = None, None
        self._watched.pop(peer, None)

    def _is_free(self, peer: str) -> bool:
        return peer != self._main and peer not in self._watched and not self._sources[peer].barred

    def _choose(self, now: float) -> list[Start | Stop]:
        effects = self._make_way(now)
        if self._main is None:
            chosen = self._pick(now, [n for n in self._sources if n != self._main])
            if chosen is not None:
                if chosen in self._watched:
                    self._leave(chosen)
                    effects.append(Stop(chosen))
                self._main = chosen
                effects.append(Start(chosen, entries=True))
        while self._main is not None and len(self._watched) < limits.SYNC_WATCHED:
            chosen = self._pick(now, [n for n in self._sources if self._is_free(n)])
            if chosen is None:
                break
            self._watched[chosen] = None
            effects.append(Start(chosen, entries=False))
        return effects

    def _make_way(self, now: float) -> list[Start | Stop]:
        """Leave a follower for a sequencer that came up: followers of followers may go in a circle."""
        if self._main is None or self._sources[self._main].preferred:
            return []
        if not any(
            s.preferred and not s.barred and not s.failures and s.retry_at <= now
            for s in self._sources.values()
        ):
            return []
        left = self._main
        self._leave(left)
        return [Stop(left)]

    def _pick(self, now: float, among: list[str]) -> str | None:
        """The best of these that may be asked now: without failures, then sequencers, then those that said
        they have more than this node; of equals any.
        """
        ready = {
            name: (source.failures > 0, not source.preferred, source.shown <= self._size)
            for name, source in self._sources.items()
            if name in among and not source.barred and source.retry_at <= now
        }
        if not ready:
            return None
        best = min(ready.values())
        return self._rng.choice([name for name, rank in ready.items() if rank == best])
