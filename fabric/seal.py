"""The end-to-end seal of a stream: keys, signed transcripts, records. Always on, direct or relayed.

Both ends bring an ephemeral X25519 key and sign what they know; the answer covers the offer, and the record
keys come from a hash over both messages and both signatures, so the first record that opens proves that the
ends saw the same. docs/adr/0003-seal-transcript.md says why it is safe that the initiator signs first.

The initiator offers suites and the responder chooses one; the list and the choice are signed with the rest. A
record is AES-256-GCM or ChaCha20-Poly1305: nonce = u32 flags | u64 plaintext offset, associated data =
uid | class. Offsets are never sealed twice with different bytes, so a resend is the identical ciphertext.
Source: docs/wire.md, "Sealed streams".
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from fabric import limits
from fabric.classes import Mode, TrafficClass
from fabric.errors import SealError
from fabric.handshake import Identity
from fabric.identity import node_id_of
from fabric.wire import AES_256_GCM, CHACHA20_POLY1305, SUITES, Buffer, RouteRef, SealAnswer, SealOffer
from statelog.canonical import encode
from statelog.signing import pae, verify

OFFER_TYPE: Final = "application/vnd.rap.fabric.stream.open.v1+json"
ANSWER_TYPE: Final = "application/vnd.rap.fabric.stream.accepted.v1+json"
Cipher = AESGCM | ChaCha20Poly1305
CIPHERS: Final[dict[str, type[Cipher]]] = {AES_256_GCM: AESGCM, CHACHA20_POLY1305: ChaCha20Poly1305}
TAG_BYTES: Final = 16
KEY_BYTES: Final = 32
_CLASS_OCTETS: Final = {one: bytes([one]) for one in TrafficClass}

RECORD_END: Final = 0x0002
"""The data ends after this record; its plaintext, if any, is the last."""
RECORD_EMPTY: Final = 0x0004
"""No plaintext: says only that the sender holds the keys. The flag gives it a nonce of its own."""
RECORD_DATAGRAM: Final = 0x0008
"""A datagram: the offset is its number. The flag keeps its nonces apart from those of the lane's records."""

_NONCE: Final = struct.Struct(">IQ")
_LABEL: Final = b"rap-fabric/1 stream keys"


@dataclass(frozen=True, slots=True, kw_only=True)
class SealContext:
    """What a seal is about. Node ids are hex; a direct stream has no route."""

    cluster_id: str
    initiator: str
    responder: str
    uid: bytes
    service: str
    traffic_class: TrafficClass
    mode: Mode
    route: RouteRef | None = None

    def offer_bytes(self, initiator_key: bytes, suites: tuple[str, ...]) -> bytes:
        """What the initiator signs: everything but the responder's key, which it has not seen."""
        return pae(OFFER_TYPE, encode({**self._fields(initiator_key), "suites": list(suites)}))

    def answer_bytes(self, offer: SealOffer, responder_key: bytes, suite: str) -> bytes:
        """What the responder signs: the same, its own key, its choice, and the offer's signature."""
        fields = self._fields(offer.key)
        fields |= {
            "offer_signature_sha256": sha256(offer.signature).hexdigest(),
            "responder_key": responder_key.hex(),
            "suite": suite,
        }
        if offer.offered != (AES_256_GCM,):
            fields["suites"] = list(offer.offered)
        return pae(ANSWER_TYPE, encode(fields))

    def _fields(self, initiator_key: bytes) -> dict[str, str | int | list[str]]:
        return {
            "class": int(self.traffic_class),
            "cluster_id": self.cluster_id,
            "initiator": self.initiator,
            "initiator_key": initiator_key.hex(),
            "mode": int(self.mode),
            "responder": self.responder,
            "route_epoch": self.route.epoch if self.route else 0,
            "route_id": self.route.route_id if self.route else "",
            "service": self.service,
            "stream_uid": self.uid.hex(),
        }


def make_offer(
    context: SealContext, identity: Identity, ephemeral: bytes, suites: tuple[str, ...] = SUITES
) -> SealOffer:
    """The initiator's half. `ephemeral`: 32 fresh random bytes, kept for `accept_answer`."""
    key = X25519PrivateKey.from_private_bytes(ephemeral).public_key().public_bytes_raw()
    return sign_offer(context, identity, key, suites)


def sign_offer(context: SealContext, identity: Identity, key: bytes, suites: tuple[str, ...]) -> SealOffer:
    """The initiator's half with an X25519 key it has used before: the same stream on another route."""
    signature = identity.sign(context.offer_bytes(key, suites))
    named = [] if suites == (AES_256_GCM,) else list(suites)
    return SealOffer(key=key, public=identity.public, signature=signature, suites=named)


def check_offer(context: SealContext, offer: SealOffer) -> None:
    """Raise `seal_initiator` or `seal_signature` unless the context's initiator made this offer."""
    if node_id_of(offer.public) != context.initiator:
        raise SealError("seal_initiator", f"signed by {node_id_of(offer.public)}, not {context.initiator}")
    if not verify(offer.public, offer.signature, context.offer_bytes(offer.key, offer.offered)):
        raise SealError("seal_signature", "the initiator's signature is wrong")


def make_answer(
    context: SealContext,
    identity: Identity,
    offer: SealOffer,
    ephemeral: bytes,
    suites: tuple[str, ...] = SUITES,
) -> tuple[SealAnswer, StreamKeys]:
    """The responder's half, for an offer that `check_offer` let pass, and its keys.

    The first of `suites` that was offered is chosen. Raises `seal_suite` when none was, `seal_key` for an
    X25519 key of low order (RFC 7748 section 6.1).
    """
    suite = next((one for one in suites if one in offer.offered), None)
    if suite is None:
        raise SealError("seal_suite", f"offered are {', '.join(offer.offered)}")
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    answer = sign_answer(context, identity, offer, private.public_key().public_bytes_raw(), suite)
    return answer, _keys(context, offer, answer, _exchange(private, offer.key), initiator=False)


def sign_answer(
    context: SealContext, identity: Identity, offer: SealOffer, key: bytes, suite: str
) -> SealAnswer:
    """The responder's half with an X25519 key it has used before."""
    signature = identity.sign(context.answer_bytes(offer, key, suite))
    return SealAnswer(key=key, public=identity.public, signature=signature, suite=suite)


def accept_answer(context: SealContext, offer: SealOffer, answer: SealAnswer, ephemeral: bytes) -> StreamKeys:
    """The initiator's keys. Raises what `check_answer` does, and `seal_key`."""
    check_answer(context, offer, answer)
    private = X25519PrivateKey.from_private_bytes(ephemeral)
    return _keys(context, offer, answer, _exchange(private, answer.key), initiator=True)


def check_answer(context: SealContext, offer: SealOffer, answer: SealAnswer) -> None:
    """Raise unless the context's responder answered this offer: `seal_responder`, `seal_signature`, and
    `seal_suite` when it chose what was not offered."""
    if node_id_of(answer.public) != context.responder:
        raise SealError("seal_responder", f"answered by {node_id_of(answer.public)}")
    if not verify(answer.public, answer.signature, context.answer_bytes(offer, answer.key, answer.suite)):
        raise SealError("seal_signature", "the responder's signature is wrong")
    if answer.suite not in offer.offered:
        raise SealError("seal_suite", f"{answer.suite} was not offered")


class StreamKeys:
    """What the keys of one end are made from, when they are wanted: a stream that idles holds 64 octets.

    For each direction there is one key that seals records and one that proves resumptions.
    """

    __slots__ = ("_initiator", "_secret", "_traffic_class", "_uid", "suite")

    def __init__(
        self,
        secret: bytes,
        uid: bytes,
        traffic_class: TrafficClass,
        *,
        initiator: bool,
        suite: str = AES_256_GCM,
    ) -> None:
        """`secret`: what HKDF extracted, 32 octets, and the hash of the transcript, 32 octets."""
        self._secret = secret
        self._uid = uid
        self._traffic_class = traffic_class
        self._initiator = initiator
        self.suite = suite

    def seal(self, offset: int, flags: int, plaintext: Buffer) -> bytes:
        """Seal the plaintext that starts at `offset`; 16 bytes longer. Never twice with other bytes."""
        ready = _ready(self._secret, self._initiator, self.suite)
        return ready.send.encrypt(_NONCE.pack(flags, offset), plaintext, self._associated())

    def open(self, offset: int, flags: int, ciphertext: Buffer) -> bytes:
        """The plaintext, or `record_invalid`."""
        ready = _ready(self._secret, self._initiator, self.suite)
        try:
            return ready.receive.decrypt(_NONCE.pack(flags, offset), ciphertext, self._associated())
        except InvalidTag:
            raise SealError("record_invalid", f"the record at {offset} fails authentication") from None

    def prove(self, message: bytes) -> bytes:
        """HMAC-SHA256 by which this end shows that it holds the stream's keys, 32 bytes."""
        return hmac.digest(_ready(self._secret, self._initiator, self.suite).prove, message, "sha256")

    def proved(self, message: bytes, mac: bytes) -> bool:
        """Whether the other end made this `mac`."""
        ready = _ready(self._secret, self._initiator, self.suite)
        return hmac.compare_digest(hmac.digest(ready.check, message, "sha256"), mac)

    def _associated(self) -> bytes:
        return self._uid + _CLASS_OCTETS[self._traffic_class]


class _Ready(NamedTuple):
    """The keys of one end, ready for use."""

    send: Cipher
    receive: Cipher
    prove: bytes
    check: bytes


@lru_cache(maxsize=limits.SEAL_READY)
def _ready(secret: bytes, initiator: bool, suite: str) -> _Ready:
    """A pair of ciphers takes 5 KB, so only the streams of late have theirs so."""
    extracted, transcript = secret[:KEY_BYTES], secret[KEY_BYTES:]
    material = HKDFExpand(SHA256(), 4 * KEY_BYTES, _LABEL + transcript).derive(extracted)
    forward, back, proves, answers = (material[at : at + KEY_BYTES] for at in range(0, 128, KEY_BYTES))
    cipher = CIPHERS[suite]
    if initiator:
        return _Ready(cipher(forward), cipher(back), proves, answers)
    return _Ready(cipher(back), cipher(forward), answers, proves)


def _exchange(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise SealError("seal_key", "the peer's X25519 key has low order") from None


def _keys(
    context: SealContext, offer: SealOffer, answer: SealAnswer, secret: bytes, *, initiator: bool
) -> StreamKeys:
    # PAE says its own length and signatures have 64 bytes, so the parts cannot be cut differently.
    transcript = sha256(
        context.offer_bytes(offer.key, offer.offered)
        + offer.signature
        + context.answer_bytes(offer, answer.key, answer.suite)
        + answer.signature
    ).digest()
    extracted = hmac.digest(bytes(KEY_BYTES), secret, "sha256")  # HKDF without a salt, RFC 5869 section 2.2
    return StreamKeys(
        extracted + transcript,
        context.uid,
        context.traffic_class,
        initiator=initiator,
        suite=SUITES[SUITES.index(answer.suite)],  # one text for all streams, not each its own
    )
