"""Which stream ids either end has used. Source: docs/wire.md, "Stream ids"."""

from __future__ import annotations

from collections import deque

from fabric import limits
from fabric.errors import SessionError, WireError
from fabric.lanes import LaneKey


class OwnIds:
    """The ids that this end opens, and those of them whose OPEN the peer may not have yet.

    OPENs on different lanes pass each other, and a peer takes none that is far ahead of one it lacks: it
    would end the session. An answer to one shows that it has all that left before it on that lane, which is
    not always all that were opened before it there: streams and tenants take turns.
    """

    def __init__(self, first: int) -> None:
        self.next = first
        """What `open` gives."""
        self._lanes: dict[LaneKey, deque[int]] = {}
        """Ids in the order in which their OPENs left for the lane."""
        self._opening: dict[int, tuple[LaneKey, float | None]] = {}
        """Ids that may be missing at the peer, with their lane and when the OPEN left for it."""
        self._in_order: deque[int] = deque()
        """The same ids, lowest first, and some that are not missing any more."""

    def may_open(self, now: float) -> bool:
        """Whether the peer is sure to take the next id, whichever OPEN arrives first."""
        if self.next <= 2 * limits.SESSION_STREAM_ID_GAPS:
            return True
        for ids in self._lanes.values():
            while ids and self._arrived(now, ids[0]):
                del self._opening[ids.popleft()]
        return self.next - self._lowest() <= 2 * limits.SESSION_STREAM_ID_GAPS

    def open(self, lane: LaneKey) -> int:
        """The next id, for an OPEN on this lane."""
        stream_id = self.next
        self.next += 2
        self._opening[stream_id] = lane, None
        self._in_order.append(stream_id)
        return stream_id

    def left(self, now: float, stream_id: int) -> None:
        """Something of the stream left for its lane: first its OPEN."""
        found = self._opening.get(stream_id)
        if found is not None and found[1] is None:
            self._opening[stream_id] = found[0], now
            self._lanes.setdefault(found[0], deque()).append(stream_id)

    def heard(self, stream_id: int) -> None:
        """The peer said something about the stream."""
        found = self._opening.get(stream_id)
        if found is None or found[1] is None:
            return
        ids, last = self._lanes[found[0]], 0
        while last != stream_id:
            last = ids.popleft()
            del self._opening[last]
        self._lowest()

    def _lowest(self) -> int:
        in_order = self._in_order
        while in_order and in_order[0] not in self._opening:
            in_order.popleft()
        return in_order[0] if in_order else self.next

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
        self._above = 0
        """A bit for each id of the parity from the floor on, the floor's the lowest: set where it is used."""
        self.highest = 0
        """The highest id used so far; 0 before the first."""

    def mine(self, stream_id: int) -> bool:
        """Whether the id is of the kind that this peer opens."""
        return stream_id & 1 == self._parity and stream_id != 0

    def used(self, stream_id: int) -> bool:
        """Whether the peer has opened this id before."""
        return stream_id < self._floor or bool(self._above >> (stream_id - self._floor >> 1) & 1)

    @property
    def unused(self) -> int:
        """How far the highest id is above the lowest that was never opened, in ids."""
        return max(0, self.highest - self._floor >> 1)

    def open(self, stream_id: int) -> None:
        """Mark an id as opened.

        Raises `bad_stream_id` for an id that is not the peer's or far ahead of the others, and
        `stream_id_reused`.
        """
        if not self.mine(stream_id):
            raise WireError("bad_stream_id", f"stream {stream_id} is not the peer's to open")
        ahead = stream_id - self._floor >> 1
        if ahead > limits.SESSION_STREAM_ID_GAPS:
            raise WireError("bad_stream_id", f"stream {stream_id} leaves {self._floor} and others unused")
        if self.used(stream_id):
            raise SessionError("stream_id_reused", f"stream {stream_id} was opened before")
        self._above |= 1 << ahead
        self.highest = max(self.highest, stream_id)
        if not ahead:
            row = (~self._above & self._above + 1).bit_length() - 1  # used ones from the floor on
            self._above >>= row
            self._floor += 2 * row
