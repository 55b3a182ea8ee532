"""A quicker yes to signatures that libsodium would accept too, for processes that do nothing but verify.

AWS-LC, which `qh3` brings, verifies Ed25519 in two thirds of libsodium's time. It does not refuse all that
libsodium refuses, so it may only say yes, and only where no library could say no: the key is one that may be
enrolled, and the commitment R is not of small order. Then an accepted signature satisfies the equation
without the cofactor, with S below the order and R in its one encoding, which is all that libsodium asks.
Whatever else comes is for `signing.verify` to judge, so the accept set stays that of one verifier
(docs/adr/0020). The call keeps the interpreter's lock: among threads libsodium is the better one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from statelog.limits import SIGNATURE_BYTES
from statelog.signing import acceptable_public_key

try:
    from qh3._hazmat import CryptoError, SignatureError, verify_with_public_key
except ImportError:  # without it every signature is judged by libsodium alone
    AVAILABLE = False
else:
    AVAILABLE = True

_ED25519: Final = 0x0807  # its number as a SignatureScheme (RFC 8446, section 4.2.3)
_SPKI_HEAD: Final = bytes.fromhex(
    "302a300506032b6570032100"
)  # a SubjectPublicKeyInfo up to the key (RFC 8410)

_FIELD: Final = 2**255 - 19
_EIGHTH: Final = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7  # y of a point of order 8
_SIGN: Final = 1 << 255

SMALL_ORDER: Final = frozenset(
    (y | sign).to_bytes(32, "little")
    for y in (0, 1, _FIELD - 1, _FIELD, _FIELD + 1, _EIGHTH, _FIELD - _EIGHTH)
    for sign in (0, _SIGN)
)
"""Every encoding of the eight points whose order divides the cofactor, those beyond the field included."""


def surely_right(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signing.verify` is certain to accept; False says nothing."""
    key = _key(public) if AVAILABLE else None
    if key is None or len(signature) != SIGNATURE_BYTES or signature[:32] in SMALL_ORDER:
        return False
    try:
        verify_with_public_key(key, _ED25519, message, signature)
    except (SignatureError, CryptoError):
        return False
    return True


@lru_cache(maxsize=1024)
def _key(public: bytes) -> bytes | None:
    """The key as AWS-LC reads it; None for one that may not be enrolled."""
    return _SPKI_HEAD + public if acceptable_public_key(public) else None
