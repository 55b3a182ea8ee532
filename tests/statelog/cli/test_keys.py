"""`statelog key`: files that open again, lists that need no secret, enrollment."""

from __future__ import annotations

import stat
from pathlib import Path

import orjson
import pytest

from statelog.genesis import proved
from statelog.io.signers import load_signer
from tests.statelog.cli.conftest import Farm, Run
from tests.support.keysources import set_all, soft_tokens, ssh_agent

CLUSTER = "farm.abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(autouse=True)
def passphrase(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATELOG_PASSPHRASE", "correct horse")


def make(run: Run, path: Path, *options: str) -> dict[str, str]:
    said = run("key", "new", path, "--cost", "interactive", *options, "-o", "json")
    assert said.code == 0, said.err
    document: dict[str, str] = said.json
    return document


def test_a_new_key_opens_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    made = make(run, path, "--issuer", "org-a", "--custody", "online")
    assert (made["schema"], made["name"], made["issuer_id"]) == ("statelog.key.v1", "alice", "org-a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_signer(f"file:{path}").info.key_id == made["key_id"]
    assert run("key", "show", path, "-o", "json").json == made
    text = run("key", "show", path).out
    assert made["key_id"] in text
    assert "in words" in text


def test_keys_are_listed_without_a_passphrase(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = make(run, tmp_path / "a.key"), make(run, tmp_path / "b.key")
    monkeypatch.delenv("STATELOG_PASSPHRASE")
    said = run("key", "list", tmp_path, "-o", "json")
    assert [key["key_id"] for key in said.json["keys"]] == [first["key_id"], second["key_id"]]
    assert (said.code, said.json["unreadable"]) == (0, [])
    table = run("key", "list", tmp_path)
    assert (table.code, first["key_id"] in table.out, "left out" in table.out) == (0, True, False)


def test_a_list_of_keys_says_what_it_leaves_out(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.key").write_bytes(b"not one")
    (tmp_path / "b.key").mkdir()
    (tmp_path / "c.key").symlink_to("nowhere")
    made = make(run, tmp_path / "d.key")
    said = run("key", "list", tmp_path, "-o", "json")
    assert (said.code, said.err) == (1, "")
    assert [key["key_id"] for key in said.json["keys"]] == [made["key_id"]]
    left_out = ["a.key", "b.key", "c.key"]
    assert [Path(one["file"]).name for one in said.json["unreadable"]] == left_out
    table = run("key", "list", tmp_path)
    assert (table.code, made["key_id"] in table.out) == (1, True)
    for name in left_out:
        assert f"left out   {tmp_path / name}" in table.out


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (("--cost", "free"), "interactive, moderate, sensitive"),
        (("--custody", "borrowed"), "online, offline, hardware"),
    ],
)
def test_nothing_is_made_of_a_mistake(run: Run, tmp_path: Path, options: tuple[str, ...], hint: str) -> None:
    said = run("key", "new", tmp_path / "k.key", *options)
    assert (said.code, hint in said.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_never_replaced(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "k.key"
    make(run, path)
    before = path.read_bytes()
    said = run("key", "new", path)
    assert (said.code, "exists already" in said.err) == (2, True)
    assert path.read_bytes() == before


def test_a_passphrase_is_never_taken_from_a_pipe(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(run, tmp_path / "k.key")
    monkeypatch.delenv("STATELOG_PASSPHRASE")
    enroll = ("key", "enroll", f"file:{tmp_path / 'k.key'}", "--cluster-id", CLUSTER, "--out", tmp_path / "e")
    for command in (("key", "new", tmp_path / "n.key"), enroll):
        said = run(*command, stdin="correct horse\ncorrect horse\n")
        assert (said.code, "STATELOG_PASSPHRASE_FILE" in said.err) == (2, True)
    assert not (tmp_path / "n.key").exists()


def test_an_enrollment_proves_possession(run: Run, tmp_path: Path) -> None:
    key = make(run, tmp_path / "w.key", "--issuer", "owner")
    out = tmp_path / "w.json"
    enroll = ("key", "enroll", f"file:{tmp_path / 'w.key'}", "--cluster-id", CLUSTER, "--out", out)
    assert run(*enroll, "--name", "witness.example").code == 0
    entry = orjson.loads(out.read_bytes())
    assert (entry["key_id"], entry["issuer_id"], entry["name"]) == (key["key_id"], "owner", "witness.example")
    assert proved(entry, CLUSTER)
    twice = run(*enroll)
    assert (twice.code, "exists already" in twice.err) == (2, True)


def test_a_variable_needs_an_issuer(farm: Farm, run: Run, tmp_path: Path) -> None:
    enroll = ("key", "enroll", "env:KEY_ROOT_1", "--cluster-id", CLUSTER, "--out", tmp_path / "e.json")
    said = run(*enroll)
    assert (said.code, "--issuer" in said.err) == (2, True)
    assert run(*enroll, "--issuer", "alice").code == 0


def test_a_key_in_an_agent_is_shown_and_enrolled(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ssh_agent(tmp_path) as agent:
        set_all(monkeypatch, agent.environment)
        agent.add(bytes(range(32)), "alice@desk")
        shown = run("key", "show", "agent:", "-o", "json").json
        assert (shown["name"], shown["issuer_id"]) == ("alice@desk", "")
        enroll = ("key", "enroll", "agent:alice@desk", "--cluster-id", CLUSTER, "--out", tmp_path / "a.json")
        nobody = run(*enroll)
        assert (nobody.code, "give --issuer" in nobody.err) == (2, True)
        unknown = run(*enroll, "--issuer", "alice")
        assert (unknown.code, "how is alice@desk kept?" in unknown.err) == (2, True)
        borrowed = run(*enroll, "--issuer", "alice", "--custody", "borrowed")
        assert (borrowed.code, (tmp_path / "a.json").exists()) == (2, False)
        assert run(*enroll, "--issuer", "alice", "--custody", "offline").code == 0
    entry = orjson.loads((tmp_path / "a.json").read_bytes())
    assert (entry["key_id"], entry["custody"]) == (shown["key_id"], "offline")
    assert proved(entry, CLUSTER)


def test_a_key_in_a_token_is_enrolled_as_hardware(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTHSM2_CONF", "")  # put back what it was, whatever `soft_tokens` sets
    tokens = soft_tokens(tmp_path)
    set_all(monkeypatch, tokens.environment)
    tokens.add("alice", bytes(range(32)))
    source, out = "pkcs11:token=alice;object=authority", tmp_path / "a.json"
    assert run("key", "enroll", source, "--cluster-id", CLUSTER, "--issuer", "alice", "--out", out).code == 0
    entry = orjson.loads(out.read_bytes())
    assert entry["custody"] == "hardware"
    assert proved(entry, CLUSTER)
    tokens.pull()
    tokens.refresh()
    gone = run("key", "show", source)
    assert (gone.code, "not plugged in" in gone.err) == (2, True)


def test_a_wrong_passphrase_is_exit_1(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(run, tmp_path / "k.key")
    monkeypatch.setenv("STATELOG_PASSPHRASE", "wrong")
    out = tmp_path / "e.json"
    said = run("key", "enroll", f"file:{tmp_path / 'k.key'}", "--cluster-id", CLUSTER, "--out", out)
    assert (said.code, "SL-PASSPHRASE" in said.err, out.exists()) == (1, True, False)
