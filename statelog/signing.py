"""Signatures over records: Ed25519 (RFC 8032) in DSSE pre-authentication encoding, verified by libsodium.

One verifier, everywhere: implementations disagree on edge cases (non-canonical encodings, small-order
points), and two verifiers would split a replicated log.  ``tests/statelog/test_signing.py`` pins the accept
set.  Signed bytes are PAE(``application/vnd.<schema_version>+json``, the canonical record without its
``signatures``), as in the DSSE protocol specification; ``record_id`` is the SHA-256 of those bytes, so that
signatures are not part of it and nobody can grind it.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final, Protocol

from nacl.bindings import (
    crypto_core_ed25519_is_valid_point,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError

from statelog.canonical import encode, encode_trusted
from statelog.errors import UsageError, refuse
from statelog.limits import PUBLIC_KEY_BYTES, SIGNATURE_BYTES

ALGORITHM: Final = "ed25519"
Job = tuple[bytes, bytes, bytes]  # public key, signature, message: all that a verification needs
POSSESSION_SCHEMA: Final = "rap.fabric.authority.possession.v1"


class Signer(Protocol):
    """Something that holds a private key: a file, an agent, a token."""

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of ``message``."""
        ...


class SeedSigner:
    """A signer that holds its 32-byte seed in memory."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        self.public, self._secret = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of ``message``."""
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]


# --- bytes to sign ---


def pae(payload_type: str, body: bytes) -> bytes:
    """DSSE pre-authentication encoding (DSSE protocol specification, "Signature Definition")."""
    return pae_head(payload_type) + b"%d %b" % (len(body), body)


def pae_head(payload_type: str) -> bytes:
    """What `pae` puts before the length of the body."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b " % (len(kind), kind)


def payload_type_of(schema_version: str) -> str:
    """The DSSE payload type of a schema."""
    return f"application/vnd.{schema_version}+json"


def signed_bytes(record: Mapping[str, Any]) -> bytes:
    """What every signature of ``record`` covers; ``signatures`` itself is left out.

    Raises `Refused` (SL-CANON) for a record outside the canonical profile, SL-SHAPE without a schema.
    """
    schema = record.get("schema_version")
    if not isinstance(schema, str):
        raise refuse("SL-SHAPE", "a record names its schema", path="schema_version")
    return pae(payload_type_of(schema), encode({k: v for k, v in record.items() if k != "signatures"}))


def signed_bytes_of_decoded(record: Mapping[str, Any]) -> bytes:
    """`signed_bytes` of a record that `canonical.decode` returned; skips the second walk of its types."""
    body = dict(record)
    body.pop("signatures", None)
    return pae(payload_type_of(record["schema_version"]), encode_trusted(body))


def record_id_of(record: Mapping[str, Any]) -> str:
    """SHA-256 of `signed_bytes`, lower-case hex."""
    return sha256(signed_bytes(record)).hexdigest()


def possession_bytes(cluster_id: str, issuer_id: str, key_id: str) -> bytes:
    """What a key signs to prove that somebody holds it.

    For a sequencer's key, which has no issuer, ``issuer_id`` is the ``node_id`` that it is listed with.
    """
    body = encode({"cluster_id": cluster_id, "issuer_id": issuer_id, "key_id": key_id})
    return pae(payload_type_of(POSSESSION_SCHEMA), body)


# --- keys and signatures ---


def key_id_of(public: bytes) -> str:
    """SHA-256 of the raw public bytes, lower-case hex; for a node's key this is its ``node_id``."""
    return sha256(public).hexdigest()


def acceptable_public_key(public: bytes) -> bool:
    """Whether ``public`` may be enrolled: 32 bytes, canonical, on the curve, in the prime-order group.

    Verification refuses small-order keys by itself; enrolment also refuses keys with a small-order component,
    on which verifiers elsewhere disagree.
    """
    return len(public) == PUBLIC_KEY_BYTES and bool(crypto_core_ed25519_is_valid_point(public))


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether libsodium accepts ``signature`` (64 bytes) of ``message`` under ``public`` (32 bytes)."""
    if len(public) != PUBLIC_KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True


def verify_all(jobs: Iterable[Job]) -> bool:
    """Whether every signature is right."""
    return all(verify(public, signature, message) for public, signature, message in jobs)


def sign_record(record: Mapping[str, Any], signer: Signer, issuer_id: str, role: str) -> dict[str, str]:
    """The signature entry of ``signer`` for ``record``; `add_signature` puts it in its place."""
    return {
        "key_id": key_id_of(signer.public),
        "issuer_id": issuer_id,
        "role": role,
        "alg": ALGORITHM,
        "value": encode_base64(signer.sign(signed_bytes(record))),
    }


def add_signature(record: Mapping[str, Any], entry: Mapping[str, str]) -> dict[str, Any]:
    """``record`` with ``entry`` among its signatures, sorted by key id; replaces one of the same key."""
    others = [dict(old) for old in record.get("signatures", []) if old["key_id"] != entry["key_id"]]
    return {**record, "signatures": sorted([*others, dict(entry)], key=lambda one: one["key_id"])}


# --- base64 ---


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding (RFC 4648 section 4)."""
    return b2a_base64(data, newline=False).decode()


def decode_base64(text: str) -> bytes | None:
    """The bytes of strict standard base64, or None.

    Encoded again and compared, because Python's decoder lets non-zero trailing bits pass.
    """
    try:
        data = a2b_base64(text, strict_mode=True)
    except ValueError:
        return None
    return data if b2a_base64(data, newline=False).decode() == text else None


def public_from_base64(text: str) -> bytes:
    """A public key for enrolment by a tool.  Raises `UsageError` when it is not one."""
    public = decode_base64(text)
    if public is None or not acceptable_public_key(public):
        raise UsageError("not an acceptable Ed25519 public key in base64")
    return public
