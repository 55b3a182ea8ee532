"""Datagrams that arrived and wait for their turn: whose come next. Pure.

A socket has one queue for all, so whoever sends most would make everybody wait behind it. Here each sender
waits in a queue of its own, and the one that has used the least time is next (start-time fair queueing by
Goyal, Vin and Cheng, with time spent in place of bytes sent). A sender that was silent begins where the
others are, so silence saves nothing up. A part is as large as fits in a turn by what its sender's datagrams
cost of late, since whoever comes while it is acted upon has to wait. What does not fit is lost, as in a full
socket, but it is lost by the sender whose queue is long. All counts are of usual datagrams: a large one holds
as many frames as several, and takes the place of as many.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from fabric import limits

_COST_SAMPLES: Final = 8

K = TypeVar("K", bound=Hashable)
"""Stands for a sender."""
A = TypeVar("A")
"""Where its datagrams came in and from."""


class Inbox(Generic[K, A]):
    """The queues of all senders. A shell puts in runs of datagrams, takes a part, and says what it cost."""

    def __init__(self) -> None:
        self.waiting = 0
        """Datagrams in all queues, by their `worth`."""
        self._runs: dict[K, deque[tuple[list[bytes], A]]] = {}
        self._counts: dict[K, int] = {}
        """By sender with something queued; `_used` also of those who may come again."""
        self._order: list[tuple[float, int, K]] = []
        self._ticket = itertools.count()
        self._used: dict[K, float] = {}
        self._cost: dict[K, float] = {}
        """Seconds for a usual datagram of each sender's, of late."""
        self._served = 0.0
        """What the sender had used that was served last: where those who come begin."""

    def __bool__(self) -> bool:
        return bool(self._runs)

    def put(self, sender: K, datagrams: list[bytes], origin: A) -> int:
        """Queue a run of datagrams in order of arrival; returns how many of them are lost. An empty run asks
        for a turn without any.
        """
        held = self._counts.get(sender, 0)
        room = limits.INBOX_DATAGRAMS_EACH
        if self.waiting >= limits.INBOX_DATAGRAMS:
            room = limits.INBOX_DATAGRAMS_PART
        taken = datagrams[: _fitting(datagrams, room - held)]
        if datagrams and not taken:
            return len(datagrams)
        if sender not in self._runs:
            self._runs[sender] = deque()
            self._used[sender] = max(self._used.get(sender, 0.0), self._served)
            self._line_up(sender)
        self._runs[sender].append((taken, origin))
        size = worth(taken)
        self._counts[sender] = held + size
        self.waiting += size
        return len(datagrams) - len(taken)

    def take(self) -> tuple[K, list[bytes], A] | None:
        """The next part of the next sender's oldest run, small where others wait; None when nobody does."""
        while self._order:
            used, _, sender = heapq.heappop(self._order)
            if sender not in self._runs:
                continue  # forgotten
            if used == self._used[sender]:
                return self._part(sender)
            self._line_up(sender)  # it has spent more since it was lined up
        return None

    def spent(self, sender: K, seconds: float, datagrams: int = 0) -> None:
        """So much time went into datagrams of this `worth` that the sender sent, or into what it is sent."""
        if datagrams:
            known, cost = self._cost.get(sender, 0.0), seconds / datagrams
            # At once when they become dear, slowly when they become cheap.
            self._cost[sender] = max(cost, known + (cost - known) / _COST_SAMPLES)
        self._used[sender] = max(self._used.get(sender, 0.0), self._served) + seconds

    def forget(self, sender: K) -> None:
        """The sender is gone, with what waits."""
        self.waiting -= self._counts.pop(sender, 0)
        self._runs.pop(sender, None)
        self._used.pop(sender, None)
        self._cost.pop(sender, None)

    def _part(self, sender: K) -> tuple[K, list[bytes], A]:
        runs = self._runs[sender]
        run, origin = runs[0]
        size = limits.INBOX_DATAGRAMS_PART
        cost = self._cost.get(sender)
        if cost:
            alone = len(self._runs) == 1
            size = min(int(limits.UDP_TURN_S / cost), limits.UDP_DATAGRAMS_PER_TURN if alone else size)
        count = max(1, _fitting(run, size))
        part, rest = run[:count], run[count:]
        if rest:
            runs[0] = rest, origin
        else:
            runs.popleft()
        size = worth(part)
        self.waiting -= size
        self._counts[sender] -= size
        self._served = max(self._served, self._used[sender])
        if runs:
            self._line_up(sender)
        else:
            del self._runs[sender], self._counts[sender]
        return sender, part, origin

    def _line_up(self, sender: K) -> None:
        heapq.heappush(self._order, (self._used[sender], next(self._ticket), sender))


def worth(datagrams: list[bytes]) -> int:
    """How many usual datagrams these are as much as."""
    if not datagrams or max(map(len, datagrams)) <= limits.INBOX_DATAGRAM_BYTES:  # nearly always
        return len(datagrams)
    return sum(map(_worth, datagrams))


def _worth(data: bytes) -> int:
    return -(-len(data) // limits.INBOX_DATAGRAM_BYTES) or 1


def _fitting(datagrams: list[bytes], room: int) -> int:
    """How many of the first are worth no more than `room`."""
    if worth(datagrams[: max(0, room)]) <= room:
        return max(0, min(len(datagrams), room))
    for count, data in enumerate(datagrams):
        room -= _worth(data)
        if room < 0:
            return count
    return len(datagrams)
