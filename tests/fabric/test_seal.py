"""The seal: keys that both ends agree on and nobody else has; records that cannot be altered."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from fabric.classes import Mode, TrafficClass
from fabric.errors import SealError
from fabric.identity import NodeIdentity
from fabric.seal import (
    RECORD_EMPTY,
    RECORD_END,
    TAG_BYTES,
    SealContext,
    StreamKeys,
    accept_answer,
    check_offer,
    make_answer,
    make_offer,
)
from fabric.wire import RouteRef
from statelog.signing import verify
from tests.support.fabric_frames import VECTORS
from tests.support.fabric_net import CLUSTER, identity

ONE, OTHER, STRANGER = identity(1), identity(2), identity(3)
EPHEMERAL_ONE, EPHEMERAL_OTHER = bytes([31]) * 32, bytes([32]) * 32
CONTEXT = SealContext(
    cluster_id=CLUSTER,
    initiator=ONE.node_id,
    responder=OTHER.node_id,
    uid=bytes(range(16)),
    service="echo",
    traffic_class=TrafficClass.BULK,
    mode=Mode.STREAM,
    route=RouteRef(route_id="r", epoch=4, position=1),
)


def agree(
    context: SealContext = CONTEXT, responders: SealContext | None = None
) -> tuple[StreamKeys, StreamKeys]:
    """Both ends' keys; `responders` is the context as the responder sees it."""
    seen = responders or context
    offer = make_offer(context, ONE, EPHEMERAL_ONE)
    check_offer(seen, offer)
    answer, responder = make_answer(seen, OTHER, offer, EPHEMERAL_OTHER)
    return accept_answer(context, offer, answer, EPHEMERAL_ONE), responder


def test_both_directions_open_and_each_has_its_own_key() -> None:
    initiator, responder = agree()
    record = initiator.seal(0, 0, b"hello")
    assert responder.open(0, 0, record) == b"hello"
    assert initiator.open(0, 0, responder.seal(0, 0, b"hello")) == b"hello"
    assert responder.seal(0, 0, b"hello") != record
    with pytest.raises(SealError, match="record_invalid"):
        initiator.open(0, 0, record)


CHANGES: list[dict[str, Any]] = [
    {"cluster_id": "other.bbbbbbbbbbbbbbbbbbbbbbbbbb"},
    {"responder": STRANGER.node_id},
    {"uid": bytes(16)},
    {"service": "echo2"},
    {"traffic_class": TrafficClass.INTERACTIVE},
    {"mode": Mode.PROBE},
    {"route": None},
    {"route": RouteRef(route_id="q", epoch=4, position=1)},
    {"route": RouteRef(route_id="r", epoch=5, position=1)},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_everything_but_the_position_is_under_the_initiators_signature(change: dict[str, Any]) -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    check_offer(CONTEXT, offer)
    with pytest.raises(SealError, match="seal_signature"):
        check_offer(replace(CONTEXT, **change), offer)


def test_a_relay_may_change_the_position() -> None:
    onward = replace(CONTEXT, route=RouteRef(route_id="r", epoch=4, position=2))
    initiator, responder = agree(responders=onward)
    assert responder.open(0, 0, initiator.seal(0, 0, b"x")) == b"x"


def test_only_the_expected_initiator_opens() -> None:
    with pytest.raises(SealError, match="seal_initiator"):
        check_offer(CONTEXT, make_offer(CONTEXT, STRANGER, EPHEMERAL_ONE))
    forged = msgspec.structs.replace(make_offer(CONTEXT, STRANGER, EPHEMERAL_ONE), public=ONE.public)
    with pytest.raises(SealError, match="seal_signature"):
        check_offer(CONTEXT, forged)


def test_another_key_in_the_offer_is_found_out() -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    other_key = make_offer(CONTEXT, STRANGER, EPHEMERAL_OTHER).key
    with pytest.raises(SealError, match="seal_signature"):
        check_offer(CONTEXT, msgspec.structs.replace(offer, key=other_key))


def test_only_the_addressed_responder_answers() -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    answer, _ = make_answer(CONTEXT, STRANGER, offer, EPHEMERAL_OTHER)
    with pytest.raises(SealError, match="seal_responder"):
        accept_answer(CONTEXT, offer, answer, EPHEMERAL_ONE)
    with pytest.raises(SealError, match="seal_signature"):
        accept_answer(CONTEXT, offer, msgspec.structs.replace(answer, public=OTHER.public), EPHEMERAL_ONE)


def test_an_answer_is_to_one_offer() -> None:
    """A recorded answer does not fit a new offer, though every name in it is the same."""
    first, second = (make_offer(CONTEXT, ONE, bytes([n]) * 32) for n in (1, 2))
    answer, _ = make_answer(CONTEXT, OTHER, first, EPHEMERAL_OTHER)
    assert accept_answer(CONTEXT, first, answer, bytes([1]) * 32)
    with pytest.raises(SealError, match="seal_signature"):
        accept_answer(CONTEXT, second, answer, bytes([2]) * 32)


def test_another_key_in_the_answer_is_found_out() -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    answer, _ = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER)
    with pytest.raises(SealError, match="seal_signature"):
        accept_answer(CONTEXT, offer, msgspec.structs.replace(answer, key=offer.key), EPHEMERAL_ONE)


def test_a_replayed_offer_gives_keys_that_the_replayer_has_not() -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    _, first = make_answer(CONTEXT, OTHER, offer, bytes([1]) * 32)
    _, second = make_answer(CONTEXT, OTHER, offer, bytes([2]) * 32)
    record = first.seal(0, 0, b"x")
    assert second.seal(0, 0, b"x") != record


LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]
"""Points of low order (RFC 7748 section 6.1 asks to refuse the zero result they give)."""


@pytest.mark.parametrize("key", LOW_ORDER, ids=bytes.hex)
def test_keys_of_low_order_are_refused_on_both_sides(key: bytes) -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    weak = msgspec.structs.replace(offer, key=key, signature=ONE.sign(CONTEXT.offer_bytes(key)))
    check_offer(CONTEXT, weak)
    with pytest.raises(SealError, match="seal_key"):
        make_answer(CONTEXT, OTHER, weak, EPHEMERAL_OTHER)
    answer, _ = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER)
    signed = OTHER.sign(CONTEXT.answer_bytes(offer.key, key, offer.signature))
    with pytest.raises(SealError, match="seal_key"):
        accept_answer(
            CONTEXT, offer, msgspec.structs.replace(answer, key=key, signature=signed), EPHEMERAL_ONE
        )


# -- records ---------------------------------------------------------------------------------------------


@given(
    st.binary(min_size=1, max_size=64),
    st.integers(0, 1 << 40),
    st.sampled_from([0, RECORD_END]),
    st.data(),
)
def test_a_record_opens_as_sealed_and_not_otherwise(
    plaintext: bytes, offset: int, flags: int, data: st.DataObject
) -> None:
    initiator, responder = agree()
    record = initiator.seal(offset, flags, plaintext)
    assert len(record) == len(plaintext) + TAG_BYTES
    assert responder.open(offset, flags, memoryview(record)) == plaintext
    at = data.draw(st.integers(0, len(record) - 1))
    flip = data.draw(st.integers(1, 255))
    altered = record[:at] + bytes([record[at] ^ flip]) + record[at + 1 :]
    for wrong in (
        (offset, flags, altered),
        (offset + 1, flags, record),
        (offset, flags ^ RECORD_END, record),
        (offset, flags | RECORD_EMPTY, record),
        (offset, flags, record[:-1]),
        (offset, flags, record[1:]),
    ):
        with pytest.raises(SealError, match="record_invalid"):
            responder.open(*wrong)


def test_a_resend_is_the_identical_ciphertext() -> None:
    initiator, _ = agree()
    assert initiator.seal(7, 0, b"same") == initiator.seal(7, 0, b"same")


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_keys_differ_wherever_the_transcript_does(change: dict[str, Any]) -> None:
    if "responder" in change:
        return_to = replace(CONTEXT, **change)
        offer = make_offer(return_to, ONE, EPHEMERAL_ONE)
        answer, keys = make_answer(return_to, STRANGER, offer, EPHEMERAL_OTHER)
        assert accept_answer(return_to, offer, answer, EPHEMERAL_ONE)
    else:
        _, keys = agree(replace(CONTEXT, **change))
    initiator, responder = agree()
    record = initiator.seal(0, 0, b"x")
    assert responder.open(0, 0, record) == b"x"
    with pytest.raises(SealError, match="record_invalid"):
        keys.open(0, 0, record)


# -- golden, worked out without fabric.seal --------------------------------------------------------------


def test_golden_seal_by_the_book() -> None:
    """docs/wire.md, "Sealed streams", followed step by step with nothing but primitives."""
    golden = VECTORS["seal"]
    raw = {name: bytes.fromhex(golden[name]) for name in golden if isinstance(golden[name], str)}
    one, other = (NodeIdentity.from_seed(raw[f"{end}_seed"]) for end in ("initiator", "responder"))
    offer_signed, answer_signed = (golden[part]["signed"].encode() for part in ("offer", "answer"))
    signatures = [bytes.fromhex(golden[part]["signature"]) for part in ("offer", "answer")]
    assert verify(one.public, signatures[0], offer_signed)
    assert verify(other.public, signatures[1], answer_signed)
    private = X25519PrivateKey.from_private_bytes(raw["initiator_ephemeral"])
    public = X25519PrivateKey.from_private_bytes(raw["responder_ephemeral"]).public_key().public_bytes_raw()
    assert public.hex().encode() in answer_signed
    assert sha256(signatures[0]).hexdigest().encode() in answer_signed
    transcript = sha256(offer_signed + signatures[0] + answer_signed + signatures[1]).digest()
    material = HKDF(SHA256(), 64, salt=None, info=b"rap-fabric/1 stream keys" + transcript).derive(
        private.exchange(X25519PublicKey.from_public_bytes(public))
    )
    keys = {"initiator": AESGCM(material[:32]), "responder": AESGCM(material[32:])}
    associated = bytes([4]) * 16 + bytes([TrafficClass.INTERACTIVE])
    for record in golden["records"]:
        nonce = struct.pack(">IQ", record["flags"], record["offset"])
        sealed = keys[record["from"]].encrypt(nonce, bytes.fromhex(record["plaintext"]), associated)
        assert sealed.hex() == record["ciphertext"]


def test_golden_seal_is_ours() -> None:
    golden = VECTORS["seal"]
    one, other = (
        NodeIdentity.from_seed(bytes.fromhex(golden[f"{end}_seed"])) for end in ("initiator", "responder")
    )
    context = SealContext(
        cluster_id=VECTORS["auth"]["cluster_id"],
        initiator=one.node_id,
        responder=other.node_id,
        uid=bytes([4]) * 16,
        service="forward/ssh",
        traffic_class=TrafficClass.INTERACTIVE,
        mode=Mode.STREAM,
        route=RouteRef(route_id="route-7", epoch=41, position=1),
    )
    offer = make_offer(context, one, bytes.fromhex(golden["initiator_ephemeral"]))
    assert context.offer_bytes(offer.key).decode() == golden["offer"]["signed"]
    answer, responder = make_answer(context, other, offer, bytes.fromhex(golden["responder_ephemeral"]))
    assert answer.signature.hex() == golden["answer"]["signature"]
    record = next(one for one in golden["records"] if one["plaintext"] == b"hello".hex())
    assert responder.open(record["offset"], record["flags"], bytes.fromhex(record["ciphertext"])) == b"hello"
