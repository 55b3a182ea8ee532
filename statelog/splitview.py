"""Split views: proof, for anyone who holds the log's keys, that a log has shown two histories.

Two heads of one size with different roots prove it by themselves. Heads of two sizes prove it together with
the root that the larger one's history has at the smaller size, and the consistency proof from there (RFC
6962, section 2.1.2): that history then holds another root where the smaller head was signed.

One thing only looks like it: a new term may drop the tail of a dead sequencer that was not final, and the
dead sequencer's signed heads over that tail are still about (`may_be_dropped`). What is final never is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from statelog.checkpoint import Checkpoint, parse_signed_checkpoint, verify_sequencer
from statelog.errors import Refused, refuse
from statelog.merkle import verify_consistency
from statelog.note import VerifierKey


@dataclass(frozen=True, slots=True)
class SplitView:
    """`smaller` and `larger` are signed notes of one log, of one size or two; no history has both.

    `root` (32 bytes) is what the history of `larger` has at the size of `smaller`, `proof` leads from there
    to `larger` and is empty where the sizes are equal.
    """

    smaller: bytes
    larger: bytes
    root: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TermSpan:
    """A term of the log: its number, the size from which it writes, the public keys of its sequencers."""

    term: int
    start_size: int
    publics: frozenset[bytes]


def check_split_view(found: SplitView, keys: Sequence[VerifierKey]) -> tuple[Checkpoint, Checkpoint]:
    """The two heads, once it is certain that sequencers with `keys` signed both and that they contradict.

    Raises Refused SL-EVIDENCE when this proves nothing.
    """
    try:
        heads = [parse_signed_checkpoint(note) for note in (found.smaller, found.larger)]
        for _, note in heads:
            verify_sequencer(note, list(keys))
    except Refused as error:
        raise refuse("SL-EVIDENCE", f"a head of the split view is none: {error.finding.sentence}") from error
    (smaller, _), (larger, _) = heads
    if smaller.origin != larger.origin:
        raise refuse(
            "SL-EVIDENCE", "the two heads are of two logs", expected=larger.origin, found=smaller.origin
        )
    if smaller.root == found.root:
        raise refuse("SL-EVIDENCE", "the two heads agree at the smaller size", found=smaller.size)
    if not verify_consistency(smaller.size, found.root, larger.size, larger.root, found.proof):
        raise refuse("SL-EVIDENCE", "the larger head is not proved to hold another root at the smaller size")
    return smaller, larger


def may_be_dropped(size: int, signer: bytes, terms: Iterable[TermSpan]) -> bool:
    """Whether a head of `size` that was never final, signed by the key `signer`, may have covered a tail that
    a later term dropped. `terms` are all terms of the log.
    """
    known = list(terms)
    return any(
        signer in earlier.publics and earlier.term < later.term and later.start_size < size
        for earlier in known
        for later in known
    )
