"""Bit flips over a whole small store: the audit finds them, or nothing that anybody relies on changed.

A seeded sample of the file's bytes is taken (a large one with FABRIC_FULL_SWEEP=1), one bit of each flipped
in a copy. Harmless is meant exactly: the audit is clean *and* every claim reads as before. Claims are the
rows of the log (entries, nodes, checkpoints, cosignatures, head) and of the projections, as the store's own
readers give them, and each record's place. What is left out claims nothing: a node's own working state, and
space in the file that no row uses.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from projections.io.check import check_against_fresh_fold
from projections.io.tables import SQL_TABLES
from projections.io.writer import Writer
from statelog.audit import audit
from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.io import tables
from statelog.io.database import open_database
from statelog.io.sources import open_source
from statelog.io.store import Store, StoredCosignature
from tests.support.authority import Cluster, key_id, make_cluster, signer
from tests.support.logs import WITNESSES, new_store

SEED = 20260102
FULL = os.environ.get("FABRIC_FULL_SWEEP") == "1"
SAMPLE = 5_000 if FULL else 120
PAGE_BYTES = 512  # the smallest: fewer bytes that no row uses
CLAIMS = (tables.log_entry, tables.log_node, tables.checkpoint, tables.cosignature, tables.log_head)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    cluster = make_cluster(nodes=("phone-a", "relay-1", "home-1"))
    cluster.append(cluster.registry("web-admin"))
    cluster.append(cluster.lease("route-1"))
    return cluster


@pytest.fixture(scope="module")
def store(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A whole store, final and projected, its pages as small as they come."""
    folder = tmp_path_factory.mktemp("flips")
    engine, _ = new_store(folder / "big.db", cluster)
    kept = Store(engine)
    note = kept.checkpoint()
    assert note is not None
    checkpoint, parsed = parse_signed_checkpoint(note)
    kept.put_cosignatures(
        checkpoint.size,
        [
            StoredCosignature(
                key_id(name),
                f"{name}.example",
                cluster.now,
                cosign(parsed.text, f"{name}.example", signer(name), cluster.now).line(),
            )
            for name in WITNESSES
        ],
    )
    kept.set_final(checkpoint.size, checkpoint.root)
    Writer(engine).catch_up_from_store(checkpoint.size)
    engine.dispose()
    connection = sqlite3.connect(folder / "big.db")
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
    connection.execute("VACUUM")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    return (folder / "big.db").read_bytes()


def findings(url: str, cluster: Cluster) -> list[str]:
    """What `statelog verify` says of the store: codes, the one that refuses it at opening among them, or
    that it cannot be read.
    """
    try:
        with open_source(url) as source:
            found = [one.code for one in audit(source, cluster.anchor).findings]
        engine = open_database(url)
        try:
            return found + [one.code for one in check_against_fresh_fold(engine)]
        finally:
            engine.dispose()
    except Refused as error:
        return [f"{error.code} at opening"]
    except (SourceUnreadable, UsageError):
        return ["unreadable"]


def claims(url: str) -> dict[str, Any]:
    """Everything in the store that says something, as its readers give it."""
    engine = open_database(url)
    try:
        kept = Store(engine)
        with kept.reading() as connection:
            rows = {
                table.name: sorted(map(repr, connection.execute(sa.select(table)).all()))
                for table in (*CLAIMS, *SQL_TABLES.values())
            }
            places = {
                record_id: kept.find(record_id, connection) for _, record_id, _ in kept.rows(connection)
            }
            return {**rows, "places": places}
    finally:
        engine.dispose()


@pytest.mark.timeout(0 if FULL else 120)
def test_every_flip_is_found_or_harmless(store: bytes, cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    url = f"sqlite:///{path}"
    path.write_bytes(store)
    assert findings(url, cluster) == []
    sound = claims(url)
    assert len(store) // PAGE_BYTES > 100

    chance, outcomes = random.Random(SEED), Counter[str]()
    places = range(len(store))
    for at in sorted(chance.sample(places, min(SAMPLE, len(store)))):
        flipped = bytearray(store)
        flipped[at] ^= 1 << chance.randrange(8)
        for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            name.unlink(missing_ok=True)
        path.write_bytes(flipped)
        found = findings(url, cluster)
        outcomes[found[0] if found else "harmless"] += 1
        if not found:
            assert claims(url) == sound, f"byte {at} of {len(store)} was changed and nobody noticed"
    assert outcomes["harmless"] < SAMPLE * 0.6, outcomes
    assert outcomes.keys() >= {"unreadable", "SL-STORED", "SL-STORED at opening"}, outcomes


def test_a_flip_that_matters_is_not_called_harmless(store: bytes, cluster: Cluster, tmp_path: Path) -> None:
    """The definition's positive twin: claims do differ where one is changed, and the audit sees it."""
    path = tmp_path / "store.db"
    path.write_bytes(store)
    sound = claims(f"sqlite:///{path}")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE log_entry SET record_id = ? WHERE log_index = 3", ("f" * 64,))
    connection.commit()
    connection.close()
    assert claims(f"sqlite:///{path}") != sound
    assert "SL-STORED" in findings(f"sqlite:///{path}", cluster)
    shutil.rmtree(tmp_path)
