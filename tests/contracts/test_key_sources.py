"""One contract for every place that a key can be in: file, variable, ssh-agent, hardware token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nacl.bindings import crypto_sign_seed_keypair

from statelog import ceremony, genesis, limits
from statelog.ceremony import Request
from statelog.errors import Refused, UsageError
from statelog.io.keyfiles import Cost, create_key_file
from statelog.io.signers import is_source, load_signer
from statelog.signing import key_id_of, verify
from tests.support.authority import make_cluster
from tests.support.keysources import seed_variable, set_all, soft_tokens, ssh_agent

# RFC 8032 section 7.1, TEST 3.
SEED = bytes.fromhex("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7")
PUBLIC = bytes.fromhex("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025")
MESSAGE = bytes.fromhex("af82")
SIGNATURE = bytes.fromhex(
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)
CLUSTER = "farm.abcdefghijklmnopqrstuvwxyz"


@dataclass
class Place:
    """A place with the key in it. `absent` names a key that is not there; `take` is how its owner takes the
    key away after it was opened (None where a process keeps the seed itself).
    """

    source: str
    absent: str
    passphrase: str | None = None
    take: Callable[[], None] | None = None
    environment: dict[str, str] = field(default_factory=dict)


def file_place(folder: Path, _: ExitStack) -> Place:
    path = folder / "a.key"
    create_key_file(path, "pass", cost=Cost(1, limits.KDF_MIN_MEMORY_BYTES), seed=SEED)
    return Place(f"file:{path}", f"file:{folder}/none.key", "pass")


def variable_place(_: Path, __: ExitStack) -> Place:
    return Place("env:SL_KEY", "env:SL_NO_KEY", environment={"SL_KEY": seed_variable(SEED)})


def agent_place(folder: Path, stack: ExitStack) -> Place:
    agent = stack.enter_context(ssh_agent(folder))
    agent.add(SEED, "alice@desk")
    agent.add(bytes(32), "bob@desk")
    return Place("agent:alice@desk", "agent:carol@desk", take=agent.empty, environment=agent.environment)


def token_place(folder: Path, _: ExitStack) -> Place:
    tokens = soft_tokens(folder)
    tokens.add("alice", SEED, bytes(32))
    uri = "pkcs11:token=alice;object="
    return Place(f"{uri}authority", f"{uri}none", take=tokens.pull, environment=tokens.environment)


PLACES = {"file": file_place, "env": variable_place, "agent": agent_place, "pkcs11": token_place}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for name in ("STATELOG_PASSPHRASE", "STATELOG_PASSPHRASE_FILE", "STATELOG_PIN", "STATELOG_PIN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SOFTHSM2_CONF", "")  # put back what it was, whatever `soft_tokens` sets
    with ExitStack() as stack:
        made = PLACES[request.param](tmp_path, stack)
        set_all(monkeypatch, made.environment)
        yield made


def test_it_is_a_source_and_opens_with_its_public_part(place: Place) -> None:
    assert is_source(place.source)
    key = load_signer(place.source, place.passphrase)
    assert (key.public, key.info.public, key.info.key_id) == (PUBLIC, PUBLIC, key_id_of(PUBLIC))
    assert key.info.name


@pytest.mark.parametrize("length", [0, 2, 60_000])
def test_it_signs_exactly_the_bytes(place: Place, length: int) -> None:
    key = load_signer(place.source, place.passphrase)
    message = MESSAGE if length == len(MESSAGE) else bytes(length)
    signature = key.sign(message)
    assert verify(PUBLIC, signature, message)
    assert not verify(PUBLIC, signature, message + b"\0")
    if message == MESSAGE:
        assert signature == SIGNATURE  # Ed25519 is deterministic: every place gives the RFC's own


def test_its_text_form_hides_the_secret(place: Place) -> None:
    text = repr(load_signer(place.source, place.passphrase))
    assert key_id_of(PUBLIC) in text
    for secret in (SEED.hex(), seed_variable(SEED), place.passphrase or "4321", str(SEED)):
        assert secret not in text


def test_many_threads_share_it(place: Place) -> None:
    key = load_signer(place.source, place.passphrase)
    messages = [b"message %d" % number for number in range(16)]
    with ThreadPoolExecutor(4) as pool:
        signatures = list(pool.map(key.sign, messages))
    assert all(verify(PUBLIC, one, message) for one, message in zip(signatures, messages, strict=True))


def test_it_proves_possession_and_signs_requests(place: Place) -> None:
    key = load_signer(place.source, place.passphrase)
    entry = genesis.key_entry(key, CLUSTER, "alice", "hardware")
    assert genesis.proved(entry, CLUSTER)
    assert not genesis.proved(entry, "other.abcdefghijklmnopqrstuvwxyz")
    cluster = make_cluster()
    draft = cluster.draft("policy.epoch", policy="p", document={}, assertions=[])
    draft.pop("signatures", None)
    signed = ceremony.attach(Request(draft), key, "alice", "control-authority")
    assert [one["key_id"] for one in signed.signatures] == [key.info.key_id]


def test_two_handles_live_side_by_side(place: Place) -> None:
    first, second = (load_signer(place.source, place.passphrase) for _ in range(2))
    assert first.sign(MESSAGE) == second.sign(MESSAGE) == SIGNATURE
    del first
    assert second.sign(MESSAGE) == SIGNATURE


def test_a_key_that_is_not_there_is_a_usage_error(place: Place) -> None:
    with pytest.raises(UsageError):
        load_signer(place.absent, place.passphrase)


def test_a_key_taken_away_after_opening_signs_nothing(place: Place) -> None:
    key = load_signer(place.source, place.passphrase)
    assert key.sign(MESSAGE) == SIGNATURE
    if place.take is None:  # a seed in this process's memory is out of its owner's reach
        return
    place.take()
    with pytest.raises(Refused) as caught:
        key.sign(MESSAGE)
    assert caught.value.code == "SL-KEYSOURCE"


def test_the_seed_is_the_rfc_vector() -> None:
    assert crypto_sign_seed_keypair(SEED)[0] == PUBLIC
