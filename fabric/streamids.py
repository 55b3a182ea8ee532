"""Which stream ids a peer has used. Source: docs/wire.md, "Stream ids"."""

from __future__ import annotations

from fabric import limits
from fabric.errors import SessionError, WireError


class PeerIds:
    """The ids that the peer opens: one parity, counted up, each once.

    OPENs on different lanes pass each other, and a RESET on the control lane may pass its OPEN. So the used
    ids are a floor below which all are used, and the few above it.
    """

    def __init__(self, first: int) -> None:
        self._parity = first & 1
        self._floor = first
        self._above: set[int] = set()
        self._reset_early: set[int] = set()
        self.highest = 0
        """The highest id used so far; 0 before the first."""

    def mine(self, stream_id: int) -> bool:
        """Whether the id is of the kind that this peer opens."""
        return stream_id & 1 == self._parity and stream_id != 0

    def used(self, stream_id: int) -> bool:
        """Whether the peer has opened or reset this id before."""
        return stream_id < self._floor or stream_id in self._above

    def open(self, stream_id: int) -> bool:
        """Mark an id as opened; False when its RESET was here first and the OPEN is void.

        Raises `bad_stream_id` for an id that is not the peer's or far ahead of the others, and
        `stream_id_reused`.
        """
        if self.used(stream_id) and self.mine(stream_id):
            if stream_id in self._reset_early:
                self._reset_early.remove(stream_id)
                return False
            raise SessionError("stream_id_reused", f"stream {stream_id} was opened before")
        self._use(stream_id)
        return True

    def reset_before_open(self, stream_id: int) -> None:
        """A RESET came for an id not opened yet: the OPEN on its lane will be void."""
        if len(self._reset_early) >= limits.SESSION_EARLY_RESETS:
            raise SessionError("too_many_early_resets", f"{len(self._reset_early)} resets without OPEN")
        self._use(stream_id)
        self._reset_early.add(stream_id)

    def _use(self, stream_id: int) -> None:
        if not self.mine(stream_id):
            raise WireError("bad_stream_id", f"stream {stream_id} is not the peer's to open")
        if stream_id - self._floor > 2 * limits.SESSION_STREAM_ID_GAPS:
            raise WireError("bad_stream_id", f"stream {stream_id} leaves {self._floor} and others unused")
        self._above.add(stream_id)
        self.highest = max(self.highest, stream_id)
        while self._floor in self._above:
            self._above.remove(self._floor)
            self._floor += 2
