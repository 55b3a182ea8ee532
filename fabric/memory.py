"""How much streams may hold at their ends: of one session, of one peer, of the whole process.

A stream holds what its reader has not taken and what its peer has not acknowledged. One that nobody reads
stops at its own window; many of them are memory all the same. Where half of a budget is used, writers wait
for their peers; of the process's budget, writers to those peers that use more than an equal share. Whoever
fills a budget pays for it: the stream that holds most within it is ended, never the one that happens to come
next.
Source: docs/wire.md, "Credit".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from fabric import limits

S = TypeVar("S", bound=Hashable)


class MemoryBudget(Generic[S]):
    """Bytes held by stream, with their sums by session and by peer; `S` is what stands for a stream."""

    def __init__(
        self,
        *,
        session: int = limits.MEMORY_SESSION_BYTES,
        peer: int = limits.MEMORY_PEER_BYTES,
        process: int = limits.MEMORY_PROCESS_BYTES,
    ) -> None:
        self.total = 0
        self._session, self._peer, self._process = session, peer, process
        self._streams: dict[S, tuple[str, Hashable, int]] = {}
        self._by_session: dict[Hashable, int] = {}
        self._by_peer: dict[str, int] = {}

    def hold(self, stream: S, peer: str, session: Hashable, held: int) -> S | None:
        """The stream, of this peer and on this session, holds so many bytes now, 0 when it is over.

        Returns the stream that must be ended because growth exceeded a budget, or None. End it, say that it
        holds 0, and ask `excess` for the next.
        """
        before = self._streams.get(stream)
        if before is not None:
            self._add(before[0], before[1], -before[2])
        if held:
            self._streams[stream] = (peer, session, held)
            self._add(peer, session, held)
        elif before is not None:
            del self._streams[stream]
        if before is not None and held <= before[2]:
            return None
        return self.excess(peer, session)

    def excess(self, peer: str, session: Hashable) -> S | None:
        """The stream to end next because a budget that this session counts for is exceeded, or None."""
        if self._by_session.get(session, 0) > self._session:
            return self._largest(lambda row: row[1] == session)
        if self._by_peer.get(peer, 0) > self._peer:
            return self._largest(lambda row: row[0] == peer)
        if self.total > self._process:
            worst = max(self._by_peer, key=lambda name: self._by_peer[name])
            return self._largest(lambda row: row[0] == worst)
        return None

    def crowded(self, peer: str, session: Hashable) -> bool:
        """Whether writers should wait for the peer: half of its or of its session's budget is used, or half
        of the process's, of which the peer uses more than an equal share.
        """
        mine = self._by_peer.get(peer, 0)
        return (
            2 * mine > self._peer
            or 2 * self._by_session.get(session, 0) > self._session
            or (2 * self.total > self._process and self._above_share(mine))
        )

    def _above_share(self, mine: int) -> bool:
        """Whether a peer that holds `mine` is above the level to which half of the process's budget fills all
        peers (max-min fairness): whoever holds less is not held up by those who hold more.
        """
        half = self._process // 2
        if mine * len(self._by_peer) <= half:
            return False
        return sum(min(one, mine) for one in self._by_peer.values()) > half

    def _add(self, peer: str, session: Hashable, count: int) -> None:
        self.total += count
        self._by_session[session] = self._by_session.get(session, 0) + count
        self._by_peer[peer] = self._by_peer.get(peer, 0) + count
        if not self._by_session[session]:
            del self._by_session[session]
        if not self._by_peer[peer]:
            del self._by_peer[peer]

    def _largest(self, within: Callable[[tuple[str, Hashable, int]], bool]) -> S:
        return max((one for one, row in self._streams.items() if within(row)), key=self._size)

    def _size(self, stream: S) -> int:
        return self._streams[stream][2]
