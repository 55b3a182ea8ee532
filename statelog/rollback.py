"""Rollbacks: a replica that showed a final head, and when asked again an older one.

A log only grows, and what is final stays: whoever has gone back lost part of its store, was restored from an
old copy, or keeps something back. Both heads may be true, so the two notes convict nobody of signing them;
they show what the replica said, and when it said less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from statelog.checkpoint import Checkpoint, parse_signed_checkpoint, verify_sequencer
from statelog.errors import Refused, refuse
from statelog.note import VerifierKey


@dataclass(frozen=True, slots=True)
class Rollback:
    """`earlier` was shown first and is of the larger size, `later` after it: signed notes of one log."""

    earlier: bytes
    later: bytes


def check_rollback(found: Rollback, keys: Sequence[VerifierKey]) -> tuple[Checkpoint, Checkpoint]:
    """The two heads, once it is certain that sequencers with `keys` signed both and that the later is older.

    Raises Refused SL-EVIDENCE when this shows nothing.
    """
    try:
        heads = [parse_signed_checkpoint(note) for note in (found.earlier, found.later)]
        for _, note in heads:
            verify_sequencer(note, list(keys))
    except Refused as error:
        raise refuse("SL-EVIDENCE", f"a head of the rollback is none: {error.finding.sentence}") from error
    (earlier, _), (later, _) = heads
    if earlier.origin != later.origin:
        raise refuse(
            "SL-EVIDENCE", "the two heads are of two logs", expected=earlier.origin, found=later.origin
        )
    if later.size >= earlier.size:
        raise refuse("SL-EVIDENCE", "the later head is not the older one", found=later.size)
    return earlier, later
