"""The fold of a partition's log, beside the authority log that it rests on (docs/records/).

A `log.term` in the authority log opens the log `routes-<partition>`. Every leaf of it names an
`authority_size`: the entry is judged by the state after that many entries of the authority log and after the
entries of this log before it. So the state here is one `AuthorityState` to which both logs have been applied
in that order; it stays sound because a record is admitted in exactly one log, and the two never touch one
subject (`records.base.Kind.home_partition`).

- The log starts empty, at its opening, with what the authority log had said about the partition until then:
  epochs go on, fences hold, no lease can be sequenced a second time.
- `authority_size` never goes backwards, lies beyond the record that opened the log, and within what is final
  of the authority log (`SL-AUTHORITY`).
- What the authority log fences, revokes or rotates at index j holds here from the first entry whose
  `authority_size` is greater than j.
- An entry is sequenced no earlier than the newest authority entry that it is judged by (`SL-ORDER`).
- The term of a leaf is the one in force at its `authority_size`; witnesses let its pen write no further than
  the start of the next term that they know to be final. The first entry of a term stands at the
  term's `start_size` or later, and the root at `start_size` is the term's `start_root`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from statelog import admission, canonical
from statelog.errors import Refused, SourceUnreadable, UsageError, refuse
from statelog.leaf import LeafParts, split_leaf
from statelog.replay import Folded, FoldedLog, Replay
from statelog.state import AUTHORITY_LOG, PARTITION_LOG_PREFIX, AuthorityState, Term, WitnessSet


class AuthorityFeed(Protocol):
    """The authority log as its reader holds it: entries that were judged before, signatures included."""

    def final_size(self) -> int:
        """How many entries are final as far as is known here."""
        ...

    def leaves(self, start: int, end: int) -> Iterable[bytes]:
        """The leaves start … end - 1, all of them below `final_size`."""
        ...


@dataclass(frozen=True, slots=True)
class FoldedPartition:
    """All that a `PartitionReplay` knows, as values: what `PartitionReplay.resumed_beside` goes on from. The
    state of `authority` is the log's own, to which both logs have been applied.
    """

    log: FoldedLog
    authority: Folded
    begun_term: int
    sets: tuple[tuple[int, WitnessSet], ...]


class PartitionReplay(Replay):
    """The state of one partition's log after some of its entries; starts before its entry 0.

    `authority` is read forward only, as far as the entries name it. Memory is that of a `Replay`, and the
    right edge and root window of a second one.
    """

    __slots__ = ("_authority", "_begun_term", "_feed", "_sets")

    first_checkpoint_size = 1  # the authority log says who may sign

    def __init__(self, anchor: str, log: str, authority: AuthorityFeed) -> None:
        if not log.startswith(PARTITION_LOG_PREFIX):
            raise UsageError(f"{log!r} is not the log of a partition")
        super().__init__(anchor)
        self.log = log
        self._feed = authority
        self._authority = Replay(anchor)
        self._begun_term = 0  # the term whose start was compared with this log
        self._sets: tuple[tuple[int, WitnessSet], ...] = ()

    @property
    def authority_size(self) -> int:
        """The authority size that the newest leaf names, or the one that the next will (`advance`)."""
        return self._authority.size

    def copy(self) -> PartitionReplay:
        """An independent replay at the same place, fed by the same authority log."""
        other = PartitionReplay(self.anchor, self.log, self._feed)
        other._authority = self._authority.copy()
        other._state = other._authority.state if other._authority.started else None
        other._begun_term, other._sets = self._begun_term, self._sets
        self._copy_log(other)
        return other

    def folded_beside(self) -> FoldedPartition:
        """Everything here, to go on from later. It shares the state, which must not change meanwhile."""
        return FoldedPartition(self._folded_log(), self._authority.folded(), self._begun_term, self._sets)

    @classmethod
    def resumed_beside(
        cls, anchor: str, log: str, authority: AuthorityFeed, known: FoldedPartition
    ) -> PartitionReplay:
        """A replay that stands where `known` was taken. The caller knows why that may be trusted.

        Raises ValueError when the parts do not fit together.
        """
        replay = cls(anchor, log, authority)
        replay._authority = Replay.resumed(anchor, known.authority)
        replay._resume(known.log, known.authority.state)
        replay._begun_term, replay._sets = known.begun_term, known.sets
        return replay

    def authority_root(self) -> bytes:
        """The root of the authority log at `authority_size`."""
        return self._authority.root()

    def waits_for_authority(self, leaf: bytes) -> bool:
        """Whether the leaf rests on more of the authority log than is final as far as is known here."""
        named = split_leaf(leaf).authority_size
        return named is not None and named > self._feed.final_size()

    def overtaken_since(self) -> int | None:
        """When the authority log was sequenced on from where the newest leaf rests on it (Unix seconds); None
        while nothing more of it is final.
        """
        size = self._authority.size
        if self._feed.final_size() <= size:
            return None
        (leaf,) = self._feed.leaves(size, size + 1)
        return split_leaf(leaf).sequenced_at

    def succeeded_at(self) -> int | None:
        """Where the term after the newest leaf's starts in this log; None while none is final that is known
        here.
        """
        size = self._authority.size
        if self._feed.final_size() <= size:
            return None
        for leaf in self._feed.leaves(size, self._feed.final_size()):
            record = split_leaf(leaf).record
            if self.opened_by(record) is not None:
                start: int = canonical.decode(record)["start_size"]  # admitted before it was final
                return start
        return None

    def next_time(self, now: int) -> int:
        """Not before what the entry is judged by: the authority as far as `advance` was told to go."""
        return max(super().next_time(now), self._authority.last_sequenced_at)

    def advance(self, size: int | None = None) -> int:
        """Bring the authority's side up to `size` of its entries, or to all that is final; answers with it.

        A sequencer calls it before it makes leaves. There is no way back: a leaf that names a smaller size is
        refused from then on. Raises Refused SL-AUTHORITY for a size that is not final or lies behind.
        """
        authority, final = self._authority, self._feed.final_size()
        size = max(final, authority.size) if size is None else size
        if size < authority.size:
            raise _refuse("the authority size goes backwards", f"at least {authority.size}", size)
        if size > final:
            raise _refuse("the authority log is not final so far", f"at most {final}", size)
        if size > authority.size:
            self._follow(size)
            self._state = authority.state
        if self._state is not None:
            self._watch_witnesses(self._state)
        return size

    def _follow(self, size: int) -> None:
        authority = self._authority
        try:
            for leaf in self._feed.leaves(authority.size, size):
                before = self._term_at(authority)
                authority.append(leaf, verify_signatures=False)
                now = self._term_at(authority)
                if now is not before:
                    self._retire(before, now)  # also a pen that never wrote
        except Refused as error:
            where = f"entry {authority.size} of the {AUTHORITY_LOG} log: {error.finding}"
            raise _refuse(
                "what the log rests on does not hold", "an authority log that passes", where
            ) from error
        if authority.size != size:
            raise SourceUnreadable(f"the {AUTHORITY_LOG} log ends at {authority.size}, before size {size}")

    def _term_at(self, authority: Replay) -> Term | None:
        return authority.state.terms.get(self.log) if authority.started else None

    def _watch_witnesses(self, state: AuthorityState) -> None:
        """Tell the state which entry of *this* log was the first to be judged under each witness set."""
        current = state.descriptor.witnesses
        if not self.size:
            self._sets = ((0, current),)
        elif self._sets[-1][1] != current:
            self._sets = (*self._sets, (self.size, current))
        state.witness_history = self._sets

    def _judge_next(
        self, parts: LeafParts, verify_signatures: bool, reading: admission.Reading | None
    ) -> tuple[AuthorityState, admission.Admitted]:
        if parts.authority_size is None:
            raise refuse("SL-LEAF", "a leaf of a partition's log names an authority size")
        self.advance(parts.authority_size)
        self._check_start()
        if parts.sequenced_at < self._authority.last_sequenced_at:
            raise refuse(
                "SL-ORDER",
                "the entry was sequenced before what it is judged by",
                path="sequenced_at",
                expected=f"at least {self._authority.last_sequenced_at}",
                found=parts.sequenced_at,
            )
        return self.state, self._judge(self.state, parts, verify_signatures, reading)

    def _check_start(self) -> None:
        """Somebody may write here, and from here on."""
        term = self.current_term()
        if term is None:
            raise _refuse("no term has opened this log so far", "a log.term record", self.authority_size)
        if term.term == self._begun_term:
            return
        if self.size < term.start_size:
            raise refuse(
                "SL-TERM",
                "the entry lies before the start of its term",
                path="start_size",
                expected=f"index {term.start_size} or later",
                found=self.size,
            )
        if self.root_at(term.start_size) != term.start_root:
            raise refuse(
                "SL-TERM",
                "the term starts at another root than this log had",
                path="start_root",
                expected=term.start_root.hex(),
                found=(self.root_at(term.start_size) or b"").hex() or "a root that is not known any more",
            )
        self._begun_term = term.term


def _refuse(sentence: str, expected: object, found: object) -> Refused:
    return refuse("SL-AUTHORITY", sentence, path="authority_size", expected=expected, found=found)
