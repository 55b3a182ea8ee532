"""The seal: keys that both ends agree on and nobody else has; records that cannot be altered."""

from __future__ import annotations

import struct
from dataclasses import replace
from hashlib import sha256
from itertools import permutations
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
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
    _ready,
    accept_answer,
    check_offer,
    make_answer,
    make_offer,
    sign_answer,
)
from fabric.wire import AES_256_GCM, CHACHA20_POLY1305, SUITES, RouteRef, SealAnswer, SealOffer
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


every_suite = pytest.mark.parametrize("suite", SUITES)


def agree(
    context: SealContext = CONTEXT,
    responders: SealContext | None = None,
    suites: tuple[str, ...] = SUITES,
) -> tuple[StreamKeys, StreamKeys]:
    """Both ends' keys; `responders` is the context as the responder sees it."""
    seen = responders or context
    offer = make_offer(context, ONE, EPHEMERAL_ONE, suites)
    check_offer(seen, offer)
    answer, responder = make_answer(seen, OTHER, offer, EPHEMERAL_OTHER)
    return accept_answer(context, offer, answer, EPHEMERAL_ONE), responder


@every_suite
def test_both_directions_open_and_each_has_its_own_key(suite: str) -> None:
    initiator, responder = agree(suites=(suite,))
    assert initiator.suite == responder.suite == suite
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
    weak = msgspec.structs.replace(offer, key=key, signature=ONE.sign(CONTEXT.offer_bytes(key, SUITES)))
    check_offer(CONTEXT, weak)
    with pytest.raises(SealError, match="seal_key"):
        make_answer(CONTEXT, OTHER, weak, EPHEMERAL_OTHER)
    answer, _ = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER)
    signed = OTHER.sign(CONTEXT.answer_bytes(offer, key, answer.suite))
    with pytest.raises(SealError, match="seal_key"):
        accept_answer(
            CONTEXT, offer, msgspec.structs.replace(answer, key=key, signature=signed), EPHEMERAL_ONE
        )


# -- suites ----------------------------------------------------------------------------------------------

names = st.sampled_from([*SUITES, "aegis-256", "x"])
UNKNOWN = ("aegis-256", AES_256_GCM, "x")


@given(st.lists(names, min_size=1, max_size=8), st.permutations(SUITES))
def test_the_responder_takes_the_first_of_its_own_that_was_offered(
    offered: list[str], own: list[str]
) -> None:
    """Whatever else is in the list, which is signed whole, and however it is ordered."""
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE, tuple(offered))
    check_offer(CONTEXT, offer)
    common = [one for one in own if one in offered]
    if not common:
        with pytest.raises(SealError, match="seal_suite"):
            make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER, tuple(own))
        return
    answer, responder = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER, tuple(own))
    initiator = accept_answer(CONTEXT, offer, answer, EPHEMERAL_ONE)
    assert initiator.suite == responder.suite == common[0]
    assert responder.open(0, 0, initiator.seal(0, 0, b"x")) == b"x"


@given(
    st.lists(names, min_size=1, max_size=8).map(tuple),
    st.lists(names, max_size=8),
)
def test_a_list_that_was_changed_on_the_way_is_no_offer(sent: tuple[str, ...], arrived: list[str]) -> None:
    """Stripped, shortened, reordered, lengthened: only the same list, or none for AES alone, holds."""
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE, sent)
    changed = msgspec.structs.replace(offer, suites=arrived)
    if changed.offered == sent:
        check_offer(CONTEXT, changed)
        return
    with pytest.raises(SealError, match="seal_signature"):
        check_offer(CONTEXT, changed)


def test_an_answer_is_to_the_list_that_the_initiator_sent() -> None:
    """Even a responder that would let a changed list pass answers it in vain."""
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE, (CHACHA20_POLY1305, AES_256_GCM))
    for changed in ([], [AES_256_GCM], [AES_256_GCM, CHACHA20_POLY1305], [CHACHA20_POLY1305, "x"]):
        seen = msgspec.structs.replace(offer, suites=changed)
        answer, _ = make_answer(CONTEXT, OTHER, seen, EPHEMERAL_OTHER)
        with pytest.raises(SealError, match="seal_signature"):
            accept_answer(CONTEXT, offer, answer, EPHEMERAL_ONE)
    answer, _ = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER)
    assert accept_answer(CONTEXT, offer, answer, EPHEMERAL_ONE)


def test_another_choice_in_the_answer_is_found_out() -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    for own in permutations(SUITES):
        answer, _ = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER, own)
        assert accept_answer(CONTEXT, offer, answer, EPHEMERAL_ONE).suite == own[0]
        for other in (own[1], "x"):
            with pytest.raises(SealError, match="seal_signature"):
                accept_answer(CONTEXT, offer, msgspec.structs.replace(answer, suite=other), EPHEMERAL_ONE)


@pytest.mark.parametrize("choice", [CHACHA20_POLY1305, "x"])
def test_a_responder_may_not_choose_what_was_not_offered(choice: str) -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE, (AES_256_GCM,))
    genuine, _ = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER)
    assert accept_answer(CONTEXT, offer, genuine, EPHEMERAL_ONE).suite == AES_256_GCM
    with pytest.raises(SealError, match="seal_suite"):
        accept_answer(CONTEXT, offer, sign_answer(CONTEXT, OTHER, offer, genuine.key, choice), EPHEMERAL_ONE)


def test_a_peer_of_a_build_without_the_list_takes_aes_and_its_bytes_stay() -> None:
    """Both ways: its offer is answered, and an offer of AES alone is one that it can read."""
    signed = VECTORS["seal"]["offer"]["signed"]
    assert signed.endswith('"suites":["aes-256-gcm"]}')
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE, (AES_256_GCM,))
    assert msgspec.to_builtins(offer).keys() == {"key", "public", "signature"}
    answer, responder = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER, (CHACHA20_POLY1305, AES_256_GCM))
    assert msgspec.to_builtins(answer).keys() == {"key", "public", "signature"}
    assert b'"suites"' not in CONTEXT.answer_bytes(offer, answer.key, answer.suite)
    assert responder.suite == AES_256_GCM
    with pytest.raises(SealError, match="seal_suite"):
        make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER, (CHACHA20_POLY1305,))


def test_a_list_of_aes_alone_is_the_same_as_none() -> None:
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE, (AES_256_GCM,))
    written = msgspec.structs.replace(offer, suites=[AES_256_GCM])
    check_offer(CONTEXT, written)
    answer, _ = make_answer(CONTEXT, OTHER, written, EPHEMERAL_OTHER)
    assert accept_answer(CONTEXT, offer, answer, EPHEMERAL_ONE).suite == AES_256_GCM


@pytest.mark.parametrize("suites", [[], ["AES"], [""], ["x" * 33], ["x"] * 9])
def test_a_list_has_bounds(suites: list[str]) -> None:
    fields = msgspec.to_builtins(make_offer(CONTEXT, ONE, EPHEMERAL_ONE, UNKNOWN), builtin_types=(bytes,))
    assert msgspec.convert(fields, SealOffer).offered == UNKNOWN
    with pytest.raises(msgspec.ValidationError, match="suites"):
        msgspec.convert(fields | {"suites": suites}, SealOffer)


def test_streams_share_the_text_of_their_suite() -> None:
    """The frame of each brings its own; an idle stream keeps none of it."""
    offer = make_offer(CONTEXT, ONE, EPHEMERAL_ONE)
    answer, _ = make_answer(CONTEXT, OTHER, offer, EPHEMERAL_OTHER, (CHACHA20_POLY1305,))
    arrived = msgspec.msgpack.decode(msgspec.msgpack.encode(answer), type=SealAnswer)
    assert arrived.suite is not CHACHA20_POLY1305
    assert accept_answer(CONTEXT, offer, arrived, EPHEMERAL_ONE).suite is CHACHA20_POLY1305


# -- records ---------------------------------------------------------------------------------------------


@given(
    st.binary(min_size=1, max_size=64),
    st.integers(0, 1 << 40),
    st.sampled_from([0, RECORD_END]),
    st.sampled_from(SUITES),
    st.data(),
)
def test_a_record_opens_as_sealed_and_not_otherwise(
    plaintext: bytes, offset: int, flags: int, suite: str, data: st.DataObject
) -> None:
    initiator, responder = agree(suites=(suite,))
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


@every_suite
def test_a_resend_is_the_identical_ciphertext(suite: str) -> None:
    initiator, _ = agree(suites=(suite,))
    record = initiator.seal(7, 0, b"same")
    _ready.cache_clear()
    assert initiator.seal(7, 0, b"same") == record


def test_one_cipher_does_not_open_what_the_other_sealed() -> None:
    """Not even under the same secret, which no two suites have."""
    sealing, opening = (
        [
            StreamKeys(bytes(64), bytes(16), TrafficClass.BULK, initiator=initiator, suite=suite)
            for suite in SUITES
        ]
        for initiator in (True, False)
    )
    for suite, keys in zip(SUITES, sealing, strict=True):
        for other in opening:
            if other.suite == suite:
                assert other.open(0, 0, keys.seal(0, 0, b"x")) == b"x"
            else:
                with pytest.raises(SealError, match="record_invalid"):
                    other.open(0, 0, keys.seal(0, 0, b"x"))


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


goldens = pytest.mark.parametrize(
    ("name", "suites", "cipher"),
    [
        ("seal", (AES_256_GCM,), AESGCM),
        ("seal chacha20", (CHACHA20_POLY1305, AES_256_GCM), ChaCha20Poly1305),
    ],
)


@goldens
def test_golden_seal_by_the_book(name: str, suites: tuple[str, ...], cipher: Any) -> None:
    """docs/wire.md, "Sealed streams", followed step by step with nothing but primitives."""
    golden = VECTORS[name]
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
    listed = b'"suites":["%s"]}' % '","'.join(suites).encode()
    assert offer_signed.endswith(listed)
    assert answer_signed.endswith(
        b'"suite":"%s"' % suites[0].encode() + (b"," + listed if len(suites) > 1 else b"}")
    )
    transcript = sha256(offer_signed + signatures[0] + answer_signed + signatures[1]).digest()
    material = HKDF(SHA256(), 64, salt=None, info=b"rap-fabric/1 stream keys" + transcript).derive(
        private.exchange(X25519PublicKey.from_public_bytes(public))
    )
    keys = {"initiator": cipher(material[:32]), "responder": cipher(material[32:])}
    associated = bytes([4]) * 16 + bytes([TrafficClass.INTERACTIVE])
    for record in golden["records"]:
        nonce = struct.pack(">IQ", record["flags"], record["offset"])
        sealed = keys[record["from"]].encrypt(nonce, bytes.fromhex(record["plaintext"]), associated)
        assert sealed.hex() == record["ciphertext"]


@goldens
def test_golden_seal_is_ours(name: str, suites: tuple[str, ...], cipher: object) -> None:
    golden = VECTORS[name]
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
    offer = make_offer(context, one, bytes.fromhex(golden["initiator_ephemeral"]), suites)
    assert context.offer_bytes(offer.key, suites).decode() == golden["offer"]["signed"]
    answer, responder = make_answer(
        context, other, offer, bytes.fromhex(golden["responder_ephemeral"]), suites
    )
    assert context.answer_bytes(offer, answer.key, suites[0]).decode() == golden["answer"]["signed"]
    assert answer.signature.hex() == golden["answer"]["signature"]
    ends = {"initiator": accept_answer(context, offer, answer, bytes.fromhex(golden["initiator_ephemeral"]))}
    ends["responder"] = responder
    for record in golden["records"]:
        sealed = ends[record["from"]].seal(
            record["offset"], record["flags"], bytes.fromhex(record["plaintext"])
        )
        assert sealed.hex() == record["ciphertext"]
