"""Comparing heads: what a peer or another replica shows, against the log in this store.

Whoever talks to anybody compares heads with them, so that a log which shows two histories is found out as
soon as two of its readers meet, and a replica that goes back by whoever asks it again. Both signed heads are
kept (`statelog.splitview`, `statelog.rollback`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol

import sqlalchemy as sa

from statelog import canonical
from statelog.checkpoint import Checkpoint, parse_signed_checkpoint, verify_sequencer
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.finality import final_cosignatures
from statelog.io.evidence import KeptRollback, KeptSplitView, ShownHead
from statelog.io.store import Store
from statelog.leaf import split_leaf
from statelog.merkle import (
    CompactRange,
    consistency_proof,
    consistency_ranges,
    nodes_under,
    verify_consistency,
)
from statelog.note import Note, VerifierKey
from statelog.records import DESCRIPTOR
from statelog.replay import Replay
from statelog.rollback import Rollback
from statelog.signing import decode_base64, record_id_of
from statelog.splitview import SplitView, TermSpan, check_split_view, may_be_dropped
from statelog.state import AUTHORITY_LOG, RECOVERY
from statelog.tilelog import TileLog

_log = logging.getLogger(__name__)
_TERM_SCHEMA = "rap.fabric.log.term.v1"
_INTENT_SCHEMA = "rap.fabric.authority.recovery_intent.v1"
_OPENING = (_TERM_SCHEMA, _INTENT_SCHEMA, DESCRIPTOR.schema)  # kinds that open a term, or say whose


class Sized(Protocol):
    """A log at some size."""

    @property
    def size(self) -> int:
        """How many entries."""
        ...


class Relation(StrEnum):
    """How another's head relates to the log here."""

    SAME = "same"
    OLDER = "older"
    NEWER = "newer"  # beyond what is known here: to be looked at again later
    BACK = "back"  # older than what the same source showed before it was asked
    SPLIT = "split"
    DROPPED = "dropped"  # never final, and of a tail that a new term may have dropped: no contradiction
    UNSIGNED = "unsigned"  # by nobody who sequences the log
    FOREIGN = "foreign"  # of another log


def compare_head(store: Store, replay: Replay, note: bytes, source: str, now: int) -> Relation:
    """Compare the signed head `note`, which `source` showed, with the log up to `replay`; keep a split view.

    `replay` stands at a stored checkpoint. O(log n) rows, unless a head contradicts after a change of term:
    then the log's terms are read. Raises Refused SL-NOTE or SL-CHECKPOINT for what is no head at all.
    """
    head, parsed = parse_signed_checkpoint(note)
    if head.origin != replay.origin:
        return Relation.FOREIGN
    if head.size > replay.size:
        return Relation.NEWER
    keys = [*replay.sequencer_keys(), *replay.past_sequencer_keys()]
    try:
        key = verify_sequencer(parsed, keys)
    except Refused:
        return Relation.UNSIGNED
    with store.reading() as connection:
        root = _root_at(store, replay, head.size, connection)
        if root == head.root:
            return Relation.SAME if head.size == replay.size else Relation.OLDER
        if not _was_final(parsed, replay) and _droppable(store, replay, head, key, connection):
            return Relation.DROPPED
        found = _split_view(store, replay, head, note, root, connection)
    return _keep(store, found, keys, source, now)


def compare_log(
    store: Store, replay: Replay, log: TileLog, source: str, now: int, before: ShownHead | None = None
) -> Relation:
    """`compare_head` with a log whose tiles can be read: one that is longer must prove that it extends ours,
    and no head may be older than `before`, the one of this source that was kept before `log` was opened.

    Raises as `compare_head`, and SourceUnreadable for tiles that do not lead to their own head.
    """
    relation = compare_head(store, replay, log.note, source, now)
    if relation is Relation.NEWER:
        relation = _extended(store, replay, log, source, now)
    if relation not in (Relation.SAME, Relation.OLDER, Relation.NEWER):
        return relation
    went_back = look_back(store, source, ShownHead(log.size, log.note), before, now)
    return Relation.BACK if went_back else relation


def _extended(store: Store, replay: Replay, log: TileLog, source: str, now: int) -> Relation:
    keys = [*replay.sequencer_keys(), *replay.past_sequencer_keys()]
    try:
        verify_sequencer(log.parsed, keys)
    except Refused:
        return Relation.UNSIGNED
    found = extension(replay, log)
    if found is None:
        raise SourceUnreadable(f"the tiles of {source} do not lead to its own head")
    root, proof = found
    if root == replay.root():
        return Relation.NEWER
    ours = store.checkpoint(replay.size)
    if ours is None:
        raise UsageError(f"the log {store.log} has no checkpoint of {replay.size} to compare with")
    return _keep(store, SplitView(ours, log.note, root, proof), keys, source, now)


def extension(smaller: Sized, larger: TileLog) -> tuple[bytes, tuple[bytes, ...]] | None:
    """The root that `larger` has at the size of `smaller`, and the proof that leads from there to its head;
    None when its tiles do not lead to it. O(log n) tiles.
    """
    proof = tuple(consistency_proof(smaller.size, larger.size, larger.read_node))
    root = CompactRange.from_nodes(smaller.size, larger.read_node).root()
    leads = verify_consistency(smaller.size, root, larger.size, larger.head.root, proof)
    return (root, proof) if leads else None


def look_back(store: Store, source: str, head: ShownHead, before: ShownHead | None, now: int) -> bool:
    """Whether `source` has gone back: it had shown `before`, was then asked, and showed `head`.

    Both heads fit the log here. Keeps the two that show it, or that the source is where it was again, and
    otherwise the larger head for the next time. A few rows, and a write only for what is new.
    """
    went_from = store.rollback_from(source)
    if went_from is not None:
        if head.size < went_from:
            return True
        store.rollback_over(source, now)
    elif before is not None and head.size < before.size:
        found = KeptRollback(source, head.size, before.size, Rollback(before.note, head.note), now)
        if store.rollback_keep(found):
            _log.error(
                "%s went back: its head of %s was of %d and is of %d",
                source,
                store.log,
                before.size,
                head.size,
            )
        return True
    if before is None or head.size > before.size:
        store.shown_head_keep(source, head, now)
    return False


def _keep(store: Store, found: SplitView, keys: Sequence[VerifierKey], source: str, now: int) -> Relation:
    """Keep what is proved and nothing else."""
    smaller, larger = check_split_view(found, keys)
    kept = KeptSplitView(smaller.size, smaller.root, larger.size, found, source, now)
    if store.split_view_add(kept):
        _log.error(
            "two histories: the head of %d contradicts the one of %d; shown by %s",
            smaller.size,
            larger.size,
            source,
        )
    return Relation.SPLIT


def _root_at(store: Store, replay: Replay, size: int, connection: sa.Connection) -> bytes:
    if size == replay.size:
        return replay.root()
    return store.tree(size, connection).root()


def _was_final(note: Note, replay: Replay) -> bool:
    """Whether K witnesses of any set so far cosigned it."""
    return any(final_cosignatures(note, one).met for _, one in replay.state.witness_history)


def _droppable(
    store: Store, replay: Replay, head: Checkpoint, key: VerifierKey, connection: sa.Connection
) -> bool:
    return replay.term > 1 and may_be_dropped(head.size, key.public, _terms(store, connection))


def _terms(store: Store, connection: sa.Connection) -> list[TermSpan]:
    """All terms of the log. Reads the whole authority log: asked only when a head contradicts."""
    found: list[TermSpan] = []
    recoveries: dict[str, list[Any]] = {}  # sequencers by the descriptor that will open their term
    for row in store.of(AUTHORITY_LOG).entries(0, None, connection):
        if not any(schema.encode() in row.leaf for schema in _OPENING):
            continue
        record = canonical.decode(split_leaf(row.leaf).record)
        schema = record["schema_version"]
        if schema == _TERM_SCHEMA and record["log"] == store.log:
            found.append(_span(record["term"], record["start_size"], record["sequencers"]))
        elif schema == _INTENT_SCHEMA:
            recoveries[record["descriptor"]] = record["sequencers"]
        elif schema == DESCRIPTOR.schema and record["issuer_role"] == RECOVERY and store.log == AUTHORITY_LOG:
            found.append(_span(found[-1].term + 1, row.index, recoveries[record_id_of(record)]))
    return found


def _span(term: int, start_size: int, sequencers: Iterable[Mapping[str, str]]) -> TermSpan:
    publics = (decode_base64(one["public"]) or b"" for one in sequencers)
    return TermSpan(term, start_size, frozenset(publics))


def _split_view(
    store: Store, replay: Replay, head: Checkpoint, note: bytes, root: bytes, connection: sa.Connection
) -> SplitView:
    ours = store.checkpoint(replay.size, connection)
    if ours is None:
        raise UsageError(f"the log {store.log} has no checkpoint of {replay.size} to compare with")
    wanted = nodes_under(consistency_ranges(head.size, replay.size))
    proof = consistency_proof(head.size, replay.size, store.read_nodes(wanted, connection))
    return SplitView(note, ours, root, tuple(proof))
