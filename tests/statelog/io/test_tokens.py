"""Keys in hardware tokens: which one a URI means, and what a wrong, locked or removed one says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from statelog.errors import Refused, UsageError
from statelog.io import tokens
from statelog.io.tokens import open_token_key, parse_uri
from statelog.signing import SeedSigner
from tests.support.keysources import PIN, SO_PIN, Tokens, set_all, soft_tokens

ALICE, BOB = bytes(range(32)), bytes(range(1, 33))
URI = "pkcs11:token=alice;object=authority"


@pytest.fixture
def soft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tokens]:
    monkeypatch.setenv("SOFTHSM2_CONF", "")  # put back what it was, whatever `soft_tokens` sets
    made = soft_tokens(tmp_path)
    set_all(monkeypatch, made.environment)
    return made


def test_a_key_is_named_by_label_or_id(soft: Tokens) -> None:
    soft.add("alice", ALICE, BOB)
    alice, bob = SeedSigner(ALICE).public, SeedSigner(BOB).public
    assert open_token_key(URI, None).public == alice
    assert open_token_key("pkcs11:token=alice;id=%02", None).public == bob
    assert open_token_key("pkcs11:token=alice;object=authority-2;id=%02;type=private", None).public == bob
    with pytest.raises(UsageError, match="2 private keys that fit"):
        open_token_key("pkcs11:token=alice", None)
    for absent in ("object=none", "id=%03", "object=authority;id=%02"):
        with pytest.raises(UsageError, match="no such private key"):
            open_token_key(f"pkcs11:token=alice;{absent}", None)


def test_a_token_is_named_by_label_serial_or_left_out(soft: Tokens) -> None:
    soft.add("alice", ALICE)
    assert open_token_key("pkcs11:object=authority", None).public == SeedSigner(ALICE).public
    soft.add("bob", BOB)
    with pytest.raises(UsageError, match="more than one token fits") as caught:
        open_token_key("pkcs11:object=authority", None)
    serial = str(caught.value).partition("bob (serial ")[2].partition(")")[0]
    assert open_token_key(f"pkcs11:serial={serial}", None).public == SeedSigner(BOB).public
    with pytest.raises(UsageError, match="not plugged in"):
        open_token_key("pkcs11:token=carol;object=authority", None)
    with pytest.raises(UsageError, match="not plugged in"):
        open_token_key("pkcs11:token=alice;model=other", None)


def test_the_pin_comes_from_a_file_the_environment_or_a_person(
    soft: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft.add("alice", ALICE)
    right, wrong = tmp_path / "pin", tmp_path / "wrong"
    right.write_text(PIN + "\n")
    wrong.write_text("0000\n")

    def open_with(uri: str = URI, **answers: str) -> bytes:
        soft.refresh()  # logs out: a log-in is the process's
        for name in ("STATELOG_PIN", "STATELOG_PIN_FILE"):
            monkeypatch.delenv(name, raising=False)
        ask = (lambda _: answers["ask"]) if "ask" in answers else None
        set_all(monkeypatch, {name: value for name, value in answers.items() if name != "ask"})
        return open_token_key(uri, ask).public

    for uri, answers in (
        (f"{URI}?pin-source=file:{right}", {"STATELOG_PIN": "0000"}),
        (f"{URI}?pin-source={right}", {}),
        (URI, {"STATELOG_PIN": PIN, "STATELOG_PIN_FILE": str(wrong)}),
        (URI, {"STATELOG_PIN_FILE": str(right), "ask": "0000"}),
        (URI, {"ask": PIN}),
    ):
        assert open_with(uri, **answers) == SeedSigner(ALICE).public
    for uri, answers in (
        (f"{URI}?pin-source={wrong}", {}),
        (URI, {"STATELOG_PIN": "0000"}),
        (URI, {"ask": "0000"}),
    ):
        with pytest.raises(Refused) as caught:
            open_with(uri, **answers)
        assert caught.value.code == "SL-PASSPHRASE"
    with pytest.raises(UsageError, match="STATELOG_PIN_FILE"):
        open_with()


def test_a_passphrase_is_never_tried_as_a_pin(soft: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three wrong PINs lock many tokens for good."""
    soft.add("alice", ALICE)
    monkeypatch.setenv("STATELOG_PASSPHRASE", "0000")
    assert open_token_key(URI, None).public == SeedSigner(ALICE).public
    monkeypatch.delenv("STATELOG_PIN")
    with pytest.raises(UsageError, match="needs its PIN"):
        open_token_key(URI, None)


def test_a_key_of_another_type_or_without_public_half_is_refused(soft: Tokens) -> None:
    import pkcs11  # noqa: PLC0415 - only where the library is there

    soft.add("alice", ALICE)
    token = pkcs11.lib(soft.module).get_token(token_label="alice")
    with token.open(rw=True, user_pin=PIN) as session:
        session.generate_keypair(pkcs11.KeyType.RSA, 1024, store=True, label="rsa", id=b"\x09")
        (public,) = session.get_objects(
            {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PUBLIC_KEY, pkcs11.Attribute.LABEL: "authority"}
        )
        public.destroy()
    with pytest.raises(Refused, match=r"SL-KEYSOURCE.*CKK_EC_EDWARDS"):
        open_token_key("pkcs11:token=alice;object=rsa", None)
    with pytest.raises(UsageError, match="0 public keys"):
        open_token_key(URI, None)


def test_a_removed_token_signs_nothing_and_is_not_found_again(soft: Tokens) -> None:
    soft.add("alice", ALICE)
    key = open_token_key(URI, None)
    key.sign(b"x")
    soft.pull()
    with pytest.raises(Refused, match=r"SL-KEYSOURCE.*removed"):
        key.sign(b"x")
    soft.refresh()
    with pytest.raises(UsageError, match="not plugged in"):
        open_token_key(URI, None)


def test_a_token_that_signs_wrongly_is_refused(soft: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    soft.add("alice", ALICE)
    key = open_token_key(URI, None)
    other = tokens.TokenKey(key._key, SeedSigner(BOB).public, "token 'alice'")
    with pytest.raises(Refused, match=r"SL-KEYSOURCE.*does not verify"):
        other.sign(b"x")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        ("PinLocked", "locked after too many wrong PINs"),
        ("UserPinNotInitialized", "never set"),
        ("MechanismInvalid", "CKM_EDDSA"),
        ("DeviceRemoved", "removed"),
        ("TokenNotPresent", "removed"),
        ("SessionHandleInvalid", "removed"),
        ("GeneralError", "GeneralError"),
    ],
)
def test_what_hardware_says_is_translated(error: str, why: str) -> None:
    """SoftHSM cannot be brought to say all of it."""
    pkcs11 = pytest.importorskip("pkcs11")

    class Broken:
        label = "authority"

        def sign(self, *_: object, **__: object) -> bytes:
            raise getattr(pkcs11, error)

    with pytest.raises(Refused, match=f"SL-KEYSOURCE.*{why}"):
        tokens.TokenKey(Broken(), SeedSigner(ALICE).public, "token 'alice'").sign(b"x")


# -- the URI (RFC 7512) --


def test_attributes_are_split_and_kept_encoded() -> None:
    path, query = parse_uri("pkcs11:token=My%20token;id=%01%3b?module-path=/lib/p.so&pin-source=file:/pin")
    assert path == {"token": "My%20token", "id": "%01%3b"}
    assert query == {"module-path": "/lib/p.so", "pin-source": "file:/pin"}


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("pkcs11:token=a?pin-value=1234", "histories"),
        ("pkcs11:slot-id=0", "not understood"),
        ("pkcs11:token", "not understood"),
        ("pkcs11:token=", "not understood"),
        ("pkcs11:token=a;token=b", "not understood"),
        ("pkcs11:module-path=/x", "not understood"),
        ("pkcs11:token=a?token=b", "not understood"),
        ("pkcs11:token=a;type=public", "private key"),
        ("pkcs11:\x1b[2J", "not understood"),
    ],
)
def test_a_uri_that_is_not_understood_is_refused(uri: str, hint: str) -> None:
    with pytest.raises(UsageError, match=hint) as caught:
        parse_uri(uri)
    assert "\x1b" not in str(caught.value)


def test_the_library_is_named_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STATELOG_PKCS11_MODULE", raising=False)
    with pytest.raises(UsageError, match="STATELOG_PKCS11_MODULE"):
        open_token_key(URI, None)
    for module in (tmp_path / "none.so", Path(os.__file__)):
        with pytest.raises(UsageError, match="does not load"):
            open_token_key(f"{URI}?module-path={module}", None)


def test_the_officers_pin_does_not_open_it(soft: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    soft.add("alice", ALICE)
    monkeypatch.setenv("STATELOG_PIN", SO_PIN)
    with pytest.raises(Refused) as caught:
        open_token_key(URI, None)
    assert caught.value.code == "SL-PASSPHRASE"
