"""`statelog log`, `show` and `status`: what a store says, damaged entries included."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from statelog.signing import record_id_of
from tests.statelog.cli.conftest import Farm, Run
from tests.support.authority import make_cluster, node_id
from tests.support.logs import new_store


def test_the_log_is_listed(farm: Farm, run: Run) -> None:
    said = run("log", "--store", farm.path, "-o", "json").json
    size = farm.cluster.log.size
    assert (said["schema"], said["size"], said["final_size"]) == ("statelog.log.v1", size, size)
    assert [entry["index"] for entry in said["entries"]] == list(range(size))
    assert said["entries"][0]["kind"] == "authority.descriptor"
    assert said["entries"][0]["record_id"] == farm.anchor
    assert {(entry["bootstrap"], entry["final"], entry["damage"]) for entry in said["entries"]} == {
        (False, True, None)
    }
    table = run("log", "--store", farm.path).out
    assert "authority.members" in table
    assert f"{size} entries, final up to {size}" in table


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--last", "2"), [-2, -1]),
        (("--from", "3", "--last", "1"), [-1]),
        (("--kind", "log.term"), [1]),
        (("--kind", "node.approval", "--last", "1"), [-1]),
        (("--from", "1000"), []),
    ],
)
def test_parts_are_listed(farm: Farm, run: Run, options: tuple[str, ...], expected: list[int]) -> None:
    size = farm.cluster.log.size
    said = run("log", "--store", farm.path, *options, "-o", "json").json
    assert [entry["index"] for entry in said["entries"]] == [at % size for at in expected]


def test_an_entry_is_shown_by_index_id_and_prefix(farm: Farm, run: Run) -> None:
    by_index = run("show", 1, "--store", farm.path, "-o", "json").json
    assert (by_index["schema"], by_index["kind"], by_index["index"]) == ("statelog.entry.v1", "log.term", 1)
    assert "may append" in by_index["headline"]
    identifier = by_index["record_id"]
    assert record_id_of(by_index["record"]) == identifier
    assert run("show", identifier, "--store", farm.path, "-o", "json").json == by_index
    assert run("show", identifier[:8], "--store", farm.path, "-o", "json").json == by_index
    text = run("show", 1, "--store", farm.path).out
    assert identifier in text
    assert "signed by  keeper-of-control-1 as control-authority" in text


@pytest.mark.parametrize(
    ("which", "hint"), [("999", "no entry 999"), ("abc", "at least 6"), ("ffffffffff", "no records")]
)
def test_what_is_not_there_is_said(farm: Farm, run: Run, which: str, hint: str) -> None:
    said = run("show", which, "--store", farm.path)
    assert (said.code, hint in said.err) == (2, True)


def test_damaged_entries_are_listed_as_such(farm: Farm, run: Run) -> None:
    with sqlite3.connect(farm.path) as connection:
        connection.execute("UPDATE log_entry SET leaf = x'00' WHERE log_index = 2")
        shape = "CAST(replace(CAST(leaf AS TEXT), 'threshold', 'threshhold') AS BLOB)"
        connection.execute(f"UPDATE log_entry SET leaf = {shape} WHERE log_index = 3")  # noqa: S608 - a constant
    connection.close()
    entries = run("log", "--store", farm.path, "-o", "json").json["entries"]
    assert entries[2]["damage"] == "SL-LEAF"
    assert entries[3]["subject"] == "SL-SHAPE"
    assert entries[4]["damage"] is None
    assert "SL-LEAF" in run("log", "--store", farm.path).out
    assert "SL-LEAF" in run("show", 2, "--store", farm.path).out
    assert "not readable as a authority.members" in run("show", 3, "--store", farm.path).out


def test_development_and_unfinality_are_marked(run: Run, tmp_path: Path) -> None:
    cluster = make_cluster("development")
    engine, _ = new_store(tmp_path / "dev.db", cluster)
    engine.dispose()
    said = run("log", "--store", tmp_path / "dev.db", "-o", "json").json
    assert {(entry["bootstrap"], entry["final"]) for entry in said["entries"]} == {(True, False)}
    assert "bootstrap not final" in run("log", "--store", tmp_path / "dev.db").out
    status = run("status", "--store", tmp_path / "dev.db")
    assert "bootstrap" in status.out
    assert "no final head yet" in status.out
    assert "(not pinned)" in status.out
    assert cluster.anchor in status.err  # and a note that nobody pinned it


def test_the_status_of_a_store(farm: Farm, run: Run) -> None:
    farm.finalize()
    said = run("status", "--store", farm.path, "--root", farm.anchor, "-o", "json").json
    assert said["schema"] == "statelog.status.v1"
    assert (said["mode"], said["bootstrap"], said["pinned"]) == ("production", False, True)
    assert said["size"] == said["final_size"] == farm.cluster.log.size
    assert len(said["cosigned_by"]) == 4
    assert 0 <= said["checkpoint_age_s"] < 60
    assert (said["term"], said["outbox"], said["descriptor_epoch"]) == (1, 0, 1)


def test_one_witness_cannot_make_an_old_head_look_fresh(farm: Farm, run: Run) -> None:
    """f + 1 must be fresh: the second newest counts, whatever the newest claims."""
    assert run("status", "--store", farm.path, "-o", "json").json["alarms"] == []
    with farm.store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM cosignature")
    farm.finalize(at=int(time.time()) - 5000)
    farm.finalize(("witness-1",))
    said = run("status", "--store", farm.path, "--root", farm.anchor)
    assert "ALARM      SL-FRESHNESS: the final head" in said.out
    found = run("status", "--store", farm.path, "-o", "json").json
    assert (found["stale"], found["checkpoint_age_s"] >= 5000) == (True, True)
    farm.finalize(("witness-2",))
    assert run("status", "--store", farm.path, "-o", "json").json["alarms"] == []


def test_the_anchor_lies_beside_the_store(farm: Farm, run: Run) -> None:
    beside = farm.path.parent / "anchor"
    beside.write_text(farm.anchor + "\n")
    said = run("status", "--store", farm.path, "-o", "json")
    assert (said.json["pinned"], said.err) == (True, "")
    beside.write_text("0" * 64)
    wrong = run("status", "--store", farm.path)
    assert (wrong.code, farm.anchor in wrong.err) == (2, True)


def test_the_store_comes_from_the_environment(farm: Farm, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = run("log")
    assert (nowhere.code, "STATELOG_STORE" in nowhere.err) == (2, True)
    monkeypatch.setenv("STATELOG_STORE", str(farm.path))
    monkeypatch.setenv("STATELOG_ROOT", farm.anchor)
    assert run("log").code == 0
    assert run("status", "-o", "json").json["pinned"] is True


@pytest.mark.parametrize("store", ["absent.db", "mysql://x/y", "sqlite://", "nonsense://"])
def test_stores_that_are_none_are_usage(run: Run, store: str) -> None:
    said = run("log", "--store", store)
    assert said.code == 2
    assert said.err.count("\n") == 1


def test_text_from_a_record_cannot_draw_on_the_terminal(farm: Farm, run: Run) -> None:
    with sqlite3.connect(farm.path) as connection:
        red = "CAST(replace(CAST(leaf AS TEXT), ?, ?) AS BLOB)"
        values = (node_id("home-1"), "[red]" + "x" * 59)
        connection.execute(f"UPDATE log_entry SET leaf = {red}", values)  # noqa: S608 - a constant
        kind = ("rap.fabric.node.approval.v1", "rap.\\u001b[2J.v1")
        connection.execute(f"UPDATE log_entry SET leaf = {red} WHERE log_index = 6", kind)  # noqa: S608 - as above
    connection.close()
    for arguments in (("log",), ("show", 6), ("show", 1)):
        assert "\x1b" not in run(*arguments, "--store", farm.path).out
