"""Killed at any moment: what was acknowledged is there after the restart, and the store is sound."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from statelog.audit import audit
from statelog.io.sources import open_source
from tests.support.authority import make_cluster
from tests.support.logs import new_store

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 4
# Submits one record after the other, forever, and says so after each commit.
WRITER = """
import sys
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer
from statelog.io.store import Store
from tests.support.authority import make_cluster, signer
from tests.support.logs import leases

cluster = make_cluster()
sequencer = Sequencer(Store(open_database(sys.argv[1])), cluster.anchor, signer("sequencer-1"))
for number in range(int(sys.argv[2]), 100_000):
    submitted = sequencer.submit(leases(cluster, 1, number)[0], cluster.now)
    print(submitted.record_id, submitted.log_index, flush=True)
"""


def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    cluster, chance = make_cluster(), random.Random(7)
    path = tmp_path / "state.db"
    new_store(path, cluster)[0].dispose()
    url = f"sqlite:///{path}"
    acknowledged: dict[str, int] = {}
    for number in range(ROUNDS):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, url, str(number * 10_000)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            for _ in range(chance.randrange(1, 20)):
                record_id, index = writer.stdout.readline().split()
                acknowledged[record_id] = int(index)
            writer.kill()
            for line in writer.stdout:  # acknowledged before the kill and not yet read
                if line.endswith("\n"):
                    record_id, index = line.split()
                    acknowledged[record_id] = int(index)
        with open_source(url) as source:
            report = audit(source, cluster.anchor)
            stored = {record_id: index for index, record_id, _ in source.rows()}
        assert [finding.code for finding in report.findings] == ["SL-NOTFINAL"]
        assert acknowledged.items() <= stored.items()
    assert len(acknowledged) >= ROUNDS
