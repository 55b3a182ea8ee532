"""The store contract: what every database must do. One parameter, `backend`, names the databases it
runs on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.audit_store import StoredAhead
from statelog.checkpoint import parse_signed_checkpoint, witness_key
from statelog.errors import SourceUnreadable, UsageError
from statelog.findings import Finding
from statelog.io import store as stores
from statelog.io import tables
from statelog.io.database import open_database
from statelog.io.store import Store, StoredCosignature
from statelog.io.working import Waiting
from statelog.merkle import (
    EMPTY_ROOT,
    inclusion_proof,
    inclusion_ranges,
    leaf_hash,
    nodes_under,
    verify_inclusion,
)
from statelog.replay import Entry, Replay
from statelog.witness import WitnessState
from tests.support.authority import key_id, make_cluster, signer
from tests.support.logs import cosigned, head_note, leases
from tests.support.postgres import new_database
from tests.support.statements import each_statement

# Another database joins here with a function from a fresh directory to its URL.
BACKENDS: dict[str, Callable[[Path], str]] = {
    "sqlite": lambda path: f"sqlite:///{path / 'state.db'}",
    "postgresql": lambda _: new_database(),
}

CLUSTER = make_cluster()
LEAVES = CLUSTER.leaves()
SIZE = len(LEAVES)


@pytest.fixture(params=sorted(BACKENDS))
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_database(BACKENDS[request.param](tmp_path), create=True)
    yield engine
    engine.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    return Store(engine)


def grow(replay: Replay, end: int) -> list[Entry]:
    return [replay.append(leaf) for leaf in LEAVES[replay.size : end]]


@pytest.fixture
def filled(store: Store) -> Store:
    """All entries in two appends: checkpoints at 5 and at the end."""
    replay = Replay(CLUSTER.anchor)
    for end in (5, SIZE):
        entries = grow(replay, end)
        store.append_entries(entries, replay, head_note(replay))
    return store


def lines_of(note: bytes) -> list[StoredCosignature]:
    found = []
    for line in parse_signed_checkpoint(note)[1].signatures[1:]:
        timestamp = int.from_bytes(line.signature[:8], "big")
        found.append(
            StoredCosignature(key_id(line.name.removesuffix(".example")), line.name, timestamp, line.line())
        )
    return found


# --- entries ---


def test_an_empty_store(store: Store) -> None:
    assert store.head() is None
    assert (
        list(store.entries(0))
        == list(store.rows())
        == list(store.nodes(1))
        == list(store.checkpoints())
        == []
    )
    assert store.checkpoint() is None
    assert store.newest_checkpoint_size() == 0
    assert store.find("0" * 64) is None


def test_an_append_stores_entries_nodes_head_and_checkpoint(filled: Store) -> None:
    replay = Replay(CLUSTER.anchor)
    entries = grow(replay, SIZE)
    rows = list(filled.entries(0))
    assert [(row.index, row.record_id, row.leaf_hash, row.leaf) for row in rows] == [
        (entry.index, entry.record_id, entry.leaf_hash, entry.data) for entry in entries
    ]
    assert list(filled.rows()) == [(entry.index, entry.record_id, entry.leaf_hash) for entry in entries]
    nodes = sorted(node for entry in entries for node in entry.new_nodes if node[0] > 0)
    assert [(level, *node) for level in range(1, 5) for node in filled.nodes(level)] == nodes
    head = filled.head()
    assert head == stores.Head(
        replay.origin,
        CLUSTER.anchor,
        SIZE,
        replay.root(),
        1,
        CLUSTER.now,
        final_size=0,
        final_root=EMPTY_ROOT,
    )
    assert [size for size, _ in filled.checkpoints()] == [5, SIZE]
    assert filled.checkpoint() == filled.checkpoint(SIZE) == head_note(replay)
    assert filled.newest_checkpoint_size() == SIZE


def test_entries_are_read_by_range(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "STORE_BATCH_ENTRIES", 5)

    def read(start: int, end: int | None) -> list[int]:
        return [row.index for row in filled.entries(start, end)]

    assert read(0, None) == list(range(SIZE))
    assert read(3, 9) == list(range(3, 9))
    assert read(3, 8) == list(range(3, 8))
    assert read(3, SIZE + 50) == list(range(3, SIZE))
    assert read(5, 5) == read(6, 5) == read(SIZE, None) == []
    monkeypatch.setattr(stores, "STORE_BATCH_ENTRIES", 1)
    assert [size for size, _ in filled.checkpoints()] == [5, SIZE]
    assert [index for index, _, _ in filled.rows()] == list(range(SIZE))
    assert [index for index, _ in filled.nodes(1)] == list(range(SIZE // 2))


def test_records_are_found(filled: Store) -> None:
    for row in filled.entries(0):
        assert filled.find(row.record_id) == row.index
    assert filled.find("0" * 64) is None
    assert Store(filled.engine, "routes-eu-1").find(next(filled.entries(0)).record_id) is None


def test_nodes_make_proofs(filled: Store) -> None:
    with filled.reading() as connection:
        root = filled.tree(SIZE, connection).root()
        for index in range(SIZE):
            read = filled.read_nodes(nodes_under(inclusion_ranges(index, SIZE)), connection)
            proof = inclusion_proof(index, SIZE, read)
            assert verify_inclusion(leaf_hash(LEAVES[index]), index, SIZE, proof, root)
        absent = [(0, SIZE), (1, SIZE // 2), (9, 0)]
        read = filled.read_nodes([*absent, (0, 0)], connection)
        assert read(0, 0) == leaf_hash(LEAVES[0])
        for level, index in absent:
            with pytest.raises(SourceUnreadable, match="no tree node"):
                read(level, index)
    head = filled.head()
    assert head is not None
    assert head.root == root


def test_an_append_must_continue_the_log(filled: Store) -> None:
    replay = Replay(CLUSTER.anchor)
    entries = grow(replay, SIZE)
    with pytest.raises(UsageError, match="does not continue"):
        filled.append_entries(entries, replay, head_note(replay))
    with pytest.raises(UsageError, match="without entries"):
        filled.append_entries([], replay, head_note(replay))
    ahead = replay.copy()
    more = [ahead.append(ahead.next_leaf(record, CLUSTER.now)) for record in leases(CLUSTER, 3)]
    with pytest.raises(UsageError, match="does not continue"):
        filled.append_entries(more[1:], ahead, head_note(ahead))
    with pytest.raises(UsageError, match="do not lead"):
        filled.append_entries(more[:2], ahead, head_note(ahead))
    with pytest.raises(UsageError, match="do not lead"):
        filled.append_entries([more[0], more[2]], ahead, head_note(ahead))
    filled.append_entries(more, ahead, head_note(ahead))
    head = filled.head()
    assert head is not None
    assert head.size == SIZE + 3


def test_an_append_is_all_or_nothing(filled: Store) -> None:
    """The transaction dies after every single statement: nothing of the append is ever seen."""
    before = snapshot(filled)
    replay = Replay(CLUSTER.anchor)
    grow(replay, SIZE)
    entries = [replay.append(replay.next_leaf(record, CLUSTER.now)) for record in leases(CLUSTER, 3)]
    note = head_note(replay)
    for allowed in range(1, 40):
        seen = 0

        def fail(_: str, allowed: int = allowed) -> None:
            nonlocal seen
            seen += 1
            if seen > allowed:
                raise SourceUnreadable("the disk is gone")

        with each_statement(filled.engine, fail):
            try:
                filled.append_entries(entries, replay, note)
            except SourceUnreadable:
                failed = True
            else:
                failed = False
        if not failed:
            break
        assert snapshot(filled) == before
    assert 4 <= allowed < 39
    head = filled.head()
    assert head is not None
    assert (head.size, head.root) == (replay.size, replay.root())


def snapshot(store: Store) -> list[object]:
    with store.reading() as connection:
        return [
            connection.execute(sa.select(table)).all()
            for table in tables.metadata.sorted_tables
            if known(table)
        ]


def known(table: sa.Table) -> bool:
    return table.name in {"log_entry", "log_node", "checkpoint", "log_head", "cosignature", "outbox"}


def test_several_calls_share_a_transaction(store: Store) -> None:
    replay = Replay(CLUSTER.anchor)
    entries = grow(replay, SIZE)

    def append(then: Exception | None) -> None:
        with store.writing() as connection:
            store.append_entries(entries, replay, head_note(replay), connection)
            store.outbox_put("a" * 64, b"data", 1, connection)
            assert store.head(connection) is not None
            if then is not None:
                raise then

    with pytest.raises(RuntimeError, match="projections"):
        append(RuntimeError("the projections failed"))
    assert store.head() is None
    assert store.outbox_row("a" * 64) is None
    append(None)
    assert store.head() is not None
    assert store.outbox_row("a" * 64) is not None


def test_a_replica_that_catches_up_has_a_tail_without_checkpoint(store: Store) -> None:
    replay = Replay(CLUSTER.anchor)
    store.append_entries(grow(replay, 6), replay, None)
    assert store.newest_checkpoint_size() == 0
    store.append_entries(grow(replay, SIZE), replay, head_note(replay))
    assert store.newest_checkpoint_size() == SIZE


def test_two_logs_share_a_database(filled: Store) -> None:
    other = Store(filled.engine, "routes-eu-1")
    assert other.head() is None
    assert list(other.entries(0)) == []
    assert other.checkpoint() is None


# --- checkpoints ---


def test_one_checkpoint_a_size(filled: Store) -> None:
    note = filled.checkpoint(5)
    assert note is not None
    replay = Replay(CLUSTER.anchor)
    grow(replay, 5)
    filled.put_checkpoint(5, replay.root(), note)
    with pytest.raises(UsageError, match="another checkpoint"):
        filled.put_checkpoint(5, EMPTY_ROOT, note)
    grow(replay, 8)
    filled.put_checkpoint(8, replay.root(), head_note(replay))
    assert [size for size, _ in filled.checkpoints()] == [5, 8, SIZE]
    assert [size for size, _ in filled.checkpoints(6)] == [8, SIZE]
    assert filled.checkpoint(7) is None


def test_cosignatures_are_lines_of_the_checkpoint(filled: Store) -> None:
    replay = Replay(CLUSTER.anchor)
    grow(replay, SIZE)
    whole = cosigned(head_note(replay))
    filled.put_cosignatures(SIZE, lines_of(whole))
    assert filled.checkpoint() == whole
    assert dict(filled.checkpoints())[SIZE] == whole
    assert filled.cosignatures(SIZE) == lines_of(whole)
    assert filled.cosignatures(5) == []
    assert (
        witness_key("witness-1.example", signer("witness-1").public).name == filled.cosignatures(SIZE)[0].name
    )


def test_the_newest_cosignature_of_a_witness_stays(filled: Store) -> None:
    replay = Replay(CLUSTER.anchor)
    grow(replay, SIZE)
    early, late = (lines_of(cosigned(head_note(replay), ["witness-1"], at)) for at in (100, 200))
    for step in (early, late, early):
        filled.put_cosignatures(SIZE, step)
    assert filled.cosignatures(SIZE) == late
    assert filled.cosigned_size(key_id("witness-1")) == SIZE
    assert filled.cosigned_size(key_id("witness-2")) == 0


# --- finality ---


def test_the_final_mark_only_moves_forward(filled: Store) -> None:
    replay = Replay(CLUSTER.anchor)
    grow(replay, 5)
    root5 = replay.root()
    grow(replay, SIZE)
    assert filled.set_final(5, root5)
    assert not filled.set_final(5, root5)
    assert filled.set_final(SIZE, replay.root())
    assert not filled.set_final(5, root5)
    head = filled.head()
    assert head is not None
    assert (head.final_size, head.final_root) == (SIZE, replay.root())


def test_only_a_stored_checkpoint_becomes_final(filled: Store, store: Store) -> None:
    for size, root in ((5, EMPTY_ROOT), (6, EMPTY_ROOT), (SIZE + 1, EMPTY_ROOT)):
        with pytest.raises(UsageError, match="no checkpoint"):
            filled.set_final(size, root)
    head = filled.head()
    assert head is not None
    assert head.final_size == 0


# --- outbox ---


def test_the_outbox_follows_a_record_to_finality(filled: Store) -> None:
    row = filled.outbox_put("a" * 64, b"data", 10)
    assert (row.state, row.log_index) == ("pending", None)
    assert filled.outbox_pending(5) == [row]
    filled.outbox_sequenced("a" * 64, SIZE - 1)
    assert filled.outbox_row("a" * 64) == replace(row, log="authority", log_index=SIZE - 1)
    assert filled.outbox_pending(5) == []
    root = (filled.head() or stores.Head("", "", 0, b"", 0, 0, 0, b"")).root
    filled.set_final(SIZE, root)
    assert filled.outbox_row("a" * 64) == replace(row, state="final", log="authority", log_index=SIZE - 1)
    filled.outbox_put("b" * 64, b"data", 11)
    filled.outbox_sequenced("b" * 64, 3)  # it was in the log, and final, before
    assert (filled.outbox_row("b" * 64) or row).state == "final"


def test_a_refused_record_leaves_the_queue_and_may_come_again(filled: Store) -> None:
    filled.outbox_put("a" * 64, b"bad copy", 10)
    filled.outbox_refused("a" * 64, Finding("SL-SIG", "wrong"))
    row = filled.outbox_row("a" * 64)
    assert row is not None
    assert (row.state, row.code, row.sentence) == ("refused", "SL-SIG", "wrong")
    assert filled.outbox_pending(5) == []
    assert filled.outbox_put("a" * 64, b"good copy", 20).data == b"good copy"
    assert [one.data for one in filled.outbox_pending(5)] == [b"good copy"]


def test_a_pending_record_keeps_its_copy(filled: Store) -> None:
    filled.outbox_put("a" * 64, b"first", 10)
    assert filled.outbox_put("a" * 64, b"second", 20).data == b"first"
    filled.outbox_sequenced("a" * 64, 3)
    filled.outbox_refused("a" * 64, Finding("SL-SIG", "too late"))
    assert (filled.outbox_row("a" * 64) or filled.outbox_put("", b"", 0)).state == "pending"


def test_the_oldest_come_first_and_are_bounded(filled: Store) -> None:
    for name, at in (("c", 3), ("a", 1), ("b", 2)):
        filled.outbox_put(name * 64, b"", at)
    assert [row.record_id[0] for row in filled.outbox_pending(2)] == ["a", "b"]
    assert [row.record_id[0] for row in filled.outbox_pending(2, after=Waiting(2, "b" * 64))] == ["c"]
    assert filled.outbox_waiting(2) == [Waiting(1, "a" * 64), Waiting(2, "b" * 64)]
    filled.outbox_put("d" * 64, b"", 2)  # of the same second
    assert [one.record_id[0] for one in filled.outbox_waiting(9, after=Waiting(2, "b" * 64))] == ["d", "c"]
    filled.outbox_sequenced("c" * 64, 1)
    assert [one.record_id[0] for one in filled.outbox_waiting(9)] == ["a", "b", "d"]


# --- witness memory ---


def test_a_witness_remembers_by_compare_and_set(store: Store) -> None:
    none = WitnessState("o", 0, EMPTY_ROOT, 0)
    first, second = WitnessState("o", 5, b"5" * 32, 1), WitnessState("o", 9, b"9" * 32, 1)
    assert store.witness_state("o") is None
    assert not store.witness_compare_and_set(first, second)
    assert store.witness_compare_and_set(none, first)
    assert not store.witness_compare_and_set(none, second)
    assert not store.witness_compare_and_set(replace(first, root=b"x" * 32), second)
    assert not store.witness_compare_and_set(replace(first, term=0), second)
    assert store.witness_state("o") == first
    assert store.witness_compare_and_set(first, first)  # the same head with a new time
    assert store.witness_compare_and_set(first, second)
    assert store.witness_state("o") == second
    assert store.witness_state("p") is None


def test_a_witness_never_goes_back(store: Store) -> None:
    state = WitnessState("o", 5, b"5" * 32, 2)
    for new in (replace(state, size=4), replace(state, term=1), replace(state, origin="p")):
        with pytest.raises(ValueError, match="forward"):
            store.witness_compare_and_set(state, new)
    assert store.witness_compare_and_set(WitnessState("o", 0, EMPTY_ROOT, 0), state)


# --- evidence and records ahead of the log ---


def test_records_ahead_of_the_log_stay_until_it_decides(store: Store) -> None:
    items = [
        StoredAhead(name * 64, "schema", "subject", 1, 100, at, b"d") for name, at in (("b", 1), ("a", 2))
    ]
    for item in items:
        store.ahead_put(item)
    store.ahead_put(items[0])
    assert store.ahead_records() == items
    assert store.ahead_drop("b" * 64)
    assert not store.ahead_drop("b" * 64)
    assert store.ahead_records() == items[1:]
