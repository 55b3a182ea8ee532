"""Key files: what opens, what does not, and what a hostile file may not make us do."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest

from statelog import limits
from statelog.errors import Refused, UsageError
from statelog.io import keyfiles
from statelog.io.keyfiles import Cost, create_key_file, read_key_info
from statelog.io.signers import load_signer
from statelog.signing import verify

CHEAP = Cost(1, limits.KDF_MIN_MEMORY_BYTES)
SEED = bytes(range(32))
RIGHT = "correct horse"


@pytest.fixture(autouse=True)
def no_passphrase_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATELOG_PASSPHRASE", raising=False)
    monkeypatch.delenv("STATELOG_PASSPHRASE_FILE", raising=False)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "alice.key"
    create_key_file(path, "correct horse", name="alice", issuer_id="org-a", cost=CHEAP, seed=SEED)
    return path


def edit(path: Path, **changes: Any) -> None:
    envelope = orjson.loads(path.read_bytes())
    for name, value in changes.items():
        target = envelope["kdf"] if name in {"passes", "memory_bytes", "salt"} else envelope
        target[name] = value
    path.write_bytes(orjson.dumps(envelope))


def refused(code: str, source: str, passphrase: str | None = RIGHT) -> str:
    with pytest.raises(Refused) as caught:
        load_signer(source, passphrase)
    assert caught.value.finding.code == code
    return caught.value.finding.sentence


def test_a_key_signs_after_its_passphrase(key: Path) -> None:
    signer = load_signer(f"file:{key}", "correct horse")
    assert verify(signer.public, signer.sign(b"hello"), b"hello")
    assert not verify(signer.public, signer.sign(b"hello"), b"hellO")
    assert (signer.info.name, signer.info.issuer_id, signer.info.custody) == ("alice", "org-a", "offline")


def test_the_public_part_needs_no_passphrase(key: Path) -> None:
    assert read_key_info(key) == load_signer(f"file:{key}", "correct horse").info


def test_the_file_is_private_and_never_replaced(key: Path) -> None:
    before = key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with pytest.raises(UsageError, match="exists already"):
        create_key_file(key, "another", cost=CHEAP)
    assert key.read_bytes() == before
    assert [path.name for path in key.parent.iterdir()] == ["alice.key"]


def test_without_hard_links_the_file_is_still_exclusive(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.link", no_links)
    with pytest.raises(UsageError, match="exists already"):
        create_key_file(key, "another", cost=CHEAP)
    other = key.with_name("bob.key")
    assert create_key_file(other, "x", cost=CHEAP) == read_key_info(other)


def test_neither_the_seed_nor_the_passphrase_shows(key: Path) -> None:
    signer = load_signer(f"file:{key}", "correct horse")
    for secret in (SEED, base64.b64encode(SEED), b"correct horse", SEED.hex().encode()):
        assert secret not in key.read_bytes()
        assert secret.decode("latin-1") not in repr(signer)


def test_a_wrong_passphrase_has_its_own_code(key: Path) -> None:
    assert "passphrase" in refused("SL-PASSPHRASE", f"file:{key}", "correct horsE")


def test_the_passphrase_comes_from_the_environment_or_a_file(
    key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "passphrase"
    named.write_text("correct horse\nsecond line\n")
    monkeypatch.setenv("STATELOG_PASSPHRASE_FILE", str(named))
    assert load_signer(f"file:{key}").info.name == "alice"
    monkeypatch.setenv("STATELOG_PASSPHRASE", "not it")
    refused("SL-PASSPHRASE", f"file:{key}", None)
    monkeypatch.setenv("STATELOG_PASSPHRASE", "correct horse")
    assert load_signer(f"file:{key}").info.name == "alice"


def test_a_person_is_asked_last(key: Path) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "correct horse"

    assert load_signer(f"file:{key}", ask=ask).info.name == "alice"
    assert len(asked) == 1
    assert "alice" in asked[0]
    with pytest.raises(UsageError, match="STATELOG_PASSPHRASE"):
        load_signer(f"file:{key}")


@pytest.mark.parametrize("field", ["name", "issuer_id"])
def test_an_edited_public_part_does_not_open(key: Path, field: str) -> None:
    edit(key, **{field: "mallory"})
    assert getattr(read_key_info(key), field) == "mallory"  # readable, as anything unsigned is
    assert "edited" in refused("SL-KEYFILE", f"file:{key}")


def test_edited_custody_does_not_open(key: Path) -> None:
    edit(key, custody="hardware")
    assert "edited" in refused("SL-KEYFILE", f"file:{key}")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"memory_bytes": 100 << 30}, "memory"),
        ({"memory_bytes": 8192}, "memory"),
        ({"memory_bytes": "lots"}, "malformed"),
        ({"passes": 10_000}, "passes"),
        ({"passes": 0}, "passes"),
        ({"passes": True}, "malformed"),
        ({"cipher": "rot13"}, "cipher"),
        ({"schema": "statelog.keyfile.v2"}, "schema"),
        ({"key_id": "00" * 32}, "key_id"),
        ({"public": base64.b64encode(bytes(32)).decode()}, "key_id"),
        ({"public": "AA=="}, "malformed"),
        ({"salt": "AAAA"}, "malformed"),
        ({"custody": "borrowed"}, "custody"),
        ({"name": "x" * 1000}, "malformed"),
        ({"name": "bell\x07"}, "malformed"),
        ({"kdf": None}, "malformed"),
    ],
)
def test_hostile_fields_are_refused_before_any_work(
    key: Path, changes: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("the key derivation ran")

    monkeypatch.setattr(keyfiles, "_derive", never)
    edit(key, **changes)
    assert why in refused("SL-KEYFILE", f"file:{key}")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"schema":1}', b"PEM?" * 100])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "k"
    path.write_bytes(content)
    refused("SL-KEYFILE", f"file:{path}")


def test_an_oversized_file_is_refused(key: Path) -> None:
    key.write_bytes(key.read_bytes() + b" " * limits.KEY_FILE_MAX_BYTES)
    assert "too large" in refused("SL-KEYFILE", f"file:{key}")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("alice.key", "file:PATH"),
        ("file:", "file:PATH"),
        ("file:/nowhere/at/all", "no such file"),
        ("env:SL_TEST_UNSET", "not set"),
    ],
)
def test_sources_that_are_not_there_say_what_to_do(source: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        load_signer(source, "x")


def test_a_seed_in_the_environment(monkeypatch: pytest.MonkeyPatch, key: Path) -> None:
    monkeypatch.setenv("SL_TEST_SEED", base64.b64encode(SEED).decode() + "\n")
    assert load_signer("env:SL_TEST_SEED").public == read_key_info(key).public
    monkeypatch.setenv("SL_TEST_SEED", base64.b64encode(SEED[:31]).decode())
    refused("SL-KEYFILE", "env:SL_TEST_SEED")


@pytest.mark.parametrize(
    "options", [{"custody": "borrowed"}, {"passphrase": ""}, {"cost": Cost(3, 1 << 62)}, {"name": "x" * 1000}]
)
def test_nothing_is_written_for_a_bad_request(tmp_path: Path, options: dict[str, Any]) -> None:
    passphrase = options.pop("passphrase", "x")
    with pytest.raises((UsageError, Refused)):
        create_key_file(tmp_path / "k", passphrase, **{"cost": CHEAP, **options})
    assert list(tmp_path.iterdir()) == []
