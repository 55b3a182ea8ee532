"""How many bytes a carrier should have under way: enough to fill the path, not enough to queue in it.

A loss-based congestion window fills whatever buffer the path has, and everything sent afterwards waits behind
it, interactive frames too: on loopback that is the receiver's socket buffer, eight megabytes deep. So bulk is
held back once as much is under way as the path carries in two round trips, by the model of BBR: the highest
delivery rate of late, times the shortest round trip. What control, dns and interactive have to say does not
wait for this. Source: draft-ietf-ccwg-bbr, sections 4.1 and 5.5; the engine's own window stays in force.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from fabric import limits

_GROWTH: Final = 1.25  # a rate that grows less than this has found the path's (BBR's "full pipe")
_PLATEAU: Final = 3  # so many samples in a row
_SAMPLES: Final = 10


class FlightLimit:
    """The limit of one carrier. Sizes in bytes, times in seconds of the caller's clock."""

    __slots__ = (
        "_best",
        "_delivered",
        "_flat",
        "_probe_until",
        "_rates",
        "_renew_at",
        "_since",
        "_starved",
        "min_rtt",
        "rate",
    )

    def __init__(self, now: float) -> None:
        self.rate = 0.0
        """Bytes delivered per second: the best of the last samples."""
        self.min_rtt = 0.0
        """The shortest round trip of late; 0 before the first."""
        self._rates: deque[float] = deque(maxlen=_SAMPLES)
        self._best = 0.0
        self._flat = 0
        self._since = now
        self._delivered = 0
        self._starved = True
        self._renew_at = now + limits.FLIGHT_MIN_RTT_S
        self._probe_until = 0.0

    def update(self, now: float, sent: int, in_flight: int, rtt: float | None, *, starved: bool) -> None:
        """Take a look at the carrier.

        `sent` counts all bytes ever sent, `in_flight` those neither acknowledged nor given up; `rtt` is the
        latest sample. `starved`: it had nothing more to send, so a low rate says nothing about the path.
        """
        if rtt:
            self._round_trip(now, rtt)
        self._starved |= starved
        elapsed = now - self._since
        if elapsed < max(self.min_rtt, limits.FLIGHT_SAMPLE_S):
            return
        delivered = sent - in_flight
        rate = (delivered - self._delivered) / elapsed
        if rate > self.rate or not (self._starved or now < self._probe_until):
            self._sample(rate)
        self._since, self._delivered, self._starved = now, delivered, starved

    def room(self, now: float, in_flight: int) -> int:
        """How many bytes more of bulk may get under way now."""
        if self._flat < _PLATEAU:
            return limits.SESSION_UNSENT_BYTES
        if now < self._probe_until:
            allowed = self.rate * self.min_rtt / 2
        else:
            allowed = self.rate * (2 * self.min_rtt + limits.FLIGHT_QUEUE_S)
        return max(0, max(limits.FLIGHT_BYTES_MIN, int(allowed)) - in_flight)

    def _sample(self, rate: float) -> None:
        self._rates.append(rate)
        self.rate = max(self._rates)
        if rate >= self._best * _GROWTH:
            self._best, self._flat = rate, 0
        else:
            self._flat += 1

    def _round_trip(self, now: float, rtt: float) -> None:
        if not self.min_rtt or rtt <= self.min_rtt:
            self.min_rtt, self._renew_at = rtt, now + limits.FLIGHT_MIN_RTT_S
        elif now >= self._renew_at:
            # The path may have become longer. Drain it for a moment, and believe what is measured then.
            self._probe_until = now + max(2 * rtt, limits.FLIGHT_PROBE_S)
            self.min_rtt, self._renew_at = rtt, self._probe_until + limits.FLIGHT_MIN_RTT_S
