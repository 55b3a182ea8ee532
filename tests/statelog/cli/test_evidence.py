"""Split views and equivocation on the command line: found by `status --compare`, shown by `evidence`."""

from __future__ import annotations

import base64
import shutil
import time
from pathlib import Path

from statelog.canonical import encode
from statelog.io.comparing import compare_head
from statelog.io.evidence import Evidence, KeptRollback
from statelog.io.loading import load_replay
from statelog.rollback import Rollback
from statelog.signing import record_id_of
from statelog.splitview import SplitView, check_split_view
from tests.statelog.cli.conftest import Farm, Run
from tests.support.logs import forked, head_note, replay_of
from tests.support.tiles import cluster_tiles


def test_the_status_compares_with_another_copy(farm: Farm, run: Run, tmp_path: Path) -> None:
    farm.finalize()
    same, other = tmp_path / "same", tmp_path / "other"
    assert run("export", same, "--store", farm.path, "--root", farm.anchor).code == 0
    said = run("status", "--store", farm.path, "--compare", same)
    assert (said.code, "shows the same head" in said.out) == (0, True)
    for path, data in cluster_tiles(forked(farm.cluster)).items():
        (other / path).parent.mkdir(parents=True, exist_ok=True)
        (other / path).write_bytes(data)
    said = run("status", "--store", farm.path, "--compare", other, "-o", "json")
    assert (said.code, said.json["compared"], said.json["split_views"]) == (1, "split", 1)
    assert [one["code"] for one in said.json["alarms"]] == ["SL-SPLIT"]
    missing = run("status", "--store", farm.path, "--compare", tmp_path / "nowhere")
    assert (missing.code, missing.err.count("\n")) == (3, 2)  # a note that nobody pinned the anchor, and why
    found = run("verify", farm.path, "--root", farm.anchor, "-o", "json")
    assert [one["code"] for one in found.json["findings"]] == ["SL-SPLIT"]


def test_a_copy_that_shows_less_than_before_is_found_out(farm: Farm, run: Run, tmp_path: Path) -> None:
    farm.finalize()
    copy, kept = tmp_path / "copy", tmp_path / "kept"
    compare = ("status", "--store", farm.path, "--compare", copy, "-o", "json")
    assert run("export", copy, "--store", farm.path, "--root", farm.anchor).code == 0
    assert run(*compare).json["compared"] == "same"
    size = farm.cluster.log.size
    copy.rename(kept)
    for path, data in cluster_tiles(farm.cluster, size - 1).items():
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        (copy / path).write_bytes(data)
    for _ in range(2):  # it is said as long as it is so
        said = run(*compare)
        assert (said.code, said.json["compared"], said.json["rollbacks"]) == (1, "back", 1)
        assert [one["code"] for one in said.json["alarms"]] == ["SL-ROLLBACK"]
    (found,) = farm.store.rollbacks()
    assert (found.source, found.earlier_size, found.size) == (str(copy), size, size - 1)

    shutil.rmtree(copy)
    kept.rename(copy)
    said = run(*compare)
    assert (said.code, said.json["compared"], said.json["rollbacks"], said.json["alarms"]) == (
        0,
        "same",
        0,
        [],
    )


def test_an_operator_ends_the_alarm_about_a_source_that_will_not_come_back(farm: Farm, run: Run) -> None:
    farm.finalize()
    newest, older = (head_note(replay_of(farm.cluster, farm.cluster.log.size - back)) for back in (0, 1))
    size = farm.cluster.log.size
    farm.store.rollback_keep(KeptRollback("gone", size - 1, size, Rollback(newest, older), 5))
    refused = run("evidence", "--store", farm.path, "--over", "other")
    assert (refused.code, "of these one is: gone" in refused.err) == (2, True)
    assert run("status", "--store", farm.path, "-o", "json").json["rollbacks"] == 1
    said = run("evidence", "--store", farm.path, "--over", "gone", "-o", "json")
    assert said.code == 0
    assert [one["over_at"] is None for one in said.json["rollbacks"]] == [False]
    assert run("status", "--store", farm.path, "-o", "json").json["rollbacks"] == 0


def test_evidence_is_shown_and_exported(farm: Farm, run: Run, tmp_path: Path) -> None:
    farm.finalize()
    assert "nothing" in run("evidence", "--store", farm.path).out
    note = head_note(replay_of(forked(farm.cluster), farm.cluster.log.size - 1))
    compare_head(farm.store, load_replay(farm.store, farm.anchor), note, "peer", int(time.time()))
    pair = [farm.cluster.policy("p", {"allow": [str(n)]}) for n in range(2)]
    for one in pair:
        farm.store.evidence_add(Evidence("policy.epoch/p", 1, record_id_of(one), encode(one), 5))
    newest, older = (head_note(replay_of(farm.cluster, farm.cluster.log.size - back)) for back in (0, 1))
    size = farm.cluster.log.size
    farm.store.rollback_keep(KeptRollback("f" * 64, size - 1, size, Rollback(newest, older), 5))
    said = run("evidence", "--store", farm.path)
    assert "policy.epoch/p" in said.out
    assert "split views" in said.out
    assert "not yet" in said.out
    out = tmp_path / "proof"
    found = run("evidence", "--store", farm.path, "--out", out, "-o", "json").json
    assert found["schema"] == "statelog.evidence.v1"
    assert [one["record"] for one in found["equivocations"]] == sorted(pair, key=record_id_of)
    (view,) = found["split_views"]
    assert view["note"].encode() == note
    (back,) = found["rollbacks"]
    assert (back["earlier_size"], back["size"], back["over_at"]) == (size, size - 1, None)
    assert [p.read_bytes() for p in sorted(out.glob("rollback-*"))] == [newest, older]
    smaller, larger = (next(out.glob(f"split-*-{which}.note")) for which in ("smaller", "larger"))
    proof = next(out.glob("split-*-proof.txt")).read_text().split("\n")[:-1]
    root, *hashes = (base64.b64decode(line) for line in proof[1:])
    exported = SplitView(smaller.read_bytes(), larger.read_bytes(), root, tuple(hashes))
    check_split_view(exported, replay_of(farm.cluster).sequencer_keys())
    assert {path.read_bytes() for path in out.glob("record-*.json")} == {encode(one) for one in pair}
    again = run("evidence", "--store", farm.path, "--out", out)
    assert (again.code, "exists already" in again.err) == (2, True)
