"""`statelog prove` and `statelog check-proof`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from statelog.io.store import Store
from statelog.signing import record_id_of
from statelog.times import format_time
from tests.statelog.cli.conftest import Farm, Run
from tests.support.logs import leases


@pytest.fixture
def proof(farm: Farm, run: Run, tmp_path: Path) -> Path:
    path = tmp_path / "entry.tlog-proof"
    said = run("prove", 5, "--store", farm.path, "--root", farm.anchor, "--out", path)
    assert (said.code, said.err) == (0, "")
    return path


def test_a_proof_needs_no_store(farm: Farm, run: Run, proof: Path) -> None:
    farm.path.unlink()
    said = run("check-proof", proof, "--root", farm.anchor, "-o", "json")
    assert (said.code, said.err) == (0, "")
    report = said.json
    assert report["schema"] == "statelog.check-proof.v1"
    assert (report["proved"], report["log"], report["log_index"]) == (True, "authority", 5)
    assert report["record_id"] == record_id_of(report["record"])
    assert len(report["cosigned_by"]) == 4
    table = run("check-proof", proof, "--root", farm.anchor)
    assert (table.code, "proved     entry 5" in table.out) == (0, True)
    assert proof.read_bytes().startswith(b"c2sp.org/tlog-proof@v1\nextra ")


def test_a_record_is_found_by_its_id(farm: Farm, run: Run, tmp_path: Path) -> None:
    (row,) = Store(farm.store.engine).entries(3, 4)
    path = tmp_path / "by-id.tlog-proof"
    said = run(
        "prove", row.record_id, "--store", farm.path, "--root", farm.anchor, "--out", path, "-o", "json"
    )
    assert (said.code, said.json["log_index"], said.json["bytes"]) == (0, 3, path.stat().st_size)
    unknown = run("prove", "ab" * 32, "--store", farm.path, "--root", farm.anchor)
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)


def test_what_is_not_final_cannot_be_proved(farm: Farm, run: Run, tmp_path: Path) -> None:
    farm.store.outbox_put(record_id_of(farm.cluster.lease("route-7")), leases(farm.cluster, 1, 7)[0], 1)
    farm.drain()
    size = farm.cluster.log.size
    said = run("prove", size, "--store", farm.path, "--root", farm.anchor, "--out", tmp_path / "x")
    assert (said.code, "is not final" in said.err) == (2, True)
    farm.finalize()
    assert run("prove", size, "--store", farm.path, "--root", farm.anchor, "--out", tmp_path / "x").code == 0


@pytest.mark.parametrize(
    "part", [b"tlog-proof", b"extra ", b"extra eyJ", b"index 5", b"\n\ntest.", b"authority"]
)
def test_a_changed_proof_is_refused(farm: Farm, run: Run, proof: Path, part: bytes) -> None:
    data = bytearray(proof.read_bytes())
    data[data.index(part) + len(part) - 1] ^= 1
    proof.write_bytes(bytes(data))
    said = run("check-proof", proof, "--root", farm.anchor)
    assert (said.code, said.out, said.err.count("\n")) == (1, "", 1)
    assert re.search(r"refused: SL-[A-Z]+", said.err)


def test_other_files_and_times(farm: Farm, run: Run, proof: Path, tmp_path: Path) -> None:
    late = format_time(farm.cluster.state.descriptor.expires_at)
    expired = run("check-proof", proof, "--root", farm.anchor, "--at", late)
    assert (expired.code, "SL-EXPIRED" in expired.err) == (1, True)
    assert run("check-proof", proof, "--root", farm.anchor, "--at", "yesterday").code == 1
    assert run("check-proof", proof, "--root", "0" * 64).code == 1
    assert run("check-proof", tmp_path / "none", "--root", farm.anchor).code == 2
    assert run("check-proof", farm.path, "--root", farm.anchor).code == 1
