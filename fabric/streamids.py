"""Which stream ids a peer has used. Source: docs/wire.md, "Stream ids"."""

from __future__ import annotations

from fabric import limits
from fabric.errors import SessionError, WireError


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
