"""What an auditor checks in a database: stored hashes, ids, nodes, head and evidence, against the entries."""

# Long on purpose: every table of a store beside the log, each with every way of being wrong.
from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from statelog.audit import Report, audit
from statelog.audit_store import (
    CosignatureRow,
    StoredAhead,
    StoredEvidence,
    StoredHead,
    StoredLog,
    StoredRollback,
    StoredSplitView,
    check_nodes,
)
from statelog.checkpoint import cosignature_timestamp, parse_signed_checkpoint
from statelog.errors import SourceUnreadable
from statelog.merkle import EMPTY_ROOT, leaf_hash, node_hash
from statelog.note import Note
from statelog.splitview import SplitView
from tests.support.authority import BASE_TIME, key_id, make_cluster
from tests.support.logs import MemorySource, cosigned, forked, head_note, replay_of, source_of

CLUSTER = make_cluster()
SIZE = CLUSTER.log.size
LAST = SIZE - 1


@dataclass
class MemoryStore(MemorySource):
    """A stored log in memory, sound as it is made."""

    table: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    tree: dict[tuple[int, int], bytes] = field(default_factory=dict)
    row: StoredHead | None = None
    kept: list[StoredEvidence] = field(default_factory=list)
    splits: list[StoredSplitView] = field(default_factory=list)
    backs: list[StoredRollback] = field(default_factory=list)
    before: list[StoredAhead] = field(default_factory=list)
    lines: list[CosignatureRow] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    heads: list[tuple[int, bytes, bytes]] = field(default_factory=list)

    def stored_entries(self) -> Iterator[tuple[int, str, bytes, bytes]]:
        return ((index, *self.table[index], leaf) for index, leaf in self.entries() if index in self.table)

    def rows(self) -> Iterator[tuple[int, str, bytes]]:
        return iter([(index, *row) for index, row in sorted(self.table.items())])

    def nodes(self, level: int) -> Iterator[tuple[int, bytes]]:
        return iter(sorted((index, hash_) for (at, index), hash_ in self.tree.items() if at == level))

    def read_node(self, level: int, index: int) -> bytes:
        try:
            return self.table[index][1] if level == 0 else self.tree[level, index]
        except KeyError as error:
            raise SourceUnreadable("no such node") from error

    def head(self) -> StoredHead | None:
        return self.row

    def cosignatures(self) -> Iterator[CosignatureRow]:
        return iter(self.lines)

    def roots(self) -> Iterator[tuple[int, bytes, bytes]]:
        return iter(self.heads)

    def damage(self) -> Iterator[str]:
        return iter(self.damaged)

    def evidence(self) -> Iterator[StoredEvidence]:
        return iter(self.kept)

    def split_views(self) -> Iterator[StoredSplitView]:
        return iter(self.splits)

    def rollbacks(self) -> Iterator[StoredRollback]:
        return iter(self.backs)

    def ahead(self) -> Iterator[StoredAhead]:
        return iter(self.before)


def sound() -> MemoryStore:
    source = source_of(CLUSTER, range(2, SIZE + 1))
    store = MemoryStore(source.leaves, source.notes)
    replay = replay_of(CLUSTER, 0)
    for leaf in store.leaves:
        entry = replay.append(leaf)
        store.table[entry.index] = (entry.record_id, entry.leaf_hash)
        store.tree |= {(level, index): hash_ for level, index, hash_ in entry.new_nodes if level > 0}
    store.lines = rows_of(store.notes)
    store.heads = [(size, parse_signed_checkpoint(note)[0].root, note) for size, note in store.notes]
    head = (replay.origin, replay.anchor, SIZE, replay.root(), replay.term, replay.last_sequenced_at)
    store.row = StoredHead(*head, final_size=SIZE, final_root=replay.root())
    return store


def rows_of(notes: list[tuple[int, bytes]]) -> list[CosignatureRow]:
    """The cosignature table over these notes."""
    return [
        CosignatureRow(
            size,
            key_id(line.name.removesuffix(".example")),
            line.name,
            cosignature_timestamp(line),
            line.line(),
            stray=False,
        )
        for size, note in notes
        for line in parse_signed_checkpoint(note)[1].signatures[1:]
    ]


def found(change: Callable[[MemoryStore], None]) -> list[tuple[str, str, int | None]]:
    store = sound()
    change(store)
    report: Report = audit(store, CLUSTER.anchor)
    return [(finding.code, finding.path, finding.log_index) for finding in report.findings]


def test_a_sound_store_has_no_findings() -> None:
    assert isinstance(sound(), StoredLog)
    assert not isinstance(source_of(CLUSTER), StoredLog)
    assert found(lambda store: None) == []


# --- entries ---


def test_a_changed_leaf_is_named_once_and_the_fold_goes_on_along_the_stored_tree() -> None:
    def change(store: MemoryStore) -> None:
        store.leaves[5] = store.leaves[5].replace(b"2026-", b"2027-", 1)

    codes = [(code, index) for code, _, index in found(change)]
    assert codes[0][1] == 5
    assert ("SL-STORED", 5) in codes
    assert [one for one in codes if one[0] == "SL-ROOT"] == [("SL-ROOT", 5)]
    assert {index for _, index in codes} == {5}  # nothing is said of sound entries


def test_the_last_leaf_and_one_under_a_whole_subtree() -> None:
    for index in (LAST, 7, 8):

        def change(store: MemoryStore, index: int = index) -> None:
            store.leaves[index] = store.leaves[index][:-20] + b"x" * 20

        assert {at for _, _, at in found(change)} == {index}


def test_a_changed_leaf_hash() -> None:
    def change(store: MemoryStore) -> None:
        store.table[5] = (store.table[5][0], EMPTY_ROOT)

    assert found(change) == [("SL-STORED", "log_entry.leaf_hash", 5)]


def test_a_changed_leaf_and_its_hash() -> None:
    """Whoever forges both is betrayed by the parent node and the signed root."""
    leaf = CLUSTER.leaves()[5].replace(b"2026-", b"2027-", 1)

    def change(store: MemoryStore) -> None:
        store.leaves[5] = leaf
        replay = replay_of(CLUSTER, 5)
        store.table[5] = (store.table[5][0], replay.skip(leaf))

    codes = found(change)
    assert ("SL-STORED", "log_node[1/2]", 5) in codes
    assert codes[1][0] == "SL-ROOT"
    assert codes[1][2] == 5


def test_a_whole_tree_that_was_forged_is_betrayed_by_the_signed_root_once() -> None:
    leaf = CLUSTER.leaves()[5].replace(b"2026-", b"2027-", 1)

    def change(store: MemoryStore) -> None:
        store.leaves[5] = leaf
        replay = replay_of(CLUSTER, 0)
        for index, one in enumerate(store.leaves):
            nodes = replay.tree().append(leaf_hash(one))
            replay.skip(one)
            store.table[index] = (store.table[index][0], nodes[0][2])
            store.tree |= {(level, at): hash_ for level, at, hash_ in nodes if level > 0}

    codes = [(code, index) for code, _, index in found(change)]
    assert [one for one in codes if one[0] == "SL-ROOT"] == [("SL-ROOT", 5)]
    assert codes[0][1] == 5


def test_a_missing_row_in_the_middle() -> None:
    def change(store: MemoryStore) -> None:
        del store.table[5]

    assert ("SL-STORED", "", 5) in found(change)


def test_a_changed_record_id() -> None:
    def change(store: MemoryStore) -> None:
        store.table[5] = ("0" * 64, store.table[5][1])

    assert found(change) == [("SL-STORED", "log_entry.record_id", 5)]


def test_a_missing_row() -> None:
    def change(store: MemoryStore) -> None:
        del store.table[LAST]

    codes = found(change)
    assert ("SL-CHECKPOINT", "", LAST) in codes  # of a size that the entries do not reach
    assert ("SL-STORED", "log_head.size", None) in codes


# --- nodes ---


@pytest.mark.parametrize(("level", "index", "last"), [(1, 0, 1), (1, 5, 11), (2, 1, 7), (3, 0, 7)])
def test_a_changed_node_is_named_alone(level: int, index: int, last: int) -> None:
    def change(store: MemoryStore) -> None:
        store.tree[level, index] = EMPTY_ROOT

    assert found(change) == [("SL-STORED", f"log_node[{level}/{index}]", last)]


def test_missing_and_surplus_nodes() -> None:
    def drop(store: MemoryStore) -> None:
        del store.tree[2, 1]

    def surplus(store: MemoryStore) -> None:
        store.tree[3, 1] = EMPTY_ROOT

    def higher(store: MemoryStore) -> None:
        store.tree[4, 0] = EMPTY_ROOT

    assert ("SL-STORED", "log_node[2/1]", 7) in found(drop)
    assert found(surplus) == [("SL-STORED", "log_node[3/1]", None)]
    assert found(higher) == [("SL-STORED", "log_node[4/0]", None)]


def test_every_single_node_of_a_larger_tree() -> None:
    size = 37
    replay = replay_of(CLUSTER, 0)
    store = MemoryStore([])
    for n in range(size):
        tree = replay.tree()
        nodes = tree.append(replay.skip(b"%d" % n))
        store.table[n] = ("", nodes[0][2])
        store.tree |= {(level, index): hash_ for level, index, hash_ in nodes if level > 0}
    assert list(check_nodes(store, size, {})) == []
    for key in list(store.tree):
        good = store.tree[key]
        store.tree[key] = node_hash(good, good)
        assert [finding.path for finding in check_nodes(store, size, {})] == [f"log_node[{key[0]}/{key[1]}]"]
        store.tree[key] = good


# --- head ---


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("origin", "other/authority"),
        ("anchor", "0" * 64),
        ("size", SIZE - 1),
        ("root", EMPTY_ROOT),
        ("term", 2),
        ("sequenced_at", BASE_TIME + 1),
    ],
)
def test_a_changed_head_row(name: str, value: object) -> None:
    def change(store: MemoryStore) -> None:
        assert store.row is not None
        store.row = replace(store.row, **{name: value})  # type: ignore[arg-type]  # one field at a time

    assert found(change) == [("SL-STORED", f"log_head.{name}", None)]


def test_a_missing_head_row() -> None:
    def change(store: MemoryStore) -> None:
        store.row = None

    assert found(change) == [("SL-STORED", "log_head", None)]


def test_a_head_that_is_called_final_and_is_not() -> None:
    def few(store: MemoryStore) -> None:
        note = cosigned(head_note(replay_of(CLUSTER)), ["witness-1", "witness-2"])
        store.notes[-1] = (SIZE, note)

    def other_root(store: MemoryStore) -> None:
        assert store.row is not None
        store.row = replace(store.row, final_root=EMPTY_ROOT)

    def lagging(store: MemoryStore) -> None:
        assert store.row is not None
        store.row = replace(store.row, final_size=5, final_root=replay_of(CLUSTER, 5).root())

    assert found(few) == [("SL-NOTFINAL", "", LAST), ("SL-FINALITY", "log_head.final_size", LAST)]
    assert found(other_root) == [("SL-FINALITY", "log_head.final_size", LAST)]
    assert found(lagging) == []


def test_a_stored_line_of_a_stranger() -> None:
    """A store keeps only what it verified, so unlike in a mirror nobody else's line belongs here."""

    def change(store: MemoryStore) -> None:
        note = parse_signed_checkpoint(store.notes[3][1])[1]
        stray = parse_signed_checkpoint(cosigned(note.format(), ["stranger"]))[1].signatures[-1]
        store.notes[3] = (5, Note(note.text, (*note.signatures, stray)).format())

    assert found(change) == [("SL-COSIGNATURE", "", 4)]


# --- evidence ---


def test_an_audit_reads_the_evidence() -> None:
    def change(store: MemoryStore) -> None:
        store.kept = [StoredEvidence("policy.epoch/p", 1, name * 64, b"{}") for name in "ab"]

    assert [code for code, _, _ in found(change)] == ["SL-EVIDENCE", "SL-EVIDENCE"]


# --- split views ---


def split_view() -> StoredSplitView:
    """The head of another history against this one's, of one size."""
    fork = replay_of(forked(CLUSTER))
    found = SplitView(head_note(fork), head_note(replay_of(CLUSTER)), replay_of(CLUSTER).root(), ())
    return StoredSplitView(SIZE, fork.root(), SIZE, found)


def splits_found(kept: StoredSplitView) -> list[tuple[str, int | None]]:
    def change(store: MemoryStore) -> None:
        store.splits = [kept]

    return [(code, index) for code, _, index in found(change)]


def test_a_proved_split_view_is_a_finding_of_its_own() -> None:
    assert splits_found(split_view()) == [("SL-SPLIT", LAST)]


def test_a_split_view_that_proves_nothing_is_no_evidence() -> None:
    sound = split_view()
    same = replace(sound.found, smaller=sound.found.larger)
    assert splits_found(replace(sound, found=same)) == [("SL-EVIDENCE", None)]
    for wrong in (
        replace(sound, size=SIZE - 1),
        replace(sound, root=b"x" * 32),
        replace(sound, larger_size=2),
    ):
        assert splits_found(wrong) == [("SL-EVIDENCE", None)]


# --- columns beside the evidence ---


@pytest.mark.parametrize(
    "changes",
    [{"timestamp": 5}, {"name": "witness-9.example"}, {"witness_key_id": "0" * 64}, {"stray": True}],
)
def test_columns_of_a_cosignature_say_what_its_line_says(changes: dict[str, Any]) -> None:
    def change(store: MemoryStore) -> None:
        store.lines[-1] = replace(store.lines[-1], **changes)

    assert [code for code, _, _ in found(change)] == ["SL-STORED"]


@pytest.mark.parametrize("position", [0, 1])
def test_columns_of_a_checkpoint_say_what_its_note_says(position: int) -> None:
    def change(store: MemoryStore) -> None:
        size, root, note = store.heads[-1]
        store.heads[-1] = [(SIZE - 1, root, note), (size, b"x" * 32, note)][position]

    assert [(code, path.split("[")[0]) for code, path, _ in found(change)] == [("SL-STORED", "checkpoint")]


def test_a_cosignature_row_whose_line_is_none() -> None:
    def change(store: MemoryStore) -> None:
        store.lines[-1] = replace(store.lines[-1], line="no line\n")

    assert [code for code, _, _ in found(change)] == ["SL-NOTE"]


def test_what_the_database_says_of_its_file_is_a_finding() -> None:
    def change(store: MemoryStore) -> None:
        store.damaged = ["row 3 missing from index"]

    assert found(change) == [("SL-STORED", "database", None)]
