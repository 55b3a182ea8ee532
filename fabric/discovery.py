"""From candidate to active: which registry records to probe, when, and at which endpoint. Pure.

A record that admission accepted is only a candidate. A live probe (AUTH, OPEN of the service in probe mode,
ACCEPTED) of one endpoint, with the identity pinned by the record, makes it active. Probes wait a random part
of a spread, so that a record that reaches ten thousand nodes does not bring ten thousand probes at once; a
record that is needed now (delivered here, or nothing active yet) is probed now.

    candidate --Candidate--> waiting --due, place free, rate--> probing --ok--> verified
                                ^                                  | refused: the next endpoint
                                +---- pause, doubling ----- all endpoints refused

Only records that the authority signed cause probes, so no node can steer them; still an address of a kind
that no service lives at (loopback, link-local, multicast, a cloud's metadata address) is never probed unless
the signed policy `probe_allow` names its network. docs/records/, "Registry".
"""

from __future__ import annotations

import ipaddress
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fabric import limits
from fabric.buckets import TokenBucket
from fabric.errors import count_code
from projections.model import Endpoint

FORBIDDEN_ADDRESS = "address_forbidden"

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# Unicast addresses at which clouds serve credentials to whoever asks from inside; 169.254.169.254 is
# link-local already.
_METADATA = tuple(ipaddress.ip_address(a) for a in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192"))


def parse_networks(cidrs: Iterable[object]) -> tuple[IpNetwork, ...]:
    """The networks of a `probe_allow` document's `cidrs`. What does not parse allows nothing."""
    networks: list[IpNetwork] = []
    for cidr in cidrs:
        try:
            networks.append(ipaddress.ip_network(str(cidr)))
        except ValueError:
            continue
    return tuple(networks)


def may_probe(ip: str, allowed: Sequence[IpNetwork]) -> bool:
    """Whether a probe may go to this IP address (text, already resolved)."""
    try:
        address = ipaddress.ip_address(ip.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    if any(address.version == network.version and address in network for network in allowed):
        return True
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or address.is_reserved
        or address in _METADATA
    )


# Events in.
@dataclass(frozen=True, slots=True)
class Candidate:
    """A record waits for its probe. `endpoints` best first. `urgent`: needed now. Known ones are renewed."""

    record_id: str
    service: str
    endpoints: tuple[Endpoint, ...]
    expires_at: int
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The record is gone: expired, dropped, or older than what became active."""

    record_id: str


@dataclass(frozen=True, slots=True)
class ProbeOk:
    record_id: str
    endpoint_id: str


@dataclass(frozen=True, slots=True)
class ProbeFailed:
    record_id: str
    endpoint_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Timer:
    pass


Event = Candidate | Withdrawn | ProbeOk | ProbeFailed | Timer


# Effects out.
@dataclass(frozen=True, slots=True)
class Probe:
    """Probe this endpoint and answer with ProbeOk or ProbeFailed."""

    record_id: str
    service: str
    endpoint: Endpoint


@dataclass(frozen=True, slots=True)
class Verified:
    record_id: str
    endpoint_id: str


Effect = Probe | Verified


@dataclass(slots=True)
class _Waiting:
    candidate: Candidate
    due: float
    failures: int = 0
    next_endpoint: int = 0
    probing: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    waiting: int
    probing: int
    counters: dict[str, int] = field(default_factory=dict)


class Promoter:
    """Schedules probes. `spread_s`: the random wait of a probe that is not urgent."""

    def __init__(self, rng: random.Random, now: float, *, spread_s: float = limits.PROBE_SPREAD_S) -> None:
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._spread_s = spread_s
        self._waiting: dict[str, _Waiting] = {}
        self._rate = TokenBucket(limits.PROBE_PER_S, limits.PROBE_CONCURRENT, now)

    def handle(self, now: float, event: Event) -> list[Effect]:
        """Take one event at `now` (seconds); returns the probes to make and the records proved."""
        effects: list[Effect] = []
        match event:
            case Candidate():
                self._candidate(now, event)
            case Withdrawn(record_id):
                self._waiting.pop(record_id, None)
            case ProbeOk(record_id, endpoint_id):
                self.counters["ok"] += 1
                if self._waiting.pop(record_id, None) is not None:
                    effects.append(Verified(record_id, endpoint_id))
            case ProbeFailed(record_id, _, reason):
                count_code(self.counters, "failed", reason)
                self._failed(now, record_id)
            case Timer():
                pass
        self._begin(now, effects)
        return effects

    def deadline(self) -> float | None:
        """When `Timer` is due, or None."""
        if self._probing() >= limits.PROBE_CONCURRENT:
            return None  # an answer comes first
        due = min((w.due for w in self._waiting.values() if not w.probing), default=None)
        return None if due is None else max(due, self._rate.ready_at(due, 1))

    def snapshot(self) -> Snapshot:
        return Snapshot(len(self._waiting), self._probing(), dict(self.counters))

    def _probing(self) -> int:
        return sum(w.probing for w in self._waiting.values())

    def _candidate(self, now: float, candidate: Candidate) -> None:
        known = self._waiting.get(candidate.record_id)
        if known is not None:
            if candidate.urgent and not known.candidate.urgent:
                known.candidate = candidate
                known.due = min(known.due, now)
            return
        if candidate.endpoints:
            wait = 0.0 if candidate.urgent else self._rng.uniform(0, self._spread_s)
            self._waiting[candidate.record_id] = _Waiting(candidate, now + wait)

    def _failed(self, now: float, record_id: str) -> None:
        waiting = self._waiting.get(record_id)
        if waiting is None:
            return
        waiting.probing = False
        waiting.next_endpoint += 1
        if waiting.next_endpoint < len(waiting.candidate.endpoints):
            waiting.due = now
            return
        waiting.next_endpoint = 0
        pause = min(limits.PROBE_RETRY_FIRST_S * 2**waiting.failures, limits.PROBE_RETRY_MAX_S)
        waiting.failures = min(waiting.failures + 1, 16)  # past that the pause is at its longest
        waiting.due = now + pause * self._rng.uniform(0.75, 1.25)

    def _begin(self, now: float, effects: list[Effect]) -> None:
        for record_id in [i for i, w in self._waiting.items() if w.candidate.expires_at <= now]:
            del self._waiting[record_id]
        free = limits.PROBE_CONCURRENT - self._probing()
        ready = [w for w in self._waiting.values() if not w.probing and w.due <= now]
        ready.sort(key=lambda w: (not w.candidate.urgent, w.due))
        for waiting in ready[: max(0, free)]:
            if not self._rate.take(now, 1):
                return
            waiting.probing = True
            self.counters["probes"] += 1
            candidate = waiting.candidate
            endpoint = candidate.endpoints[waiting.next_endpoint]
            effects.append(Probe(candidate.record_id, candidate.service, endpoint))
