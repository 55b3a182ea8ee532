"""What aioquic lacks for a search of the path's datagram size: padded probes, a size that may change, and a
count of the losses of large packets. The search itself is `fabric.pathmtu`.
"""

# ruff: noqa: SLF001 - a connection is made of its library's state; the contract suite guards it

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aioquic._buffer import Buffer
from aioquic.quic.congestion.base import register_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl
from aioquic.quic.packet import QuicFrameType, QuicPacketType, pull_quic_transport_parameters
from aioquic.quic.packet_builder import QuicDeliveryState, QuicPacketBuilder, QuicSentPacket
from aioquic.tls import Epoch

from fabric.io.engines import Address

CONGESTION = "fabric-reno"
"""The name by which the library is asked for `Congestion`."""

ANY_SIZE = 65_527
"""A peer that names no largest UDP payload takes any: RFC 9000 section 18.2."""


class Congestion(RenoCongestionControl):
    """The library's NewReno, which also counts how often in a row packets over the base size were lost."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self.base = max_datagram_size
        self.losses_in_a_row = 0

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        if packet.sent_bytes > self.base:
            self.losses_in_a_row = 0
        super().on_packet_acked(now=now, packet=packet)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        lost = list(packets)
        self._count(lost)
        super().on_packets_lost(now=now, packets=lost)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        # A probe timeout gives the oldest packet up like this.
        expired = list(packets)
        self._count(expired)
        super().on_packets_expired(packets=expired)

    def resize(self, size: int) -> None:
        """Packets are of `size` bytes from now on; what was lost of another size says nothing."""
        self._max_datagram_size = size
        self.losses_in_a_row = 0

    def _count(self, packets: list[QuicSentPacket]) -> None:
        if any(packet.sent_bytes > self.base for packet in packets):
            self.losses_in_a_row += 1


register_congestion_control(CONGESTION, Congestion)


def peer_limit(transport_parameters: bytes) -> int:
    """The largest UDP payload that a peer takes, by its transport parameters."""
    return pull_quic_transport_parameters(Buffer(data=transport_parameters)).max_udp_payload_size or ANY_SIZE


def probe(
    quic: Any, size: int, now: float, on_delivery: Callable[[QuicDeliveryState], None]
) -> list[tuple[bytes, Address]]:
    """One packet of PING and padding, `size` bytes in all, and nothing that would have to be sent again.

    It stands outside of congestion control and of the probe timeout: that it is lost says something of its
    size and nothing of the path (RFC 9000 section 14.4). `on_delivery` hears what became of it.
    """
    builder = QuicPacketBuilder(
        host_cid=quic.host_cid,
        is_client=quic._is_client,
        max_datagram_size=size,
        packet_number=quic._packet_number,
        peer_cid=quic._peer_cid.cid,
        quic_logger=quic._quic_logger,
        spin_bit=quic._spin_bit,
        version=quic._version,
    )
    builder.start_packet(QuicPacketType.ONE_RTT, quic._cryptos[Epoch.ONE_RTT])
    buffer = builder.start_frame(QuicFrameType.PING, handler=on_delivery)
    buffer.push_bytes(bytes(builder.remaining_buffer_space))
    builder._end_packet()
    for packet in builder._packets:
        packet.in_flight = packet.is_ack_eliciting = False
    sent: list[tuple[bytes, Address]] = quic._flush_builder(
        builder=builder, network_path=quic._network_paths[0], peer_cid=quic._peer_cid.cid, now=now
    )
    return sent
