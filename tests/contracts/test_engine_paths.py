"""The carrier contract, continued: connection ids, addresses that change, keys that change."""

from __future__ import annotations

import os

import pytest
from aioquic.tls import Epoch

from fabric import limits
from fabric.io.engines import available_engines
from fabric.io.engines.packets import CID_BYTES
from tests.support.carrier_pair import LISTENER_ADDR, Pair, Side

ENGINES = available_engines()
PAIRS = [(dialer, listener) for dialer in ENGINES for listener in ENGINES]


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def engines(request: pytest.FixtureRequest) -> tuple[str, str]:
    dialer, listener = request.param
    return dialer, listener


def test_every_id_in_use_is_known(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    pair.advance(0.2)
    for side in (pair.dialer, pair.listener):
        ids = set(side.carrier.connection_ids())
        assert side.ids <= ids
        assert all(len(cid) == CID_BYTES for cid in ids)
    # Short headers carry the destination id right behind the first byte.
    pair.dialer.carrier.send(pair.dialer.carrier.open_lane(), b"x")
    [(data, addr)] = pair.dialer.carrier.datagrams_to_send(pair.now)
    assert data[1 : 1 + CID_BYTES] in pair.listener.carrier.connection_ids()
    assert addr == LISTENER_ADDR


def test_a_new_address_is_proved_before_it_is_used(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    pair.advance(0.2)
    moved = ("192.0.2.77", 4242)
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, b"from a new address")
    packets = [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
    received = sum(len(data) for data in packets)
    back = pair.listener.carrier.open_lane()
    pair.listener.carrier.send(back, bytes(100_000))
    pair.listener.carrier.receive(packets, moved, pair.now)
    to_moved = sum(len(d) for d, a in pair.listener.carrier.datagrams_to_send(pair.now) if a == moved)
    assert to_moved <= 3 * received, "an unproved address gets at most three times what came from it"
    # Now let the dialer really live there: answers come back, everything goes on.
    pair.dialer.addr = moved
    for _ in range(400):
        pair.now += 0.01
        for data, _ in pair.listener.carrier.datagrams_to_send(pair.now):
            pair.dialer.carrier.receive([data], LISTENER_ADDR, pair.now)
        pair.dialer.collect()
        answers = [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
        if answers:
            pair.listener.carrier.receive(answers, moved, pair.now)
        for side in (pair.dialer, pair.listener):
            timer = side.carrier.timer()
            if timer is not None and timer <= pair.now:
                side.carrier.handle_timer(pair.now)
        pair.listener.collect()
    assert pair.listener.received[lane] == b"from a new address"
    assert len(pair.dialer.received[back]) == 100_000
    assert pair.listener.carrier.remote == moved


def _congestion_window(side: Side) -> int:
    quic = side.carrier._quic  # type: ignore[attr-defined]  # no port says it, and nothing above needs it
    core = getattr(quic, "_core", None)
    return int(quic._loss.congestion_window if core is None else core.congestion_window)


def _live_at(pair: Pair, moved: tuple[str, int], seconds: float) -> None:
    """Let the dialer send from `moved` for a while."""
    pair.dialer.addr = moved
    end = pair.now + seconds
    while pair.now < end:
        pair.now += 0.01
        out = [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
        if out:
            pair.listener.carrier.receive(out, moved, pair.now)
        pair.listener.collect()
        back = [data for data, addr in pair.listener.carrier.datagrams_to_send(pair.now) if addr == moved]
        if back:
            pair.dialer.carrier.receive(back, LISTENER_ADDR, pair.now)
        pair.dialer.collect()
        for side in (pair.dialer, pair.listener):
            timer = side.carrier.timer()
            if timer is not None and timer <= pair.now:
                side.carrier.handle_timer(pair.now)


@pytest.mark.parametrize("moved", [("198.51.100.7", 4242), ("192.0.2.1", 4242)], ids=["host", "port"])
def test_congestion_state_starts_anew_at_a_new_host(engines: tuple[str, str], moved: tuple[str, int]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    lane = pair.listener.carrier.open_lane()
    pair.listener.carrier.send(lane, bytes(600_000))
    pair.run(lambda: len(pair.dialer.received.get(lane, b"")) == 600_000)
    assert _congestion_window(pair.listener) > 100_000
    pair.dialer.carrier.send(pair.dialer.carrier.open_lane(), b"from elsewhere")
    _live_at(pair, moved, 0.5)
    assert pair.listener.carrier.remote == moved
    if moved[0] != "192.0.2.1":
        assert _congestion_window(pair.listener) <= 40_000
    pair.listener.carrier.send(lane, bytes(100_000))
    _live_at(pair, moved, 2.0)
    assert len(pair.dialer.received[lane]) == 700_000


def test_a_peer_that_moves_again_and_again_is_followed_or_told_to_dial_again(
    engines: tuple[str, str],
) -> None:
    """One core follows three changes of address; it must not leave the peer speaking to nobody after that."""
    pair = Pair(*engines)
    pair.handshake()
    pair.advance(0.2)
    lane = pair.dialer.carrier.open_lane()
    for number in range(1, 7):
        moved = ("198.51.100.7", 4000 + number)
        pair.dialer.carrier.moved()
        pair.dialer.carrier.send(lane, b"%d" % number)
        _live_at(pair, moved, 0.5)
        assert pair.listener.received[lane].endswith(b"%d" % number), "what it sent is heard in any case"
        if pair.listener.terminated is not None:
            break
        assert pair.listener.carrier.remote == moved
    if engines[1] == "aioquic":
        assert pair.listener.terminated is None
        return
    assert number == 4
    for side in (pair.listener, pair.dialer):
        assert side.terminated is not None, "within a round trip"
        assert (side.terminated.reason, side.terminated.by_application) == ("carrier_lost", True)


def test_moving_more_often_than_there_are_ids_is_no_error(engines: tuple[str, str]) -> None:
    pair = Pair(*engines)
    pair.handshake()
    pair.advance(0.2)
    for _ in range(20):
        pair.dialer.carrier.moved()
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, b"still here")
    pair.run(lambda: lane in pair.listener.received)
    assert pair.listener.received[lane] == b"still here"


def test_nobody_else_can_make_it_seem_that_the_peer_moved(engines: tuple[str, str]) -> None:
    """Garbage, and what was sent before, from any number of addresses: the session goes on where it is."""
    pair = Pair(*engines)
    pair.handshake()
    pair.advance(0.2)
    lane = pair.dialer.carrier.open_lane()
    for number in range(1, 4):
        pair.dialer.carrier.send(lane, b"%d" % number)
        _live_at(pair, ("198.51.100.7", 4000 + number), 0.5)
    pair.dialer.carrier.send(lane, b"4")
    sent = [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
    pair.listener.carrier.receive(sent, ("198.51.100.7", 4003), pair.now)
    garbage = [data[: 1 + CID_BYTES] + os.urandom(60) for data in sent]
    for number in range(10):
        pair.listener.carrier.receive(garbage + sent, ("203.0.113.9", 5000 + number), pair.now)
    _live_at(pair, ("198.51.100.7", 4003), 0.5)
    assert pair.listener.carrier.remote == ("198.51.100.7", 4003)
    assert pair.listener.terminated is None
    assert pair.listener.received[lane] == b"1234"


def _key_phase(side: Side) -> int:
    quic = side.carrier._quic  # type: ignore[attr-defined]  # no port says it, and nothing above needs it
    core = getattr(quic, "_core", None)
    return int(quic._cryptos[Epoch.ONE_RTT].key_phase if core is None else core.send_key_phase)


@pytest.mark.parametrize("sender", ["dialer", "listener"])
def test_keys_are_updated_while_bytes_flow(
    engines: tuple[str, str], sender: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CARRIER_KEY_PACKETS", 150)
    pair = Pair(*engines, loss=0.02, seed=3)
    pair.handshake()
    source, target = (pair.dialer, pair.listener) if sender == "dialer" else (pair.listener, pair.dialer)
    data, phases = os.urandom(400_000), set()
    lane = source.carrier.open_lane()
    source.carrier.send(lane, data, fin=True)

    def arrived() -> bool:
        phases.add(_key_phase(source))
        return lane in target.ended

    pair.run(arrived, within_s=120)
    assert target.received[lane] == data
    assert phases == {0, 1}
