"""What waits for the control lane. Everything that can be is merged, so that no peer can make it grow.

Source: docs/wire.md, "Control lane".
"""

from __future__ import annotations

from collections import deque

from fabric import limits, wire
from fabric.wire import NodePressure, ResetStream, RouteUpdate


class Outbox:
    """Frames of the control lane, by urgency: session, resets, pings, credit, acknowledgements, news."""

    def __init__(self) -> None:
        self._session: deque[bytes] = deque()
        self._resets: dict[int, bytes] = {}
        self._probes: deque[bytes] = deque()
        self._pings: dict[int, tuple[int, int]] = {}
        self._pongs: dict[int, tuple[int, int]] = {}
        self._credits: dict[int, int] = {}
        self._acks: dict[int, tuple[int, int]] = {}
        self._routes: dict[str, RouteUpdate] = {}
        self._pressure: NodePressure | None = None

    def __bool__(self) -> bool:
        return bool(
            self._session
            or self._resets
            or self._probes
            or self._pings
            or self._pongs
            or self._credits
            or self._acks
            or self._routes
            or self._pressure
        )

    def session(self, frame: bytes) -> None:
        """A frame of the handshake, or GOAWAY."""
        self._session.append(frame)

    def reset(self, stream_id: int, reason: str, detail: str) -> bool:
        """RESET_STREAM, instead of whatever else the stream had to say here; False when too many wait."""
        if len(self._resets) >= limits.SESSION_PENDING_RESETS:
            return False
        self.forget(stream_id)
        self._resets[stream_id] = encode_reset(stream_id, reason, detail)
        return True

    def probe(self, frame: bytes) -> bool:
        """A PING or PONG of the hop; False when too many wait and it was dropped."""
        if len(self._probes) >= limits.PENDING_PONGS:
            return False
        self._probes.append(frame)
        return True

    def ping(self, stream_id: int, nonce: int, time: int) -> None:
        """A PING of a stream; the newest, whose answer says most."""
        self._pings[stream_id] = (nonce, time)

    def pong(self, stream_id: int, nonce: int, time: int) -> None:
        """A PONG of a stream; the newest."""
        self._pongs[stream_id] = (nonce, time)

    def credit(self, stream_id: int, allowed: int) -> None:
        """STREAM_CREDIT; totals, so only the newest matters."""
        self._credits[stream_id] = allowed

    def ack(self, stream_id: int, received_up_to: int, limit: int) -> None:
        """ACK; totals as well."""
        self._acks[stream_id] = (received_up_to, limit)

    def route(self, update: RouteUpdate) -> None:
        """ROUTE_UPDATE; the newest of a route."""
        self._routes[update.route_id] = update

    def pressure(self, pressure: NodePressure) -> None:
        """NODE_PRESSURE; the newest."""
        self._pressure = pressure

    def forget(self, stream_id: int) -> None:
        """The stream is dead: nothing to ask, grant or acknowledge."""
        self._pings.pop(stream_id, None)
        self._pongs.pop(stream_id, None)
        self._credits.pop(stream_id, None)
        self._acks.pop(stream_id, None)

    def take(self, room: int) -> list[bytes]:
        """Frames for the lane until `room` bytes are used, the last of them perhaps beyond."""
        frames: list[bytes] = []
        while room > 0 and self:
            frame = self._next()
            room -= len(frame)
            frames.append(frame)
        return frames

    def _next(self) -> bytes:
        if self._session:
            return self._session.popleft()
        if self._resets:
            return self._resets.pop(next(iter(self._resets)))
        if self._probes:
            return self._probes.popleft()
        if self._pongs:
            stream_id = next(iter(self._pongs))
            return wire.encode_pong(stream_id, *self._pongs.pop(stream_id))
        if self._pings:
            stream_id = next(iter(self._pings))
            return wire.encode_ping(stream_id, *self._pings.pop(stream_id))
        if self._credits:
            stream_id = next(iter(self._credits))
            return wire.encode_credit(stream_id, self._credits.pop(stream_id))
        if self._acks:
            stream_id = next(iter(self._acks))
            return wire.encode_ack(stream_id, *self._acks.pop(stream_id))
        if self._routes:
            return wire.encode_map(self._routes.pop(next(iter(self._routes))))
        pressure, self._pressure = self._pressure, None
        return wire.encode_map(pressure or NodePressure())


def encode_reset(stream_id: int, reason: str, detail: str) -> bytes:
    """A whole RESET_STREAM frame; the detail is cut to what fits."""
    return wire.encode_map(ResetStream(reason=reason, detail=detail[: limits.DETAIL_CHARS]), stream_id)
