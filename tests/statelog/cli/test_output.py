"""`-o json` of every command, and the mark `bootstrap` on whatever development mode accepted."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import typer

from statelog import ceremony
from statelog.cli.main import app
from statelog.io.store import Store
from statelog.transport import to_text
from tests.statelog.cli.conftest import Farm, Run
from tests.statelog.cli.test_main import COMMANDS
from tests.support.authority import make_cluster
from tests.support.logs import new_store

NO_JSON = {
    ("witness", "serve"): "a server: it answers over HTTPS, and prints only where",
}


def parameters_of(path: tuple[str, ...]) -> list[Any]:
    command: Any = typer.main.get_command(app)
    for name in path:
        command = command.commands[name]
    return list(command.params)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_json_form(command: tuple[str, ...]) -> None:
    has = any("--output" in one.opts and "-o" in one.opts for one in parameters_of(command))
    assert has != (command in NO_JSON)


@pytest.fixture
def request_file(farm: Farm, run: Run, tmp_path: Path) -> Path:
    (tmp_path / "probe.json").write_text('{"allow": ["192.0.2.0/24"]}')
    path = tmp_path / "probe.sigreq"
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    made = run("propose", "policy.epoch", "--policy", "probe", "--document", tmp_path / "probe.json", *where)
    assert made.code == 0, made.err
    return path


def test_a_request_in_json_all_the_way(farm: Farm, run: Run, request_file: Path, tmp_path: Path) -> None:
    store = ("--store", farm.path, "--root", farm.anchor)
    digest = ceremony.decode_request(request_file.read_bytes()).record_id
    key = ("--key", "env:KEY_CONTROL_1")
    asked = run("sign", request_file, *key, *store, "-o", "json", stdin="y\n")
    assert (asked.code, asked.json["schema"], "--digest" in asked.err) == (2, "statelog.error.v1", True)
    assert run("sign", request_file, *key, *store, "--digest", digest, "--qr", "-o", "json").code == 2
    signed = run("sign", request_file, *key, *store, "--digest", digest, "-o", "json")
    assert signed.code == 0, signed.err
    assert (signed.json["schema"], signed.json["record_id"]) == ("statelog.sign.v1", digest)
    assert [one["role"] for one in signed.json["signed"]] == ["control-authority"]
    assert (signed.json["complete"], signed.json["bootstrap"]) == (False, False)

    loose = run("merge", request_file, "--out", tmp_path / "loose.sigreq", "-o", "json").json
    assert (loose["schema"], loose["checked"], loose["complete"]) == ("statelog.merge.v1", False, False)
    out = tmp_path / "merged.sigreq"
    merged = run("merge", request_file, "--out", out, *store, "-o", "json").json
    assert (merged["checked"], merged["quorums"][0]["missing"], merged["left_out"]) == (True, 1, [])
    assert merged["signatures"] == [signed.json["signed"][0]["key_id"]]

    text = run("request", "text", out, "-o", "json").json
    assert text == {
        "schema": "statelog.request-text.v1",
        "record_id": digest,
        "file": None,
        "text": to_text(out.read_bytes()),
    }
    codes = run("request", "qr", out, "-o", "json").json
    assert (codes["schema"], codes["files"]) == ("statelog.request-qr.v1", [])
    (tmp_path / "scanned").write_text("\n".join(codes["codes"]))
    back = run("request", "read", tmp_path / "scanned", "--out", tmp_path / "back.sigreq", "-o", "json").json
    assert (back["schema"], back["record_id"]) == ("statelog.request-read.v1", digest)
    assert (tmp_path / "back.sigreq").read_bytes() == out.read_bytes()
    drawn = run("request", "qr", out, "--out", tmp_path / "q.png", "-o", "json").json
    assert drawn["files"]
    assert all(Path(one).is_file() for one in drawn["files"])


def test_enroll_and_upgrade_in_json(farm: Farm, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "alice.json"
    options = ("--issuer", "alice", "--custody", "offline", "--out", out)
    made = run(
        "key", "enroll", "env:KEY_ROOT_1", "--cluster-id", farm.cluster.cluster_id, *options, "-o", "json"
    )
    assert made.code == 0, made.err
    assert (made.json["schema"], made.json["entry"]["issuer_id"]) == ("statelog.enroll.v1", "alice")
    upgraded = run("upgrade", "--store", farm.path, "-o", "json").json
    assert upgraded == {"schema": "statelog.upgrade.v1", "store": f"sqlite:///{farm.path}"}


# -- bootstrap --


@pytest.fixture
def infant(farm: Farm, tmp_path: Path) -> Farm:
    """A development cluster, wholly final."""
    cluster = make_cluster("development", now=int(time.time()) - 60)
    path = tmp_path / "development.db"
    engine, _ = new_store(path, cluster)
    made = Farm(path, cluster, Store(engine))
    made.finalize([one.removesuffix(".example") for one in _witness_names(cluster)])
    return made


def _witness_names(cluster: Any) -> list[str]:
    return [key.name for key in cluster.state.witnesses.keys]


@pytest.mark.parametrize("mode", ["development", "production"])
def test_what_development_accepted_is_marked_everywhere(
    farm: Farm, infant: Farm, run: Run, tmp_path: Path, mode: str
) -> None:
    here = infant if mode == "development" else farm
    store = ("--store", here.path, "--root", here.anchor)
    proof, request = tmp_path / "one.tlog-proof", tmp_path / "one.sigreq"
    (tmp_path / "probe.json").write_text('{"allow": ["192.0.2.0/24"]}')
    drafted = ("--policy", "probe", "--document", tmp_path / "probe.json", "--out", request)

    commands: list[tuple[Any, ...]] = [
        ("prove", 3, *store, "--out", proof),
        ("check-proof", proof, "--root", here.anchor),
        ("status", *store),
        ("show", 3, *store),
        ("needs-renewal", *store, "--within", "900d"),
        ("log", *store),
        ("diff", request, *store),
        ("status", request, *store),
    ]
    drafting = run("propose", "policy.epoch", *drafted, *store, "-o", "json")
    assert drafting.json["bootstrap"] is (mode == "development")
    for command in commands:
        said, text = run(*command, "-o", "json").json, run(*command).out
        items = said.get("due") or said.get("entries") or [said]
        assert {one["bootstrap"] for one in items} == {mode == "development"}, command
        assert ("bootstrap" in text) == (mode == "development"), command


def test_a_request_that_nobody_can_place_says_nothing_of_the_mode(run: Run, request_file: Path) -> None:
    said = run("diff", request_file, "--offline", "-o", "json").json
    assert said["bootstrap"] is None


def test_programs_are_told_in_one_shape_what_people_are_told(farm: Farm, run: Run, tmp_path: Path) -> None:
    tampered, store = tmp_path / "t.tlog-proof", ("--store", farm.path, "--root", farm.anchor)
    tampered.write_bytes(b"no proof")
    for command, exit_code, code in (
        (("status", "--store", tmp_path / "none"), 2, "usage"),
        (("log", "--bogus"), 2, "usage"),
        (("show", "4711", *store), 2, "usage"),
        (("check-proof", tampered, "--root", farm.anchor), 1, "SL-PROOF"),
        (("verify", tmp_path / "none", "--root", farm.anchor), 3, "unreadable"),
    ):
        for asked in (("-o", "json"), ("-ojson",), ("--output", "json"), ("--output=json",)):
            said = run(*command, *asked)
            assert (said.code, said.out.count("\n"), said.err.count("\n")) == (exit_code, 1, 1)
            assert (said.json["schema"], said.json["error"]["code"]) == ("statelog.error.v1", code)
            assert said.json["error"]["sentence"] in said.err
        assert run(*command).out == ""
    assert run("status", *store, "-o", "json").json["schema"] == "statelog.status.v1"
