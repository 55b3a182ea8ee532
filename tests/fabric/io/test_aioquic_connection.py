"""The short way of bulk packets: taken where it should be, and nobody can tell the difference."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode
from aioquic.tls import Epoch

from fabric import limits
from fabric.io.engines.aioquic_connection import AioquicConnection
from tests.support.carrier_pair import DIALER_ADDR, LISTENER_ADDR, Pair, Side

PEERS = ["aioquic", "qh3"]


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many packets went the library's way and how many the short one, by direction."""
    counted: Counter[str] = Counter()
    receive, take, write = (
        QuicConnection.receive_datagram,
        AioquicConnection._receive_lane_packet,
        AioquicConnection._write_lane,
    )

    def count_receive(self: Any, data: bytes, addr: Any, now: float) -> None:
        counted["library in"] += 1
        receive(self, data, addr, now)

    def count_take(self: Any, data: bytes, now: float) -> bool:
        taken = take(self, data, now)
        counted["short in"] += taken
        return taken

    def count_write(self: Any, builder: Any, stream: Any, count: int) -> None:
        counted["short out"] += count
        write(self, builder, stream, count)

    monkeypatch.setattr(QuicConnection, "receive_datagram", count_receive)
    monkeypatch.setattr(AioquicConnection, "_receive_lane_packet", count_take)
    monkeypatch.setattr(AioquicConnection, "_write_lane", count_write)
    return counted


def settled(dialer: str = "aioquic", listener: str = "aioquic", **options: Any) -> Pair:
    """A pair past its handshake and everything that follows it."""
    pair = Pair(dialer, listener, **options)
    pair.handshake()
    for _ in range(50):
        pair.now += 0.01
        pair.deliver()
        pair.flush()
    return pair


def quic_of(side: Side) -> Any:
    """The library's connection, whose state these tests read and bend."""
    return side.carrier._quic  # type: ignore[attr-defined]  # of this engine's carrier


def transfer(pair: Pair, sender: Side, receiver: Side, total: int) -> None:
    data = os.urandom(total)
    lane = sender.carrier.open_lane()
    sender.carrier.send(lane, data, fin=True)
    pair.run(lambda: lane in receiver.ended, within_s=120)
    assert receiver.received[lane] == data


def bulk_packets(pair: Pair, lane_bytes: int = 6_000) -> Iterator[bytes]:
    """Packets of one flush with lane bytes, on their way from the dialer to the listener."""
    transfer(pair, pair.dialer, pair.listener, 300_000)
    pair.listener.received.clear()
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, bytes(1))
    pair.run(lambda: lane in pair.listener.received)
    pair.now += 1.0
    pair.dialer.carrier.send(lane, os.urandom(lane_bytes))
    yield from (data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now))


@pytest.mark.parametrize("peer", PEERS)
def test_bulk_goes_the_short_way(peer: str, ways: Counter[str]) -> None:
    pair = settled("aioquic", peer)
    transfer(pair, pair.dialer, pair.listener, 1_000_000)
    assert ways["short out"] > 200, "nearly all of what one flush sends, but one"
    ways.clear()
    transfer(pair, pair.listener, pair.dialer, 1_000_000)
    assert ways["short in"] > 600
    assert ways["library in"] < 300


@pytest.mark.parametrize("peer", PEERS)
def test_both_ways_at_once_with_loss(peer: str) -> None:
    pair = settled("aioquic", peer, loss=0.05, seed=7)
    data = [os.urandom(300_000), os.urandom(300_000)]
    sides = (pair.dialer, pair.listener)
    lanes = [side.carrier.open_lane() for side in sides]
    for side, lane, part in zip(sides, lanes, data, strict=True):
        side.carrier.send(lane, part, fin=True)
    pair.run(lambda: lanes[0] in pair.listener.ended and lanes[1] in pair.dialer.ended, within_s=60)
    assert [pair.listener.received[lanes[0]], pair.dialer.received[lanes[1]]] == data
    assert pair.lost > 10


def test_every_packet_is_full_and_numbered_once() -> None:
    pair = settled()
    packets = list(bulk_packets(pair))
    assert [len(data) for data in packets[:-1]] == [limits.CARRIER_DATAGRAM_BYTES] * (len(packets) - 1)
    pair.listener.carrier.receive(packets, DIALER_ADDR, pair.now)
    space = quic_of(pair.listener)._spaces[Epoch.ONE_RTT]
    assert len(space.ack_queue) == 1, "a gap or an overlap in the packet numbers"


def test_lanes_share_one_flush(ways: Counter[str]) -> None:
    pair = settled()
    transfer(pair, pair.dialer, pair.listener, 300_000)
    pair.now += 1.0
    lanes = [pair.dialer.carrier.open_lane() for _ in range(3)]
    for lane in lanes:
        pair.dialer.carrier.send(lane, bytes(1_000_000))
    ways.clear()
    packets = [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
    assert ways["short out"] == len(packets) - 1 >= 9
    pair.listener.carrier.receive(packets, DIALER_ADDR, pair.now)
    pair.listener.collect()
    sizes = [len(pair.listener.received[lane]) for lane in lanes]
    assert max(sizes) - min(sizes) < 3 * limits.CARRIER_DATAGRAM_BYTES


def test_a_packet_is_delivered_once(ways: Counter[str]) -> None:
    pair = settled()
    packets = list(bulk_packets(pair))
    pair.listener.collect()
    ways.clear()
    pair.listener.carrier.receive(packets + packets, DIALER_ADDR, pair.now)
    pair.listener.collect()
    assert ways["short in"] >= len(packets) - 1
    assert sum(map(len, pair.listener.received.values())) == 6_001


def test_a_changed_packet_is_dropped_and_its_bytes_come_again() -> None:
    pair = settled()
    packets = list(bulk_packets(pair))
    for position in (0, 5, 9, 11, 40, -1):
        changed = bytearray(packets[1])
        changed[position] ^= 0x20
        pair.listener.carrier.receive([bytes(changed)], DIALER_ADDR, pair.now)
    pair.listener.collect()
    assert sum(map(len, pair.listener.received.values())) == 1
    assert pair.listener.terminated is None
    pair.listener.carrier.receive(packets, DIALER_ADDR, pair.now)
    pair.listener.collect()
    assert sum(map(len, pair.listener.received.values())) == 6_001


def test_packets_out_of_order_are_put_in_order() -> None:
    pair = settled()
    packets = list(bulk_packets(pair))
    pair.listener.carrier.receive(packets[::-1], DIALER_ADDR, pair.now)
    pair.listener.collect()
    assert sum(map(len, pair.listener.received.values())) == 6_001


@pytest.mark.parametrize("limit", ["lane", "connection"])
def test_a_peer_over_its_limit_is_closed_as_the_library_would(limit: str) -> None:
    pair = settled()
    packets = list(bulk_packets(pair))
    quic = quic_of(pair.listener)
    if limit == "lane":
        for stream in quic._streams.values():
            stream.max_stream_data_local = 10
    else:
        quic._local_max_data.value = quic._local_max_data.used + 10
    pair.listener.carrier.receive(packets, DIALER_ADDR, pair.now)
    pair.listener.collect()
    assert pair.listener.terminated is not None
    assert pair.listener.terminated.code == QuicErrorCode.FLOW_CONTROL_ERROR
    assert sum(map(len, pair.listener.received.values())) == 1


def test_the_peers_limits_hold() -> None:
    pair = settled()
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, bytes(1))
    pair.run(lambda: lane in pair.listener.received)
    quic = quic_of(pair.dialer)
    quic._streams[lane].max_stream_data_remote = 5_000
    pair.dialer.carrier.send(lane, bytes(50_000))
    for _ in range(20):
        pair.step()
    assert len(pair.listener.received[lane]) == 5_000


def test_acknowledgements_ride_behind_bulk() -> None:
    pair = settled()
    packets = list(bulk_packets(pair))
    transfer(pair, pair.listener, pair.dialer, 300_000)
    pair.now += 1.0
    lane = pair.listener.carrier.open_lane()
    pair.listener.carrier.send(lane, os.urandom(100_000))
    pair.listener.carrier.receive(packets, DIALER_ADDR, pair.now)
    pair.listener.collect()
    pair.now += 0.01
    answers = [data for data, _ in pair.listener.carrier.datagrams_to_send(pair.now)]
    assert len(answers) > 5
    in_flight = quic_of(pair.dialer)._loss.bytes_in_flight
    pair.dialer.carrier.receive(answers, LISTENER_ADDR, pair.now)
    assert quic_of(pair.dialer)._loss.bytes_in_flight < in_flight


def test_bursts_follow_the_rate_and_stay_short() -> None:
    pair = settled(delay_s=0.05)
    transfer(pair, pair.dialer, pair.listener, 500_000)
    pacer = quic_of(pair.dialer)._pacer
    pacer.update_rate(congestion_window=12_500_000, smoothed_rtt=0.1)  # 1 Gbit/s
    pair.now += 5.0
    assert pacer.allowance(pair.now) == pytest.approx(125e6 * limits.CARRIER_BURST_S / 1200, abs=1)
    pacer.spend(100)
    assert pacer.allowance(pair.now) == pytest.approx(125e6 * limits.CARRIER_BURST_S / 1200 - 100, abs=1)
    pacer.update_rate(congestion_window=125_000, smoothed_rtt=0.1)  # 10 Mbit/s: the library's own burst
    pair.now += 5.0
    assert pacer.allowance(pair.now) == 16
