"""Proofs for light clients, cut from a store (`statelog.lightclient`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from statelog.errors import UsageError
from statelog.io.export import final_heads
from statelog.io.store import Store
from statelog.leaf import decode_leaf
from statelog.lightclient import TRAIL_KINDS, Extra, Shown, Step, Trail, check_proof, make_proof
from statelog.merkle import inclusion_proof, inclusion_ranges, nodes_under
from statelog.note import Note
from statelog.records import KINDS, KINDS_BY_NAME
from statelog.state import AUTHORITY_LOG

_TRAIL_SCHEMAS = tuple(
    KINDS_BY_NAME[name].schema.encode() for name in sorted(TRAIL_KINDS & KINDS_BY_NAME.keys())
)


def prove(store: Store, anchor: str, index: int, now: int, more: Mapping[str, Any] | None = None) -> bytes:
    """The proof file of the final entry `index` of the store's log, checked as its reader will check it.

    Reads the authority log once, O(n), to find what changed the authority. Raises UsageError when the entry
    is not final (yet), Refused for a store whose log is not what it says.
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
        genesis, steps = _trail(store.of(AUTHORITY_LOG), anchor, connection)
        extra = Extra(genesis, steps, entry.leaf, more)
        proof = make_proof(index, _hashes(store, index, head.final_size, connection), note, extra)
    check_proof(proof, anchor, now)
    return proof


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


def _trail(store: Store, anchor: str, connection: sa.Connection) -> tuple[bytes, tuple[Step, ...]]:
    """The first leaf of the authority log and the steps of all that changed the authority since."""
    trail = FollowedTrail(store, anchor)
    heads = trail.heads(connection)
    genesis, *rest = trail.shown
    steps: list[Step] = []
    for size, note in heads:
        under = [one for one in rest if one.index < size]
        rest = rest[len(under) :]
        entries = [
            Shown(one.index, one.leaf, tuple(_hashes(store, one.index, size, connection))) for one in under
        ]
        steps.append(Step(note.format(), tuple(entries)))
    return genesis.leaf, tuple(steps)


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
