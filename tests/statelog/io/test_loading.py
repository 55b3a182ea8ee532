"""A replay from the node's own store: what is verified again, and what was damaged meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.io import tables
from statelog.io.database import write_transaction
from statelog.io.loading import follow, load_replay
from statelog.io.store import Store
from statelog.leaf import decode_leaf, encode_leaf
from statelog.replay import Replay
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import leases, new_store, replay_of

CLUSTER: Cluster = make_cluster()
SIZE = CLUSTER.log.size


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine, _ = new_store(tmp_path / "state.db", CLUSTER)
    yield engine
    engine.dispose()


def forged(leaf: bytes) -> bytes:
    parts = decode_leaf(leaf)
    value = parts.record["signatures"][0]["value"]
    parts.record["signatures"][0]["value"] = ("B" if value[0] == "A" else "A") + value[1:]
    return encode_leaf(parts)


def overwrite(engine: sa.Engine, index: int, leaf: bytes) -> None:
    with write_transaction(engine) as connection:
        table = tables.log_entry
        connection.execute(table.update().where(table.c.log_index == index).values(leaf=leaf))


def test_a_store_is_loaded_to_its_head(engine: sa.Engine) -> None:
    replay = load_replay(Store(engine), CLUSTER.anchor)
    assert replay.size == SIZE
    assert replay.root() == replay_of(CLUSTER).root()
    assert replay.state == CLUSTER.state


def test_following_appends_what_is_new(engine: sa.Engine) -> None:
    replay, seen = replay_of(CLUSTER, 5), []
    assert follow(Store(engine), replay, each=seen.append) == SIZE - 5
    assert [entry.index for entry in seen] == list(range(5, SIZE))
    assert follow(Store(engine), replay) == 0
    assert follow(Store(engine, "routes-eu-1"), Replay(CLUSTER.anchor)) == 0


def test_another_clusters_store(engine: sa.Engine) -> None:
    with pytest.raises(UsageError, match="anchor"):
        load_replay(Store(engine), "0" * 64)


def test_changed_bytes_below_a_checkpoint_are_found_by_its_root(engine: sa.Engine) -> None:
    """The signature is not verified again; the signed root over the stored bytes is."""
    overwrite(engine, 8, forged(CLUSTER.leaves()[8]))
    with pytest.raises(Refused) as refused:
        load_replay(Store(engine), CLUSTER.anchor)
    assert refused.value.code == "SL-ROOT"


def test_a_tail_without_checkpoint_is_verified_in_full(engine: sa.Engine) -> None:
    store, replay = Store(engine), replay_of(CLUSTER)
    entry = replay.append(replay.next_leaf(leases(CLUSTER, 1)[0], CLUSTER.now))
    store.append_entries([entry], replay, None)
    assert load_replay(store, CLUSTER.anchor).size == SIZE + 1
    overwrite(engine, SIZE, forged(entry.data))
    with pytest.raises(Refused) as refused:
        load_replay(store, CLUSTER.anchor)
    assert refused.value.code == "SL-SIG"


def test_a_checkpoint_that_was_replaced(engine: sa.Engine) -> None:
    with write_transaction(engine) as connection:
        connection.execute(tables.checkpoint.update().values(note=b"no note"))
    with pytest.raises(Refused) as refused:
        load_replay(Store(engine), CLUSTER.anchor)
    assert refused.value.code == "SL-NOTE"


@pytest.mark.parametrize("values", [{"root": b"x" * 32}, {"term": 2}, {"size": SIZE + 1}])
def test_a_head_that_the_entries_do_not_lead_to(engine: sa.Engine, values: dict[str, object]) -> None:
    with write_transaction(engine) as connection:
        connection.execute(tables.log_head.update().values(**values))
    with pytest.raises(SourceUnreadable, match="do not lead"):
        load_replay(Store(engine), CLUSTER.anchor)
