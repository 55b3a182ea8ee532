"""`append`: records made durable in the log, by many submitters and by one.

A submitter's record is admitted (two signatures), gets its leaf, its tree nodes and a signed checkpoint, and
is committed with `synchronous=FULL`. Many submitters share commits, so their limit is what all cores verify;
a single one waits for a commit of its own, so its limit is a bare SQLite commit of the same bytes with the
same settings. Beside it stands the time until its record is final: four witnesses in this process, each with
a store of its own, replay the entry, persist and cosign, and the cosignatures are verified and stored.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from ops.benchmarks.cluster import MeasuredCluster
from ops.benchmarks.common import cores, measured, result, round_to
from ops.benchmarks.ed25519 import rate_on_all_cores
from ops.benchmarks.finality import times_to_finality
from statelog.canonical import decode
from statelog.io.desk import Desk
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.sequencers import Sequencers, Writing
from statelog.signing import signed_bytes

SUBMITTERS = 64
SHARED_TARGET = 0.25
SINGLE_TARGET = 1 / 3  # three bare commits
SIGNATURES = 2


def run(runs: int, quick: bool = False) -> list[dict[str, Any]]:
    """Two rows: 64 submitters at once in records a second, and one submitter in milliseconds a record."""
    many, few, seconds = (640, 20, 0.3) if quick else (19_200, 200, 2.0)
    cluster = MeasuredCluster()
    length = round(sum(len(signed_bytes(decode(one))) for one in cluster.records(100)) / 100)
    shared, shared_peer, single, single_peer = [], [], [], []
    finality: list[float] = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            engine, _ = cluster.store(Path(folder) / "node.db", 0)
            records = list(cluster.records(many + 2 * few))
            writers = Sequencers(engine, cluster.anchor, cluster.sequencer_key)
            shared.append(many / asyncio.run(_concurrently(writers, records[:many], cluster.now)))
            sequencer = writers.authority
            alone = records[many : many + few]
            single.append(1_000 * _one_by_one(sequencer, alone, cluster.now) / few)
            bare = _bare_commits(Path(folder) / "bare.db", alone)
            finality += asyncio.run(times_to_finality(cluster, sequencer, records[many + few :]))
            shared_peer.append(rate_on_all_cores(seconds, length, cores()) / SIGNATURES)
            single_peer.append(1_000 * bare / few)
            engine.dispose()
    return [
        result(
            f"append: {SUBMITTERS} submitters at once, durable",
            "records/s",
            shared,
            peer=f"libsodium verifying their two signatures, {cores()} cores",
            peer_values=shared_peer,
            target=SHARED_TARGET,
        ),
        result(
            "append: one submitter, durable",
            "ms",
            single,
            peer="SQLite, one bare commit a record",
            peer_values=single_peer,
            target=round(SINGLE_TARGET, 3),
            lower_is_better=True,
            final_ms_p50=round_to(1_000 * statistics.median(finality)),
            final_ms_p99=round_to(1_000 * statistics.quantiles(finality, n=100)[-1]),
        ),
    ]


async def _concurrently(writers: Sequencers, records: list[bytes], now: int) -> float:
    """Wall seconds for `SUBMITTERS` submitters, each waiting for its record before it sends the next.

    Records of one service follow each other by epoch, so a submitter gets every 64th pair of them: they may
    go at any pace, and no record waits for another submitter's.
    """
    lanes: list[list[bytes]] = [[] for _ in range(SUBMITTERS)]
    leases, registry = records[0::2], records[1::2]
    for n, record in enumerate(leases):
        lanes[n % SUBMITTERS].append(record)
    for n, record in enumerate(registry):
        lanes[n % 200 % SUBMITTERS].append(record)

    async def submit_all(lane: list[bytes]) -> None:
        for record in lane:
            outcome = await desk.submit(record)
            if not isinstance(outcome, Submitted):
                raise TypeError(f"a record of the benchmark was refused: {outcome}")

    desk: Desk[Submitted] = Desk(Writing(writers), lambda: float(now), lambda _: None, waiting=SUBMITTERS)
    desk.start()
    with measured() as spent:
        await asyncio.gather(*map(submit_all, lanes))
    await asyncio.to_thread(desk.close)
    return spent.wall_s


def _one_by_one(sequencer: Sequencer, records: list[bytes], now: int) -> float:
    start = time.perf_counter()
    for record in records:
        sequencer.submit(record, now)
    return time.perf_counter() - start


def _bare_commits(path: Path, records: list[bytes]) -> float:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE record (data BLOB NOT NULL)")
    start = time.perf_counter()
    for record in records:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO record VALUES (?)", (record,))
        connection.execute("COMMIT")
    spent = time.perf_counter() - start
    connection.close()
    return spent
