"""A suffix that a new term drops: as if it had never been, and nothing final with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statelog.canonical import encode
from statelog.errors import UsageError
from statelog.io.database import open_database
from statelog.io.store import Store
from statelog.io.suffix import drop_suffix
from statelog.leaf import decode_leaf
from statelog.replay import Replay
from statelog.signing import record_id_of
from tests.contracts.test_store import CLUSTER, LEAVES, SIZE, grow, lines_of
from tests.support.logs import cosigned, head_note


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Store]:
    """All entries in two appends: checkpoints at 5 and at the end."""
    engine = open_database(f"sqlite:///{tmp_path / 'state.db'}", create=True)
    store, replay = Store(engine), Replay(CLUSTER.anchor)
    for end in (5, SIZE):
        entries = grow(replay, end)
        store.append_entries(entries, replay, head_note(replay))
    yield store
    engine.dispose()


def test_a_suffix_that_was_never_final_is_dropped_whole(filled: Store) -> None:
    """All is as if it had never been, and its records wait again."""
    replay = Replay(CLUSTER.anchor)
    grow(replay, 5)
    filled.set_final(5, replay.root())
    lost = [row.record_id for row in filled.entries(7)]
    for record_id, index in ((lost[0], 7), ("d" * 64, 3)):
        filled.outbox_put(record_id, b"data", 10)
        filled.outbox_sequenced(record_id, index)
    grow(replay, SIZE)
    filled.put_cosignatures(SIZE, lines_of(cosigned(head_note(replay))))

    assert drop_suffix(filled, 7) == lost
    shorter = Replay(CLUSTER.anchor)
    grow(shorter, 7)
    head = filled.head()
    assert head is not None
    assert (head.size, head.root, head.term) == (7, shorter.root(), 1)
    assert head.sequenced_at == shorter.last_sequenced_at
    assert [row.index for row in filled.entries(0)] == list(range(7))
    assert [[index for index, _ in filled.nodes(level)] for level in (1, 2, 3)] == [[0, 1, 2], [0], []]
    assert (filled.newest_checkpoint_size(), filled.cosignatures(SIZE)) == (5, [])
    waiting = filled.outbox_pending(SIZE)  # what never was in the outbox, too
    assert {row.record_id for row in waiting} == set(lost)
    assert {row.record_id: row.data for row in waiting if row.record_id != lost[0]} == {
        record_id_of(entry.record): encode(entry.record) for entry in map(decode_leaf, LEAVES[8:])
    }
    assert (filled.outbox_row("d" * 64) or filled.outbox_put("", b"", 0)).log_index == 3

    entries = grow(shorter, SIZE)
    filled.append_entries(entries, shorter, head_note(shorter))
    assert filled.checkpoint() == head_note(shorter)
    with filled.reading() as connection:
        assert filled.tree(SIZE, connection).root() == shorter.root()


def test_nothing_that_is_final_is_ever_dropped(filled: Store) -> None:
    with pytest.raises(UsageError, match="final"):
        drop_suffix(filled, 4)  # nothing is final yet, so nobody can say what may stay, unless all goes
    replay = Replay(CLUSTER.anchor)
    grow(replay, 5)
    filled.set_final(5, replay.root())
    with pytest.raises(UsageError, match="final"):
        drop_suffix(filled, 4)
    assert len(drop_suffix(filled, 5)) == SIZE - 5
    assert drop_suffix(filled, 5) == []


def test_of_a_log_of_which_nothing_is_final_all_may_go(filled: Store) -> None:
    """As the first entries of a partition's log, when its first writer never found a witness."""
    lost = [row.record_id for row in filled.entries(0)]
    filled.outbox_put(lost[0], encode(decode_leaf(LEAVES[0]).record), 10)
    filled.outbox_sequenced(lost[0], 0)
    assert drop_suffix(filled, 0) == lost
    assert filled.head() is None
    assert filled.logs_with_rows() == []
    assert {row.record_id for row in filled.outbox_pending(SIZE)} == set(lost)
    with pytest.raises(UsageError, match="final"):
        drop_suffix(filled, 0)  # there is nothing
    replay = Replay(CLUSTER.anchor)
    filled.append_entries(grow(replay, SIZE), replay, head_note(replay))
    head = filled.head()
    assert head is not None
    assert (head.size, head.root, head.final_size) == (SIZE, replay.root(), 0)
