"""What the two engines' carriers share; the libraries have one ancestor and one set of names."""

# ruff: noqa: SLF001 - a carrier is made of its library's state; versions are pinned, the contract suite guards it

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Set as AbstractSet
from typing import Any

from fabric import limits
from fabric.io.engines import (
    Address,
    CarrierConfig,
    CarrierError,
    CarrierEvent,
    CidIssued,
    CidRetired,
    Handshaken,
    LaneReset,
    Negotiated,
    Terminated,
)
from fabric.io.engines.packets import datagram_frame_room

_FRAME_HEADER = 3


class BaseCarrier(ABC):
    """A carrier but for what the engine itself does: receiving, sending, timers, lanes."""

    def __init__(self, quic: Any, config: CarrierConfig, addr: Address) -> None:
        self._quic = quic
        self._config = config
        self._addr = addr
        self._ids: set[bytes] = {quic.host_cid}
        self._told_end = False
        self._packets_sealed = 0
        self.is_dialer: bool = quic.configuration.is_client
        self.datagrams_dropped = 0

    def moved(self) -> None:
        """Our own address changed: go on under another of the peer's connection ids, where there is one."""
        if self._quic._handshake_complete and self._quic._close_event is None:
            self._quic.change_connection_id()

    def _sealed(self, packets: int) -> None:
        """Count packets under the key of now; past the bound the next one is used."""
        self._packets_sealed += packets
        if self._packets_sealed < limits.CARRIER_KEY_PACKETS or not self._quic._handshake_confirmed:
            return
        if self._quic._close_event is None and self._update_keys():
            self._packets_sealed = 0

    def _update_keys(self) -> bool:
        """Ask the library for the next keys; False while the peer has not followed to the present ones."""
        self._quic.request_key_update()
        return True

    def timer(self) -> float | None:
        """When `handle_timer` must be called, or None."""
        at: float | None = self._quic.get_timer()
        return at

    def close(self, code: int, reason: str) -> None:
        """Close with an application error code. Idempotent; `Terminated` follows."""
        self._quic.close(error_code=code, frame_type=None, reason_phrase=reason)
        self._end_trace()

    def connection_ids(self) -> AbstractSet[bytes]:
        """Every id by which datagrams for this carrier may be addressed now; a live view."""
        return self._ids

    def datagram_room(self) -> int:
        """The largest payload `send_datagram` takes now; 0 while the peer allows none.

        Both libraries would queue a larger frame: one blocks its queue for ever behind it, the other fails.
        """
        allowed = self._quic._remote_max_datagram_frame_size
        if not allowed or self._quic._close_event is not None:
            return 0
        room = min(allowed - _FRAME_HEADER, datagram_frame_room(self._datagram_frame_bytes()))
        return max(0, int(room))

    @abstractmethod
    def _datagram_frame_bytes(self) -> int:
        """The size of the UDP payload that a DATAGRAM frame must fit into."""

    def _check_datagram(self, data: bytes) -> None:
        self._require_open()
        room = self.datagram_room()
        if len(data) > room:
            raise CarrierError("datagram_too_large", f"a datagram of {len(data)} bytes, room for {room}")

    def _require_open(self) -> None:
        if self._quic._close_event is not None:
            raise CarrierError("carrier_closed", "the connection is closed")

    def _translate(self, event: Any) -> CarrierEvent | None:
        """A library event other than data; None when the fabric does not need it."""
        match type(event).__name__:
            case "ProtocolNegotiated":
                return Negotiated()
            case "HandshakeCompleted":
                return Handshaken(self._peer_certificate() if self.is_dialer else None)
            case "StreamReset":
                return LaneReset(event.stream_id, event.error_code, stopped=False)
            case "StopSendingReceived":
                return LaneReset(event.stream_id, event.error_code, stopped=True)
            case "ConnectionIdIssued":
                self._ids.add(event.connection_id)
                return CidIssued(event.connection_id)
            case "ConnectionIdRetired":
                self._ids.discard(event.connection_id)
                return CidRetired(event.connection_id)
            case _:
                return None

    def _end(self) -> list[CarrierEvent]:
        """`Terminated` as soon as the end is known; the libraries tell it after their closing period."""
        event = self._quic._close_event
        if event is None or self._told_end:
            return []
        self._told_end = True
        self._end_trace()
        return [Terminated(int(event.error_code), event.reason_phrase, event.frame_type is None)]

    def _end_trace(self) -> None:
        """Write the qlog as soon as the end is decided: an endpoint that closes awaits no closing period."""
        trace, self._quic._quic_logger = self._quic._quic_logger, None
        if trace is not None:
            self._quic._configuration.quic_logger.end_trace(trace)

    @abstractmethod
    def _peer_certificate(self) -> bytes | None:
        """DER of the certificate whose key signed the handshake."""


def too_many_pending(count: int) -> bool:
    """Whether a carrier already holds as many DATAGRAM frames as it may."""
    return count >= limits.CARRIER_PENDING_DATAGRAM_FRAMES
