"""The count of large packets that were lost in a row, as aioquic's congestion control hears of them."""

from __future__ import annotations

from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch

from fabric.io.engines.aioquic_mtu import Congestion

BASE, LARGE = 1200, 1452


def packet(size: int) -> QuicSentPacket:
    return QuicSentPacket(
        epoch=Epoch.ONE_RTT,
        in_flight=True,
        is_ack_eliciting=True,
        is_crypto_packet=False,
        packet_number=1,
        packet_type=QuicPacketType.ONE_RTT,
        sent_bytes=size,
        sent_time=1.0,
    )


def test_losses_of_large_packets_are_counted_by_occasion() -> None:
    made = Congestion(max_datagram_size=BASE)
    made.on_packets_lost(now=2.0, packets=[packet(LARGE), packet(LARGE), packet(40)])
    assert made.losses_in_a_row == 1
    made.on_packets_expired(packets=[packet(LARGE)])  # a probe timeout
    assert made.losses_in_a_row == 2
    for size in (40, BASE):
        made.on_packets_lost(now=3.0, packets=[packet(size)])
        made.on_packets_expired(packets=[packet(size)])
        made.on_packet_acked(now=3.0, packet=packet(size))
    assert made.losses_in_a_row == 2, "packets that every path carries say nothing of the size"
    made.on_packet_acked(now=4.0, packet=packet(LARGE))
    assert made.losses_in_a_row == 0


def test_another_size_begins_another_count() -> None:
    made = Congestion(max_datagram_size=BASE)
    made.on_packets_lost(now=2.0, packets=[packet(LARGE)])
    made.resize(BASE)
    assert made.losses_in_a_row == 0
    made.on_packets_lost(now=2.0, packets=[packet(LARGE)])
    assert made.losses_in_a_row == 1, "the base is what it was made with"
