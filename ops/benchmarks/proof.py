"""`proof`: inclusion proofs from a store of a million entries, and what an append costs at that size.

A million signed records would take an hour to make and prove nothing more: behind a true beginning the log
is filled with short leaves whose hashes and tree nodes are the true ones. What is measured reads and writes
tree nodes; it never looks into those leaves.
"""

from __future__ import annotations

import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

from ops.benchmarks.cluster import MeasuredCluster
from ops.benchmarks.common import result
from statelog.checkpoint import sign_checkpoint
from statelog.io.database import open_database
from statelog.io.store import Store
from statelog.merkle import inclusion_proof, inclusion_ranges, nodes_under, verify_inclusion
from statelog.replay import Replay

PROOF_LIMIT_US = 1_000.0
TARGET_APPEND = 0.8  # an append to a large log may cost a quarter more: its tree is twice as high
_SEED = 20_260_101  # the same leaves are asked for in every run
_SMALL, _APPENDS = 1_000, 100


def run(runs: int, quick: bool = False) -> list[dict[str, Any]]:
    """Two rows: the median time of a proof, and the CPU time of an append to a large and to a small log."""
    size, proofs = (50_000, 500) if quick else (1_000_000, 2_000)
    cluster = MeasuredCluster()
    with tempfile.TemporaryDirectory() as folder:
        small, small_replay = _filled(cluster, Path(folder) / "small.db", _SMALL)
        large, large_replay = _filled(cluster, Path(folder) / "large.db", size)
        times = [_proofs(large, size, proofs) for _ in range(runs)]
        ours, theirs = [], []
        for one in range(runs):
            records = list(cluster.records(2 * _APPENDS * (one + 1)))[2 * _APPENDS * one :: 2]
            theirs.append(_appends(cluster, small, small_replay, records))
            ours.append(_appends(cluster, large, large_replay, records))
        small.engine.dispose()
        large.engine.dispose()
    return [
        result(
            f"proof: inclusion in a log of {size:,}, read from SQLite",
            "µs",
            times,
            peer="the limit",
            peer_values=[PROOF_LIMIT_US] * runs,
            target=1.0,
            lower_is_better=True,
        ),
        result(
            f"append: one entry to a log of {size:,}, CPU time",
            "µs",
            ours,
            peer=f"the same to a log of {_SMALL:,}",
            peer_values=theirs,
            target=TARGET_APPEND,
            lower_is_better=True,
        ),
    ]


def _filled(cluster: MeasuredCluster, path: Path, size: int) -> tuple[Store, Replay]:
    """A store of `size` entries, and the replay that stands behind them."""
    engine = open_database(f"sqlite:///{path}", create=True)
    store, replay = Store(engine), Replay(cluster.anchor)
    entries = [replay.append(replay.next_leaf(record, cluster.now)) for record in cluster.beginning]
    store.append_entries(entries, replay, None)
    nodes: list[tuple[int, int, bytes]] = []
    tree, rows = replay.tree(), []
    for index in range(replay.size, size):
        leaf = b"entry %d" % index
        hash_ = replay.skip(leaf)
        rows.append((store.log, index, f"{index:064x}", hash_, leaf))
        nodes += tree.append(hash_)[1:]
    with sqlite3.connect(path) as raw:
        raw.executemany("INSERT INTO log_entry VALUES (?, ?, ?, ?, ?)", rows)
        raw.executemany("INSERT INTO log_node VALUES (?, ?, ?, ?)", ((store.log, *node) for node in nodes))
        raw.execute("UPDATE log_head SET size = ?, root = ?", (size, replay.root()))
    raw.close()
    return store, replay


def _proofs(store: Store, size: int, count: int) -> float:
    """The median microseconds of a proof, planned, read and put together; all of them are checked."""
    random = Random(_SEED)  # noqa: S311 - which leaves, not which keys
    times: list[float] = []
    with store.reading() as connection:
        root = store.tree(size, connection).root()
        for index in (random.randrange(size) for _ in range(count)):
            start = time.perf_counter()
            wanted = nodes_under(inclusion_ranges(index, size))
            proof = inclusion_proof(index, size, store.read_nodes(wanted, connection))
            times.append(time.perf_counter() - start)
            leaf = store.read_nodes([(0, index)], connection)(0, index)
            if not verify_inclusion(leaf, index, size, proof, root):
                raise ArithmeticError(f"the proof of entry {index} is wrong")
    return 1e6 * statistics.median(times)


def _appends(cluster: MeasuredCluster, store: Store, replay: Replay, records: list[bytes]) -> float:
    """The median CPU microseconds of judging, appending and committing one record."""
    times = []
    for record in records[:_APPENDS]:
        start = time.process_time()
        entry = replay.append(replay.next_leaf(record, cluster.now))
        note = sign_checkpoint(replay.checkpoint(), cluster.sequencer_key)
        store.append_entries([entry], replay, note)
        times.append(time.process_time() - start)
    return 1e6 * statistics.median(times)
