"""When a route is given up, and what became of the streams that took it. Pure.

A route is the way from one session to the far end of its streams: the neighbour itself, or a lease over
relays. What is sent over it must be acknowledged from the far end; what has waited longest says how it is:

    well      nothing has waited long. Pinged every 200 ms while a person may wait for it, else every 5 s
    suspect   something has waited for max(3 RTT, 300 ms): pinged at once
    failed    that ping waits as well: streams go on elsewhere, where there is an elsewhere

A process that was away for a while has heard nobody, and that is not the route's fault: what a timer is late
counts as not waited. Source: docs/wire.md, "Failover".
"""

from __future__ import annotations

import bisect
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

from fabric import limits

Reason = Literal[
    "timeout",
    "peer_unavailable",
    "connection_refused",
    "connection_reset",
    "no_route_to_host",
    "capacity_limited",
    "fenced",
]
"""Why a stream left its route."""

REASONS: Final[tuple[Reason, ...]] = (
    "timeout",
    "peer_unavailable",
    "connection_refused",
    "connection_reset",
    "no_route_to_host",
    "capacity_limited",
    "fenced",
)

_BY_CODE: Final[dict[str, Reason]] = {
    "idle_timeout": "timeout",
    "slow_peer": "timeout",
    "carrier_lost": "connection_reset",
    "too_many_sessions": "capacity_limited",
    "evicted": "capacity_limited",
    "no_room": "capacity_limited",
    "too_many_streams": "capacity_limited",
    "connection_refused": "connection_refused",
    "no_route_to_host": "no_route_to_host",
    "no_lease": "fenced",
    "lease_expired": "fenced",
    "fenced": "fenced",
    "not_permitted": "fenced",
    "wrong_hop": "fenced",
}

ROUTE_RESETS: Final = frozenset(
    {
        "route_failed",
        "next_hop_unreachable",
        "no_lease",
        "lease_expired",
        "fenced",
        "not_permitted",
        "wrong_hop",
    }
)
"""RESETs that are about the way and not about the stream."""


def reason_of(code: str, suspected: str = "") -> Reason:
    """The reason for a close code or reset reason; `suspected` is what ICMP said of the neighbour last."""
    found = _BY_CODE.get(code, "peer_unavailable")
    if suspected and found in ("timeout", "connection_reset"):
        return _BY_CODE.get(suspected, found)
    return found


Act = Literal["ping", "switch"]


class RouteWatch:
    """One route. Times are seconds of a steady clock, which callers bring."""

    __slots__ = (
        "_asked_at",
        "_failed_at",
        "_pinged_at",
        "_pings",
        "_suspect",
        "_urgent_until",
        "rtt_s",
        "rtt_var_s",
    )

    def __init__(self, now: float) -> None:
        self.rtt_s = 0.0
        """Smoothed round trip of the route, end to end; 0 before the first."""
        self.rtt_var_s = 0.0
        """Its mean deviation: jitter."""
        self._asked_at: float | None = None
        self._pinged_at = now
        self._pings: dict[int, float] = {}
        self._suspect = False
        self._failed_at: float | None = None
        self._urgent_until = now

    @property
    def suspect(self) -> bool:
        """Whether something has waited too long."""
        return self._suspect

    @property
    def asked_at(self) -> float | None:
        """Since when the far end owes an answer."""
        return self._asked_at

    def sent(self, now: float, *, urgent: bool, owed: bool = True) -> bool:
        """Something was sent; `urgent`: a person may wait for it; `owed`: the far end answers at once.
        Returns whether `timer` may be earlier now.
        """
        earlier = owed and self._asked_at is None
        if earlier:
            self._asked_at = now
        if urgent:
            earlier |= self._urgent_until <= now
            self._urgent_until = now + limits.ROUTE_URGENT_S
        return earlier

    def pinged(self, now: float, nonce: int) -> None:
        """A ping was sent to the far end."""
        self._pinged_at = now
        if len(self._pings) >= limits.PENDING_PINGS:
            del self._pings[next(iter(self._pings))]
        self._pings[nonce] = now
        self.sent(now, urgent=False)

    def not_pinged(self, now: float) -> None:
        """There was nothing to send a ping on: wait for the next time."""
        self._pinged_at = now

    def ponged(self, now: float, nonce: int) -> None:
        """An answer to a ping; one that nobody asked for says nothing."""
        sent = self._pings.pop(nonce, None)
        if sent is not None:
            rtt = now - sent
            if not self.rtt_s:
                self.rtt_s, self.rtt_var_s = rtt, rtt / 2
            self.rtt_var_s += (abs(rtt - self.rtt_s) - self.rtt_var_s) / 4
            self.rtt_s += (rtt - self.rtt_s) / 8
            self.heard()

    def heard(self) -> None:
        """Something came from the far end."""
        self._asked_at = self._failed_at = None
        self._suspect = False

    def alarm(self, now: float) -> None:
        """The network says that the neighbour is out of reach: whether it is, the next ping tells."""
        since = now - self._suspect_after()
        self._asked_at = since if self._asked_at is None else min(self._asked_at, since)

    def timer(self) -> float:
        """When `handle` is due."""
        at = self._ping_at()
        if self._failed_at is not None:
            return min(at, self._failed_at + limits.ROUTE_RETRY_S)
        if self._asked_at is not None:
            at = min(at, self._asked_at + (self._failed_after() if self._suspect else self._suspect_after()))
        return at

    def handle(self, now: float, due: float) -> list[Act]:
        """What is to be done, at a timer that was set for `due`."""
        late = now - due
        if late > limits.ROUTE_LAG_S and self._asked_at is not None:
            # We were away, and what came meanwhile may not have been read yet.
            self._asked_at = min(now, self._asked_at + late + limits.ROUTE_LAG_S)
        acts: list[Act] = []
        if self._asked_at is not None:
            if self._failed_at is not None:
                if now >= self._failed_at + limits.ROUTE_RETRY_S:
                    self._failed_at = now  # there was no other way then; there may be one now
                    acts.append("switch")
            elif self._suspect:
                if now >= self._asked_at + self._failed_after():
                    self._failed_at = now
                    acts.append("switch")
            elif now >= self._asked_at + self._suspect_after():
                self._suspect = True
                self._asked_at = max(self._asked_at, now - self._suspect_after())
                return ["ping"]
        if now >= self._ping_at():
            acts.append("ping")
        return acts

    def _ping_at(self) -> float:
        urgent = self._urgent_until > self._pinged_at
        return self._pinged_at + (limits.ROUTE_PING_URGENT_S if urgent else limits.ROUTE_PING_S)

    def _suspect_after(self) -> float:
        return max(3 * self.rtt_s, limits.ROUTE_SUSPECT_S)

    def _failed_after(self) -> float:
        """Time for the suspect's ping, but another way shall be open within max(600 ms, 200 ms + 4 RTT)."""
        answered = self._suspect_after() + max(self.rtt_s, limits.ROUTE_LAG_S)
        by = max(limits.ROUTE_SWITCHED_S, limits.ROUTE_SWITCHED_S / 3 + 4 * self.rtt_s) - self.rtt_s
        return min(answered, by)


@dataclass(frozen=True, slots=True)
class Switch:
    """A stream went on by another way: why, and how long after the first sign of need."""

    reason: Reason
    seconds: float


class Switches:
    """All switches of a node, counted by reason, with their times in buckets."""

    def __init__(self) -> None:
        self.by_reason: Counter[Reason] = Counter(dict.fromkeys(REASONS, 0))
        self.total_s = 0.0
        self._buckets = [0] * (len(limits.ROUTE_RECOVERY_BUCKETS_S) + 1)

    def add(self, switch: Switch) -> None:
        """Count one."""
        self.by_reason[switch.reason] += 1
        self.total_s += switch.seconds
        self._buckets[bisect.bisect_left(limits.ROUTE_RECOVERY_BUCKETS_S, switch.seconds)] += 1

    def cumulative(self) -> list[tuple[float, int]]:
        """(upper bound in seconds, switches up to it); the last bound is infinite."""
        found, total = [], 0
        for bound, count in zip((*limits.ROUTE_RECOVERY_BUCKETS_S, float("inf")), self._buckets, strict=True):
            total += count
            found.append((bound, total))
        return found
