"""Single rows of a log's read models, proved under a snapshot record (docs/proofs.md, "Rows").

A `log.snapshot` says for each read model how many rows it has at a size of the log, and the RFC 6962 root
over them. A leaf of that tree is the canonical `{"key": …, "projection": …, "row": …}`, so a leaf of one read
model is none of another; leaves stand in the order of their keys' canonical bytes, so that two neighbours
show that nothing stands between them.

What a row looks like is not known here: the folds belong to whoever reads the log (`Fold`). A read model's
name ends in the version of its folds, such as `route_lease.v3`: rows of another version are other rows.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

from statelog.canonical import decode_unwalked, encode_trusted
from statelog.errors import Refused, UsageError, refuse
from statelog.lightclient import Proved, Shown, decode_shown, encode_shown, list_of, members
from statelog.limits import MAX_LEAF_BYTES
from statelog.merkle import CompactRange, inclusion_proof, leaf_hash, verify_inclusion
from statelog.records.keys import bytes_of
from statelog.signing import encode_base64
from statelog.times import LAST_SECOND

SNAPSHOT_SCHEMA: Final = "rap.fabric.log.snapshot.v1"
_LASTING: Final = ("route_fence.", "log_snapshot.")  # their expiry limits only their way into the log

Key = tuple[str, ...]
Row = Mapping[str, Any]


class Fold(Protocol):
    """All read models of a store's logs, folded in memory: the authority log first, then others."""

    def add(self, log: str, index: int, leaf: bytes) -> None:
        """The next entry of a log; it was admitted before."""
        ...

    def rows(self, log: str) -> Iterator[tuple[str, Iterable[tuple[Key, Row]]]]:
        """What the entries of one log wrote: each read model's name and its rows by key, in any order."""
        ...


class Standing(StrEnum):
    """What a proved row is worth at a time."""

    IN_FORCE = "in force"
    NOT_YET = "not yet in force"
    EXPIRED = "expired"
    ENDED = "ended"  # by a revocation or a fence of the same log
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class ShownRow:
    """What is shown of one key as of `size` entries of `log`; `row` is None when there is none."""

    log: str
    size: int
    projection: str
    key: Key
    row: Row | None

    def standing(self, at: int) -> Standing:
        """What the row is worth at Unix second `at`, by what the snapshot says: what came after it, and what
        another log ended, is not in it.

        The times are the record's own, `issued_at` included and `expires_at` excluded, with no tolerance.
        Raises Refused SL-PROOF for a row whose times are no times.
        """
        if self.row is None:
            return Standing.ABSENT
        issued_at, expires_at = (self._second(name) for name in ("issued_at", "expires_at"))
        if self.row.get("ended_by"):
            return Standing.ENDED
        if expires_at is not None and at >= expires_at and not self.projection.startswith(_LASTING):
            return Standing.EXPIRED
        return Standing.NOT_YET if issued_at is not None and at < issued_at else Standing.IN_FORCE

    def _second(self, name: str) -> int | None:
        value = None if self.row is None else self.row.get(name)
        if value is not None and not (type(value) is int and 0 <= value <= LAST_SECOND):
            raise _refuse(f"the row's {name} is no time", str(value)[:80])
        return value


class RowTree:
    """The rows of one read model as a tree. About 200 bytes a row beside the rows."""

    def __init__(self, name: str, rows: Iterable[tuple[Key, Row]]) -> None:
        self.name = name
        ordered = sorted((key_bytes(key), key, row) for key, row in rows)
        self._keys = [data for data, _, _ in ordered]
        self._leaves = [
            encode_trusted({"key": list(key), "projection": name, "row": row}) for _, key, row in ordered
        ]
        self._tree = CompactRange()
        self._nodes: dict[tuple[int, int], bytes] = {}
        for leaf in self._leaves:
            for level, index, hash_ in self._tree.append(leaf_hash(leaf)):
                self._nodes[level, index] = hash_

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self._leaves)

    def summary(self) -> dict[str, Any]:
        """What a snapshot record says of it."""
        return {"name": self.name, "root": encode_base64(self._tree.root()), "rows": self.size}

    def show(self, key: Key) -> dict[str, Any]:
        """The row under `key`, or its neighbours when there is none, as a proof's `more`."""
        place, wanted = bisect_left(self._keys, key_bytes(key)), key_bytes(key)
        if place < self.size and self._keys[place] == wanted:
            places = [place]
        else:
            places = [at for at in (place - 1, place) if 0 <= at < self.size]
        shown = [encode_shown(self._shown(at)) for at in places]
        return {"row": {"projection": self.name, "key": list(key), "shown": shown}}

    def _shown(self, at: int) -> Shown:
        path = inclusion_proof(at, self.size, lambda level, index: self._nodes[level, index])
        return Shown(at, self._leaves[at], tuple(path))


def trees_of(fold: Fold, log: str) -> dict[str, RowTree]:
    """The trees of all read models of one log, by name."""
    return {name: RowTree(name, rows) for name, rows in sorted(fold.rows(log), key=lambda pair: pair[0])}


def summaries(trees: Mapping[str, RowTree]) -> list[dict[str, Any]]:
    """The `projections` of a snapshot record."""
    return [trees[name].summary() for name in sorted(trees)]


def key_bytes(key: Key) -> bytes:
    """The bytes by which rows are ordered: the canonical form of the key's list."""
    return encode_trusted(list(key))


def snapshot_of(proved: Proved) -> Mapping[str, Any]:
    """The snapshot record that a proof proves. Raises UsageError when it proves another kind."""
    if proved.leaf.record["schema_version"] != SNAPSHOT_SCHEMA:
        raise UsageError("the proof shows no snapshot, so it proves no row; use check-proof")
    return proved.leaf.record


def check_row(proved: Proved) -> ShownRow:
    """The row, or its absence, that a proof shows under its snapshot.

    Raises Refused SL-PROOF for rows that are not shown to be so, UsageError for a proof of something else.
    """
    record = snapshot_of(proved)
    if proved.more is None or "row" not in proved.more:
        raise UsageError("the proof shows a snapshot and no row of it; use check-proof")
    (shown,) = members(proved.more, "row")
    name, listed, parts = members(shown, "projection", "key", "shown")
    key = _key(listed)
    of = next((one for one in record["projections"] if one["name"] == name), None)
    if of is None:
        raise _refuse("the snapshot says nothing of such rows", str(name)[:80])
    places = [_place(decode_shown(one), name, of["rows"], bytes_of(of["root"])) for one in list_of(parts)]
    row = None
    if len(places) == 1 and places[0][1] == key:
        row = places[0][2]
    else:
        _require_absent(places, key, of["rows"])
    return ShownRow(record["log"], record["size"], name, key, row)


def _place(shown: Shown, name: str, rows: int, root: bytes) -> tuple[int, Key, Row]:
    if not verify_inclusion(leaf_hash(shown.leaf), shown.index, rows, shown.hashes, root):
        raise _refuse("a row is not shown to be one of the snapshot's", f"row {shown.index} of {rows}")
    key, projection, row = members(
        decode_unwalked(shown.leaf, max_bytes=MAX_LEAF_BYTES), "key", "projection", "row"
    )
    if projection != name or type(row) is not dict:
        raise _refuse("a row of something else", str(projection)[:80])
    return shown.index, _key(key), row


def _require_absent(places: Sequence[tuple[int, Key, Row]], key: Key, rows: int) -> None:
    """Nothing stands where the key would: its neighbours are next to each other, or at an end."""
    wanted = key_bytes(key)
    before = [at for at, one, _ in places if key_bytes(one) < wanted]
    after = [at for at, one, _ in places if key_bytes(one) > wanted]
    left, right = (before or [-1])[-1], (after or [rows])[0]
    if len(before) + len(after) != len(places) or len(places) > 2 or right != left + 1:
        raise _refuse("the rows shown do not say whether there is such a row", f"{len(places)} rows")


def _key(value: Any) -> Key:
    if type(value) is not list or not value or not all(type(part) is str for part in value):
        raise _refuse("a key is a list of texts", str(value)[:80])
    return tuple(value)


def _refuse(sentence: str, found: object) -> Refused:
    return refuse("SL-PROOF", sentence, path="row", found=found)
