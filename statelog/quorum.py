"""Quorum: how many distinct issuers of a set signed, with distinct keys.

A set lists each public key once.  Its threshold M obeys 1 ≤ M ≤ number of distinct issuers; this is checked
when a set is installed (`KeySet.fault`) and again whenever it is used (`count`), so a set that slipped in
wrong can never be satisfied by accident.  Two keys of one issuer count once: a quorum is M people, not M
files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from statelog.findings import Finding
from statelog.limits import MAX_KEYS_IN_SET, MAX_REMEMBERED_QUORUMS, MAX_SIGNATURES
from statelog.signing import key_id_of

Custody = Literal["online", "offline", "hardware"]
SignedAs = tuple[str, str, str]  # a key id, its issuer, and the role in which it signed


@dataclass(frozen=True, slots=True)
class Key:
    """An enrolled public key: ``key_id`` is the hex SHA-256 of ``public`` (32 raw bytes)."""

    key_id: str
    public: bytes
    issuer_id: str
    custody: Custody


@dataclass(frozen=True)
class KeySet:
    """Who may speak for ``role``, in ``partition`` or (None) in the whole cluster.

    ``expires_at`` is Unix seconds, None for a set that only its successor ends.  ``bootstrap`` marks a set
    that was installed in development mode.
    """

    role: str
    partition: str | None
    threshold: int
    keys: tuple[Key, ...]
    expires_at: int | None = None
    bootstrap: bool = False

    @cached_property
    def by_id(self) -> dict[str, Key]:
        """The keys by key id."""
        return {key.key_id: key for key in self.keys}

    @cached_property
    def spoken(self) -> dict[tuple[str, tuple[SignedAs, ...]], tuple[bytes, ...]]:
        """The quorums that `speakers` has found; the same few sign record after record."""
        return {}

    @cached_property
    def issuers(self) -> frozenset[str]:
        """The distinct issuers."""
        return frozenset(key.issuer_id for key in self.keys)

    @cached_property
    def fault(self) -> Finding | None:
        """Why this set can never be used, or None: 1 ≤ threshold ≤ issuers and signatures that a record may
        carry, no key twice, ids that match.
        """
        if len(self.keys) > MAX_KEYS_IN_SET:
            return Finding("SL-THRESHOLD", "too many keys in a set", expected=f"at most {MAX_KEYS_IN_SET}")
        if len({key.public for key in self.keys}) != len(self.keys) or len(self.by_id) != len(self.keys):
            return Finding("SL-KEY", f"{self.role} lists a public key twice")
        for key in self.keys:
            if key_id_of(key.public) != key.key_id:
                return Finding("SL-KEY", "a key id is not the SHA-256 of its public bytes", found=key.key_id)
        most = min(len(self.issuers), MAX_SIGNATURES)
        if not 1 <= self.threshold <= most:
            return Finding(
                "SL-THRESHOLD",
                f"the threshold of {self.role} cannot be met",
                expected=f"1 … {most}: distinct issuers, and signatures that a record may carry",
                found=str(self.threshold),
            )
        return None


@dataclass(frozen=True, slots=True)
class QuorumResult:
    """Who signed and how many are missing.  ``signed`` holds one key id per issuer that counts."""

    signed: tuple[str, ...]
    missing: int
    threshold: int

    @property
    def met(self) -> bool:
        """Whether enough signed."""
        return self.missing == 0

    def __str__(self) -> str:
        return f"{len(self.signed)} of {self.threshold}"


def speakers(key_set: KeySet, role: str, signed: tuple[SignedAs, ...]) -> tuple[bytes, ...] | None:
    """The public keys of those who ``signed``, when each is of the set, with its issuer, and signed in
    ``role``, and they are a quorum. None says only that it is not as plain as that.
    """
    found = key_set.spoken.get((role, signed))
    if found is None:
        keys = [key_set.by_id.get(key_id) for key_id, _, _ in signed]
        for key, (_, issuer_id, signed_as) in zip(keys, signed, strict=True):
            if key is None or key.issuer_id != issuer_id or signed_as != role:
                return None
        if not count(key_set, [key_id for key_id, _, _ in signed]).met:
            return None
        found = tuple(key.public for key in keys if key is not None)
        if len(key_set.spoken) < MAX_REMEMBERED_QUORUMS:
            key_set.spoken[role, signed] = found
    return found


def count(key_set: KeySet, key_ids: Iterable[str]) -> QuorumResult:
    """Count verified signatures ``key_ids`` against ``key_set``.

    Unknown ids, repeated ids and further keys of an issuer that already counts add nothing.  A set with a
    fault is never met: at least one is always missing.
    """
    counted: dict[str, str] = {}  # issuer -> the lowest key id, so that the answer has no order in it
    for key_id in sorted(set(key_ids)):
        key = key_set.by_id.get(key_id)
        if key is not None:
            counted.setdefault(key.issuer_id, key_id)
    missing = max(0, key_set.threshold - len(counted))
    if key_set.fault is not None:
        missing = max(1, missing)
    return QuorumResult(tuple(sorted(counted.values())), missing, key_set.threshold)
