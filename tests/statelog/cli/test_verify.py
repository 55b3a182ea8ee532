"""`statelog verify`: clean is clean, damage is named, and other packages may add checks."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from statelog.cli import verify
from statelog.findings import Finding
from tests.statelog.cli.conftest import Farm, Run
from tests.support.authority import make_cluster
from tests.support.logs import new_store


def install(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> None:
    found = {verify.CHECKS_GROUP: list(points)}
    monkeypatch.setattr(verify.metadata, "entry_points", lambda group: found.get(group, []))


@pytest.fixture(autouse=True)
def no_installed_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        changed = connection.execute(statement).rowcount
        assert changed == 1
    connection.close()


def test_a_sound_store_is_clean(farm: Farm, run: Run) -> None:
    said = run("verify", farm.path, "--root", farm.anchor)
    assert (said.code, said.err) == (0, "")
    assert said.out.endswith("clean\n")
    report = run("verify", f"sqlite:///{farm.path}", "--root", farm.anchor, "-o", "json").json
    size = farm.cluster.log.size
    assert report["schema"] == "statelog.verify.v1"
    assert (report["clean"], report["complete"], report["findings"]) == (True, True, [])
    assert (report["size"], report["final_size"], report["anchor"]) == (size, size, farm.anchor)
    assert report["signatures"] > 2 * size - 2
    assert (report["bootstrap_entries"], report["checks"]) == (0, ["log"])


def test_processes_change_nothing(farm: Farm, run: Run) -> None:
    alone = run("verify", farm.path, "--root", farm.anchor, "--jobs", 1, "-o", "json").json
    spread = run("verify", farm.path, "--root", farm.anchor, "--jobs", 2, "-o", "json").json
    assert {**alone, "signatures": 0} == {**spread, "signatures": 0}


LEAF = "replace(CAST(leaf AS TEXT), 'update-authority', 'observer-authority')"


@pytest.mark.parametrize(
    ("statement", "code", "index"),
    [
        ("UPDATE log_entry SET record_id = 'x' WHERE log_index = 3", "SL-STORED", 3),
        (f"UPDATE log_entry SET leaf = CAST({LEAF} AS BLOB) WHERE log_index = 3", "SL-SIG", 3),  # noqa: S608 - a constant
        ("DELETE FROM log_entry WHERE log_index = 4", "SL-STORED", 4),
        ("DELETE FROM checkpoint WHERE size = (SELECT max(size) FROM checkpoint)", "SL-TAIL", 2),
        ("UPDATE log_head SET final_root = zeroblob(32)", "SL-FINALITY", None),
    ],
)
def test_damage_is_named(farm: Farm, run: Run, statement: str, code: str, index: int | None) -> None:
    damage(farm.path, statement)
    said = run("verify", farm.path, "--root", farm.anchor, "-o", "json")
    assert (said.code, said.json["clean"]) == (1, False)
    found = said.json["findings"]
    assert code in {one["code"] for one in found}
    assert index is None or (code, index) in {(one["code"], one["log_index"]) for one in found}
    table = run("verify", farm.path, "--root", farm.anchor)
    assert table.code == 1
    assert code in table.out
    assert f"{len(found)} finding(s)" in table.out


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM cosignature WHERE name = 'witness-1.example'",  # three of four are enough
        "DELETE FROM checkpoint WHERE size = 2",  # older heads may be forgotten
    ],
)
def test_what_a_sound_store_may_lack(farm: Farm, run: Run, statement: str) -> None:
    damage(farm.path, statement)
    assert run("verify", farm.path, "--root", farm.anchor).code == 0


def test_the_anchor_decides(farm: Farm, run: Run, tmp_path: Path) -> None:
    other = run("verify", farm.path, "--root", "0" * 64, "-o", "json")
    assert other.code == 1
    assert {one["code"] for one in other.json["findings"]} >= {"SL-ANCHOR"}
    (tmp_path / "anchor").write_text(farm.anchor + "\n")
    assert run("verify", farm.path, "--root", tmp_path / "anchor").code == 0


def test_development_is_said(run: Run, tmp_path: Path) -> None:
    cluster = make_cluster("development")
    engine, _ = new_store(tmp_path / "dev.db", cluster)
    engine.dispose()
    said = run("verify", tmp_path / "dev.db", "--root", cluster.anchor, "-o", "json")
    assert said.json["bootstrap_entries"] == cluster.log.size
    assert {one["code"] for one in said.json["findings"]} == {"SL-NOTFINAL"}
    assert "accepted in development mode" in run("verify", tmp_path / "dev.db", "--root", cluster.anchor).out


def test_text_in_a_column_of_bytes_is_no_crash(farm: Farm, run: Run) -> None:
    damage(farm.path, "UPDATE log_entry SET leaf = CAST(leaf AS TEXT) WHERE log_index = 3")
    for command, sentence in (
        (("verify", farm.path, "--root", farm.anchor), "log_entry.leaf holds a value that is no BLOB"),
        (("log", "--store", farm.path), "a column of bytes holds str"),
    ):
        said = run(*command)
        assert (said.code, said.err.count("\n")) == (3, 1)
        assert sentence in said.err


@pytest.mark.parametrize(
    ("statement", "code", "sentence"),
    [
        ("UPDATE log_head SET size = 'many'", 3, "log_head.size holds a value that is no BIGINT"),
        (
            "UPDATE checkpoint SET size = x'07' WHERE rowid = 1",
            3,
            "checkpoint.size holds a value that is no BIGINT",
        ),
        (
            "UPDATE log_node SET log = x'07' WHERE level = 1 AND node_index = 0",
            3,
            "log_node.log holds a value that is no TEXT",
        ),
        (
            "UPDATE log_entry SET record_id = x'07' WHERE log_index = 3",
            3,
            "log_entry.record_id holds a value",
        ),
        ("UPDATE checkpoint SET size = 9223372036854775807 WHERE rowid = 1", 1, "SL-"),
        ("UPDATE log_node SET log = 'other' WHERE level = 1 AND node_index = 0", 1, "SL-STORED"),
    ],
)
def test_values_that_no_column_should_hold_are_no_crash(
    farm: Farm, run: Run, statement: str, code: int, sentence: str
) -> None:
    damage(farm.path, statement)
    said = run("verify", farm.path, "--root", farm.anchor)
    assert said.code == code
    assert sentence in said.err + said.out
    assert "Traceback" not in said.err


def test_a_value_longer_than_any_is_not_read(farm: Farm, run: Run) -> None:
    """The rows of a file that was made for it share the pages of their values: 256 of them are a batch."""
    damage(farm.path, "UPDATE log_entry SET leaf = zeroblob(262145) WHERE log_index = 3")
    said = run("verify", farm.path, "--root", farm.anchor)
    assert (said.code, said.err) == (3, f"statelog: the store failed: string or blob too big ({farm.path})\n")
    damage(farm.path, "UPDATE log_entry SET leaf = zeroblob(65535) WHERE log_index = 3")
    assert run("verify", farm.path, "--root", farm.anchor).code == 1


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_file_is_as_it_was_after_its_audit(sound_farm: Farm, run: Run, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "node.db"
    shutil.copyfile(sound_farm.path, path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute(f"PRAGMA journal_mode={mode}").fetchone() == (mode,)
    before = path.read_bytes()
    assert run("verify", path, "--root", sound_farm.anchor).code == 0
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("beside", ["-journal", "-wal", "-shm"])
def test_what_is_no_file_beside_a_file_is_not_waited_for(
    sound_farm: Farm, run: Run, tmp_path: Path, beside: str
) -> None:
    path, other = tmp_path / "node.db", tmp_path / f"node.db{beside}"
    shutil.copyfile(sound_farm.path, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=delete")
    os.mkfifo(other)
    (tmp_path / "link.db").symlink_to(path)
    for source in (path, tmp_path / "link.db"):
        said = run("verify", source, "--root", sound_farm.anchor)
        assert (said.code, said.err) == (3, f"statelog: {other} is not a file\n")
    other.unlink()
    assert run("verify", path, "--root", sound_farm.anchor).code == 0


@pytest.mark.parametrize("content", [None, b"", b"not a database at all" * 100])
def test_an_unreadable_source_is_exit_3(run: Run, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.db"
    if content is not None:
        path.write_bytes(content)
    said = run("verify", path, "--root", "0" * 64)
    assert said.code == 3
    assert said.err.startswith("statelog: ")
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("x.db",), "--root"),
        (("x.db", "--root", "short"), "short"),
        (("x.db", "--root", __file__), "64 hex digits"),
        (("http://logs.example/farm", "--root", "0" * 64), "not an https:// address"),
        (("https://logs.example/farm?x", "--root", "0" * 64), "address alone"),
        (("x.db", "--root", "0" * 64, "--jobs", "-1"), "--jobs"),
    ],
)
def test_usage_is_exit_2(run: Run, arguments: tuple[str, ...], hint: str) -> None:
    said = run("verify", *arguments)
    assert (said.code, hint in said.err) == (2, True)


# -- checks that other packages bring --


def complaining(engine: sa.Engine) -> list[Finding]:
    """A check that finds something, in the database it was handed."""
    with engine.connect() as connection:
        entries = connection.execute(sa.text("SELECT count(*) FROM log_entry")).scalar_one()
    return [Finding("SL-PROJECTION", f"one of {entries} rows differs", "node[x]", "a", "b", 3)]


def content(engine: sa.Engine) -> list[Finding]:
    """A check that finds nothing."""
    return []


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, f"tests.statelog.cli.test_verify:{value}", verify.CHECKS_GROUP)


def test_installed_checks_run(farm: Farm, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, point("rows", "content"))
    clean = run("verify", farm.path, "--root", farm.anchor, "-o", "json")
    assert (clean.code, clean.json["checks"]) == (0, ["log", "rows"])
    install(monkeypatch, point("rows", "content"), point("more", "complaining"))
    found = run("verify", farm.path, "--root", farm.anchor, "-o", "json")
    assert (found.code, found.json["checks"], found.json["clean"]) == (1, ["log", "rows", "more"], False)
    (finding,) = found.json["findings"]
    assert finding == {
        "log": None,
        "code": "SL-PROJECTION",
        "log_index": 3,
        "record_id": None,
        "path": "node[x]",
        "sentence": f"one of {farm.cluster.log.size} rows differs",
        "expected": "a",
        "found": "b",
    }


def test_a_check_that_does_not_load_is_no_clean_audit(
    farm: Farm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, point("gone", "absent"))
    said = run("verify", farm.path, "--root", farm.anchor)
    assert (said.code, "'gone'" in said.err) == (2, True)
    assert "clean" not in said.out


def test_checks_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[Any] = []
    monkeypatch.setattr(verify.metadata, "entry_points", lambda group: groups.append(group) or [])
    assert verify.installed_checks() == {}
    assert groups == ["statelog.checks"]
