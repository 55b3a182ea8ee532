"""Which stream ids either end has used. Source: docs/wire.md, "Stream ids"."""

from __future__ import annotations

from collections import deque

from fabric import limits
from fabric.errors import SessionError, WireError
from fabric.lanes import LaneKey


class OwnIds:
    """The ids that this end opens, and those of them whose OPEN the peer may not have yet.

    OPENs on different lanes pass each other, and a peer takes none that is far ahead of one it lacks: it
    would end the session. An answer to one shows that it has all before it on that lane.
    """

    def __init__(self, first: int) -> None:
        self.next = first
        """What `open` gives."""
        self._lanes: dict[LaneKey, deque[int]] = {}
        self._opening: dict[int, tuple[LaneKey, float | None]] = {}
        """Ids that may be missing at the peer, with their lane and when the OPEN left for it."""

    def may_open(self, now: float) -> bool:
        """Whether the peer is sure to take the next id, whichever OPEN arrives first."""
        if self.next <= 2 * limits.SESSION_STREAM_ID_GAPS:
            return True
        lowest = self.next
        for ids in self._lanes.values():
            while ids and self._arrived(now, ids[0]):
                del self._opening[ids.popleft()]
            if ids:
                lowest = min(lowest, ids[0])
        return self.next - lowest <= 2 * limits.SESSION_STREAM_ID_GAPS

    def open(self, lane: LaneKey) -> int:
        """The next id, for an OPEN on this lane."""
        stream_id = self.next
        self.next += 2
        self._lanes.setdefault(lane, deque()).append(stream_id)
        self._opening[stream_id] = lane, None
        return stream_id

    def left(self, now: float, stream_id: int) -> None:
        """Something of the stream left for its lane: first its OPEN."""
        found = self._opening.get(stream_id)
        if found is not None and found[1] is None:
            self._opening[stream_id] = found[0], now

    def heard(self, stream_id: int) -> None:
        """The peer said something about the stream."""
        found = self._opening.get(stream_id)
        if found is None:
            return
        ids = self._lanes[found[0]]
        while ids and ids[0] <= stream_id:
            del self._opening[ids.popleft()]

    def _arrived(self, now: float, stream_id: int) -> bool:
        _, left = self._opening[stream_id]
        return left is not None and now >= left + limits.SESSION_OPEN_ARRIVES_S


class PeerIds:
    """The ids that the peer opens: one parity, counted up, each once.

    OPENs on different lanes pass each other. So the used ids are a floor below which all are used, and the
    few above it.
    """

    def __init__(self, first: int) -> None:
        self._parity = first & 1
        self._floor = first
        self._above: set[int] = set()
        self.highest = 0
        """The highest id used so far; 0 before the first."""

    def mine(self, stream_id: int) -> bool:
        """Whether the id is of the kind that this peer opens."""
        return stream_id & 1 == self._parity and stream_id != 0

    def used(self, stream_id: int) -> bool:
        """Whether the peer has opened this id before."""
        return stream_id < self._floor or stream_id in self._above

    def open(self, stream_id: int) -> None:
        """Mark an id as opened.

        Raises `bad_stream_id` for an id that is not the peer's or far ahead of the others, and
        `stream_id_reused`.
        """
        if not self.mine(stream_id):
            raise WireError("bad_stream_id", f"stream {stream_id} is not the peer's to open")
        if self.used(stream_id):
            raise SessionError("stream_id_reused", f"stream {stream_id} was opened before")
        if stream_id - self._floor > 2 * limits.SESSION_STREAM_ID_GAPS:
            raise WireError("bad_stream_id", f"stream {stream_id} leaves {self._floor} and others unused")
        self._above.add(stream_id)
        self.highest = max(self.highest, stream_id)
        while self._floor in self._above:
            self._above.remove(self._floor)
            self._floor += 2
