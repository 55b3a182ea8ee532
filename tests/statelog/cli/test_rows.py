"""`statelog prove-row` and `check-row`: one lease for a phone that has the anchor."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from statelog.canonical import encode
from statelog.io import snapshots
from statelog.io.store import Store
from statelog.signing import record_id_of
from statelog.times import format_time
from tests.statelog.cli.conftest import Farm, Run
from tests.support.authority import node_id
from tests.support.logs import leases


class Desk:
    """Someone with every key, at the farm's store."""

    def __init__(self, farm: Farm, run: Run, folder: Path) -> None:
        self.farm, self.run, self.folder = farm, run, folder
        self.store = ("--store", farm.path, "--root", farm.anchor)

    def put(self, record: bytes, record_id: str) -> None:
        self.farm.store.outbox_put(record_id, record, 1)
        self.farm.drain()
        self.farm.finalize()

    def snapshot(self, *options: object) -> None:
        request = self.folder / f"{len(list(self.folder.iterdir()))}.sigreq"
        made = self.run("propose", "log.snapshot", *self.store, "--out", request, *options, "-o", "json")
        assert made.code == 0, made.err
        keys = ("--key", "env:KEY_CONTROL_1", "--key", "env:KEY_CONTROL_2")
        signed = self.run("sign", request, *keys, *self.store, "--digest", made.json["record_id"])
        assert signed.code == 0, signed.err
        done = self.run("submit", request, *self.store, "--sequencer-key", "env:KEY_SEQUENCER_1", "--wait", 0)
        assert done.code == 0, done.err
        self.farm.finalize()


@pytest.fixture
def desk(farm: Farm, run: Run, tmp_path: Path) -> Desk:
    made = Desk(farm, run, tmp_path)
    made.put(leases(farm.cluster, 1)[0], record_id_of(farm.cluster.lease("route-0")))
    return made


def test_a_lease_is_proved_to_a_phone(desk: Desk, run: Run, tmp_path: Path) -> None:
    desk.snapshot()
    file = tmp_path / "lease.tlog-proof"
    made = run("prove-row", "route_lease", "route-0", *desk.store, "--out", file, "-o", "json")
    assert (made.code, made.err) == (0, "")
    desk.farm.path.unlink()
    checked = run("check-row", file, "--root", desk.farm.anchor, "-o", "json")
    assert (checked.code, checked.err) == (0, "")
    report = checked.json
    assert report["schema"] == "statelog.check-row.v1"
    assert (report["key"], report["present"]) == (["route-0"], True)
    assert report["row"]["route_id"] == "route-0"
    assert report["snapshot_size"] == desk.farm.cluster.log.size + 1
    assert "row        route-0" in run("check-row", file, "--root", desk.farm.anchor).out
    assert run("check-proof", file, "--root", desk.farm.anchor).code == 0
    data = file.read_bytes()
    file.write_bytes(data.replace(b"extra ey", b"extra ez", 1))
    assert run("check-row", file, "--root", desk.farm.anchor).code == 1


def test_a_lease_that_is_over_does_not_read_as_good(desk: Desk, run: Run, tmp_path: Path) -> None:
    desk.snapshot()
    file = tmp_path / "lease.tlog-proof"
    assert run("prove-row", "route_lease", "route-0", *desk.store, "--out", file).code == 0
    check = ("check-row", file, "--root", desk.farm.anchor)
    good = run(*check, "-o", "json")
    assert (good.code, good.json["standing"], good.json["bootstrap"]) == (0, "in force", False)
    assert "standing   in force at 20" in run(*check).out
    for at, word in (
        (good.json["row"]["expires_at"], "expired"),
        (good.json["row"]["issued_at"] - 1, "not yet"),
    ):
        late = run(*check, "--at", format_time(at), "-o", "json")
        assert (late.code, late.json["present"]) == (1, True)
        assert late.json["standing"].startswith(word)
        text = run(*check, "--at", format_time(at))
        assert (text.code, f"standing   {word.upper()}" in text.out) == (1, True)

    fence = desk.farm.cluster.fence({"route_id": "route-0"})
    desk.put(encode(fence), record_id_of(fence))
    desk.snapshot()
    assert run("prove-row", "route_lease", "route-0", *desk.store, "--out", file).code == 0
    ended = run(*check, "-o", "json")
    assert (ended.code, ended.json["standing"]) == (1, "ended")
    assert f"standing   ENDED by {record_id_of(fence)}" in run(*check).out


def test_that_there_is_no_row_is_proved_too(desk: Desk, run: Run, tmp_path: Path) -> None:
    desk.snapshot()
    file = tmp_path / "none.tlog-proof"
    assert run("prove-row", "route_lease", "route-9", *desk.store, "--out", file).code == 0
    said = run("check-row", file, "--root", desk.farm.anchor, "-o", "json").json
    assert (said["present"], said["row"], said["standing"]) == (False, None, "absent")
    assert "there is none" in run("check-row", file, "--root", desk.farm.anchor).out
    assert run("prove-row", "node", node_id("phone-a"), *desk.store, "--out", file).code == 0
    assert run("check-row", file, "--root", desk.farm.anchor, "-o", "json").json["present"] is True


def test_what_cannot_be_proved(desk: Desk, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    early = run("prove-row", "route_lease", "route-0", *desk.store)
    assert (early.code, "has no final snapshot" in early.err) == (2, True)
    desk.snapshot()
    unknown = run("prove-row", "leases", "route-0", *desk.store)
    assert (unknown.code, "route_lease" in unknown.err) == (2, True)
    file = tmp_path / "entry.tlog-proof"
    assert run("prove", 3, *desk.store, "--out", file).code == 0
    assert run("check-row", file, "--root", desk.farm.anchor).code == 2
    monkeypatch.setattr(snapshots.metadata, "entry_points", lambda group: [])
    folded = run("prove-row", "route_lease", "route-0", *desk.store)
    assert (folded.code, "nothing installed" in folded.err) == (2, True)


def test_verify_folds_snapshots_anew(desk: Desk, run: Run, tmp_path: Path) -> None:
    desk.snapshot()
    clean = run("verify", desk.farm.path, "--root", desk.farm.anchor, "-o", "json").json
    assert (clean["clean"], "snapshots" in clean["checks"], clean["unjudged_snapshots"]) == (True, True, 0)
    trees = snapshots.row_trees(Store(desk.farm.store.engine), 3)
    listed = tmp_path / "listed.json"
    listed.write_bytes(orjson.dumps([trees[name].summary() for name in sorted(trees)]))
    desk.snapshot("--projections", listed)  # true of entry 3, claimed of now
    wrong = run("verify", desk.farm.path, "--root", desk.farm.anchor, "-o", "json")
    assert wrong.code == 1
    assert {one["code"] for one in wrong.json["findings"]} == {"SL-FOLD"}
    refused = run("prove-row", "route_lease", "route-0", *desk.store)
    assert (refused.code, "SL-FOLD" in refused.err) == (1, True)
