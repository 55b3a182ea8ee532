"""How long a record takes until it is final, with four witnesses that run in this process.

They are the machines and shells that a node runs, each with a store of its own on disk; only the transport
is left out: a request is a call.
"""

from __future__ import annotations

import tempfile
import time

import sqlalchemy as sa

from ops.benchmarks.cluster import WITNESSES, MeasuredCluster, signer
from statelog.io.cosign import collect
from statelog.io.database import open_database
from statelog.io.entries import StoreEntries
from statelog.io.sequencer import Sequencer
from statelog.io.store import Store
from statelog.io.witnessing import WitnessHost


async def times_to_finality(
    cluster: MeasuredCluster, sequencer: Sequencer, records: list[bytes]
) -> list[float]:
    """Seconds from each record's submission until its head is durably final, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        engines = {name: open_database(f"sqlite:///{folder}/{name}.db", create=True) for name in WITNESSES}
        hosts = {name: _witness(cluster, sequencer, name, engine) for name, engine in engines.items()}

        async def ask(name: str, body: bytes) -> tuple[int, bytes]:
            reply = await hosts[name].answer(body)
            return reply.status, reply.body

        await collect(sequencer.store, sequencer.replay(), ask)  # they catch up with the log so far
        times: list[float] = []
        for record in records:
            final_at: list[float] = []
            start = time.perf_counter()
            sequencer.submit(record, cluster.now)
            replay = sequencer.replay()
            collected = await collect(
                sequencer.store, replay, ask, on_final=lambda _, at=final_at: at.append(time.perf_counter())
            )
            if not collected.final:
                raise RuntimeError(f"the head of {replay.size} did not become final: {collected.failures}")
            times.append(final_at[0] - start)
        for engine in engines.values():
            engine.dispose()
    return times


def _witness(cluster: MeasuredCluster, sequencer: Sequencer, name: str, engine: sa.Engine) -> WitnessHost:
    source = StoreEntries(sequencer.store)
    return WitnessHost(cluster.anchor, name, signer(name), Store(engine), source, lambda: float(cluster.now))
