"""The garbage collector at rest: for the block alone, and for work that leaves it nothing to do."""

from __future__ import annotations

import gc

import pytest

from projections.all import TABLES, fold
from projections.base import MemoryRows, fact_of_entry
from statelog.io.collector import collector_at_rest
from statelog.replay import Replay
from tests.support.authority import Cluster, make_cluster


def test_it_is_at_rest_within_the_block_alone() -> None:
    assert gc.isenabled()
    with collector_at_rest():
        assert not gc.isenabled()
        with collector_at_rest():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="no"), collector_at_rest():
        raise ValueError("no")
    assert gc.isenabled()


def test_a_fold_leaves_it_nothing() -> None:
    cluster = make_cluster()
    leaves = cluster.leaves()
    folded(cluster, leaves)  # what is made once: forms and memories
    gc.collect()
    with collector_at_rest():
        kept = folded(cluster, leaves)
        assert gc.collect() == 0
    assert kept[0].size == len(leaves)


def folded(cluster: Cluster, leaves: list[bytes]) -> tuple[Replay, MemoryRows]:
    replay, rows = Replay(cluster.anchor), MemoryRows(TABLES)
    for leaf in leaves:
        rows.apply(fold(rows, fact_of_entry(replay.append(leaf))))
    return replay, rows
