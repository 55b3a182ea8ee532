"""The one fold of a log: used by the sequencer before it writes, by witnesses, replicas and auditors after.

Entry i is judged by the state after entry i-1 and at its own `sequenced_at`, so every replay of the same
bytes ends in the same state whenever and wherever it runs. The rules are those of docs/records/, "The log":

- entry 0 is the first descriptor, with leaf term 0, `sequenced_at` equal to its `issued_at`, and the pinned
  anchor as its record id;
- entry 1 is the record of term 1, with start_size 1 and the root at size 1;
- `sequenced_at` never goes backwards;
- a leaf carries the term in force; the record that opens a term, a `log.term` or the descriptor of a
  recovery, is the first leaf to carry it, because it is that term's sequencer who writes it and signs the
  checkpoint over it;
- no record is in the log twice.

A refusal carries the log index and changes nothing.

This is the fold of the authority log; `statelog.partition` builds that of a partition's log on it.
"""

# Long on purpose: the one fold of a log, from an entry's bytes to its head, read in one place.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from statelog import admission, canonical
from statelog.checkpoint import Checkpoint, log_keys, parse_signed_checkpoint, verify_sequencer
from statelog.errors import Refused, UsageError, refuse
from statelog.leaf import Leaf, LeafParts, frame_leaf, split_leaf
from statelog.limits import HASH_BYTES, ROOT_WINDOW_ENTRIES
from statelog.merkle import CompactRange, leaf_hash
from statelog.note import Note, VerifierKey
from statelog.records import DESCRIPTOR
from statelog.records.base import Kind
from statelog.signing import encode_base64
from statelog.state import AUTHORITY_LOG, RECOVERY, AuthorityState, SubjectKey, Term

_TERM_SCHEMA = "rap.fabric.log.term.v1"
_WINDOW_BYTES = ROOT_WINDOW_ENTRIES * HASH_BYTES


@dataclass(slots=True)  # not frozen: one is made for every entry of every replay
class Entry:
    """One accepted entry. `data` are the leaf's bytes; `new_nodes` the subtrees (level, index, hash) that it
    completed, its own leaf hash first. `signed` are the bytes that its signatures cover, `signed_by` the
    public keys of these, in their order.
    """

    index: int
    sequenced_at: int
    term: int
    authority_size: int | None
    record: dict[str, Any]
    record_id: str
    kind: Kind
    subject: SubjectKey
    leaf_hash: bytes
    new_nodes: Sequence[tuple[int, int, bytes]]
    data: bytes
    signed: bytes
    signed_by: Sequence[bytes]

    @property
    def leaf(self) -> Leaf:
        """What the leaf's bytes say."""
        return Leaf(self.record, self.sequenced_at, self.term, self.authority_size)


class Opened(NamedTuple):
    """A term that a record opens: its number, and the sequencers' public keys in base64."""

    term: int
    sequencers: frozenset[str]


@dataclass(frozen=True, slots=True)
class FoldedLog:
    """What a `Replay` knows beside the state, as values.

    `tree` and `base` are right edges (size, hashes), `recent` the leaf hashes between them.
    """

    tree: tuple[int, list[bytes]]
    base: tuple[int, list[bytes]]
    recent: bytes
    last_sequenced_at: int
    past: frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Folded:
    """All that a `Replay` of the authority log knows, as values: what `Replay.resumed` goes on from."""

    log: FoldedLog
    state: AuthorityState


class Replay:
    """The state of one log after some of its entries; starts before entry 0.

    `anchor` is the pinned record id of entry 0. Memory is the authority state, at most a hundred hashes, and
    the leaf hashes of the last `ROOT_WINDOW_ENTRIES` to twice as many entries (for `root_at`).
    """

    __slots__ = ("_base", "_past", "_recent", "_state", "_tree", "anchor", "last_sequenced_at", "log")

    first_checkpoint_size = 2  # genesis and first term: who may sign a checkpoint is known from there on

    def __init__(self, anchor: str) -> None:
        self.anchor = anchor
        self.log = AUTHORITY_LOG
        self.last_sequenced_at = 0
        self._state: AuthorityState | None = None
        self._tree = CompactRange()
        self._base = CompactRange()  # the tree before the entries of `_recent`
        self._recent = bytearray()  # leaf hashes, one after the other
        self._past: frozenset[bytes] = frozenset()  # public keys of earlier terms' sequencers

    # --- where the log is ---

    @property
    def size(self) -> int:
        """How many entries were appended; the index of the next one."""
        return self._tree.size

    @property
    def name(self) -> str:
        """The log's name, for the rules that ask which log carries a record."""
        return self.log

    @property
    def state(self) -> AuthorityState:
        """The authority state after the last entry. Raises UsageError before entry 0."""
        if self._state is None:
            raise UsageError("a log without entries has no state")
        return self._state

    @property
    def started(self) -> bool:
        """Whether entry 0 was accepted."""
        return self._state is not None

    @property
    def authority_size(self) -> int | None:
        """What a leaf of this log says of the authority log: nothing, in the authority log itself."""
        return None

    @property
    def origin(self) -> str:
        """`<cluster_id>/<log name>`, the first line of the log's checkpoints."""
        return f"{self.state.cluster_id}/{self.log}"

    @property
    def term(self) -> int:
        """The term in force; 0 before the first term record."""
        found = self.current_term()
        return 0 if found is None else found.term

    def current_term(self) -> Term | None:
        """Who may sequence this log now."""
        return None if self._state is None else self._state.terms.get(self.log)

    def root(self) -> bytes:
        """The Merkle root over all entries so far."""
        return self._tree.root()

    def root_at(self, size: int) -> bytes | None:
        """The root over the first `size` entries, None beyond the end or further back than the window.

        Costs one hash an entry between the window's start and `size`; asked only for the rare term record.
        """
        if size == self.size:
            return self.root()
        if not self._base.size <= size < self.size:
            return None
        tree = self._base.copy()
        for at in range(0, (size - self._base.size) * HASH_BYTES, HASH_BYTES):
            tree.append(bytes(self._recent[at : at + HASH_BYTES]))
        return tree.root()

    def tree(self) -> CompactRange:
        """A copy of the tree's right edge, to compute with leaves that are not appended yet."""
        return self._tree.copy()

    def folded(self) -> Folded:
        """Everything here, to go on from later. It shares the state, which must not change meanwhile."""
        return Folded(self._folded_log(), self.state)

    def _folded_log(self) -> FoldedLog:
        tree, base = self._tree, self._base
        edges = (tree.size, tree.hashes), (base.size, base.hashes)
        return FoldedLog(*edges, bytes(self._recent), self.last_sequenced_at, self._past)

    @classmethod
    def resumed(cls, anchor: str, known: Folded) -> Replay:
        """A replay that stands where `known` was taken. The caller knows why that may be trusted.

        Raises ValueError when the parts do not fit together.
        """
        replay = cls(anchor)
        replay._resume(known.log, known.state)
        return replay

    def _resume(self, known: FoldedLog, state: AuthorityState) -> None:
        self._tree, self._base = CompactRange(*known.tree), CompactRange(*known.base)
        self._recent = bytearray(known.recent)
        if self._base.size + len(known.recent) // HASH_BYTES != self._tree.size:
            raise ValueError("the recent leaf hashes do not lead from the one right edge to the other")
        self.last_sequenced_at, self._past, self._state = known.last_sequenced_at, known.past, state

    def copy(self) -> Replay:
        """An independent replay at the same place. Costs a shallow copy of the state's tables."""
        other = Replay(self.anchor)
        other._state = None if self._state is None else self._state.copy()
        self._copy_log(other)
        return other

    def _copy_log(self, other: Replay) -> None:
        """Everything but the state."""
        other.last_sequenced_at = self.last_sequenced_at
        other._tree = self._tree.copy()
        other._base = self._base.copy()
        other._recent = bytearray(self._recent)
        other._past = self._past

    # --- the fold ---

    def append(
        self, data: bytes, *, verify_signatures: bool = True, reading: admission.Reading | None = None
    ) -> Entry:
        """Judge and apply the next entry's leaf bytes.

        `verify_signatures=False` skips the cryptography alone, for bytes that were verified before they came
        under a signed tree head (a node's own store), or whose signatures are verified elsewhere in parallel.
        `reading` is that of the record, where somebody has made it before.
        Raises Refused with `log_index`: every code of `statelog.admission`, and SL-LEAF, SL-ORDER, SL-TERM,
        SL-DUPLICATE, SL-GENESIS, SL-ANCHOR.
        """
        index = self._tree.size
        try:
            parts = split_leaf(data)
            state, admitted = self._judge_next(parts, verify_signatures, reading)
        except Refused as error:
            raise error.at(index) from error
        # Nothing below can fail: the entry is accepted.
        before = self.current_term() if admitted.kind.opens_term else None
        if admitted.change is not None and self._state is not None:
            state.apply(admitted.change, index)
        self._state = state
        if admitted.kind.opens_term and (now := state.terms.get(self.log)) is not before:
            self._retire(before, now)
        self.last_sequenced_at = parts.sequenced_at
        hash_ = leaf_hash(data)
        return Entry(
            index,
            parts.sequenced_at,
            parts.term,
            parts.authority_size,
            admitted.record,
            admitted.record_id,
            admitted.kind,
            admitted.subject,
            hash_,
            self._grow(hash_),
            data,
            admitted.signed,
            admitted.signed_by,
        )

    def judge_at(self, data: bytes, now: int, reading: admission.Reading) -> None:
        """Judge the next entry's leaf bytes as if they were sequenced at Unix second `now`, signatures apart.

        Raises Refused as `append`; the log does not grow.
        """
        self._judge_next(
            split_leaf(data)._replace(sequenced_at=now), verify_signatures=False, reading=reading
        )

    def waits_for_authority(self, leaf: bytes) -> bool:
        """Whether the leaf cannot be judged yet (`statelog.partition`); never so in this log."""
        del leaf
        return False

    def overtaken_since(self) -> int | None:
        """Since when what the newest leaf rests on is overtaken (`statelog.partition`): on nothing here."""
        return None

    def succeeded_at(self) -> int | None:
        """Where the next term of the log starts (`statelog.partition`); here it is known by its own entry."""
        return None

    def advance(self, size: int | None = None) -> int | None:
        """What a sequencer does before it makes leaves (`statelog.partition`); nothing in this log."""
        return size

    def next_leaf(self, record: bytes, now: int) -> bytes:
        """The leaf that the sequencer makes of canonical record bytes at Unix second `now`.

        Time never goes backwards, even when the clock does. Whether the record may be in the log is decided
        by `append`. Raises Refused for bytes that cannot stand in a leaf at all.
        """
        return frame_leaf(record, self.next_time(now), self._term_of(record), self.authority_size)

    def next_time(self, now: int) -> int:
        """The earliest Unix second, from `now` on, at which the next entry may be sequenced."""
        return max(now, self.last_sequenced_at)

    def skip(self, data: bytes) -> bytes:
        """Count a refused entry without letting it change the state, so that an auditor can judge the ones
        after it. Returns its leaf hash.
        """
        hash_ = leaf_hash(data)
        self._grow(hash_)
        return hash_

    def realign(self, tree: CompactRange) -> None:
        """Go on with another right edge of the same size, for an auditor who has named the damage.

        Raises ValueError when the size differs.
        """
        if tree.size != self.size:
            raise ValueError(f"a tree of {tree.size} leaves is not one of {self.size}")
        self._tree, self._base, self._recent = tree.copy(), tree.copy(), bytearray()

    def _judge_next(
        self, parts: LeafParts, verify_signatures: bool, reading: admission.Reading | None
    ) -> tuple[AuthorityState, admission.Admitted]:
        """The verdict on the next entry, and the state that it changes."""
        if parts.authority_size is not None:
            raise refuse("SL-LEAF", "a leaf of the authority log names no authority size")
        if self._state is None:
            return self._judge_genesis(parts)
        return self._state, self._judge(self._state, parts, verify_signatures, reading)

    def _judge_genesis(self, parts: LeafParts) -> tuple[AuthorityState, admission.Admitted]:
        state, admitted = admission.admit_genesis(parts.record, self.anchor)
        issued_at = state.descriptor.issued_at
        if parts.sequenced_at != issued_at:
            raise refuse(
                "SL-GENESIS",
                "entry 0 is sequenced when its record was issued",
                path="sequenced_at",
                expected=issued_at,
                found=parts.sequenced_at,
            )
        self._check_term(parts.term, 0)
        return state, admitted

    def _judge(
        self,
        state: AuthorityState,
        parts: LeafParts,
        verify_signatures: bool,
        reading: admission.Reading | None,
    ) -> admission.Admitted:
        if parts.sequenced_at < self.last_sequenced_at:
            raise refuse(
                "SL-ORDER",
                "the entry was sequenced before the one before it",
                path="sequenced_at",
                expected=f"at least {self.last_sequenced_at}",
                found=parts.sequenced_at,
            )
        admitted = admission.admit(
            state,
            parts.record,
            parts.sequenced_at,
            log=self,
            verify_signatures=verify_signatures,
            reading=reading,
        )
        if admitted.duplicate:
            raise refuse("SL-DUPLICATE", "the record is in the log already").at(record_id=admitted.record_id)
        opened = self.opens(admitted.record) if admitted.kind.opens_term else None
        self._check_term(parts.term, self.term if opened is None else opened.term)
        return admitted

    def _check_term(self, found: int, expected: int) -> None:
        if found != expected:
            raise refuse(
                "SL-TERM", "the leaf carries another term", path="term", expected=expected, found=found
            )

    def opens(self, record: Mapping[str, Any]) -> Opened | None:
        """The term of this log that ``record``, of whatever form, would open: its own leaf carries it."""
        schema = record.get("schema_version")
        if schema == _TERM_SCHEMA and record.get("log") == self.log:
            term, listed = record.get("term"), record.get("sequencers")
            found = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
            publics = frozenset(str(one.get("public")) for one in found)
            return Opened(term if type(term) is int else self.term, publics)
        if schema != DESCRIPTOR.schema or record.get("issuer_role") != RECOVERY or self.log != AUTHORITY_LOG:
            return None
        recovery = None if self._state is None else self._state.recovery
        if recovery is None:
            return None
        return Opened(self.term + 1, frozenset(encode_base64(one.public) for one in recovery.sequencers))

    def opened_by(self, record: bytes) -> Opened | None:
        """`opens` for a record's bytes. Raises Refused where they are not canonical and might open one."""
        # The cheap look first: a busy log would otherwise decode every record twice for the rare term.
        if _TERM_SCHEMA.encode() in record or RECOVERY.encode() in record:
            return self.opens(canonical.decode(record))
        return None

    def _term_of(self, record: bytes) -> int:
        opened = self.opened_by(record)
        return self.term if opened is None else opened.term

    def _grow(self, hash_: bytes) -> list[tuple[int, int, bytes]]:
        self._recent += hash_
        if len(self._recent) >= 2 * _WINDOW_BYTES:
            for at in range(0, _WINDOW_BYTES, HASH_BYTES):
                self._base.append(bytes(self._recent[at : at + HASH_BYTES]))
            del self._recent[:_WINDOW_BYTES]
        return self._tree.append(hash_)

    # --- checkpoints ---

    def sequencer_keys(self) -> list[VerifierKey]:
        """The keys that may sign a checkpoint of the log as it stands."""
        return log_keys(self.origin, sorted(_publics(self.current_term()))) if self._state is not None else []

    def past_sequencer_keys(self) -> list[VerifierKey]:
        """The keys that might sign in an earlier term and may not any more."""
        return log_keys(self.origin, sorted(self._past))

    def _retire(self, before: Term | None, now: Term | None) -> None:
        """Remember the sequencers of `before` from whom the term `now` has taken the pen."""
        self._past = (self._past | _publics(before)) - _publics(now)

    def checkpoint(self) -> Checkpoint:
        """The log as it stands, to be signed."""
        return Checkpoint(self.origin, self.size, self.root())

    def verify_head(self, data: bytes) -> tuple[Checkpoint, Note]:
        """The signed note `data` as the checkpoint of exactly the entries so far.

        Raises Refused with `log_index` of the last entry: SL-NOTE and SL-CHECKPOINT (malformed, another log,
        another size, not signed by a sequencer of the term in force), SL-ROOT (another root).
        """
        try:
            checkpoint, note = parse_signed_checkpoint(data)
            self.check_head(checkpoint)
            verify_sequencer(note, self.sequencer_keys())
        except Refused as error:
            raise error.at(self.size - 1) from error
        return checkpoint, note

    def check_head(self, checkpoint: Checkpoint) -> None:
        """Whether the checkpoint says what the entries say. Raises Refused SL-CHECKPOINT or SL-ROOT."""
        if checkpoint.origin != self.origin:
            raise refuse(
                "SL-CHECKPOINT",
                "the checkpoint is of another log",
                expected=self.origin,
                found=checkpoint.origin,
            )
        if checkpoint.extensions:
            raise refuse("SL-CHECKPOINT", "the checkpoint has extension lines; nobody audits those")
        if checkpoint.size != self.size:
            raise refuse(
                "SL-CHECKPOINT",
                "the checkpoint is of another size",
                expected=self.size,
                found=checkpoint.size,
            )
        if checkpoint.root != self.root():
            raise refuse(
                "SL-ROOT",
                "the checkpoint's root is not the root of the entries",
                expected=self.root().hex(),
                found=checkpoint.root.hex(),
            )


def _publics(term: Term | None) -> frozenset[bytes]:
    return frozenset() if term is None else frozenset(one.public for one in term.sequencers)
