"""Partition logs on the command line: opened, written, listed, audited, taken over."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import orjson
import pytest

from statelog import ceremony
from statelog.cli import renewal, verify
from statelog.io.evidence import KeptRollback
from statelog.rollback import Rollback
from tests.statelog.cli.conftest import Farm, Run
from tests.support.authority import key_entry, node_id

LOG = "routes-eu-1"


@pytest.fixture(autouse=True)
def no_installed_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify.metadata, "entry_points", lambda group: [])


class Operator:
    """Someone with every key, at a store."""

    def __init__(self, farm: Farm, run: Run, folder: Path) -> None:
        self.farm, self.run, self.folder = farm, run, folder
        self.store = ("--store", farm.path, "--root", farm.anchor)

    def enrolled(self, name: str) -> Path:
        """The enrollment file of a sequencer key that control-1 holds."""
        path = self.folder / f"{name}.json"
        entry = key_entry(name, cluster_id=self.farm.cluster.cluster_id, issuer_id=node_id("control-1"))
        path.write_bytes(orjson.dumps(entry))
        return path

    def propose(self, kind: str, *options: object) -> Path:
        path = self.folder / f"{len(list(self.folder.iterdir()))}.sigreq"
        made = self.run("propose", kind, *options, *self.store, "--out", path)
        assert made.code == 0, made.err
        return path

    def submit(self, path: Path, role: str, *, writer: str = "SEQUENCER_1") -> str:
        digest = ceremony.decode_request(path.read_bytes()).record_id
        keys = [part for n in (1, 2) for part in ("--key", f"env:KEY_{role}_{n}")]
        signed = self.run("sign", path, *keys, *self.store, "--digest", digest)
        assert signed.code == 0, signed.err
        done = self.run("submit", path, *self.store, "--sequencer-key", f"env:KEY_{writer}", "--wait", 0)
        return done.out if done.code == 0 else done.err

    def open(self, writer: str = "sequencer-1") -> None:
        path = self.propose("log.term", "--log", LOG, "--sequencer", self.enrolled(writer))
        assert "accepted" in self.submit(path, "CONTROL")
        self.farm.finalize()

    def lease(self, route: str) -> Path:
        hops = [part for name in ("phone-a", "home-1") for part in ("--hop", node_id(name))]
        return self.propose(
            "route.lease", "--route-id", route, "--partition", "eu-1", "--service", "forward/ssh", *hops
        )


@pytest.fixture
def operator(farm: Farm, run: Run, tmp_path: Path) -> Operator:
    folder = tmp_path / "requests"
    folder.mkdir()
    return Operator(farm, run, folder)


def test_a_partition_gets_a_log_of_its_own(operator: Operator, run: Run) -> None:
    farm, store = operator.farm, operator.store
    operator.open()
    opened = farm.cluster.log.size + 1
    assert "not held here, term 1" in run("status", *store).out

    said = operator.submit(operator.lease("eu-1/a"), "ROUTE")
    assert f"accepted, entry 0 of {LOG}, not final" in said
    farm.finalize(log=LOG)
    renewed = operator.lease("eu-1/a")
    assert ceremony.decode_request(renewed.read_bytes()).record["epoch"] == 2
    operator.submit(renewed, "ROUTE")
    farm.finalize(log=LOG)

    listed = run("log", *store, "--log", LOG, "-o", "json").json
    assert [(one["index"], one["authority_size"], one["final"]) for one in listed["entries"]] == [
        (0, opened, True),
        (1, opened, True),
    ]
    assert listed["origin"] == f"{farm.cluster.cluster_id}/{LOG}"
    shown = run("show", 1, *store, "--log", LOG)
    assert f"in term 1, judged at authority size {opened}" in shown.out
    status = run("status", *store, "--log", LOG)
    assert f"log        {farm.cluster.cluster_id}/{LOG}" in status.out
    assert "size       2, final up to 2, term 1" in status.out
    assert f"beside it  authority: size {opened}, final up to {opened}" in status.out


def test_verify_audits_every_log_and_names_it(operator: Operator, run: Run) -> None:
    farm = operator.farm
    operator.open()
    operator.submit(operator.lease("eu-1/a"), "ROUTE")
    farm.finalize(log=LOG)
    clean = run("verify", farm.path, "--root", farm.anchor, "-o", "json")
    assert (clean.code, clean.json["clean"]) == (0, True)
    assert [(one["log"], one["size"]) for one in clean.json["logs"]] == [
        ("authority", farm.cluster.log.size + 1),
        (LOG, 1),
    ]
    assert clean.json["size"] == farm.cluster.log.size + 1
    only = run("verify", farm.path, "--root", farm.anchor, "--log", "authority", "-o", "json").json
    assert [one["log"] for one in only["logs"]] == ["authority"]
    missing = run("verify", farm.path, "--root", farm.anchor, "--log", "routes-us-1")
    assert missing.code == 2
    assert f"it holds authority, {LOG}" in missing.err

    assert (clean.json["logs_not_shown"], only["logs_not_shown"]) == ([], [LOG])
    for table in ("log_head", "log_entry"):
        copy = farm.path.with_name(f"without-{table}.db")
        assert run("backup", copy, "--store", farm.path, "--root", farm.anchor).code == 0
        with sqlite3.connect(copy) as connection:
            connection.execute(f"DELETE FROM {table} WHERE log = ?", (LOG,))  # noqa: S608 - two names of ours
        connection.close()
        hidden = run("verify", copy, "--root", farm.anchor, "-o", "json")
        assert hidden.code == 1
        assert {one["log"] for one in hidden.json["findings"]} == {LOG}

    with sqlite3.connect(farm.path) as connection:
        found = connection.execute("UPDATE log_entry SET record_id = 'x' WHERE log = ?", (LOG,)).rowcount
        assert found == 1
    connection.close()
    damaged = run("verify", farm.path, "--root", farm.anchor, "-o", "json")
    assert damaged.code == 1
    assert [(one["log"], one["code"], one["log_index"]) for one in damaged.json["findings"]] == [
        (LOG, "SL-STORED", 0)
    ]
    assert LOG in run("verify", farm.path, "--root", farm.anchor).out


def test_every_log_is_exported_and_audited_from_files(operator: Operator, run: Run, tmp_path: Path) -> None:
    farm, tiles = operator.farm, tmp_path / "tiles"
    operator.open()
    operator.submit(operator.lease("eu-1/a"), "ROUTE")
    farm.finalize(log=LOG)
    exported = run("export", tiles, *operator.store, "-o", "json").json
    assert [(one["log"], one["size"]) for one in exported["logs"]] == [
        ("authority", farm.cluster.log.size + 1),
        (LOG, 1),
    ]
    report = run("verify", tiles, "--root", farm.anchor, "-o", "json")
    assert (report.code, [one["log"] for one in report.json["logs"]]) == (0, ["authority", LOG])
    assert run("verify", tiles, "--root", farm.anchor, "--log", "routes-us-1").code == 2
    copied = run("mirror", tiles, tmp_path / "copy", "--root", farm.anchor)
    assert (copied.code, copied.out.splitlines()[-1]) == (0, f"mirrored   {tmp_path / 'copy'}")
    (tiles / "logs").rename(tmp_path / "logs")
    report = run("verify", tiles, "--root", farm.anchor, "-o", "json")
    assert (report.code, report.json["logs_not_shown"]) == (0, [LOG])
    assert f"not shown  the log {LOG}" in run("verify", tiles, "--root", farm.anchor).out
    refused = run("mirror", tiles, tmp_path / "copy", "--root", farm.anchor)
    assert (refused.code, "SL-ROLLBACK" in refused.err) == (1, True)
    assert run("verify", tmp_path / "copy", "--root", farm.anchor, "-o", "json").json["logs_not_shown"] == []
    (kept,) = (tmp_path / "copy" / "evidence").iterdir()
    assert kept.read_bytes() == (tmp_path / "copy" / LOG / "checkpoint").read_bytes()
    (tmp_path / "logs").rename(tiles / "logs")
    (bundle,) = (tiles / LOG / "tile/entries").rglob("1")
    bundle.write_bytes(bundle.read_bytes().replace(b"eu-1/a", b"eu-1/b"))
    report = run("verify", tiles, "--root", farm.anchor, "-o", "json")
    found = [(one["log"], one["code"], one["log_index"]) for one in report.json["findings"]]
    assert (report.code, (LOG, "SL-TILE", 0) in found) == (1, True)
    refused = run("mirror", tiles, tmp_path / "second", "--root", farm.anchor)
    assert (refused.code, (tmp_path / "second").exists()) == (1, False)


def test_an_entry_of_a_partition_is_proved_by_the_anchor(
    operator: Operator, run: Run, tmp_path: Path
) -> None:
    farm, file = operator.farm, tmp_path / "lease.tlog-proof"
    operator.open()
    operator.submit(operator.lease("eu-1/a"), "ROUTE")
    farm.finalize(log=LOG)
    assert run("prove", 0, *operator.store, "--log", LOG, "--out", file).code == 0
    proved = run("check-proof", file, "--root", farm.anchor, "-o", "json").json
    assert (proved["log"], proved["log_index"], proved["record"]["route_id"]) == (LOG, 0, "eu-1/a")


def test_a_partitions_log_that_grows_old_is_an_alarm(operator: Operator, run: Run) -> None:
    farm, status = operator.farm, ("status", *operator.store)
    operator.open()
    operator.submit(operator.lease("eu-1/a"), "ROUTE")
    assert run(*status, "-o", "json").json["alarms"] == []  # nothing of it is final: no head to grow old
    farm.finalize(at=int(time.time()) - 5_000, log=LOG)
    said = run(*status, "-o", "json").json
    assert [(one["code"], one["sentence"].partition(":")[0]) for one in said["alarms"]] == [
        ("SL-FRESHNESS", LOG)
    ]
    assert (said["stale"], said["logs"][0]["checkpoint_age_s"] >= 5_000) == (False, True)
    assert f"ALARM      SL-FRESHNESS: {LOG}: the final head of 1" in run(*status).out
    farm.finalize(log=LOG)
    assert run(*status, "-o", "json").json["alarms"] == []


def test_evidence_about_a_partitions_log_is_shown_and_settled(
    operator: Operator, run: Run, tmp_path: Path
) -> None:
    farm, store = operator.farm, operator.store
    operator.open()
    operator.submit(operator.lease("eu-1/a"), "ROUTE")
    operator.submit(operator.lease("eu-1/b"), "ROUTE")
    farm.finalize(log=LOG)
    held = farm.store.of(LOG)
    notes = [held.checkpoint(size) for size in (2, 1)]
    assert None not in notes
    held.rollback_keep(KeptRollback("gone", 1, 2, Rollback(notes[0] or b"", notes[1] or b""), 5))
    assert [one["code"] for one in run("status", *store, "-o", "json").json["alarms"]] == ["SL-ROLLBACK"]
    (back,) = run("evidence", *store, "--out", tmp_path / "proof", "-o", "json").json["rollbacks"]
    assert (back["log"], back["source"], back["over_at"]) == (LOG, "gone", None)
    assert [one.read_bytes() for one in sorted((tmp_path / "proof").iterdir())] == notes
    assert f"{LOG}  gone" in run("evidence", *store).out
    assert run("evidence", *store, "--over", "gone").code == 0
    assert run("status", *store, "-o", "json").json["alarms"] == []
    assert run("evidence", *store, "--over", "gone").code == 2


def test_a_second_writer_takes_a_partition_over(operator: Operator, run: Run) -> None:
    """The term is drafted from the partition's own log: its end and its root."""
    operator.open()
    operator.submit(operator.lease("eu-1/a"), "ROUTE")
    operator.farm.finalize(log=LOG)
    operator.open("sequencer-2")
    late = operator.lease("eu-1/b")
    assert "SL-TERM" in operator.submit(late, "ROUTE")
    assert f"entry 1 of {LOG}" in operator.submit(late, "ROUTE", writer="SEQUENCER_2")
    operator.farm.finalize(log=LOG)
    verified = run("verify", operator.farm.path, "--root", operator.farm.anchor)
    assert verified.code == 0, verified.out


def test_a_term_does_not_start_below_what_may_be_final(operator: Operator, run: Run) -> None:
    operator.open()
    operator.submit(operator.lease("eu-1/a"), "ROUTE")
    operator.farm.finalize(LOG)
    key = operator.enrolled("sequencer-2")
    common = ("propose", "log.term", "--log", LOG, "--sequencer", key, *operator.store)
    said = [part for n in (1, 2, 3) for part in ("--witness-size", f"witness-{n}.example=1")]
    out = operator.folder / "term.sigreq"
    low = run(*common, *said, "--start-size", 0, "--out", out)
    assert (low.code, "the log may be final up to 1" in low.err) == (2, True)
    few = run(*common, *said[:4], "--out", out)
    assert (few.code, "SL-FINALITY" in few.err) == (1, True)
    odd = run(*common, "--witness-size", "nobody=1", "--out", out)
    assert (odd.code, "those are witness-1.example" in odd.err) == (2, True)
    assert run(*common, *said, "--out", out).code == 0
    assert ceremony.decode_request(out.read_bytes()).record["start_size"] == 1


def test_a_log_that_is_not_there_is_said(operator: Operator, run: Run) -> None:
    said = run("log", *operator.store, "--log", LOG)
    assert (said.code, f"holds no entries of a log '{LOG}'; it holds authority" in said.err) == (2, True)


def test_leases_of_a_partition_are_due_at_half_their_life(
    operator: Operator, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator.open()
    assert "accepted" in operator.submit(operator.lease("eu-1/r7"), "ROUTE")
    ask = ("needs-renewal", *operator.store, "--within", "1s", "--kind", "route.lease", "-o", "json")
    assert run(*ask).json["due"] == []
    later = renewal.now() + 6 * 3_600 + 60  # a draft is valid for half of a day
    monkeypatch.setattr(renewal, "now", lambda: later)
    said = run(*ask)
    assert said.code == 1
    (lease,) = said.json["due"]
    assert (lease["subject"], lease["why"], lease["epoch"]) == (["eu-1/r7"], "half-life", 1)
