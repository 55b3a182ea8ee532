"""`statelog inspect`: exit codes, both forms, and what a store adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from statelog.cli import inspection
from statelog.io.store import Store
from statelog.signing import encode_base64
from statelog.wording import digest_words
from tests.statelog.cli.conftest import Farm, Run


@pytest.fixture
def where(farm: Farm) -> tuple[object, ...]:
    return ("--store", farm.path, "--root", farm.anchor)


@pytest.fixture
def request_file(farm: Farm, run: Run, tmp_path: Path, where: tuple[object, ...]) -> Path:
    (tmp_path / "d.json").write_text("{}")
    path = tmp_path / "p.sigreq"
    draft = ("propose", "policy.epoch", "--policy", "p", "--document", tmp_path / "d.json", "--out", path)
    assert run(*draft, *where).code == 0
    assert run("sign", path, "--key", "env:KEY_CONTROL_1", *where, stdin="y\n").code == 0
    return path


def test_a_request_with_and_without_a_store(
    farm: Farm, request_file: Path, run: Run, where: tuple[object, ...]
) -> None:
    alone = run("inspect", request_file)
    assert (alone.code, "\nunknown key " in alone.out, "give --store" in alone.out) == (0, True, True)
    known = run("inspect", request_file, *where)
    assert (known.code, "right" in known.out, "unknown key" in known.out) == (0, True, False)
    body = run("inspect", request_file, *where, "-o", "json").json
    assert (body["schema"], body["what"], body["sound"]) == ("statelog.inspect.v1", "signing request", True)
    assert body["in_words"] == digest_words(bytes.fromhex(body["digest"]))
    assert [one["verdict"] for one in body["signatures"]] == ["right"]
    piped = run("inspect", "-", stdin=request_file.read_text())
    assert (piped.code, body["digest"] in piped.out) == (0, True)


def test_a_wrong_signature_is_exit_1(
    farm: Farm, request_file: Path, run: Run, where: tuple[object, ...]
) -> None:
    value = encode_base64(bytes(64))
    before = request_file.read_text()
    start = before.index('"value":"') + len('"value":"')
    request_file.write_text(before[:start] + value + before[start + len(value) :])
    said = run("inspect", request_file, *where)
    assert (said.code, "WRONG" in said.out) == (1, True)
    assert run("inspect", request_file, *where, "-o", "json").json["sound"] is False


def test_a_checkpoint_against_a_store_and_against_tiles(
    farm: Farm, run: Run, tmp_path: Path, where: tuple[object, ...]
) -> None:
    tiles = tmp_path / "tiles"
    assert run("export", *where, tiles).code == 0
    for ground in (farm.path, tiles):
        said = run("inspect", tiles / "checkpoint", "--store", ground, "--root", farm.anchor)
        assert said.code == 0, said.err
        assert "is a       checkpoint" in said.out
        assert said.out.count("right") >= 4
        assert "unknown key" not in said.out


def test_a_proof_needs_only_the_anchor(
    farm: Farm, run: Run, tmp_path: Path, where: tuple[object, ...]
) -> None:
    proof = tmp_path / "p.tlog-proof"
    assert run("prove", 1, *where, "--out", proof).code == 0
    unread = run("inspect", proof)
    assert (unread.code, "not checked" in unread.out) == (0, True)
    good = run("inspect", proof, "--root", farm.anchor)
    assert (good.code, "cosigned" in good.out) == (0, True)
    bad = run("inspect", proof, "--root", "ab" * 32)
    assert (bad.code, "SL-ANCHOR" in bad.out) == (1, True)


def test_an_entry_of_the_store(farm: Farm, run: Run, tmp_path: Path, where: tuple[object, ...]) -> None:
    store: Store = farm.store
    (entry,) = store.entries(2, 3)
    (tmp_path / "leaf").write_bytes(entry.leaf)
    said = run("inspect", tmp_path / "leaf", *where, "-o", "json").json
    assert (said["what"], said["digest"]) == ("log entry", entry.leaf_hash.hex())
    assert {one["verdict"] for one in said["signatures"]} == {"right"}


def test_other_files_are_a_usage_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello")
    said = run("inspect", tmp_path / "x")
    assert (said.code, "no file of a ceremony" in said.err) == (2, True)
    assert run("inspect", tmp_path / "none").code == 2


def test_a_database_is_sent_to_the_commands_that_read_it(
    farm: Farm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        inspection, "MAX_ENVELOPES_BYTES", 1024
    )  # stores are larger than what else is looked at
    said = run("inspect", farm.path, "-o", "json")
    assert (said.code, said.json["error"]["code"]) == (2, "usage")
    for command in ("statelog verify", "statelog status"):
        assert command in said.json["error"]["sentence"]


def test_what_export_writes_as_envelopes(
    farm: Farm, run: Run, tmp_path: Path, where: tuple[object, ...]
) -> None:
    file = tmp_path / "records.jsonl"
    assert run("export", *where, "--dsse", file).code == 0
    said = run("inspect", file, *where, "-o", "json")
    assert (said.code, said.json["what"], said.json["sound"]) == (0, "DSSE envelopes", True)
    assert "authority.descriptor" in said.json["facts"]["holds"]
    assert "right" in said.json["facts"]["signatures"]
    text = run("inspect", file, *where)
    assert (text.code, "holds      1 of authority.descriptor" in text.out) == (0, True)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + lines[1].replace(b'"sig":"', b'"sig":"AAAA', 1))
    broken = run("inspect", file, *where)
    assert (broken.code, broken.out, broken.err.count("\n")) == (1, "", 1)
    assert "refused: SL-SHAPE at line 2.signatures[0].sig" in broken.err
