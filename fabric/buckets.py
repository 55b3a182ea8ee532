"""Token bucket. Pure: the caller brings the time."""

from __future__ import annotations

_ROUNDING = 1e-9  # so that `take` succeeds at the very time that `ready_at` names


class TokenBucket:
    """`rate` tokens a second, at most `burst` saved. Starts full."""

    __slots__ = ("_at", "_tokens", "burst", "rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._tokens = float(burst)
        self._at = now

    def take(self, now: float, tokens: float) -> bool:
        """Takes `tokens` if all are there, else nothing. A clock that steps back gives nothing."""
        self._tokens = self._saved(now)
        self._at = now
        if tokens > self._tokens + _ROUNDING:
            return False
        self._tokens = max(0.0, self._tokens - tokens)
        return True

    def ready_at(self, now: float, tokens: float) -> float:
        """The earliest time from `now` on at which `take` of so many succeeds; `tokens` ≤ burst. Changes
        nothing.
        """
        now = max(now, self._at)
        return now + max(0.0, tokens - self._saved(now)) / self.rate

    def _saved(self, now: float) -> float:
        return min(float(self.burst), self._tokens + max(0.0, now - self._at) * self.rate)
