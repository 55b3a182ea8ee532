"""Who may start a connection: what an endpoint answers to the first packet of a stranger.

Costs little and holds little: no state before the verdict, a bounded number of half-open connections in all
and per host, and under load a Retry first, so that only those who receive at their address get state.
Sources: RFC 9000 sections 6 (version negotiation), 8.1 (address validation), 14.1 (datagram size).
"""

from __future__ import annotations

import ipaddress
import os
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from fabric import limits
from fabric.io.engines import Address
from fabric.io.engines.packets import (
    CID_BYTES,
    MIN_INITIAL_BYTES,
    QUIC_V1,
    LongHeader,
    RetryTokens,
    retry,
    version_negotiation,
)

RetryPolicy = Literal["auto", "always", "never"]


@dataclass(frozen=True, slots=True)
class Welcome:
    """Make a carrier: `original_cid` is the id the client chose first; `retry_cid` ours, if it came back."""

    original_cid: bytes
    retry_cid: bytes | None


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this datagram back and keep no state."""

    datagram: bytes


class Doorman:
    """Judges first packets and counts the half-open connections, which `opened` and `proved` report."""

    def __init__(self, retry_policy: RetryPolicy = "auto") -> None:
        self._policy = retry_policy
        self._tokens = RetryTokens(os.urandom(16))
        self._half_open: dict[object, str] = {}
        self._by_host: Counter[str] = Counter()
        self.counters: Counter[str] = Counter()
        """By name: `version_negotiations`, `retries_sent`, `connections_refused`, `tokens_refused`."""

    @property
    def half_open(self) -> int:
        """Inbound connections whose peer is not proved yet."""
        return len(self._half_open)

    def judge(self, header: LongHeader, size: int, addr: Address, now: float) -> Welcome | Answer | None:
        """The verdict on a first packet in a datagram of `size` bytes; None is silence."""
        if size < MIN_INITIAL_BYTES:
            return None
        if header.version != QUIC_V1:
            # Version 0 is itself a Version Negotiation packet; to answer one with another would never end.
            if not header.version:
                return None
            self.counters["version_negotiations"] += 1
            return Answer(version_negotiation(header, os.urandom(1)[0]))
        if not header.is_initial or len(header.destination_cid) < CID_BYTES:
            return None
        if (
            len(self._half_open) >= limits.ENDPOINT_HALF_OPEN
            or self._by_host[_host_of(addr)] >= limits.ENDPOINT_HALF_OPEN_PER_ADDRESS
        ):
            # Silence: the client tries again by itself, and by then there may be room.
            self.counters["connections_refused"] += 1
            return None
        if header.token:
            original = self._tokens.check(header.token, addr, header.destination_cid, now)
            if original is not None:
                return Welcome(original, header.destination_cid)
            self.counters["tokens_refused"] += 1
        if self._wants_retry():
            self.counters["retries_sent"] += 1
            return Answer(self._retry(header, addr, now))
        return Welcome(header.destination_cid, None)

    def opened(self, connection: object, addr: Address) -> None:
        """A carrier was made for `addr`."""
        host = self._half_open[connection] = _host_of(addr)
        self._by_host[host] += 1

    def proved(self, connection: object) -> None:
        """The peer proved itself, or the connection is over. Idempotent."""
        host = self._half_open.pop(connection, None)
        if host is None:
            return
        self._by_host[host] -= 1
        if not self._by_host[host]:
            del self._by_host[host]

    def _wants_retry(self) -> bool:
        if self._policy == "auto":
            return len(self._half_open) >= limits.ENDPOINT_HALF_OPEN_RETRY
        return self._policy == "always"

    def _retry(self, header: LongHeader, addr: Address, now: float) -> bytes:
        cid = os.urandom(CID_BYTES)
        token = self._tokens.make(addr, header.destination_cid, cid, nonce=os.urandom(12), now=now)
        return retry(header, source_cid=cid, token=token, unused=os.urandom(1)[0])


def _host_of(addr: Address) -> str:
    """Whose allowance an address uses: an IPv6 host has a /64 (RFC 6177), an IPv4 one an address."""
    if ":" not in addr[0]:
        return addr[0]
    address = ipaddress.IPv6Address(addr[0].partition("%")[0])
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()
