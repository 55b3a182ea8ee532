"""What a client with nothing but the anchor can check of one entry, and what a proof must bring for it.

The anchor is the id of the first descriptor, which names the first witnesses. From there each change of the
authority is believed for two reasons together: the record is signed as admission demands it in the state
before it, and it lies under a head that the witnesses of that time cosigned, who replay everything before
they sign (docs/proofs.md, ADR 0011). So a proof carries the *trail*: the first descriptor, and every later
descriptor, recovery and term, in steps of one cosigned head of the authority log each. The entry itself then
needs a head of its log with the signature of that log's sequencer and the cosignatures of the last set.

Nothing here is believed before it is checked, and nothing is read but the proof and the anchor. What a light
client cannot see is that entries were left out: it sees what the witnesses vouch for, an auditor sees all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from statelog import admission, canonical, signing
from statelog.checkpoint import Checkpoint, log_keys, parse_signed_checkpoint, verify_sequencer
from statelog.errors import Refused, refuse
from statelog.finality import finality, freshness, is_final, needed_sets
from statelog.leaf import Leaf, decode_leaf, split_leaf
from statelog.limits import MAX_PROOF_FILE_BYTES, MAX_PROOF_HASHES
from statelog.merkle import EMPTY_ROOT, leaf_hash, verify_inclusion
from statelog.note import Note
from statelog.records import KINDS
from statelog.records.keys import bytes_of
from statelog.signing import decode_base64, encode_base64
from statelog.state import AUTHORITY_LOG, AuthorityState
from statelog.tlogproof import TlogProof, parse_tlog_proof

SCHEMA: Final = "statelog.proof.v1"
TRAIL_KINDS: Final = frozenset(
    {"authority.descriptor", "authority.recovery_intent", "authority.veto", "log.term"}
)


@dataclass(frozen=True, slots=True)
class Shown:
    """An entry of the authority log: its index, its leaf's bytes, its inclusion proof under a step's head."""

    index: int
    leaf: bytes
    hashes: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A cosigned head of the authority log, and the entries of the trail that are shown under it."""

    checkpoint: bytes
    entries: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Extra:
    """What a proof file carries in its `extra` line. `more` is what else is proved, such as a row."""

    genesis: bytes
    steps: tuple[Step, ...]
    leaf: bytes
    more: Mapping[str, Any] | None = None

    def encode(self) -> bytes:
        """Canonical JSON (docs/proofs.md)."""
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "genesis": encode_base64(self.genesis),
            "leaf": encode_base64(self.leaf),
            "steps": [
                {
                    "checkpoint": encode_base64(step.checkpoint),
                    "entries": [encode_shown(one) for one in step.entries],
                }
                for step in self.steps
            ],
        }
        return canonical.encode(document if self.more is None else {**document, "more": dict(self.more)})


@dataclass(frozen=True, slots=True)
class Proved:
    """An entry that is shown to be final. `as_of` is the Unix second from which its head's age counts, None
    when too few witnesses said when; `expires_at` is when the newest descriptor shown ends. `bootstrap` when
    a development descriptor accepted the entry.
    """

    origin: str
    log: str
    index: int
    leaf: Leaf
    record_id: str
    size: int
    root: bytes
    signed_by: tuple[str, ...]
    as_of: int | None
    expires_at: int
    bootstrap: bool
    more: Mapping[str, Any] | None


class Trail:
    """The authority as far as a trail shows it. Starts at the first descriptor.

    Raises Refused as admission does, SL-ANCHOR above all.
    """

    def __init__(self, genesis: bytes, anchor: str) -> None:
        self.state: AuthorityState
        self.state, _ = admission.admit_genesis(split_leaf(genesis).record, anchor)
        self.next_index = 1
        self._modes = [(0, self.state.mode)]  # by the index of the descriptor that set it

    def show(self, index: int, leaf: bytes) -> None:
        """Judge and apply the next entry of the trail. Raises Refused with `log_index`."""
        try:
            if index < self.next_index:
                raise _refuse("the entries of the trail are not in order", self.next_index, index)
            parts = split_leaf(leaf)
            view = _Shown(AUTHORITY_LOG, index, parts.record)
            admitted = admission.admit(self.state, parts.record, parts.sequenced_at, log=view)
            if admitted.kind.name not in TRAIL_KINDS:
                raise _refuse("a trail shows only what changes the authority", "", admitted.kind.name)
            if admitted.change is None:
                raise _refuse("the trail shows one record twice", "", admitted.record_id)
        except Refused as error:
            raise error.at(index) from error
        self.state.apply(admitted.change, index)
        self.next_index = index + 1
        self._modes.append((index, self.state.mode))

    def bootstrap(self, index: int, leaf: Leaf) -> bool:
        """Whether development mode accepted an entry: a descriptor counts by its own mode, what a partition's
        log carries by the newest authority entry that it was judged by.
        """
        at = index if leaf.authority_size is None else max(leaf.authority_size - 1, 0)
        return [mode for since, mode in self._modes if since <= at][-1] == "development"

    def step(self, step: Step, since: int) -> int:
        """Judge a step after the head of `since` entries; answers with the size of its own head."""
        head, note = parse_signed_checkpoint(step.checkpoint)
        for one in step.entries:
            _require_inclusion(one.leaf, one.index, head, one.hashes)
            self.show(one.index, one.leaf)
        self._check_head(head, note, AUTHORITY_LOG)
        if head.size <= since:
            raise _refuse("the heads of the trail do not grow", f"more than {since}", head.size)
        if not is_final(finality(note, needed_sets(self.state, since, head.size))):
            sentence = "a head of the trail lacks cosignatures of the witnesses that it needs"
            raise refuse("SL-FINALITY", sentence).at(head.size - 1)
        return head.size

    def check_final(self, head: Checkpoint, note: Note, log: str) -> tuple[tuple[str, ...], int | None]:
        """Who of the last witness set cosigned a head of `log`, and since when it is fresh.

        Raises Refused SL-CHECKPOINT, SL-FINALITY.
        """
        self._check_head(head, note, log)
        witnesses = self.state.witnesses
        (found,) = finality(note, [witnesses])
        if not found.met:
            sentence = "the head lacks cosignatures of the witnesses in force"
            raise refuse("SL-FINALITY", sentence, expected=found.threshold, found=len(found.signed)).at(
                head.size - 1
            )
        return found.signed, freshness(found, witnesses.faulty)

    def _check_head(self, head: Checkpoint, note: Note, log: str) -> None:
        origin = f"{self.state.cluster_id}/{log}"
        if head.origin != origin:
            raise refuse("SL-CHECKPOINT", "the head is of another log", expected=origin, found=head.origin)
        term = self.state.terms.get(log)
        publics = () if term is None else (one.public for one in term.sequencers)
        verify_sequencer(note, log_keys(origin, publics))


def check_proof(data: bytes, anchor: str, now: int) -> Proved:
    """The entry that the proof file `data` proves, to whom trusts nothing but `anchor`.

    `now` (Unix seconds) must lie before the end of the newest descriptor shown: what ended may have been
    replaced by one that the proof does not show (SL-EXPIRED). Raises Refused: SL-PROOF and what admission,
    checkpoints and finality refuse.
    """
    proof = parse_tlog_proof(data)
    extra = decode_extra(proof.extra)
    trail = Trail(extra.genesis, anchor)
    since = 0
    for step in extra.steps:
        since = trail.step(step, since)
    head, note = parse_signed_checkpoint(proof.checkpoint)
    log = head.origin.removeprefix(f"{trail.state.cluster_id}/")
    signed_by, as_of = trail.check_final(head, note, log)
    _require_inclusion(extra.leaf, proof.index, head, proof.hashes)
    expires_at = trail.state.descriptor.expires_at
    if now >= expires_at:
        sentence = "the newest descriptor that the proof shows has ended; ask for a newer proof"
        raise refuse("SL-EXPIRED", sentence, expected=f"before {expires_at}", found=now)
    leaf = decode_leaf(extra.leaf)
    _require_shape(leaf)
    return Proved(
        origin=head.origin,
        log=log,
        index=proof.index,
        leaf=leaf,
        record_id=signing.record_id_of(leaf.record),
        size=head.size,
        root=head.root,
        signed_by=signed_by,
        as_of=as_of,
        expires_at=expires_at,
        bootstrap=trail.bootstrap(proof.index, leaf),
        more=extra.more,
    )


def make_proof(index: int, hashes: Sequence[bytes], checkpoint: bytes, extra: Extra) -> bytes:
    """The proof file."""
    return TlogProof(index, tuple(hashes), checkpoint, extra.encode()).format()


# --- the extra line ---


def decode_extra(data: bytes) -> Extra:
    """What `Extra.encode` wrote. Raises Refused SL-CANON, SL-SIZE, SL-PROOF."""
    document = canonical.decode(data, max_bytes=MAX_PROOF_FILE_BYTES)
    more = document.pop("more", None)
    genesis, leaf, steps = members(document, "schema", "genesis", "leaf", "steps")[1:]
    if document["schema"] != SCHEMA:
        raise _refuse("a proof of another version", SCHEMA, str(document["schema"])[:80])
    if more is not None and type(more) is not dict:
        raise _refuse("not an object", "an object", "more")
    return Extra(data_of(genesis), tuple(_step(one) for one in list_of(steps)), data_of(leaf), more)


def _step(value: Any) -> Step:
    checkpoint, entries = members(value, "checkpoint", "entries")
    return Step(data_of(checkpoint), tuple(decode_shown(one) for one in list_of(entries)))


def encode_shown(one: Shown) -> dict[str, Any]:
    """A leaf with its inclusion proof, for JSON."""
    hashes = [encode_base64(hash_) for hash_ in one.hashes]
    return {"index": one.index, "leaf": encode_base64(one.leaf), "hashes": hashes}


def decode_shown(value: Any) -> Shown:
    """What `encode_shown` made. Raises Refused SL-PROOF."""
    index, leaf, hashes = members(value, "index", "leaf", "hashes")
    if type(index) is not int:
        raise _refuse("not an index", "an integer", str(index)[:80])
    return Shown(index, data_of(leaf), hashes_of(hashes))


def members(value: Any, *names: str) -> list[Any]:
    """The members of an object that has exactly those names. Raises Refused SL-PROOF."""
    if type(value) is not dict or value.keys() != set(names):
        raise _refuse("a part of the proof has other fields", ", ".join(names), str(value)[:80])
    return [value[name] for name in names]


def list_of(value: Any) -> list[Any]:
    """A list. Raises Refused SL-PROOF."""
    if type(value) is not list:
        raise _refuse("a part of the proof is not a list", "a list", str(value)[:80])
    return value


def data_of(value: Any) -> bytes:
    """Bytes from base64. Raises Refused SL-PROOF."""
    data = decode_base64(value) if type(value) is str else None
    if data is None:
        raise _refuse("a value is not canonical base64", "", str(value)[:80])
    return data


def hashes_of(value: Any) -> tuple[bytes, ...]:
    """Hashes from a list of base64, at most as many as a proof can have. Raises Refused SL-PROOF."""
    found = tuple(data_of(one) for one in list_of(value)[: MAX_PROOF_HASHES + 1])
    if len(found) > MAX_PROOF_HASHES:
        raise _refuse("too many hashes", f"at most {MAX_PROOF_HASHES}", len(list_of(value)))
    return found


# --- parts ---


class _Shown:
    """A log of which one record is shown (`statelog.records.base.LogView`).

    The root where a term starts cannot be computed from a proof: the record's own word is taken here, and
    the witnesses, who replayed the log, vouch for it with the head above. The term that a recovery opens
    says no root; nothing in a trail asks for it again.
    """

    def __init__(self, name: str, size: int, record: bytes) -> None:
        self.name = name
        self.size = size
        self._record = record

    def root_at(self, size: int) -> bytes | None:
        """What the record says of that size, if anything."""
        said = canonical.decode(self._record).get("start_root")
        return bytes_of(said) if type(said) is str else EMPTY_ROOT


def _require_inclusion(leaf: bytes, index: int, head: Checkpoint, hashes: Sequence[bytes]) -> None:
    if not verify_inclusion(leaf_hash(leaf), index, head.size, hashes, head.root):
        raise _refuse("the entry is not shown to lie under the head", f"size {head.size}", index).at(index)


def _require_shape(leaf: Leaf) -> None:
    kind = KINDS.get(str(leaf.record.get("schema_version")))
    if kind is None:
        raise refuse("SL-SCHEMA", "an unknown kind of record", path="schema_version")
    kind.shape(leaf.record)


def _refuse(sentence: str, expected: object, found: object) -> Refused:
    return refuse("SL-PROOF", sentence, expected=expected, found=found)
