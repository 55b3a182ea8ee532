"""Signatures: DSSE's own bytes, and the one accept set that every verifier of a log must share."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256, sha512
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_scalarmult_ed25519_base_noclamp

from statelog.errors import Refused, UsageError
from statelog.signing import (
    SeedSigner,
    acceptable_public_key,
    add_signature,
    decode_base64,
    encode_base64,
    key_id_of,
    pae,
    payload_type_of,
    possession_bytes,
    public_from_base64,
    record_id_of,
    sign_record,
    signed_bytes,
    signed_bytes_of_decoded,
    verify,
)

L = 2**252 + 27742317777372353535851937790883648493  # order of the base point (RFC 8032 section 5.1)
P = 2**255 - 19
MESSAGE = b"a message"
KEY = SeedSigner(bytes(range(32)))
SIGNATURE = KEY.sign(MESSAGE)

# Every point of small order, canonical or not; the first eight are the torsion points of the curve.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "0100000000000000000000000000000000000000000000000000000000000080",  # non-canonical from here on
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
IDENTITY = bytes.fromhex(SMALL_ORDER[1])


def record(**more: Any) -> dict[str, Any]:
    return {"schema_version": "rap.fabric.policy.epoch.v1", "epoch": 1, **more}


# --- bytes ---


def test_pae_known_answer() -> None:
    """From the DSSE protocol specification."""
    expected = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert pae("http://example.com/HelloWorld", b"hello world") == expected


def test_pae_counts_bytes_of_utf8() -> None:
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


@given(st.text(max_size=9), st.binary(max_size=9), st.text(max_size=9), st.binary(max_size=9))
def test_pae_is_injective(kind: str, body: bytes, other_kind: str, other_body: bytes) -> None:
    assert (pae(kind, body) == pae(other_kind, other_body)) == ((kind, body) == (other_kind, other_body))


def test_signed_bytes_leave_the_signatures_out() -> None:
    bare = b'{"epoch":1,"schema_version":"rap.fabric.policy.epoch.v1"}'
    expected = b"DSSEv1 47 application/vnd.rap.fabric.policy.epoch.v1+json 57 " + bare
    assert signed_bytes(record()) == expected
    assert signed_bytes(record(signatures=["anything"])) == expected
    assert signed_bytes_of_decoded(record(signatures=["anything"])) == expected
    assert payload_type_of("x") == "application/vnd.x+json"


def test_record_id_is_the_hash_of_the_signed_bytes() -> None:
    assert record_id_of(record()) == sha256(signed_bytes(record())).hexdigest()
    assert record_id_of(record(signatures=[1])) == record_id_of(record())
    assert record_id_of(record(x=1)) != record_id_of(record())


@pytest.mark.parametrize(("broken", "code"), [({"epoch": 1}, "SL-SHAPE"), (record(epoch=-1), "SL-CANON")])
def test_what_is_no_record_has_no_signed_bytes(broken: dict[str, Any], code: str) -> None:
    with pytest.raises(Refused, match=code):
        signed_bytes(broken)


def test_possession_is_bound_to_cluster_issuer_and_key() -> None:
    a = possession_bytes("c", "i", "k")
    assert a.startswith(b"DSSEv1 55 application/vnd.rap.fabric.authority.possession.v1+json ")
    assert a.endswith(b'{"cluster_id":"c","issuer_id":"i","key_id":"k"}')
    others = {
        possession_bytes("d", "i", "k"),
        possession_bytes("c", "j", "k"),
        possession_bytes("c", "i", "l"),
    }
    assert len(others | {a}) == 4


# --- signing ---


def test_sign_and_verify() -> None:
    entry = sign_record(record(), KEY, "keeper", "control-authority")
    assert entry["key_id"] == key_id_of(KEY.public) == sha256(KEY.public).hexdigest()
    assert (entry["issuer_id"], entry["role"], entry["alg"]) == ("keeper", "control-authority", "ed25519")
    value = decode_base64(entry["value"])
    assert value is not None
    assert verify(KEY.public, value, signed_bytes(record()))
    assert not verify(KEY.public, value, signed_bytes(record(epoch=2)))


def test_signatures_are_sorted_and_once_per_key() -> None:
    signers = [SeedSigner(bytes([n]) * 32) for n in range(5)]
    signed: dict[str, Any] = record()
    for one in [*signers, signers[0]]:
        signed = add_signature(signed, sign_record(record(), one, "keeper", "role"))
    ids = [entry["key_id"] for entry in signed["signatures"]]
    assert ids == sorted({key_id_of(one.public) for one in signers})


def test_a_later_signature_of_a_key_replaces_the_earlier() -> None:
    first = add_signature(record(), sign_record(record(), KEY, "keeper", "old"))
    second = add_signature(first, sign_record(record(), KEY, "keeper", "new"))
    assert [entry["role"] for entry in second["signatures"]] == ["new"]
    assert [entry["role"] for entry in first["signatures"]] == ["old"]


def test_rfc_8032_known_answer() -> None:
    """RFC 8032 section 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    known = SeedSigner(seed)
    assert known.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert known.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert verify(known.public, known.sign(b"\x72"), b"\x72")


# --- the accept set ---
#
# Implementations of Ed25519 disagree on the cases below.  These tests pin what this product's verifier says,
# so that an upgrade of the library that changes its mind is noticed before it splits a log.


def little(value: int) -> bytes:
    return value.to_bytes(32, "little")


def test_the_ordinary_signature_is_accepted() -> None:
    assert verify(KEY.public, SIGNATURE, MESSAGE)


@pytest.mark.parametrize("multiple", [1, 2, 7])
def test_a_scalar_beyond_the_order_is_refused(multiple: int) -> None:
    """S + L satisfies the equation too: without this refusal signatures would be malleable."""
    scalar = int.from_bytes(SIGNATURE[32:], "little") + multiple * L
    assert not verify(KEY.public, SIGNATURE[:32] + little(scalar), MESSAGE)


@pytest.mark.parametrize("public", SMALL_ORDER)
def test_a_small_order_key_is_refused_everywhere(public: str) -> None:
    """With A of small order and S = 0, R = identity, "everything is signed"."""
    point = bytes.fromhex(public)
    assert not acceptable_public_key(point)
    for r in (IDENTITY, point):
        assert not verify(point, r + bytes(32), MESSAGE)


@pytest.mark.parametrize("r", SMALL_ORDER)
def test_a_small_order_commitment_is_refused(r: str) -> None:
    assert not verify(KEY.public, bytes.fromhex(r) + SIGNATURE[32:], MESSAGE)


def crafted(r: int, commitment: bytes) -> bytes:
    """A signature by the owner of the key for which the equation holds: R = r·B, S = r + k·a."""
    clamped = bytearray(sha512(bytes(range(32))).digest()[:32])
    clamped[0] &= 248
    clamped[31] = clamped[31] & 127 | 64
    k = int.from_bytes(sha512(commitment + KEY.public + MESSAGE).digest(), "little")
    return commitment + little((r + k * int.from_bytes(clamped, "little")) % L)


def test_a_small_order_commitment_is_refused_although_the_equation_holds() -> None:
    five = crypto_scalarmult_ed25519_base_noclamp(little(5))
    assert verify(KEY.public, crafted(5, five), MESSAGE)
    assert not verify(KEY.public, crafted(0, IDENTITY), MESSAGE)


@pytest.mark.parametrize("y", [P, P + 1, P + 3, 2**255 - 1])
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_a_non_canonical_key_is_refused(y: int, sign: int) -> None:
    point = little(y | sign)
    assert not acceptable_public_key(point)
    assert not verify(point, SIGNATURE, MESSAGE)


def test_a_key_with_a_small_order_component_is_not_enrolled() -> None:
    """A + T for T of order 2 is (−x, −y): on the curve, but outside the prime-order group."""
    y = int.from_bytes(KEY.public, "little") & (2**255 - 1)
    mirrored = little((P - y) | (0 if KEY.public[31] >> 7 else 1 << 255))
    assert acceptable_public_key(KEY.public)
    assert not acceptable_public_key(mirrored)


def test_a_point_off_the_curve_is_refused() -> None:
    assert not acceptable_public_key(little(2))
    assert not verify(little(2), SIGNATURE, MESSAGE)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_lengths(length: int) -> None:
    assert not acceptable_public_key(bytes(length))
    assert not verify(bytes(length), SIGNATURE, MESSAGE)
    assert not verify(KEY.public, SIGNATURE[:length] if length < 64 else SIGNATURE + b"\0", MESSAGE)


@given(st.integers(0, 511), st.binary(max_size=40))
def test_no_bit_may_flip(bit: int, message: bytes) -> None:
    signature = KEY.sign(message)
    flipped = bytearray(signature)
    flipped[bit // 8] ^= 1 << bit % 8
    assert verify(KEY.public, signature, message)
    assert not verify(KEY.public, bytes(flipped), message)
    assert not verify(KEY.public, signature, message + b"\0")


# --- base64 ---


@given(st.binary(max_size=70))
def test_base64_there_and_back(data: bytes) -> None:
    assert encode_base64(data) == b64encode(data).decode()
    assert decode_base64(encode_base64(data)) == data


@pytest.mark.parametrize(
    "text", ["QQ", "QQ=", "QR==", "QQ== ", "Q Q==", "QQ==\n", "-_8=", "QQ==QQ==", "é", "="]
)
def test_other_spellings_of_base64_are_refused(text: str) -> None:
    assert decode_base64(text) is None


def test_public_keys_for_tools() -> None:
    assert public_from_base64(encode_base64(KEY.public)) == KEY.public
    for text in ("", "QQ==", encode_base64(IDENTITY)):
        with pytest.raises(UsageError):
            public_from_base64(text)
