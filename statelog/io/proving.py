"""Proofs for light clients, cut from a store (`statelog.lightclient`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import Refused, UsageError
from statelog.io.export import final_heads
from statelog.io.store import Store
from statelog.leaf import decode_leaf, split_leaf
from statelog.lightclient import TRAIL_KINDS, Extra, Shown, Step, Trail, check_proof, make_proof
from statelog.merkle import inclusion_proof, inclusion_ranges, nodes_under
from statelog.note import Note
from statelog.records import KINDS, KINDS_BY_NAME
from statelog.state import AUTHORITY_LOG, AuthorityState

_TRAIL_SCHEMAS = tuple(
    KINDS_BY_NAME[name].schema.encode() for name in sorted(TRAIL_KINDS & KINDS_BY_NAME.keys())
)


def prove(store: Store, anchor: str, index: int, now: int, more: Mapping[str, Any] | None = None) -> bytes:
    """The proof file of the final entry `index` of the store's log, checked as its reader will check it.

    Its trail is the longest under which the log's final head holds. A partition's log that nobody wrote since
    its writer or the witnesses changed has a head by those before, so there the trail ends before the change.

    Reads the authority log once, O(n), to find what changed the authority. Raises UsageError when the entry
    is not final (yet), Refused for a store whose log is not what it says, SL-EXPIRED when the last descriptor
    that can be shown has ended.
    """
    with store.reading() as connection:
        head = store.head(connection)
        if head is None or index >= head.final_size:
            final = 0 if head is None else head.final_size
            raise UsageError(f"entry {index} of the log {store.log} is not final; {final} entries are")
        note = store.checkpoint(head.final_size, connection)
        (entry,) = store.entries(index, index + 1, connection)
        if note is None:
            raise UsageError(f"the log {store.log} lost its final checkpoint")
        (newest,) = store.entries(head.final_size - 1, head.final_size, connection)
        authority = store.of(AUTHORITY_LOG)
        shown = _shown(authority, connection)
        hashes, refused = _hashes(store, index, head.final_size, connection), []
        for state, part in _trails(shown, anchor, note, split_leaf(newest.leaf).authority_size):
            try:
                steps = _steps(authority, state, part, connection)
                proof = make_proof(index, hashes, note, Extra(shown[0].leaf, steps, entry.leaf, more))
                check_proof(proof, anchor, now)
            except Refused as error:
                refused.append(error)  # a shorter trail may need none of the heads that this store lacks
            else:
                return proof
    raise refused[0]


class FollowedTrail:
    """What changed the authority, as a store's authority log tells it: read once and then followed.

    Memory is the state of a `Trail` and the leaves of its entries.
    """

    def __init__(self, store: Store, anchor: str) -> None:
        self.shown: list[Shown] = []
        self._store = store.of(AUTHORITY_LOG)
        self._anchor = anchor
        self._trail: Trail | None = None
        self._size = 0

    def heads(self, connection: sa.Connection) -> list[tuple[int, Note]]:
        """The final heads that show the newest one to be final (`statelog.finality.milestones`).

        Reads the entries that are final since it was asked last. Raises UsageError before anything is final,
        Refused for a store whose log is not what it says.
        """
        head = self._store.head(connection)
        size = 0 if head is None else head.final_size
        for one in _changes(self._store, self._size, size, connection):
            if self._trail is None:
                self._trail = Trail(one.leaf, self._anchor)
            else:
                self._trail.show(one.index, one.leaf)
            self.shown.append(one)
            self._size = one.index + 1
        if self._trail is None:
            raise UsageError("the authority log has no final entries yet")
        self._size = max(self._size, size)
        return final_heads(self._store, self._trail.state, size, connection)


def _shown(authority: Store, connection: sa.Connection) -> list[Shown]:
    """All that changed the authority, as far as it is final. Raises UsageError before anything is."""
    head = authority.head(connection)
    shown = [] if head is None else list(_changes(authority, 0, head.final_size, connection))
    if not shown:
        raise UsageError("the authority log has no final entries yet")
    return shown


def _trails(
    shown: list[Shown], anchor: str, note: bytes, rests_on: int | None
) -> list[tuple[AuthorityState, list[Shown]]]:
    """The trails under which the head in `note` holds, longest first, and the state after each; the whole one
    when there is none.

    None is shorter than what the log's newest final leaf was judged by, the first `rests_on` entries of the
    authority log, or all of it.
    """
    head, parsed = parse_signed_checkpoint(note)
    trail = Trail(shown[0].leaf, anchor)
    found: list[tuple[AuthorityState, list[Shown]]] = []
    log = head.origin.removeprefix(f"{trail.state.cluster_id}/")
    for count, one in enumerate(shown, 1):
        if count > 1:
            trail.show(one.index, one.leaf)
        follows = shown[count].index if count < len(shown) else None
        if follows is None or (rests_on is not None and follows >= rests_on):
            with suppress(Refused):  # by the authority of this time the head does not hold
                trail.check_final(head, parsed, log)
                found.insert(0, (trail.state.copy(), shown[:count]))
    return found or [(trail.state, shown)]


def _steps(
    authority: Store, state: AuthorityState, shown: list[Shown], connection: sa.Connection
) -> tuple[Step, ...]:
    """The steps of a trail after which the authority is `state`."""
    steps: list[Step] = []
    rest = shown[1:]
    head = authority.head(connection)
    final_size = 0 if head is None else head.final_size
    for size, note in final_heads(authority, state, final_size, connection, last=shown[-1].index + 1):
        under = [one for one in rest if one.index < size]
        rest = rest[len(under) :]
        entries = [
            Shown(one.index, one.leaf, tuple(_hashes(authority, one.index, size, connection)))
            for one in under
        ]
        steps.append(Step(note.format(), tuple(entries)))
    return tuple(steps)


def _changes(store: Store, start: int, end: int, connection: sa.Connection) -> Iterator[Shown]:
    for row in store.entries(start, end, connection):
        # The cheap look first: nearly every record is of another kind.
        if any(schema in row.leaf for schema in _TRAIL_SCHEMAS):
            kind = KINDS.get(str(decode_leaf(row.leaf).record.get("schema_version")))
            if kind is not None and kind.name in TRAIL_KINDS:
                yield Shown(row.index, row.leaf)


def _hashes(store: Store, index: int, size: int, connection: sa.Connection) -> Sequence[bytes]:
    wanted = nodes_under(inclusion_ranges(index, size))
    return inclusion_proof(index, size, store.read_nodes(wanted, connection))
