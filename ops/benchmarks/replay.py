"""`replay`: what a node does at its start, entry by entry on one core.

Admission without cryptography (those bytes were verified when they came) and all projections. One row against
a fixed limit, and one against a core that verifies the two signatures of the same records and does nothing
else: a fold slower than that would be what an audit waits for.
"""

from __future__ import annotations

from typing import Any

from ops.benchmarks.cluster import MeasuredCluster
from ops.benchmarks.common import measured, result
from ops.benchmarks.ed25519 import rate_on_one_core
from projections.all import TABLES, fold
from projections.base import MemoryRows, fact_of_entry
from statelog.canonical import decode
from statelog.io.collector import collector_at_rest
from statelog.leaf import frame_leaf, split_leaf
from statelog.replay import Replay
from statelog.signing import signed_bytes

TARGET = 1.0
LIMIT_PER_S = 60_000.0  # of records on one core
SIGNATURES = 2


def run(runs: int, quick: bool = False) -> list[dict[str, Any]]:
    """Two rows: by CPU time against the limit, since other work does not disturb it, and by wall time."""
    count, seconds = (1_000, 0.3) if quick else (20_000, 2.0)
    cluster = MeasuredCluster()
    leaves = _leaves(cluster, count)
    lengths = [len(signed_bytes(decode(split_leaf(leaf).record))) for leaf in leaves]
    values, walls, peers, cpus = [], [], [], []
    for _ in range(runs):
        with collector_at_rest(), measured() as spent:  # as a start does it (`statelog.io.loading.follow`)
            replay, rows = Replay(cluster.anchor), MemoryRows(TABLES)
            for leaf in leaves:
                entry = replay.append(leaf, verify_signatures=False)
                rows.apply(fold(rows, fact_of_entry(entry)))
        values.append(len(leaves) / spent.cpu_s)
        walls.append(len(leaves) / spent.wall_s)
        cpus.append(round(spent.cpu_s, 3))
        peers.append(rate_on_one_core(seconds, round(sum(lengths) / len(lengths))) / SIGNATURES)
    name = f"replay: {count:,} records admitted and projected, one core"
    return [
        result(
            name,
            "records/s",
            values,
            peer="the limit",
            peer_values=[LIMIT_PER_S] * runs,
            target=TARGET,
            cpu_s=cpus,
        ),
        result(
            name,
            "records/s",
            walls,
            peer="libsodium verifying their two signatures, one core",
            peer_values=peers,
            target=TARGET,
        ),
    ]


def _leaves(cluster: MeasuredCluster, count: int) -> list[bytes]:
    leaves = [frame_leaf(cluster.beginning[0], cluster.now, 0)]
    return leaves + [
        frame_leaf(record, cluster.now, 1) for record in (*cluster.beginning[1:], *cluster.records(count))
    ]
