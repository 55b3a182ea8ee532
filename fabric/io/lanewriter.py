"""Fills a carrier's lanes from a session, only as far as bytes really leave.

What is queued in the engine can no longer be overtaken, so a lane gets more only while little of it waits.
"""

from __future__ import annotations

from operator import itemgetter

from fabric import limits
from fabric.flight import FlightLimit
from fabric.io.engines import Address, Carrier
from fabric.lanes import LaneKey
from fabric.session import Session

_DATA = itemgetter(0)


class LaneWriter:
    """The lanes that this end opened on one carrier."""

    def __init__(self, carrier: Carrier, now: float) -> None:
        self._carrier = carrier
        self._lanes: dict[LaneKey, int] = {}
        self._lane_sent: dict[LaneKey, int] = {}
        self._host = carrier.remote[0]
        self._flight = FlightLimit(now)
        self._sent = 0

    def fill(self, session: Session, now: float) -> bool:
        """Move what the lanes have room for from the session to the carrier; whether anything moved."""
        carrier, lanes, sent = self._carrier, self._lanes, self._lane_sent
        room = min(limits.SESSION_UNSENT_BYTES, self._flight.room(now, carrier.in_flight()))
        total = max(0, room - carrier.unsent())
        chunks = session.outgoing(now, self._room, total)
        for key, chunk in chunks:
            quic_stream_id = lanes.get(key)
            if quic_stream_id is None:
                quic_stream_id = lanes[key] = carrier.open_lane()
                sent[key] = 0
            carrier.send(quic_stream_id, chunk)
            sent[key] += len(chunk)
        datagrams = session.datagrams_outgoing(now)
        room = carrier.datagram_room() if datagrams else 0
        for data in datagrams:
            if len(data) <= room:
                carrier.send_datagram(data)
            else:
                session.counters["datagrams_too_large"] += 1
        return bool(chunks or datagrams)

    def sent(self) -> dict[LaneKey, tuple[int, int]]:
        """By lane: bytes given to the carrier, and how many of them have not been sent for the first time."""
        return {key: (self._lane_sent[key], self._carrier.unsent(one)) for key, one in self._lanes.items()}

    def left(self, session: Session, datagrams: list[tuple[bytes, Address]], now: float) -> None:
        """The carrier gave these datagrams to send: what the limit on bytes under way follows."""
        carrier = self._carrier
        if carrier.remote[0] != self._host:
            self._host, self._flight = carrier.remote[0], FlightLimit(now)
        self._sent += sum(map(len, map(_DATA, datagrams)))
        starved = not session.has_output() and not carrier.unsent()
        self._flight.update(now, self._sent, carrier.in_flight(), carrier.round_trip(), starved=starved)

    def _room(self, key: LaneKey) -> int:
        """How many untransmitted bytes a lane may still take."""
        quic_stream_id = self._lanes.get(key)
        unsent = 0 if quic_stream_id is None else self._carrier.unsent(quic_stream_id)
        return max(0, limits.LANE_UNSENT_BYTES - unsent)
