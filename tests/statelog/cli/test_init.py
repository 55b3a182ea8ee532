"""`statelog init`: a cluster in one sitting, in several, and never by mistake."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from statelog import ceremony
from statelog.cli import init
from statelog.io.keyfiles import COSTS, Cost
from statelog.limits import KDF_MIN_MEMORY_BYTES
from tests.statelog.cli.conftest import Run
from tests.support.authority import node_id
from tests.support.keysources import seed_variable, set_all, soft_tokens, ssh_agent
from tests.support.users import not_root

NODE = node_id("control-1")
PRODUCTION = (
    *("--name", "farm", "--production", "--sequencer-node", NODE, "--cost", "interactive"),
    *("--witness", "w1", "--witness", "w2", "--witness", "w3", "--witness", "w4"),
    *("--recovery", "alice", "--recovery", "bob"),
)


@pytest.fixture(autouse=True)
def passphrase(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATELOG_PASSPHRASE", "correct horse")
    for name in ("SSH_AUTH_SOCK", "STATELOG_PKCS11_MODULE"):
        monkeypatch.delenv(name, raising=False)


def begin(run: Run, folder: Path, *options: Any) -> dict[str, Any]:
    said = run("init", folder, *options, "-o", "json")
    assert said.code == 0, said.err
    document: dict[str, Any] = said.json
    return document


def test_a_development_cluster_in_one_command(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "farm"
    made = begin(run, folder, "--name", "farm", "--development")
    assert (made["schema"], made["begun"]) == ("statelog.init.v1", True)
    assert made["cluster_id"].startswith("farm.")
    assert (folder / "anchor").read_text() == made["anchor"] + "\n"
    status = run("status", "--store", folder / "state.db", "-o", "json")
    assert (status.json["size"], status.json["pinned"], status.json["mode"]) == (2, True, "development")
    report = run("verify", folder / "state.db", "--root", folder / "anchor", "-o", "json").json
    assert {one["code"] for one in report["findings"]} == {"SL-NOTFINAL"}  # its witness has not seen it yet
    again = run("init", folder, "--name", "farm", "--development")
    assert (again.code, "begun already" in again.err) == (2, True)


@pytest.mark.parametrize(
    ("options", "cost"),
    [((), "interactive"), (("--cost", "sensitive"), "sensitive")],
)
def test_key_files_cost_what_was_asked(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], cost: str
) -> None:
    passes = {"interactive": 1, "moderate": 2, "sensitive": 3}
    for name, count in passes.items():
        monkeypatch.setitem(COSTS, name, Cost(count, KDF_MIN_MEMORY_BYTES))
    begin(run, tmp_path / "farm", "--name", "farm", "--development", *options)
    files = [orjson.loads(path.read_bytes()) for path in (tmp_path / "farm" / "keys").glob("*.key")]
    assert {file["kdf"]["passes"] for file in files} == {passes[cost]}
    assert len(files) == 5


def test_a_production_cluster_in_one_command(run: Run, tmp_path: Path) -> None:
    holders = [part for who in ("alice", "bob", "carol") for part in ("--root", who, "--control", who)]
    made = begin(run, tmp_path / "farm", *PRODUCTION, *holders)
    assert made["begun"]
    record = run("show", 0, "--store", tmp_path / "farm" / "state.db", "-o", "json").json["record"]
    assert (record["mode"], record["root"]["threshold"], record["control"]["threshold"]) == (
        "production",
        2,
        2,
    )
    assert (record["witnesses"]["threshold"], record["witnesses"]["faulty"]) == (3, 1)
    assert (record["recovery"]["threshold"], record["recovery"]["delay_s"]) == (2, 7 * 86_400)
    roots = {key["key_id"] for key in record["keys"] if key["custody"] == "offline"}
    assert roots == set(record["root"]["key_ids"])


def test_founders_hear_what_they_should_think_about_twice(run: Run, tmp_path: Path) -> None:
    two = [part for who in ("alice", "bob") for part in ("--root", who, "--control", who)]
    tight = run("init", tmp_path / "tight", *PRODUCTION, *two)
    assert (tight.code, "warning: root-authority keeps no spare signer" in tight.err) == (0, True)
    three = [*two, "--root", "carol", "--control", "carol"]
    assert "warning" not in run("init", tmp_path / "wide", *PRODUCTION, *three).err


def test_a_production_cluster_whose_founders_sign_at_home(run: Run, tmp_path: Path) -> None:
    cluster, folder = "farm.abcdefghijklmnopqrstuvwxyz", tmp_path / "farm"
    holders: list[Any] = []
    for who in ("alice", "bob"):
        for role, custody in (("root", "offline"), ("control", "online")):
            key, entry = tmp_path / f"{who}-{role}.key", tmp_path / f"{who}-{role}.json"
            new = ("key", "new", key, "--issuer", who, "--custody", custody, "--cost", "interactive")
            assert run(*new).code == 0
            enroll = ("key", "enroll", f"file:{key}", "--cluster-id", cluster, "--out", entry)
            assert run(*enroll).code == 0
            holders += [f"--{role}", f"{who}={entry}"]

    waiting = begin(run, folder, *PRODUCTION, *holders, "--cluster-id", cluster)
    assert (waiting["begun"], Path(waiting["waiting_for"]).name) == (False, "genesis.sigreq")
    assert (waiting["quorums"][0]["missing"], waiting["quorums"][0]["waiting"]) == (2, ["alice", "bob"])
    assert not (folder / "anchor").exists()

    request = folder / "genesis.sigreq"
    for who in ("alice", "bob"):
        signed = run("sign", request, "--key", f"file:{tmp_path / f'{who}-root.key'}", stdin="y\n")
        assert signed.code == 0, signed.err
        assert "nothing like it was there before" in signed.out
    stranger = run("sign", request, "--key", f"file:{tmp_path / 'alice-control.key'}", stdin="y\n")
    assert (stranger.code, "SL-ROLE" in stranger.err) == (1, True)

    waiting = begin(run, folder)
    assert Path(waiting["waiting_for"]).name == "term.sigreq"
    keys = [part for who in ("alice", "bob") for part in ("--key", f"file:{tmp_path / f'{who}-control.key'}")]
    made = begin(run, folder, *keys)
    assert (made["begun"], made["cluster_id"]) == (True, cluster)
    assert made["anchor"] == ceremony.decode_request(request.read_bytes()).record_id
    assert run("status", "--store", folder / "state.db").code == 0


def test_founders_keys_may_lie_in_agents_and_tokens(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "")  # put back what it was, whatever `soft_tokens` sets
    monkeypatch.setenv("KEY_BOB", seed_variable(bytes(range(1, 33))))
    tokens = soft_tokens(tmp_path)
    tokens.add("farm", bytes(range(2, 34)), bytes(range(3, 35)), bytes(range(4, 36)))
    set_all(monkeypatch, tokens.environment)
    with ssh_agent(tmp_path) as agent:
        set_all(monkeypatch, agent.environment)
        agent.add(bytes(range(32)), "alice@desk")
        holders = (
            *("--root", "alice=agent:alice@desk", "--root", "bob=pkcs11:token=farm;object=authority"),
            *("--control", "alice=pkcs11:token=farm;object=authority-2", "--control", "bob=env:KEY_BOB"),
            *("--sequencer", "pkcs11:token=farm;object=authority-3"),
        )
        made = begin(run, tmp_path / "farm", *PRODUCTION, *holders)
    assert made["begun"]
    store = tmp_path / "farm" / "state.db"
    record = run("show", 0, "--store", store, "-o", "json").json["record"]
    assert {(key["issuer_id"], key["custody"]) for key in record["keys"]} == {
        *(("alice", "offline"), ("bob", "hardware"), ("alice", "hardware"), ("bob", "online"))
    }
    report = run("verify", store, "--root", made["anchor"], "-o", "json").json
    assert {one["code"] for one in report["findings"]} == {"SL-NOTFINAL"}


def test_an_enrollment_of_another_cluster_or_person_is_refused(run: Run, tmp_path: Path) -> None:
    key, entry = tmp_path / "a.key", tmp_path / "a.json"
    assert run("key", "new", key, "--issuer", "alice", "--cost", "interactive").code == 0
    cluster = "farm.abcdefghijklmnopqrstuvwxyz"
    assert run("key", "enroll", f"file:{key}", "--cluster-id", cluster, "--out", entry).code == 0
    options = ("--development", "--root", f"alice={entry}")
    other = run("init", tmp_path / "x", "--name", "farm", *options)
    assert (other.code, "proves no key of farm." in other.err) == (2, True)
    bob = ("--development", "--root", f"bob={entry}", "--cluster-id", cluster)
    wrong = run("init", tmp_path / "y", *bob)
    assert (wrong.code, "of alice, not of bob" in wrong.err) == (2, True)
    for folder in ("x", "y"):
        assert not (tmp_path / folder / "genesis.sigreq").exists()


@pytest.mark.parametrize(
    ("options", "code", "hint"),
    [
        ((), 2, "--name"),
        (("--name", "farm"), 2, "--development or --production"),
        (("--name", "farm", "--production"), 2, "--root, repeated"),
        (("--name", "Farm!", "--development"), 2, "cluster name"),
        (("--name", "farm", "--development", "--cost", "free"), 2, "--cost"),
        (("--name", "farm", "--development", "--valid-for", "900d"), 1, "SL-VALIDITY"),
        (("--name", "farm", "--development", "--root-threshold", "2"), 1, "SL-THRESHOLD"),
        (("--name", "farm", "--development", "--root", "a=agent:"), 2, "no ssh-agent is here"),
        (("--name", "farm", "--development", "--root", "a=pkcs11:token=t"), 2, "STATELOG_PKCS11_MODULE"),
        (("--name", "farm", "--development", "--clock-skew", "1h"), 1, "SL-SHAPE at clock_skew_s"),
    ],
)
def test_nothing_begins_by_mistake(
    run: Run, tmp_path: Path, options: tuple[str, ...], code: int, hint: str
) -> None:
    said = run("init", tmp_path / "farm", *options)
    assert (said.code, hint in said.err) == (code, True), said.err
    for name in ("genesis.sigreq", "anchor", "state.db", "sequencer.json"):
        assert not (tmp_path / "farm" / name).exists()


def test_production_rules_hold_from_the_first_record(run: Run, tmp_path: Path) -> None:
    said = run("init", tmp_path / "farm", *PRODUCTION, "--root", "alice", "--control", "alice")
    assert (said.code, "SL-PRODUCTION" in said.err) == (1, True)


def test_the_wizard_asks_for_what_no_flag_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers = {
        "Name": "farm",
        "Mode": "development",
        "Holders of root": "ada",
        "Holders of control": "ada",
        "Holders of witness": "w1",
        "Holders of recovery": "",
    }

    def prompt(question: str, **_: Any) -> str:
        asked.append(question)
        return next(answer for start, answer in answers.items() if question.startswith(start))

    monkeypatch.setattr("typer.prompt", prompt)
    monkeypatch.setattr("statelog.cli.init.a_person_is_here", lambda: True)
    made = begin(run, tmp_path / "farm")
    assert made["begun"]
    assert len(asked) == len(answers)
    descriptor = orjson.loads((tmp_path / "farm" / "genesis.sigreq").read_bytes())["record"]
    assert {key["issuer_id"] for key in descriptor["keys"]} == {"ada"}


def test_development_by_its_option_asks_nothing_on_a_terminal(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("statelog.cli.init.a_person_is_here", lambda: True)
    monkeypatch.setattr("typer.prompt", lambda question, **_: pytest.fail(question))
    assert begin(run, tmp_path / "farm", "--name", "farm", "--development")["begun"]


class Cut(BaseException):
    """What a killed process does not catch either."""


WRITES = ("create_key_file", "write_replacing", "write_new", "open_database", "Sequencer.create")


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_run_after_one_that_was_cut_off_finishes_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    """At each thing that it writes, just before and just after."""
    cut_at = left = 1

    def cutting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0 and not after:
                raise Cut
            made = real(*arguments, **options)
            if left == 0:
                raise Cut
            return made

        return call

    for name in WRITES:
        real = init.Sequencer.create if "." in name else getattr(init, name)
        monkeypatch.setattr(f"statelog.cli.init.{name}", cutting(real))
    while True:
        folder = tmp_path / f"farm-{cut_at}"
        try:
            begin(run, folder, "--name", "farm", "--development")
        except Cut:
            kept = {
                path: path.read_bytes()
                for path in folder.rglob("*")
                if path.suffix in {".key", ""} and path.is_file()
            }
            left = -1
            if (folder / "anchor").exists():
                assert "begun already" in run("init", folder).err
                kept_anchor = (folder / "anchor").read_text().strip()
            else:
                kept_anchor = begin(run, folder, "--name", "farm", "--development")["anchor"]
            assert {path: path.read_bytes() for path in kept} == kept
            report = run("verify", folder / "state.db", "--root", kept_anchor, "-o", "json").json
            assert {one["code"] for one in report["findings"]} == {"SL-NOTFINAL"}
            cut_at += 1
            left = cut_at
        else:
            break
    assert cut_at > 8  # keys, two requests, the sequencer's entry, store, log, anchor


def test_the_store_of_another_cluster_is_left_alone(run: Run, tmp_path: Path) -> None:
    made = begin(run, tmp_path / "farm", "--name", "farm", "--development")
    store = tmp_path / "farm" / "state.db"
    before = store.read_bytes()
    said = run("init", tmp_path / "other", "--name", "other", "--development", "--store", store)
    assert (said.code, f"holds the log of anchor {made['anchor']}" in said.err) == (2, True)
    assert store.read_bytes() == before
    assert not (tmp_path / "other" / "anchor").exists()
    begin(run, tmp_path / "other", "--store", tmp_path / "other.db")


def test_what_init_says_to_look_with_runs_as_it_stands(run: Run, tmp_path: Path) -> None:
    said = run("init", tmp_path / "the farm", "--name", "farm", "--development")
    (look,) = [line for line in said.out.splitlines() if line.startswith("look ")]
    label, program, *words = shlex.split(look)
    assert (label, program) == ("look", "statelog")
    looked = run(*words)
    assert (looked.code, "anchor" in looked.out, looked.err) == (0, True, "")


def test_a_folder_that_cannot_be_one_is_usage(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, why in ((tmp_path / "file", "file exists"), (tmp_path / "file" / "x", "not a directory")):
        said = run("init", place, "--name", "farm", "--development")
        assert (said.code, said.out, said.err) == (2, "", f"statelog: {place}: {why}\n")
    (tmp_path / "empty").mkdir()
    begin(run, tmp_path / "empty", "--name", "farm", "--development")


@pytest.mark.parametrize(("mode", "inner"), [(0o000, "locked/anchor"), (0o555, "locked/keys")])
def test_a_folder_that_may_not_be_used_is_usage(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, inner: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a name from here passes no parent that is closed to nobody, too
    tmp_path.chmod(0o755)
    Path("locked").mkdir()
    Path("locked").chmod(mode)  # whatever the umask
    with not_root():
        said = run("init", "locked", "--name", "farm", "--development")
    assert (said.code, said.out, said.err) == (2, "", f"statelog: {inner}: permission denied\n")
    Path("locked").chmod(0o700)
    begin(run, Path("locked"), "--name", "farm", "--development")
