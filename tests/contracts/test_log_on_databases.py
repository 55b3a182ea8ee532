"""The log, its audit, its projections and its replica on every database that may hold them."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import pytest
import sqlalchemy as sa

from fabric.io.replica import Replica
from fabric.sync import batches
from projections.io.check import check_against_fresh_fold
from projections.io.writer import Writer
from statelog.audit import audit
from statelog.io.database import open_database, write_transaction
from statelog.io.equivocation import keep_pair
from statelog.io.sequencer import Submitted
from statelog.io.sources import open_source
from statelog.io.store import Store
from statelog.io.tables import log_entry
from tests.contracts.test_store import BACKENDS
from tests.fabric.io.test_replica import final_head
from tests.statelog.cli.conftest import Run, run
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import finalize, leases, new_store
from tests.support.postgres import new_database

ROOT = Path(__file__).resolve().parents[2]

__all__ = ["run"]  # the fixture


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


@pytest.fixture(params=sorted(BACKENDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return BACKENDS[request.param](tmp_path)


def test_an_audit_is_clean_and_names_an_entry_of_which_a_bit_is_flipped(
    url: str, cluster: Cluster, run: Run
) -> None:
    engine, sequencer = new_store(url, cluster)
    placed = sequencer.submit_many(leases(cluster, 300), cluster.now)
    assert all(isinstance(one, Submitted) for one in placed)
    finalize(Store(engine))
    size = cluster.log.size + 300
    Writer(engine).catch_up_from_store(size)
    assert check_against_fresh_fold(engine) == []
    said = run("verify", url, "--root", cluster.anchor, "-o", "json")
    assert (said.code, said.json["logs"][0]["size"]) == (0, size)
    with write_transaction(engine) as connection:
        here = (log_entry.c.log == "authority") & (log_entry.c.log_index == 7)
        leaf = connection.execute(sa.select(log_entry.c.leaf).where(here)).scalar_one()
        other = leaf[:40] + bytes((leaf[40] ^ 1,)) + leaf[41:]
        connection.execute(log_entry.update().where(here).values(leaf=other))
    engine.dispose()
    said = run("verify", url, "--root", cluster.anchor, "-o", "json")
    assert said.code == 1
    assert {one["log_index"] for one in said.json["findings"] if one["code"] == "SL-STORED"} == {7}


def test_a_backup_goes_to_another_database_and_back(
    url: str, cluster: Cluster, run: Run, tmp_path: Path
) -> None:
    engine, _ = new_store(url, cluster)
    finalize(Store(engine))
    engine.dispose()
    saved = tmp_path / "log.backup"
    assert run("backup", saved, "--store", url, "--root", cluster.anchor).code == 0
    for name, place in BACKENDS.items():
        folder = tmp_path / name
        folder.mkdir()
        restored = place(folder)
        assert run("restore", saved, "--store", restored, "--root", cluster.anchor).code == 0, name
        assert run("verify", restored, "--root", cluster.anchor).code == 0, name


def test_a_replica_follows_and_is_there_again_after_a_restart(url: str, cluster: Cluster) -> None:
    cluster.append(cluster.lease("route-a"))

    def opened() -> Replica:
        made = Replica(url, cluster.anchor, cluster.cluster_id, lambda: float(cluster.now), lambda _: None)
        made.open()
        return made

    replica = opened()
    intake = replica.intake()
    for message in batches(0, cluster.leaves()):
        replica.take(intake, message)
    replica.take(intake, final_head(cluster, cluster.log.size))
    routes = set(replica.live.snapshot.leases)
    assert routes
    replica.close()
    again = opened()
    assert (again.final.size, again.final.root()) == (cluster.log.size, cluster.log.tree.root())
    assert set(again.live.snapshot.leases) == routes
    again.close()
    with open_source(url) as source:
        assert audit(source, cluster.anchor).findings == ()


WRITER = """
import sys
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.store import Store
from tests.support.authority import make_cluster, signer
from tests.support.logs import leases

url, first, now = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cluster = make_cluster()
records = leases(cluster, 30, first) + leases(cluster, 5, 1_000)
sequencer = Sequencer(Store(open_database(url)), cluster.anchor, signer("sequencer-1"))
print("ready", flush=True)
sys.stdin.readline()
for position in range(0, len(records), 3):
    for outcome in sequencer.submit_many(records[position:position + 3], now):
        assert isinstance(outcome, Submitted), outcome
        print(outcome.record_id, outcome.log_index, flush=True)
"""


def test_two_processes_never_fork_a_store(url: str, cluster: Cluster) -> None:
    engine, _ = new_store(url, cluster)
    engine.dispose()
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(first), str(cluster.now)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, 100)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    answers = [
        [line.split() for line in writer.communicate(timeout=60)[0].splitlines()] for writer in writers
    ]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [len(one) for one in answers] == [35, 35]

    places = dict(map(tuple, answers[0])) | dict(map(tuple, answers[1]))
    assert len(places) == 65  # 30 of each, and 5 that both submitted
    assert dict(map(tuple, answers[0])).items() <= places.items()
    with open_source(url) as source:
        report = audit(source, cluster.anchor)
        stored = {record_id: str(index) for index, record_id, _ in source.rows()}
    assert [finding.code for finding in report.findings] == ["SL-NOTFINAL"]
    assert report.size == cluster.log.size + 65
    assert places.items() <= stored.items()


def test_two_processes_that_write_the_same_rows_do_not_meet(url: str) -> None:
    """Whoever looks before they write sees what the other has written, and neither fails for it."""
    with ExitStack() as stack:
        stores = []
        for _ in range(2):
            engine = open_database(url, create=True)
            stack.callback(engine.dispose)
            stores.append(Store(engine))
        together = Barrier(len(stores))

        def write(store: Store, number: int, own: str) -> None:
            together.wait(timeout=60)
            store.outbox_put(f"{number:064x}", b"record", number)
            store.put_checkpoint(number + 1, b"r" * 32, b"note")
            keep_pair(store, (f"kind-{number}", "x"), 1, {"a" * 64: b"a", own * 64: b"b"}, 5)

        with ThreadPoolExecutor(len(stores)) as threads:
            for number in range(20):
                done = [
                    threads.submit(write, one, number, own) for one, own in zip(stores, "bc", strict=True)
                ]
                assert [one.result() for one in done] == [None, None]
        assert len(stores[0].outbox_pending(99)) == 20
        kept = Counter(one.subject for one in stores[0].evidence())
        assert kept == {f"kind-{number}/x": 2 for number in range(20)}


def test_a_server_with_defaults_of_its_own_is_written_alike() -> None:
    url = new_database()
    engine = open_database(url, create=True)
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql(
            f"ALTER DATABASE {engine.url.database} SET default_transaction_isolation = 'serializable'"
        )
    engine.dispose()
    engine = open_database(url)
    with write_transaction(engine) as connection:
        assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar() == "30s"
    engine.dispose()
