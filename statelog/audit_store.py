"""What an auditor checks in a database beyond the log itself: stored columns, tree nodes, head, and proofs
of split views and rollbacks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol, runtime_checkable

from statelog.checkpoint import cosignature_timestamp, parse_signed_checkpoint, witness_key
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.merkle import node_hash
from statelog.note import parse_signature_line
from statelog.replay import Replay
from statelog.rollback import Rollback, check_rollback
from statelog.splitview import SplitView, check_split_view


@dataclass(frozen=True, slots=True)
class StoredHead:
    """The head row as stored; `sequenced_at` is Unix seconds."""

    origin: str
    anchor: str
    size: int
    root: bytes
    term: int
    sequenced_at: int
    final_size: int
    final_root: bytes


@dataclass(frozen=True, slots=True)
class StoredEvidence:
    """A row of the evidence table: a record, and the subject and epoch that it is said to share with
    another.
    """

    subject: str
    epoch: int
    record_id: str
    data: bytes


@dataclass(frozen=True, slots=True)
class CosignatureRow:
    """A row of the cosignature table; `stray` when there is no checkpoint of its size."""

    size: int
    witness_key_id: str
    name: str
    timestamp: int
    line: str
    stray: bool


@dataclass(frozen=True, slots=True)
class StoredSplitView:
    """A kept split view, and what the row's own columns say of it: size and root of the smaller head, size of
    the larger.
    """

    size: int
    root: bytes
    larger_size: int
    found: SplitView


@dataclass(frozen=True, slots=True)
class StoredRollback:
    """A kept rollback, and the sizes that the row's own columns give."""

    source: str
    size: int
    earlier_size: int
    found: Rollback


@dataclass(frozen=True, slots=True)
class StoredAhead:
    """A record that acts on a node before a log carries it. Times are Unix seconds."""

    record_id: str
    schema_version: str
    subject: str
    epoch: int
    expires_at: int
    received_at: int
    data: bytes


@runtime_checkable
class StoredLog(Protocol):
    """A source that is a database: it also has what was computed when the entries were stored."""

    def stored_entries(self) -> Iterator[tuple[int, str, bytes, bytes]]:
        """(log index, stored record id, stored leaf hash, leaf bytes) of every entry, by index."""
        ...

    def rows(self) -> Iterator[tuple[int, str, bytes]]:
        """(log index, record id, leaf hash) by index."""
        ...

    def nodes(self, level: int) -> Iterator[tuple[int, bytes]]:
        """(index, hash) of the stored tree nodes of one level, 1 or higher, by index."""
        ...

    def read_node(self, level: int, index: int) -> bytes:
        """One stored node, level 0 being the leaf hashes. Raises SourceUnreadable when absent."""
        ...

    def head(self) -> StoredHead | None:
        """The head row."""
        ...

    def cosignatures(self) -> Iterator[CosignatureRow]:
        """The cosignature table, by size."""
        ...

    def roots(self) -> Iterator[tuple[int, bytes, bytes]]:
        """(size, root, note) of every row of the checkpoint table, by size."""
        ...

    def damage(self) -> Iterator[str]:
        """What the database itself finds wrong with its file: damaged pages, indexes that miss rows."""
        ...

    def evidence(self) -> Iterator[StoredEvidence]:
        """The evidence table, by subject and epoch."""
        ...

    def split_views(self) -> Iterator[StoredSplitView]:
        """The kept split views, by size."""
        ...

    def rollbacks(self) -> Iterator[StoredRollback]:
        """The kept rollbacks, by when they were seen."""
        ...

    def ahead(self) -> Iterator[StoredAhead]:
        """The records that act ahead of the log, by record id."""
        ...


@runtime_checkable
class HashedLog(Protocol):
    """A source that keeps hashes beside its entries, as a tile folder does: they tell a changed entry from a
    wrong head.
    """

    def leaf_hashes(self) -> Iterator[bytes]:
        """The stored hash of every entry, by index."""
        ...

    def read_node(self, level: int, index: int) -> bytes:
        """One complete subtree's hash, from what is stored. Raises SourceUnreadable when absent."""
        ...

    def check_hashes(self) -> Iterator[Finding]:
        """Stored hashes above the leaves that are not those of what lies under them."""
        ...


class NodesBeside:
    """Stored tree nodes read beside the fold that completes them: where all are alike, none is wrong.

    Only when one differs need anybody ask `check_nodes` which of them it is.
    """

    def __init__(self, stored: StoredLog) -> None:
        self._stored = stored
        self._levels: list[Iterator[tuple[int, bytes]]] = []  # level 1 first
        self._alike = True

    def completed(self, nodes: Sequence[tuple[int, int, bytes]]) -> None:
        """The subtrees (level, index, hash) that an entry completed, its own leaf hash first."""
        if len(nodes) == 1 or not self._alike:
            return
        for level, index, hash_ in islice(nodes, 1, None):
            if level > len(self._levels):
                self._levels.append(self._stored.nodes(level))
            if next(self._levels[level - 1], None) != (index, hash_):
                self._alike = False

    def differ(self) -> None:
        """The fold left the stored tree: an entry was refused, or the tree realigned."""
        self._alike = False

    def are_all(self, size: int) -> bool:
        """Whether the nodes that `size` entries complete are the stored ones, and there are no others."""
        if self._alike:
            while len(self._levels) < size.bit_length():
                self._levels.append(self._stored.nodes(len(self._levels) + 1))
            self._alike = all(next(level, None) is None for level in self._levels)
        return self._alike


def check_nodes(stored: StoredLog, size: int, doubtful: dict[int, bytes]) -> Iterator[Finding]:
    """Every stored tree node against the hash of its two children, level by level, in one streaming pass.

    `doubtful` are leaves whose stored hash is known to differ from the leaf's: either may be the true one,
    and a parent is right when it fits one of them; so one wrong hash is one finding, not a whole path of
    them.
    """
    below: Iterator[bytes] = (row[2] for row in stored.rows())
    level, count = 0, size
    while count:
        level, count = level + 1, count // 2
        wrong: dict[int, bytes] = {}
        yield from _check_level(level, count, stored.nodes(level), below, doubtful, wrong)
        doubtful, below = wrong, (hash_ for _, hash_ in stored.nodes(level))


def _check_level(
    level: int,
    count: int,
    nodes: Iterator[tuple[int, bytes]],
    below: Iterator[bytes],
    doubtful: dict[int, bytes],
    wrong: dict[int, bytes],
) -> Iterator[Finding]:
    for expected_index in range(count):
        path = f"log_node[{level}/{expected_index}]"
        last_leaf = ((expected_index + 1) << level) - 1
        left, right = next(below, b""), next(below, b"")
        index, found = next(nodes, (-1, b""))
        if index != expected_index:
            yield Finding("SL-STORED", "a tree node is missing", path, found=str(index), log_index=last_leaf)
            return
        lefts = {left, doubtful.get(2 * index, left)}
        rights = {right, doubtful.get(2 * index + 1, right)}
        fitting = [node_hash(one, other) for one in lefts for other in rights]
        if found not in fitting:
            wrong[index] = node_hash(left, right)
            yield Finding(
                "SL-STORED",
                "a stored tree node is not the hash of its children",
                path,
                wrong[index].hex(),
                found.hex(),
                last_leaf,
            )
    for index, _ in nodes:
        yield Finding("SL-STORED", "a tree node that no entries make", path=f"log_node[{level}/{index}]")


def check_head(stored: StoredLog, replay: Replay, final_size: int, final_root: bytes) -> Iterator[Finding]:
    """The head row against the replay, and its claim of finality against the cosignatures."""
    head = stored.head()
    if head is None:
        yield Finding("SL-STORED", "the log has no head row", path="log_head")
        return
    if not replay.started:
        yield Finding("SL-STORED", "the log has a head row and no entry that holds", path="log_head")
        return
    expected = {
        "origin": replay.origin,
        "anchor": replay.anchor,
        "size": replay.size,
        "root": replay.root(),
        "term": replay.term,
        "sequenced_at": replay.last_sequenced_at,
    }
    for name, value in expected.items():
        found = getattr(head, name)
        if found != value:
            sentence = "the head row differs from the entries"
            yield Finding("SL-STORED", sentence, f"log_head.{name}", _text(value), _text(found))
    # The mark may lag behind the cosignatures, and an earlier head than the largest final one is final too.
    if head.final_size > final_size or (head.final_size == final_size and head.final_root != final_root):
        yield Finding(
            "SL-FINALITY",
            "the store calls a head final that its witnesses did not make so",
            "log_head.final_size",
            f"{final_size} {final_root.hex()}",
            f"{head.final_size} {head.final_root.hex()}",
            max(head.final_size - 1, 0),
        )


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def check_cosignatures(stored: StoredLog, replay: Replay) -> Iterator[Finding]:
    """The columns of each cosignature against its line, which was verified as part of its checkpoint."""
    key_ids = {
        (key.name, witness_key(key.name, key.public).key_id): key.key_id
        for _, one in replay.state.witness_history
        for key in one.keys
    }
    for row in stored.cosignatures():
        path = f"cosignature[{row.size}/{row.witness_key_id[:16]}]"
        try:
            line = parse_signature_line(row.line.removesuffix("\n"))
            expected = (key_ids.get((line.name, line.key_id)), line.name, cosignature_timestamp(line))
        except Refused as error:
            yield error.finding.under(path)
            continue
        if row.stray:
            yield Finding("SL-STORED", "the cosignature is of no stored checkpoint", path)
        elif expected != (row.witness_key_id, row.name, row.timestamp):
            sentence = "the columns of the cosignature are not what its line says"
            found = f"{row.witness_key_id} {row.name} {row.timestamp}"
            index = max(row.size - 1, 0)
            yield Finding("SL-STORED", sentence, path, " ".join(map(str, expected)), found, index)


def check_roots(stored: StoredLog) -> Iterator[Finding]:
    """The size and root beside each checkpoint against its note, which was judged with the entries."""
    for size, root, note in stored.roots():
        path = f"checkpoint[{size}]"
        try:
            head, _ = parse_signed_checkpoint(note)
        except Refused as error:
            yield error.finding.under(path)
            continue
        if (size, root) != (head.size, head.root):
            sentence = "the columns of the checkpoint are not what its note says"
            expected, found = f"{head.size} {head.root.hex()}", f"{size} {root.hex()}"
            yield Finding("SL-STORED", sentence, path, expected, found, max(size - 1, 0))


def check_file(stored: StoredLog) -> Iterator[Finding]:
    """What the database says of its own file; a damaged index hides rows that the entries have."""
    for sentence in stored.damage():
        yield Finding("SL-STORED", "the database file is damaged", "database", found=sentence[:300])


def check_split_views(stored: StoredLog, replay: Replay) -> Iterator[Finding]:
    """A split view that is proved is the log's own fault, and found here; one that is not proves nothing."""
    keys = [*replay.sequencer_keys(), *replay.past_sequencer_keys()]
    for item in stored.split_views():
        path = f"split_view[{item.size}/{item.root.hex()[:16]}]"
        try:
            smaller, larger = check_split_view(item.found, keys)
        except Refused as error:
            yield error.finding.under(path)
            continue
        if (smaller.size, smaller.root, larger.size) != (item.size, item.root, item.larger_size):
            sentence = "the kept split view is another than the row says"
            yield Finding("SL-EVIDENCE", sentence, path, str(item.size), str(smaller.size))
            continue
        sentence = f"the signed head of {smaller.size} contradicts the signed head of {larger.size}"
        index = max(smaller.size - 1, 0)
        yield Finding("SL-SPLIT", sentence, path, item.found.root.hex(), smaller.root.hex(), index)


def check_rollbacks(stored: StoredLog, replay: Replay) -> Iterator[Finding]:
    """A rollback is the fault of the replica that it names and not found here, unless it shows nothing."""
    keys = [*replay.sequencer_keys(), *replay.past_sequencer_keys()]
    for item in stored.rollbacks():
        path = f"rollback[{item.source[:16]}]"
        try:
            earlier, later = check_rollback(item.found, keys)
        except Refused as error:
            yield error.finding.under(path)
            continue
        if (earlier.size, later.size) != (item.earlier_size, item.size):
            sentence = "the kept rollback is another than the row says"
            expected, found = f"{item.earlier_size} {item.size}", f"{earlier.size} {later.size}"
            yield Finding("SL-EVIDENCE", sentence, path, expected, found)
