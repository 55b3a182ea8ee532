"""The carrier contract: every promise of `fabric.io.engines.Carrier`, on each engine and across both."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from functools import partial

import pytest

from fabric import limits
from fabric.identity import check_listener, public_key_of_certificate
from fabric.io.engines import (
    CarrierConfig,
    CarrierError,
    Handshaken,
    LaneReset,
    Negotiated,
    available_engines,
    load_engine,
)
from tests.support.carrier_pair import LISTENER_ADDR, Pair, Side, identity

ENGINES = available_engines()
PAIRS = [(dialer, listener) for dialer in ENGINES for listener in ENGINES]


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def engines(request: pytest.FixtureRequest) -> tuple[str, str]:
    dialer, listener = request.param
    return dialer, listener


def test_both_engines_are_here() -> None:
    # The suite means nothing if it silently runs on one engine alone.
    assert sorted(ENGINES) == ["aioquic", "qh3"]


def test_auto_is_the_fast_engine() -> None:
    assert load_engine("auto", identity()).name == "qh3"


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(CarrierError) as refused:
        load_engine("msquic", identity())
    assert refused.value.code == "engine_unknown"


def _ended(side: Side, lanes: list[int]) -> bool:
    return side.ended >= set(lanes)


def _datagrams(side: Side, count: int) -> bool:
    return len(side.datagrams) == count


# -- handshake and identity --


def test_the_dialer_sees_the_certificate_before_it_sends_anything(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.run(lambda: pair.dialer.handshaken is not None)
    # The listener knows nothing of the dialer yet but its ClientHello: no flight went out since.
    assert not any(isinstance(event, Handshaken) for event in pair.listener.events)
    assert pair.dialer.handshaken is not None
    der = pair.dialer.handshaken.peer_certificate_der
    assert der == identity(2).certificate_der
    assert check_listener(der, pin=identity(2).certificate_sha256, node_id=identity(2).node_id)
    pair.handshake()
    assert pair.listener.handshaken is not None
    assert pair.listener.handshaken.peer_certificate_der is None


def test_a_handshake_takes_one_round_trip(engines: tuple[str, str]) -> None:
    pair = Pair(*engines, delay_s=0.05)
    assert pair.run(lambda: pair.dialer.handshaken is not None) == pytest.approx(0.1, abs=0.01)


def test_a_stolen_certificate_without_its_key_is_refused(engines: tuple[str, str]) -> None:
    thief = dataclasses.replace(identity(3), certificate_der=identity(2).certificate_der)
    pair = Pair(*engines, listener_identity=thief)
    pair.run(lambda: pair.dialer.terminated is not None)
    assert pair.dialer.handshaken is None
    assert pair.listener.handshaken is None
    assert pair.dialer.terminated is not None
    assert not pair.dialer.terminated.by_application
    assert pair.dialer.terminated.code == 0x100 + 51  # TLS alert decrypt_error, RFC 8446 section 6.2


@pytest.mark.parametrize("alpn", [("other/1",), ("h3",), ("rap-fabric/2",)])
def test_another_protocol_is_refused(engines: tuple[str, str], alpn: tuple[str, ...]) -> None:
    pair = Pair(*engines, dialer_config=CarrierConfig(alpn=alpn))
    pair.run(lambda: pair.dialer.terminated is not None)
    assert pair.dialer.handshaken is None
    assert pair.listener.handshaken is None


def test_our_protocol_among_others_is_accepted(engines: tuple[str, str]) -> None:
    pair = Pair(*engines, dialer_config=CarrierConfig(alpn=("other/1", "rap-fabric/1")))
    pair.handshake()
    assert pair.dialer.handshaken is not None
    assert pair.listener.handshaken is not None


def test_the_listener_may_send_in_its_first_flight(engines: tuple[str, str]) -> None:
    pair = Pair(*engines, delay_s=0.05)
    pair.run(lambda: any(isinstance(event, Negotiated) for event in pair.listener.events))
    lane = pair.listener.carrier.open_lane()
    pair.listener.carrier.send(lane, b"listener first")
    took = pair.run(lambda: bool(pair.dialer.received))
    assert took == pytest.approx(0.05, abs=0.01)
    assert pair.dialer.received[lane] == b"listener first"
    assert pair.listener.handshaken is None
    second = pair.listener.carrier.open_lane()
    assert second != lane
    pair.listener.carrier.send(second, b"and then")
    pair.run(lambda: second in pair.dialer.received)


def test_a_stranger_gets_at_most_three_times_what_it_sent(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.flush()
    first = pair.wire.pop(0)
    pair.wire = [first]
    pair.run(lambda: pair.listener.maybe is not None)
    lane = pair.listener.carrier.open_lane()
    pair.listener.carrier.send(lane, bytes(60_000))
    for _ in range(20):  # retransmissions included: the dialer never answers
        timer = pair.listener.carrier.timer()
        assert timer is not None
        pair.now = max(pair.now, timer)
        if pair.now > 1008.0:
            break
        pair.listener.carrier.handle_timer(pair.now)
        pair.bytes_to[False] += sum(len(d) for d, _ in pair.listener.carrier.datagrams_to_send(pair.now))
    assert 0 < pair.bytes_to[False] <= 3 * len(first[2])


# -- lanes --


def test_lanes_carry_bytes_both_ways_in_order(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    data = os.urandom(700_001)
    for sender, receiver in ((pair.dialer, pair.listener), (pair.listener, pair.dialer)):
        lanes = [sender.carrier.open_lane() for _ in range(3)]
        assert len(set(lanes)) == 3
        for index, lane in enumerate(lanes):
            sender.carrier.send(lane, memoryview(data)[index:])
            sender.carrier.send(lane, b"", fin=True)
        pair.run(partial(_ended, receiver, lanes))
        for index, lane in enumerate(lanes):
            assert hashlib.sha256(receiver.received[lane]).digest() == hashlib.sha256(data[index:]).digest()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_lanes_survive_loss(engines: tuple[str, str], seed: int) -> None:
    pair = Pair(*engines, loss=0.1, seed=seed)
    pair.handshake()
    data = os.urandom(200_000)
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, data, fin=True)
    pair.run(lambda: lane in pair.listener.ended, within_s=60)
    assert pair.listener.received[lane] == data
    assert pair.lost > 0


def test_unsent_counts_what_was_never_transmitted(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    carrier = pair.dialer.carrier
    lane, other = carrier.open_lane(), carrier.open_lane()
    assert carrier.unsent(lane) == carrier.unsent() == 0
    carrier.send(lane, bytes(1_000_000))
    carrier.send(other, bytes(10))
    assert carrier.unsent(lane) == 1_000_000
    assert carrier.unsent() == 1_000_010
    sent = sum(len(data) for data, _ in carrier.datagrams_to_send(pair.now))
    # The first congestion window went out; what is in flight but not acknowledged is not counted.
    assert 2_000 < sent < 50_000
    assert 1_000_000 - sent <= carrier.unsent(lane) < 1_000_000 - 2_000


def test_what_is_under_way_is_counted_and_the_round_trip_measured(engines: tuple[str, str]) -> None:
    pair = Pair(*engines, delay_s=0.03)
    pair.handshake()
    pair.advance(0.5)
    carrier = pair.dialer.carrier
    assert carrier.in_flight() == 0
    assert carrier.round_trip() == pytest.approx(0.06, abs=0.03)
    carrier.send(carrier.open_lane(), bytes(100_000))
    sent = sum(len(data) for data, _ in carrier.datagrams_to_send(pair.now))
    assert carrier.in_flight() == pytest.approx(sent, rel=0.05)


def test_sending_does_not_alias_the_callers_buffer(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    lane = pair.dialer.carrier.open_lane()
    buffer = bytearray(b"original")
    pair.dialer.carrier.send(lane, memoryview(buffer), fin=True)
    buffer[:] = b"changed!"
    pair.run(lambda: lane in pair.listener.ended)
    assert pair.listener.received[lane] == b"original"


def test_an_abandoned_lane_is_reported(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, b"half a")
    pair.run(lambda: lane in pair.listener.received)
    pair.dialer.carrier.reset_lane(lane, 9)
    pair.run(lambda: any(isinstance(event, LaneReset) for event in pair.listener.events))
    assert LaneReset(lane, 9, stopped=False) in pair.listener.events


# -- bounds --


@pytest.mark.parametrize("listener", ENGINES)
def test_sparse_bytes_do_not_open_the_window(listener: str) -> None:
    """One byte at each window's end, a hole before it: a limit that grew on these would double for ever."""
    window = 1 << 20
    config = CarrierConfig(connection_window_bytes=2 * window, lane_window_bytes=window)
    pair = Pair("aioquic", listener, listener_config=config)
    pair.handshake()
    quic = pair.dialer.carrier._quic  # type: ignore[attr-defined]  # the attacker rewrites its own send buffers
    lanes = [pair.dialer.carrier.open_lane() for _ in range(4)]
    for _ in range(8):
        for lane in lanes:
            stream = quic._streams[lane]
            sender = stream.sender
            credit = quic._remote_max_data - quic._remote_max_data_used
            end = min(stream.max_stream_data_remote, sender.highest_offset + credit)
            if end <= sender.highest_offset:
                continue
            sender._buffer_start, sender._buffer_stop, sender._buffer = end - 1, end, bytearray(1)
            sender._pending.add(end - 1, end)
            sender.buffer_is_empty = False
        pair.advance(0.1)
    assert quic._remote_max_data_used == 2 * window, "the attack did not reach the limit"
    assert quic._remote_max_data == 2 * window
    assert max(quic._streams[lane].max_stream_data_remote for lane in lanes) == window
    assert pair.listener.received == {}


@pytest.mark.parametrize("listener", ENGINES)
def test_delivered_bytes_move_the_window_and_do_not_widen_it(listener: str) -> None:
    window = 1 << 20
    config = CarrierConfig(connection_window_bytes=2 * window, lane_window_bytes=window)
    pair = Pair("aioquic", listener, listener_config=config)
    pair.handshake()
    quic = pair.dialer.carrier._quic  # type: ignore[attr-defined]  # what the peer was granted is read there
    lane = pair.dialer.carrier.open_lane()
    for _ in range(12):
        pair.dialer.carrier.send(lane, bytes(window // 2))
        pair.advance(0.3)
    assert len(pair.listener.received[lane]) == 6 * window
    assert 6 * window < quic._remote_max_data <= 8 * window
    assert 6 * window < quic._streams[lane].max_stream_data_remote <= 7 * window


def test_datagram_frames_are_carried_and_bounded(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    assert pair.dialer.carrier.datagram_room() == 0, "the peer has allowed none yet"
    pair.handshake()
    for sender, receiver in ((pair.dialer, pair.listener), (pair.listener, pair.dialer)):
        room = sender.carrier.datagram_room()
        assert 1_100 < room < 1_200
        with pytest.raises(CarrierError) as refused:
            sender.carrier.send_datagram(bytes(room + 1))
        assert refused.value.code == "datagram_too_large"
        payload = os.urandom(room)
        sender.carrier.send_datagram(payload)
        sender.carrier.send_datagram(b"small")
        pair.run(partial(_datagrams, receiver, 2))
        assert receiver.datagrams == [payload, b"small"]


def test_pending_datagram_frames_are_bounded(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    sent = [number.to_bytes(4) for number in range(limits.CARRIER_PENDING_DATAGRAM_FRAMES + 10)]
    for data in sent:
        pair.dialer.carrier.send_datagram(data)
    assert pair.dialer.carrier.datagrams_dropped == 10
    pair.run(lambda: len(pair.listener.datagrams) == limits.CARRIER_PENDING_DATAGRAM_FRAMES)
    assert sorted(pair.listener.datagrams) == sent[10:], "the oldest go first"


def test_datagram_frames_obey_the_congestion_window(engines: tuple[str, str]) -> None:
    """RFC 9221 section 5.4: else a lane would get nothing until all of them were acknowledged."""
    pair = Pair(*engines)
    pair.handshake()
    carrier = pair.dialer.carrier
    room = carrier.datagram_room()
    for _ in range(10):
        for _ in range(limits.CARRIER_PENDING_DATAGRAM_FRAMES):
            carrier.send_datagram(bytes(room))
        carrier.datagrams_to_send(pair.now)  # lost, all of them
        window = carrier.stats().congestion_window_bytes
        assert 0 < carrier.in_flight() < window + 3 * limits.CARRIER_DATAGRAM_BYTES
    assert carrier.datagrams_dropped > 8 * limits.CARRIER_PENDING_DATAGRAM_FRAMES
    lane = carrier.open_lane()
    carrier.send(lane, b"urgent")
    pair.run(lambda: bytes(pair.listener.received.get(lane, b"")) == b"urgent")
    pair.run(lambda: len(pair.listener.datagrams) > limits.CARRIER_PENDING_DATAGRAM_FRAMES // 2)


def test_garbage_changes_nothing(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    lane = pair.dialer.carrier.open_lane()
    cid = min(pair.listener.carrier.connection_ids())
    for side, source in ((pair.listener, pair.dialer.addr), (pair.dialer, pair.listener.addr)):
        for junk in (b"", b"\x00", b"\x40" + cid + os.urandom(1100), os.urandom(1200), b"\xff" * 1200):
            if junk:
                side.carrier.receive([junk], source, pair.now)
    pair.dialer.carrier.send(lane, b"still here", fin=True)
    pair.run(lambda: lane in pair.listener.ended)
    assert pair.listener.received[lane] == b"still here"


# -- the end --


def test_closing_tells_both_sides_why_at_once(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, b"last words")
    pair.flush()
    pair.dialer.carrier.close(4, "revoked")
    took = pair.run(lambda: pair.listener.terminated is not None and pair.dialer.terminated is not None)
    assert took == pytest.approx(0.01, abs=0.005)
    for side in (pair.dialer, pair.listener):
        assert side.terminated is not None
        assert (side.terminated.code, side.terminated.reason) == (4, "revoked")
        assert side.terminated.by_application
        assert side.events[-1] is side.terminated
    with pytest.raises(CarrierError) as refused:
        pair.dialer.carrier.send(lane, b"too late")
    assert refused.value.code == "carrier_closed"
    pair.run(lambda: pair.dialer.carrier.done and pair.listener.carrier.done)


def test_bytes_that_came_before_the_end_are_delivered(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, b"last words")
    packets = [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
    pair.dialer.carrier.close(0, "done")
    packets += [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
    pair.listener.carrier.receive(packets, pair.dialer.addr, pair.now)
    pair.listener.collect()
    assert pair.listener.received[lane] == b"last words"
    assert pair.listener.events[-1] is pair.listener.terminated


def test_silence_ends_the_carrier(engines: tuple[str, str]) -> None:
    config = CarrierConfig(idle_timeout_s=2.0)
    pair = Pair(*engines, dialer_config=config, listener_config=config)
    pair.handshake()
    pair.advance(0.2)
    pair.loss = 1.0

    def ended(side: Side) -> bool:
        return side.terminated is not None

    took = pair.run(lambda: ended(pair.dialer) and ended(pair.listener), within_s=8)
    assert 1.5 < took < 8
    assert pair.dialer.terminated is not None
    assert not pair.dialer.terminated.by_application


def test_nobody_there(engines: tuple[str, str]) -> None:
    config = CarrierConfig(idle_timeout_s=2.0)
    engine = load_engine(engines[0], identity(), config)
    side = Side(engine.dial(LISTENER_ADDR, 1000.0), ("192.0.2.1", 1))
    now, sent = 1000.0, 0
    while side.terminated is None:
        sent += len(side.carrier.datagrams_to_send(now))
        timer = side.carrier.timer()
        assert timer is not None
        now = max(now, timer)
        assert now < 1020
        side.carrier.handle_timer(now)
        side.collect()
    assert 3 <= sent < 40
    assert public_key_of_certificate(identity().certificate_der) == identity().public


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_losses_are_told(engines: tuple[str, str], loss: float) -> None:
    pair = Pair(*engines)
    pair.handshake()
    pair.advance(1.0)
    before = pair.dialer.carrier.stats()
    pair.loss = loss
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, bytes(200_000))
    pair.run(lambda: len(pair.listener.received.get(lane, b"")) == 200_000, within_s=60)
    stats = pair.dialer.carrier.stats()
    assert stats.congestion_window_bytes > 0
    assert stats.packets_lost is not None
    assert before.packets_lost is not None
    assert (stats.packets_lost > before.packets_lost) == (loss > 0)
    assert stats.probe_timeouts is not None
    if engines[0] == "qh3":
        assert stats.packets_resent is None, "the library does not tell, and nobody guesses"
    else:
        assert stats.packets_resent is not None
        assert stats.packets_resent >= stats.packets_lost
