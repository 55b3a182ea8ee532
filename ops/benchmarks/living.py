"""A log that has lived: many entries about ten thousand subjects, a second apart, all of it final.

Half of the subjects are routes whose leases are renewed, half are services whose registry records are; a
registry record outlives its successor a little, as fallbacks do. Every entry is signed by two of three and
judged on its way in. What a process needs for such a log must not depend on how long it is.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ops.benchmarks.cluster import CLUSTER_ID, HOUR_S, PEOPLE, MeasuredCluster, signer
from projections.io.writer import Writer
from statelog.canonical import encode
from statelog.checkpoint import sign_checkpoint
from statelog.io.database import open_database
from statelog.io.store import Store
from statelog.records import KINDS_BY_NAME
from statelog.replay import Entry, Replay
from statelog.signing import SeedSigner, encode_base64, key_id_of, signed_bytes
from statelog.state import CONTROL, ROUTE
from statelog.times import format_time

SUBJECTS = 10_000
BATCH = 256  # entries under one checkpoint
LEASE_S = 12 * HOUR_S
REGISTRY_S = 5 * HOUR_S  # renewed every 10,000 s: most records have an older one beside them


@cache
def living_log(count: int) -> tuple[Path, str]:
    """The SQLite store of such a log and its anchor; made once a process, and removed when that ends."""
    folder = Path(tempfile.mkdtemp(prefix="statelog-bench-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    cluster = MeasuredCluster(count)
    path = folder / "node.db"
    engine = open_database(f"sqlite:///{path}", create=True)
    store, replay = Store(engine), Replay(cluster.anchor)
    entries = [replay.append(replay.next_leaf(one, cluster.now)) for one in cluster.beginning]
    for n, record in enumerate(_records(cluster, count)):
        entries.append(replay.append(replay.next_leaf(record, cluster.now + n), verify_signatures=False))
        if len(entries) >= BATCH:
            entries = _stored(store, replay, cluster, entries)
    _stored(store, replay, cluster, entries)
    cluster.finalize(store)
    Writer(engine).catch_up_from_store(replay.size)  # an audit compares the tables too
    engine.dispose()
    return path, cluster.anchor


def _stored(store: Store, replay: Replay, cluster: MeasuredCluster, entries: list[Entry]) -> list[Entry]:
    if entries:
        store.append_entries(entries, replay, sign_checkpoint(replay.checkpoint(), cluster.sequencer_key))
    return []


def _records(cluster: MeasuredCluster, count: int) -> Iterator[bytes]:
    keys: dict[str, list[tuple[str, str, SeedSigner]]] = {
        role: sorted(
            (key_id_of(key.public), who, key)
            for who, key in ((who, signer(f"{role.removesuffix('-authority')}-{who}")) for who in PEOPLE[:2])
        )
        for role in (CONTROL, ROUTE)
    }
    for n in range(count):
        subject, epoch = n % SUBJECTS, 1 + n // SUBJECTS
        kind, role, own = cluster.registry(subject, subject) if n % 2 else cluster.lease(subject)
        now, lifetime_s = cluster.now + n, REGISTRY_S if n % 2 else LEASE_S
        record: dict[str, Any] = {
            "schema_version": KINDS_BY_NAME[kind].schema,
            "cluster_id": CLUSTER_ID,
            "epoch": epoch,
            "issued_at": format_time(now),
            "expires_at": format_time(now + lifetime_s),
            "issuer_node_id": cluster.node_ids[0],
            "issuer_role": role,
            **own,
        }
        message = signed_bytes(record)
        record["signatures"] = [
            {
                "key_id": key_id,
                "issuer_id": who,
                "role": role,
                "alg": "ed25519",
                "value": encode_base64(key.sign(message)),
            }
            for key_id, who, key in keys[role]
        ]
        yield encode(record)
