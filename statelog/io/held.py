"""The one interface of an opened key, wherever it lies: who it is, and a signature over exact bytes.

A key file or a variable puts the seed into this process; an agent and a token keep it and only sign. Whatever
signs is checked here before anybody uses its answer (`checked`), so a broken or hostile source cannot spoil a
request, a checkpoint or a proof.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, get_args

from statelog.errors import refuse
from statelog.quorum import Custody
from statelog.signing import SeedSigner, key_id_of, verify

CUSTODIES: Final[tuple[str, ...]] = get_args(Custody)

Ask = Callable[[str], str]
"""Asks a person for a secret: gets the question, returns what was typed."""


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """The public part of a key. `issuer_id` and `custody` are empty where the source does not know them."""

    name: str
    key_id: str
    public: bytes
    issuer_id: str
    custody: str


class HeldKey(Protocol):
    """An opened key: a `statelog.signing.Signer` that knows its public part. Its text form hides secrets."""

    @property
    def info(self) -> KeyInfo:
        """What may be shown of it."""
        ...

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032) over exactly these bytes.

        Raises `Refused` with SL-KEYSOURCE when the source does not sign: locked, removed, unwilling.
        """
        ...


class LocalKey:
    """A key whose seed is in this process's memory."""

    __slots__ = ("_signer", "info")

    def __init__(self, seed: bytes, name: str, issuer_id: str, custody: str) -> None:
        self._signer = SeedSigner(seed)
        self.info = KeyInfo(name, key_id_of(self._signer.public), self._signer.public, issuer_id, custody)

    @property
    def public(self) -> bytes:
        """The 32 raw public bytes."""
        return self._signer.public

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature (RFC 8032) over exactly these bytes."""
        return self._signer.sign(message)

    def __repr__(self) -> str:
        return f"LocalKey(name={self.info.name!r}, key_id={self.info.key_id!r})"


def checked(public: bytes, signature: bytes, message: bytes, where: str) -> bytes:
    """`signature`, when it verifies. Raises `Refused` with SL-KEYSOURCE naming `where` it came from."""
    if not verify(public, signature, message):
        raise refuse(
            "SL-KEYSOURCE", f"{where} returned a signature that does not verify", found=key_id_of(public)
        )
    return signature
