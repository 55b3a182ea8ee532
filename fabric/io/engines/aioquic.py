"""The reference carrier: aioquic's `QuicConnection`, guarded where the library trusts its peer or caller."""

# ruff: noqa: SLF001 - a carrier is made of its library's state; versions are pinned, the contract suite guards it

from __future__ import annotations

import ssl
from typing import Any, cast

from aioquic.quic import events as quic_events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.logger import QuicLoggerTrace
from aioquic.quic.packet import QuicProtocolVersion
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from fabric import limits
from fabric.identity import NodeIdentity
from fabric.io.engines import (
    Address,
    Carrier,
    CarrierConfig,
    CarrierEvent,
    CarrierStats,
    DatagramBytes,
    DatagramProbed,
    EngineName,
    LaneBytes,
)
from fabric.io.engines.aioquic_connection import AioquicConnection
from fabric.io.engines.aioquic_mtu import CONGESTION
from fabric.io.engines.base import BaseCarrier, too_many_pending
from fabric.io.engines.packets import CID_BYTES
from fabric.io.engines.qlog import QlogFolder


class AioquicEngine:
    """Makes carriers over aioquic."""

    name: EngineName = "aioquic"

    def __init__(self, identity: NodeIdentity, config: CarrierConfig) -> None:
        self._config = config
        folder = config.qlog_folder
        self._qlog = None if folder is None else QlogFolder(folder, QuicLoggerTrace)
        self._certificate = x509.load_der_x509_certificate(identity.certificate_der)
        self._private_key = Ed25519PrivateKey.from_private_bytes(identity.seed)

    def dial(self, addr: Address, now: float) -> Carrier:
        """Start a connection to `addr`."""
        quic = AioquicConnection(configuration=self._configuration(is_client=True))
        quic.connect(addr, now=now)
        return AioquicCarrier(quic, self._config, addr)

    def accept(
        self, *, original_destination_cid: bytes, retry_source_cid: bytes | None, addr: Address, now: float
    ) -> Carrier:
        """A carrier for an Initial packet; see `fabric.io.engines.Engine`."""
        del now
        quic = AioquicConnection(
            configuration=self._configuration(is_client=False),
            original_destination_connection_id=original_destination_cid,
            retry_source_connection_id=retry_source_cid,
        )
        return AioquicCarrier(quic, self._config, addr)

    def _configuration(self, *, is_client: bool) -> QuicConfiguration:
        config = self._config
        made = QuicConfiguration(
            is_client=is_client,
            alpn_protocols=list(config.alpn),
            connection_id_length=CID_BYTES,
            idle_timeout=config.idle_timeout_s,
            max_data=config.connection_window_bytes,
            max_stream_data=config.lane_window_bytes,
            max_datagram_size=config.max_datagram_bytes,
            congestion_control_algorithm=CONGESTION,
            max_datagram_frame_size=limits.CARRIER_DATAGRAM_FRAME_BYTES,
            initial_rtt=limits.CARRIER_INITIAL_RTT_S,
            supported_versions=[QuicProtocolVersion.VERSION_1],
        )
        if self._qlog is not None:
            made.quic_logger = cast("Any", self._qlog)
        if is_client:
            # The certificate is checked by pin and node id above; CertificateVerify is checked regardless.
            made.verify_mode = ssl.CERT_NONE
            # A transport parameter of 1,200 bytes, which spreads the ClientHello over two datagrams: qh3
            # listeners otherwise stay within the anti-amplification limit only by stalling the handshake.
            made.quantum_readiness_test = True
        else:
            made.certificate = self._certificate
            made.private_key = self._private_key
        return made


class AioquicCarrier(BaseCarrier):
    """One aioquic connection behind the carrier port."""

    _quic: AioquicConnection

    @property
    def remote(self) -> Address:
        return cast("Address", self._quic.get_peer_address() or self._addr)

    @property
    def done(self) -> bool:
        return self._quic._state is QuicConnectionState.TERMINATED

    def receive(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        self._quic.receive_datagrams(datagrams, addr, now)

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        if not self._quic._network_paths:
            return []
        datagrams = self._quic.datagrams_to_send(now)
        self._sealed(len(datagrams))
        return datagrams

    def timer(self) -> float | None:
        return super().timer() if self._quic._close_at is not None else None

    def handle_timer(self, now: float) -> None:
        self._quic.handle_timer(now)

    def events(self) -> list[CarrierEvent]:
        found: list[CarrierEvent] = []
        lanes: dict[int, LaneBytes] = {}
        parts: dict[int, list[bytes]] = {}
        while (event := self._quic.next_event()) is not None:
            if isinstance(event, quic_events.StreamDataReceived):
                lane = lanes.get(event.stream_id)
                if lane is None:
                    lanes[event.stream_id] = LaneBytes(event.stream_id, event.data, event.end_stream)
                    parts[event.stream_id] = [event.data]
                else:
                    parts[event.stream_id].append(event.data)
                    lane.fin = event.end_stream
            elif isinstance(event, quic_events.DatagramFrameReceived):
                found.append(DatagramBytes(event.data))
            elif (translated := self._translate(event)) is not None:
                found.append(translated)
        for quic_stream_id, lane in lanes.items():
            if len(parts[quic_stream_id]) > 1:
                lane.data = b"".join(parts[quic_stream_id])
            found.append(lane)
        if self._quic.probed:
            found += [DatagramProbed(*one) for one in self._quic.probed]
            self._quic.probed.clear()
        return found + self._end()

    def open_lane(self) -> int:
        self._require_open()
        quic_stream_id = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(quic_stream_id, b"")
        return quic_stream_id

    def send(self, quic_stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        self._require_open()
        # The library appends to its own buffer, which copies; any bytes-like object will do.
        self._quic.send_stream_data(quic_stream_id, cast("bytes", data), fin)

    def reset_lane(self, quic_stream_id: int, error_code: int) -> None:
        self._require_open()
        self._quic.reset_stream(quic_stream_id, error_code)

    def unsent(self, quic_stream_id: int | None = None) -> int:
        streams = self._quic._streams
        if quic_stream_id is not None:
            stream = streams.get(quic_stream_id)
            return 0 if stream is None else _untransmitted(stream.sender)
        return sum(_untransmitted(stream.sender) for stream in streams.values())

    def in_flight(self) -> int:
        return self._quic._loss.bytes_in_flight

    def round_trip(self) -> float | None:
        return self._quic._loss._rtt_latest or None

    def datagram_bytes(self) -> int:
        return self._quic._max_datagram_size

    def probe_ceiling(self) -> int:
        return min(self._config.probe_datagram_bytes, self._quic.peer_datagram_bytes)

    def probe(self, number: int, size: int) -> None:
        self._quic.probe(number, size)

    def use_datagram_bytes(self, size: int) -> None:
        self._quic.resize(size)

    def losses_in_a_row(self) -> int:
        return self._quic.losses_in_a_row()

    def _datagram_frame_bytes(self) -> int:
        return self.datagram_bytes()

    def send_datagram(self, data: bytes) -> None:
        self._check_datagram(data)
        pending = self._quic._datagrams_pending
        if too_many_pending(len(pending)):
            pending.popleft()
            self.datagrams_dropped += 1
        self._quic.send_datagram_frame(data)

    def stats(self) -> CarrierStats:
        recovery = self._quic._loss
        return CarrierStats(
            recovery.congestion_window,
            recovery.bytes_in_flight,
            recovery._rtt_smoothed if recovery._rtt_initialized else None,
            packets_lost=self._quic.packets_lost,
            packets_resent=self._quic.packets_resent,
            probe_timeouts=self._quic.probe_timeouts,
        )

    def _peer_certificate(self) -> bytes | None:
        certificate = self._quic.tls._peer_certificate
        return None if certificate is None else certificate.public_bytes(Encoding.DER)


def _untransmitted(sender: Any) -> int:
    """Bytes written to a stream that were never put in a packet."""
    return int(sender._buffer_stop - sender.highest_offset)
