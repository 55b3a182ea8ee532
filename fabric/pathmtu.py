"""How large a datagram a path carries: the search of RFC 8899 with QUIC's numbers (RFC 9000 section 14).

    BASE ──Start──► SEARCHING ──nothing larger is left──► COMPLETE
      ▲               │    ▲                                 │
      └─Losses, Moved─┘    └────────── raise timer ──────────┘

A size is in force only once a padded probe of it was acknowledged. Every QUIC path carries the base size, so
the RFC's ERROR state has no place here. What ICMP says is a guess of what to probe next and nothing more:
anybody on the way may forge it. Pure; the shell is `fabric.io.pathsize`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fabric import limits


class Phase(Enum):
    """Where the search is."""

    BASE = "base"
    SEARCHING = "searching"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class Start:
    """The peer is proved. `ceiling`: the largest UDP payload that may be probed for, in bytes."""

    ceiling: int


@dataclass(frozen=True, slots=True)
class Probed:
    """What became of probe `number`: acknowledged, or lost."""

    number: int
    delivered: bool


@dataclass(frozen=True, slots=True)
class Found:
    """An engine that searches by itself sends datagrams of `size` now."""

    size: int


@dataclass(frozen=True, slots=True)
class Losses:
    """So many losses in a row hit packets larger than the base, and none such was acknowledged since."""

    in_a_row: int


@dataclass(frozen=True, slots=True)
class Moved:
    """The path is another one: nothing is known of it."""


@dataclass(frozen=True, slots=True)
class TooBig:
    """Somebody, perhaps a router, says that the path carries UDP payloads of `size` bytes at most."""

    size: int


@dataclass(frozen=True, slots=True)
class Timer:
    """`deadline()` has come."""


Event = Start | Probed | Found | Losses | Moved | TooBig | Timer


@dataclass(frozen=True, slots=True)
class SendProbe:
    """Send one packet padded to `size` bytes of UDP payload; tell what became of it with `number`."""

    number: int
    size: int


@dataclass(frozen=True, slots=True)
class UseSize:
    """Send datagrams of up to `size` bytes from now on."""

    size: int


Effect = SendProbe | UseSize


class PathMtu:
    """The search on one connection. `size` is the UDP payload in force, in bytes."""

    def __init__(self, base: int = limits.CARRIER_DATAGRAM_BYTES) -> None:
        self.base = base
        self.size = base
        self.phase = Phase.BASE
        self._ceiling = base
        self._number = 0
        self._probing = 0
        """The size of the probe under way; 0 is none."""
        self._tries = 0
        self._refused: int | None = None
        """The smallest size that did not get through in this search."""
        self._hint = 0
        """One more size to try, by the first ICMP error of this search; more may be a forger's flood."""
        self._at: float | None = None

    def deadline(self) -> float | None:
        """When a `Timer` is due."""
        return self._at

    def handle(self, now: float, event: Event) -> list[Effect]:
        """What to do about an event; `now` in seconds of a steady clock."""
        match event:
            case Start():
                self._ceiling = event.ceiling
                return self._search(now)
            case Probed() if event.number == self._number and self._probing:
                return self._delivered(now) if event.delivered else self._lost(now)
            case Found():
                self.size = event.size
            case Losses() if event.in_a_row >= limits.PATH_MTU_LOSSES and self.size > self.base:
                # What got through as a probe no longer does: climb again, but not back to where it broke.
                self._refused = self.size
                return [*self._fall(), *self._search(now)]
            case Moved():
                self._refused, self._hint = None, 0
                started = self.phase is not Phase.BASE
                return [*self._fall(), *(self._search(now) if started else [])]
            case TooBig() if not self._hint and self.size < event.size <= self._ceiling:
                self._hint = event.size
            case Timer() if self._at is not None and now >= self._at:
                if self._probing:
                    return self._lost(now)
                self._refused, self._hint = None, 0
                return self._search(now)
            case _:
                pass
        return []

    def _delivered(self, now: float) -> list[Effect]:
        self.size = self._probing
        return [UseSize(self.size), *self._search(now)]

    def _lost(self, now: float) -> list[Effect]:
        if self._next() < self._probing:
            return self._search(now)  # what ICMP said lies below: that first
        if self._tries < limits.PATH_MTU_TRIES:
            return self._probe(now, self._probing)
        self._refused = self._probing
        return self._search(now)

    def _fall(self) -> list[Effect]:
        fell, self.size = self.size > self.base, self.base
        self.phase = Phase.BASE
        self._probing, self._at = 0, None
        return [UseSize(self.size)] if fell else []

    def _search(self, now: float) -> list[Effect]:
        """Probe for the next size, or rest until the path may have changed."""
        self._tries, self._probing = 0, 0
        size = self._next()
        if size:
            self.phase = Phase.SEARCHING
            return self._probe(now, size)
        self.phase = Phase.COMPLETE
        self._at = now + limits.PATH_MTU_RAISE_S
        return []

    def _next(self) -> int:
        """The next size to try; 0 when there is none."""
        end = self._ceiling + 1 if self._refused is None else min(self._ceiling + 1, self._refused)
        sizes = (*limits.PATH_MTU_SIZES, self._ceiling, self._hint)
        return min((size for size in sizes if self.size < size < end), default=0)

    def _probe(self, now: float, size: int) -> list[Effect]:
        self._number += 1
        self._tries += 1
        self._probing = size
        self._at = now + limits.PATH_MTU_PROBE_S
        return [SendProbe(self._number, size)]
