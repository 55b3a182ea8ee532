"""Keys in an ssh-agent: which one is meant, and what a locked, absent or hostile agent may not do."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from statelog.errors import Refused, UsageError
from statelog.io import agent
from statelog.io.agent import Identity, identities, open_agent_key
from statelog.limits import AGENT_MAX_ANSWER_BYTES
from statelog.signing import SeedSigner, key_id_of
from tests.support.keysources import Agent, set_all, ssh_agent

ALICE, BOB = bytes(range(32)), bytes(range(1, 33))


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def blob_of(seed: bytes, kind: bytes = b"ssh-ed25519") -> bytes:
    return string(kind) + string(SeedSigner(seed).public)


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Agent]:
    with ssh_agent(tmp_path) as running:
        set_all(monkeypatch, running.environment)
        yield running


def test_a_key_is_named_by_comment_fingerprint_or_key_id(real: Agent) -> None:
    real.add(ALICE, "alice@desk")
    real.add(BOB, "bob@desk")
    (alice,) = [one for one in identities(real.environment["SSH_AUTH_SOCK"]) if one.comment == "alice@desk"]
    public = SeedSigner(ALICE).public
    for name in ("alice@desk", alice.fingerprint, key_id_of(public)):
        assert open_agent_key(name).public == public
    assert open_agent_key("bob@desk").public == SeedSigner(BOB).public


def test_without_a_name_there_must_be_one(real: Agent) -> None:
    real.add_other("ecdsa", "old")  # of a type that cannot sign, so it is no choice either
    real.add(ALICE, "alice@desk")
    assert open_agent_key("").info.name == "alice@desk"
    real.add(BOB, "bob@desk")
    with pytest.raises(UsageError, match=r"more than one .* SHA256:.*, SHA256:"):
        open_agent_key("")


def test_two_keys_with_one_comment_are_told_apart_by_fingerprint(real: Agent) -> None:
    real.add(ALICE, "same")
    real.add(BOB, "same")
    with pytest.raises(UsageError, match="by fingerprint"):
        open_agent_key("same")


@pytest.mark.parametrize("kind", ["ecdsa", "rsa"])
def test_a_key_of_another_type_is_refused(real: Agent, kind: str) -> None:
    real.add_other(kind, "old")
    for name in ("old", ""):
        with pytest.raises(Refused, match=f"SL-KEYSOURCE.*{kind}") as caught:
            open_agent_key(name)
        assert caught.value.code == "SL-KEYSOURCE"


def test_an_empty_or_locked_agent_says_what_to_do(real: Agent) -> None:
    with pytest.raises(UsageError, match="ssh-add"):
        open_agent_key("")
    real.add(ALICE, "alice@desk")
    key = open_agent_key("alice@desk")
    real.lock()
    with pytest.raises(UsageError, match="ssh-add -X"):
        open_agent_key("alice@desk")
    with pytest.raises(Refused, match="it is locked"):
        key.sign(b"x")


def test_an_absent_key_is_answered_with_what_is_there(real: Agent) -> None:
    real.add(ALICE, "alice@desk")
    with pytest.raises(UsageError, match="no key called 'carol'; it holds alice@desk"):
        open_agent_key("carol")


def test_no_agent_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(UsageError, match="SSH_AUTH_SOCK is not set"):
        open_agent_key("x")
    for path in (tmp_path / "nowhere", Path("/" + "x" * 200)):
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        with pytest.raises(UsageError, match="no ssh-agent answers"):
            open_agent_key("x")


def test_an_agent_that_went_away_signs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ssh_agent(tmp_path) as running:
        set_all(monkeypatch, running.environment)
        running.add(ALICE, "alice@desk")
        key = open_agent_key("alice@desk")
    with pytest.raises(Refused, match=r"SL-KEYSOURCE.*no ssh-agent answers"):
        key.sign(b"x")


# -- an agent that keeps no rules --


@pytest.fixture
def socket_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A place for a socket; its path may hold about 100 bytes, which a test's folder can exceed."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("SSH_AUTH_SOCK", f"{folder}/agent")
        yield f"{folder}/agent"


@contextmanager
def scripted(path: str, *answers: bytes) -> Iterator[None]:
    """An agent at `path` that reads a request and sends the next of `answers`, whatever was asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()

        def serve() -> None:
            for answer in answers:
                peer, _ = server.accept()
                with peer:
                    peer.recv(1 << 16)
                    peer.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()
            Path(path).unlink()


def listing(*pairs: tuple[bytes, bytes], count: int | None = None) -> bytes:
    body = struct.pack(">BI", 12, len(pairs) if count is None else count)
    return body + b"".join(string(blob) + string(comment) for blob, comment in pairs)


GOOD = listing((blob_of(ALICE), b"alice"))


def test_the_script_can_be_an_honest_agent(socket_path: str) -> None:
    signature = string(b"ssh-ed25519") + string(SeedSigner(ALICE).sign(b"x"))
    with scripted(socket_path, string(GOOD), string(bytes([14]) + string(signature))):
        assert open_agent_key("alice").sign(b"x") == SeedSigner(ALICE).sign(b"x")


@pytest.mark.parametrize(
    "answer",
    [
        string(b""),
        string(b"\x05"),
        string(b"\x0c"),
        string(b"\x0e" + GOOD[1:]),
        string(listing((blob_of(ALICE), b"alice"), count=2)),
        string(listing((blob_of(ALICE), b"alice"), count=2**32 - 1)),
        string(GOOD[:-1]),
        string(GOOD + b"\0\0\0\x01a"),
        string(GOOD + b"\xff"),
        string(listing((string(b"ssh-ed25519") + string(b"short"), b"a"))),
        string(listing((string(b"ssh-ed25519"), b"a"))),
        string(listing((b"\xff\xff\xff\xff", b"a"))),
        struct.pack(">I", AGENT_MAX_ANSWER_BYTES + 1),
        struct.pack(">I", 2**32 - 1),
    ],
)
def test_a_listing_that_is_none_is_refused(socket_path: str, answer: bytes) -> None:
    with scripted(socket_path, answer), pytest.raises(Refused, match="agent protocol") as caught:
        open_agent_key("alice")
    assert caught.value.code == "SL-KEYSOURCE"


def test_an_agent_that_hangs_up_is_no_agent(socket_path: str) -> None:
    for answer in (b"", string(GOOD)[:-3]):
        with scripted(socket_path, answer), pytest.raises(UsageError, match="hung up"):
            open_agent_key("alice")


@pytest.mark.parametrize(
    "signature",
    [
        string(b"ssh-ed25519") + string(bytes(64)),
        string(b"ssh-ed25519") + string(SeedSigner(ALICE).sign(b"another message")),
        string(b"ssh-ed25519") + string(SeedSigner(BOB).sign(b"x")),
        string(b"ssh-ed25519") + string(SeedSigner(ALICE).sign(b"x")[:63]),
        string(b"ssh-rsa") + string(SeedSigner(ALICE).sign(b"x")),
        string(b"ssh-ed25519"),
        b"\xff",
    ],
)
def test_a_signature_that_is_none_is_refused(socket_path: str, signature: bytes) -> None:
    with scripted(socket_path, string(GOOD), string(bytes([14]) + string(signature))):
        key = open_agent_key("alice")
        with pytest.raises(Refused) as caught:
            key.sign(b"x")
    assert caught.value.code == "SL-KEYSOURCE"


def test_a_comment_cannot_move_the_cursor() -> None:
    assert "\x1b" not in agent.AgentKey("path", Identity(blob_of(ALICE), "\x1b[2Jalice")).info.name
