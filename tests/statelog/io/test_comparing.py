"""Comparing heads with somebody else's: every relation, and what is kept of a contradiction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from statelog.audit import audit
from statelog.canonical import encode
from statelog.checkpoint import Checkpoint, sign_checkpoint
from statelog.errors import Refused, SourceUnreadable
from statelog.io.comparing import Relation, compare_head, compare_log
from statelog.io.loading import load_replay
from statelog.io.sequencer import Sequencer
from statelog.io.sources import StoreSource
from statelog.io.store import Store
from statelog.limits import MAX_SPLIT_VIEWS
from statelog.rollback import check_rollback
from statelog.state import RECOVERY
from statelog.tilelog import TileLog
from tests.support.authority import QUORUMS, Cluster, make_cluster, sequencer_entry, signer
from tests.support.logs import cosigned, forked, head_note, new_store, replay_of
from tests.support.tiles import MemoryResources, cluster_tiles


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture
def store(tmp_path: Path, cluster: Cluster) -> Iterator[Store]:
    engine, _ = new_store(tmp_path / "log.db", cluster)
    yield Store(engine)
    engine.dispose()


def compare(store: Store, cluster: Cluster, note: bytes) -> Relation:
    return compare_head(store, load_replay(store, cluster.anchor), note, "peer", cluster.now)


def test_heads_of_this_history(store: Store, cluster: Cluster) -> None:
    size = cluster.log.size
    assert compare(store, cluster, head_note(replay_of(cluster))) == Relation.SAME
    for older in (2, 5, size - 1):
        assert compare(store, cluster, head_note(replay_of(cluster, older))) == Relation.OLDER
    cluster.append(cluster.policy("more"))
    assert compare(store, cluster, head_note(replay_of(cluster))) == Relation.NEWER
    assert store.split_views() == []


def test_heads_that_say_nothing(store: Store, cluster: Cluster) -> None:
    size, fork = cluster.log.size, forked(cluster)
    other_log = Checkpoint("elsewhere.example/authority", size, b"\1" * 32)
    elsewhere = sign_checkpoint(other_log, signer("sequencer-1"))
    assert compare(store, cluster, elsewhere) == Relation.FOREIGN
    assert compare(store, cluster, head_note(replay_of(fork), "root-1")) == Relation.UNSIGNED
    with pytest.raises(Refused) as refused:
        compare(store, cluster, b"no head")
    assert refused.value.code == "SL-NOTE"
    assert store.split_views() == []


@pytest.mark.parametrize("short", [0, 1, 3])
def test_a_contradiction_is_kept_and_found_by_the_audit(store: Store, cluster: Cluster, short: int) -> None:
    size = cluster.log.size - short
    note = head_note(replay_of(forked(cluster), size))
    assert compare(store, cluster, note) == Relation.SPLIT
    assert compare(store, cluster, cosigned(note)) == Relation.SPLIT  # the same head: kept once
    (kept,) = store.split_views()
    assert (kept.size, kept.larger_size, kept.source) == (size, cluster.log.size, "peer")
    assert (kept.found.smaller, kept.found.larger) == (note, head_note(replay_of(cluster)))
    with store.reading() as connection:
        report = audit(StoreSource(store, connection), cluster.anchor)
    assert [one.code for one in report.findings] == ["SL-NOTFINAL", "SL-SPLIT"]


def test_what_is_kept_is_bounded(store: Store, cluster: Cluster) -> None:
    origin = replay_of(cluster).origin
    for number in range(MAX_SPLIT_VIEWS + 2):
        root = number.to_bytes(32, "big")
        head = sign_checkpoint(Checkpoint(origin, cluster.log.size, root), signer("sequencer-1"))
        assert compare(store, cluster, head) == Relation.SPLIT
    assert len(store.split_views()) == MAX_SPLIT_VIEWS


def test_the_dropped_tail_of_a_dead_sequencer_contradicts_nothing_unless_it_was_final(
    tmp_path: Path, cluster: Cluster
) -> None:
    """A second term began where the tail did; the dead sequencer's heads over it are still about."""
    start = cluster.log.size
    fork = forked(cluster)
    dead = make_cluster()
    dead.append(dead.policy("never-final"))
    tail = head_note(replay_of(dead))
    takeover = cluster.log_term(sequencers=[sequencer_entry("sequencer-2", "node-9")])
    engine, _ = new_store(tmp_path / "log.db", cluster)
    store = Store(engine)
    Sequencer(store, cluster.anchor, signer("sequencer-2")).submit(encode(takeover), cluster.now)
    assert compare(store, cluster, tail) == Relation.DROPPED
    assert compare(store, cluster, head_note(replay_of(dead, start))) == Relation.OLDER
    assert store.split_views() == []
    assert compare(store, cluster, head_note(replay_of(fork))) == Relation.SPLIT  # below the start
    assert compare(store, cluster, cosigned(tail)) == Relation.SPLIT
    assert len(store.split_views()) == 2
    engine.dispose()


def test_the_term_that_a_recovery_opens_drops_a_tail_too(tmp_path: Path, cluster: Cluster) -> None:
    dead = make_cluster()
    for one in (cluster, dead):
        descriptor = one.descriptor(issuer_role=RECOVERY, by=[], clock_skew_s=60)
        one.append(one.recovery_intent(descriptor))
    dead.append(dead.policy("never-final"))
    tail = head_note(replay_of(dead))
    engine, _ = new_store(tmp_path / "log.db", cluster)
    store = Store(engine)
    cluster.now += cluster.state.descriptor.recovery.delay_s
    record = encode(cluster.sign(descriptor, QUORUMS[RECOVERY]))
    Sequencer(store, cluster.anchor, signer("sequencer-2")).submit(record, cluster.now)
    assert compare(store, cluster, tail) == Relation.DROPPED
    assert compare(store, cluster, cosigned(tail)) == Relation.SPLIT
    engine.dispose()


def compare_tiles(store: Store, cluster: Cluster, files: dict[str, bytes]) -> Relation:
    replay = load_replay(store, cluster.anchor)
    return compare_log(store, replay, TileLog(MemoryResources(files)), "mirror", cluster.now)


def longer(cluster: Cluster) -> Cluster:
    cluster.append(cluster.policy("more"))
    return cluster


def test_a_longer_copy_must_prove_that_it_extends_this_one(store: Store, cluster: Cluster) -> None:
    assert compare_tiles(store, cluster, cluster_tiles(cluster)) == Relation.SAME
    assert compare_tiles(store, cluster, cluster_tiles(longer(make_cluster()))) == Relation.NEWER
    fork = longer(forked(cluster))
    assert compare_tiles(store, cluster, cluster_tiles(fork)) == Relation.SPLIT
    (kept,) = store.split_views()
    assert (kept.size, kept.larger_size, kept.source) == (cluster.log.size, fork.log.size, "mirror")
    unsigned = {**cluster_tiles(fork), "checkpoint": head_note(replay_of(fork), "root-1")}
    assert compare_tiles(store, cluster, unsigned) == Relation.UNSIGNED


def test_a_copy_that_shows_less_than_it_did_went_back(store: Store, cluster: Cluster) -> None:
    size, replay = cluster.log.size, load_replay(store, cluster.anchor)
    beyond = TileLog(MemoryResources(cluster_tiles(longer(make_cluster()))))
    short = TileLog(MemoryResources(cluster_tiles(cluster, size - 1)))

    def look(log: TileLog, now: int) -> Relation:
        return compare_log(store, replay, log, "mirror", now, store.shown_head("mirror"))

    assert [look(log, at) for at, log in enumerate((short, beyond, short, short, beyond))] == [
        Relation.OLDER,
        Relation.NEWER,
        Relation.BACK,
        Relation.BACK,
        Relation.NEWER,
    ]
    (kept,) = store.rollbacks()
    assert (kept.size, kept.earlier_size, kept.seen_at, kept.over_at) == (size - 1, size + 1, 2, 4)
    assert check_rollback(kept.found, replay.sequencer_keys())[0].size == size + 1
    assert compare_log(store, replay, short, "another", 5, store.shown_head("another")) == Relation.OLDER


def test_tiles_that_do_not_lead_to_their_head_prove_nothing(store: Store, cluster: Cluster) -> None:
    files = cluster_tiles(longer(make_cluster()))
    other = cluster_tiles(longer(forked(cluster)))
    with pytest.raises(SourceUnreadable, match="do not lead"):
        compare_tiles(store, cluster, {**other, "checkpoint": files["checkpoint"]})
    assert store.split_views() == []
