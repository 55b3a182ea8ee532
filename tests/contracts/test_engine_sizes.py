"""The carrier contract, continued: datagram sizes that change, over a path that carries only so much."""

from __future__ import annotations

import operator
import os
from functools import partial

import pytest

from fabric import limits
from fabric.io.engines import CarrierConfig, CarrierError, DatagramProbed, available_engines
from fabric.io.pathsize import PathSize
from tests.support.carrier_pair import DIALER_ADDR, LISTENER_ADDR, Pair, Side

ENGINES = available_engines()
PAIRS = [(dialer, listener) for dialer in ENGINES for listener in ENGINES]
BASE = limits.CARRIER_DATAGRAM_BYTES


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def engines(request: pytest.FixtureRequest) -> tuple[str, str]:
    dialer, listener = request.param
    return dialer, listener


class SizedPair(Pair):
    """A pair on a path that swallows datagrams larger than `carries`, with the search on both sides."""

    def __init__(self, dialer: str, listener: str, carries: int, **options: CarrierConfig) -> None:
        super().__init__(dialer, listener, **options)
        self.carries = carries
        self.largest = {True: 0, False: 0}
        self.swallowed = {True: 0, False: 0}
        self.sizes: dict[bool, PathSize] = {}

    def begin(self) -> None:
        """What the session does once both ends are proved."""
        self.handshake()
        for to_listener, side in ((True, self.dialer), (False, self.listener)):
            self.sizes[to_listener] = PathSize(side.carrier)
            self.sizes[to_listener].start(self.now)

    def flush(self) -> None:
        for side, to_listener in ((self.dialer, True), (self.listener, False)):
            size = self.sizes.get(to_listener)
            if side.maybe is None:
                continue
            side.collect()
            if size is not None:
                for event in side.events:
                    if isinstance(event, DatagramProbed):
                        size.probed(self.now, event)
                side.events.clear()
                at = size.timer()
                if at is not None and at <= self.now:
                    size.handle_timer(self.now)
                size.look(self.now)
            for data, _ in side.carrier.datagrams_to_send(self.now):
                if len(data) > self.carries:
                    self.swallowed[to_listener] += 1
                    continue
                self.largest[to_listener] = max(self.largest[to_listener], len(data))
                self.count += 1
                self.wire.append((self.now + self.delay_s, self.count, data, to_listener))
            side.collect()

    def transfer(self, source: Side, target: Side, total: int, within_s: float = 60.0) -> float:
        data = os.urandom(total)
        lane = source.carrier.open_lane()
        source.carrier.send(lane, data, fin=True)
        took = self.run(lambda: lane in target.ended, within_s=within_s)
        assert bytes(target.received[lane]) == data
        return took


def _has(side: Side, lane: int, count: int) -> bool:
    return len(side.received.get(lane, b"")) >= count


@pytest.mark.parametrize("carries", [1200, 1272, 1372, 1500])
def test_both_sides_find_what_the_path_carries(engines: tuple[str, str], carries: int) -> None:
    pair = SizedPair(*engines, carries=carries)
    pair.begin()
    pair.advance(1.0)
    pair.transfer(pair.dialer, pair.listener, 300_000)
    pair.transfer(pair.listener, pair.dialer, 300_000)
    pair.advance(12.0)
    for to_listener, side in ((True, pair.dialer), (False, pair.listener)):
        size = side.carrier.datagram_bytes()
        assert BASE <= size <= carries
        searches = side.carrier.probe_ceiling() > BASE or side is pair.dialer  # a listener on qh3 cannot
        if searches and carries >= 1280:
            assert size >= {1372: 1350, 1500: 1452}[carries]
        pair.largest[to_listener] = 0
        source, target = (pair.dialer, pair.listener) if to_listener else (pair.listener, pair.dialer)
        pair.transfer(source, target, 300_000)
        assert size - 64 < pair.largest[to_listener] <= size, "packets are as large as the size in force"


def test_a_probe_tells_of_itself_alone(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1400)
    pair.handshake()
    pair.advance(0.2)
    for side in (pair.dialer, pair.listener):
        ceiling = side.carrier.probe_ceiling()
        if ceiling <= BASE:
            with pytest.raises(CarrierError) as refused:
                side.carrier.probe(1, 1300)
            assert refused.value.code == "no_probe"
            continue
        # A dialer on qh3 says that it takes no more.
        says = 1472 if side is pair.listener and engines[0] == "qh3" else limits.CARRIER_PROBE_DATAGRAM_BYTES
        assert ceiling == says
        window, under_way = side.carrier.stats().congestion_window_bytes, side.carrier.in_flight()
        side.events.clear()
        side.carrier.probe(7, 1400)
        pair.flush()
        assert side.carrier.in_flight() == under_way, "a probe is outside of congestion control"
        pair.advance(0.2)
        side.carrier.probe(8, 1401)
        pair.advance(0.2)
        for _ in range(6):
            side.carrier.send(side.carrier.open_lane(), b"what comes after it tells that it is lost")
            pair.advance(0.1)
        told = [event for event in side.events if isinstance(event, DatagramProbed)]
        assert told == [DatagramProbed(7, delivered=True), DatagramProbed(8, delivered=False)]
        assert side.carrier.datagram_bytes() == BASE, "only `use_datagram_bytes` changes what is sent"
        assert side.carrier.stats().congestion_window_bytes >= window


def test_a_probe_waits_for_the_handshake(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1500)
    if pair.dialer.carrier.probe_ceiling() <= BASE:
        return
    pair.dialer.carrier.probe(1, 1400)
    pair.handshake()
    assert pair.largest[True] <= BASE
    pair.run(lambda: DatagramProbed(1, delivered=True) in pair.dialer.events)
    assert pair.largest[True] == 1400


def test_a_path_that_shrinks_under_a_transfer_does_not_end_it(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1500)
    pair.begin()
    pair.advance(2.0)
    for source, target in ((pair.dialer, pair.listener), (pair.listener, pair.dialer)):
        lane = source.carrier.open_lane()
        pair.carries = 1500
        source.carrier.send(lane, bytes(2_000_000), fin=True)
        pair.run(partial(_has, target, lane, 200_000))
        pair.carries = 1250
        pair.run(partial(_has, target, lane, 2_000_000), within_s=60)
        assert len(target.received[lane]) == 2_000_000
        assert source.carrier.datagram_bytes() <= 1250
        pair.sizes[source is pair.dialer].look(pair.now)


def test_losses_of_small_packets_say_nothing_of_the_size(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1500)
    pair.begin()
    pair.advance(2.0)
    size = pair.dialer.carrier.datagram_bytes()
    assert size > BASE
    pair.carries = 0  # nothing at all gets through for a while
    pair.dialer.carrier.send(pair.dialer.carrier.open_lane(), b"small")
    pair.advance(3.0)
    pair.carries = 1500
    pair.advance(3.0)
    assert pair.dialer.carrier.datagram_bytes() == size


def test_random_losses_do_not_look_like_a_black_hole(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1500)
    pair.begin()
    pair.advance(2.0)
    size = pair.dialer.carrier.datagram_bytes()
    lane = pair.dialer.carrier.open_lane()
    pair.dialer.carrier.send(lane, bytes(3_000_000), fin=True)
    dropped, seen = 0, 0
    while lane not in pair.listener.ended:
        assert pair.step()
        for packet in [one for one in pair.wire if one[1] > seen]:
            if pair.random.random() < 0.01:
                pair.wire.remove(packet)
                dropped += 1
        seen = pair.count
    assert dropped > 10
    assert pair.dialer.carrier.datagram_bytes() == size > BASE


def test_the_search_begins_anew_when_we_move(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1500)
    pair.begin()
    pair.advance(2.0)
    assert pair.dialer.carrier.datagram_bytes() > BASE
    pair.dialer.carrier.moved()
    pair.sizes[True].moved(pair.now)
    assert pair.dialer.carrier.datagram_bytes() == BASE
    pair.advance(2.0)
    again = pair.dialer.carrier.datagram_bytes()
    assert again == (BASE if engines[0] == "qh3" else 1452)
    pair.transfer(pair.dialer, pair.listener, 300_000)


def test_the_search_begins_anew_when_the_peer_moves(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1500)
    pair.begin()
    pair.advance(2.0)
    pair.dialer.addr = moved = ("198.51.100.7", 4242)
    pair.dialer.carrier.send(pair.dialer.carrier.open_lane(), b"from elsewhere")
    while pair.listener.carrier.remote != moved:
        pair.now += 0.01
        out = [data for data, _ in pair.dialer.carrier.datagrams_to_send(pair.now)]
        if out:
            pair.listener.carrier.receive(out, moved, pair.now)
        pair.listener.collect()
        pair.sizes[False].look(pair.now)
        back = [data for data, _ in pair.listener.carrier.datagrams_to_send(pair.now)]
        if back:
            pair.dialer.carrier.receive(back, LISTENER_ADDR, pair.now)
        pair.dialer.collect()
    assert pair.dialer.addr != DIALER_ADDR
    pair.sizes[False].look(pair.now)
    assert pair.listener.carrier.datagram_bytes() == BASE


def test_a_fixed_size_is_kept(engines: tuple[str, str]) -> None:
    fixed = CarrierConfig(max_datagram_bytes=1300, probe_datagram_bytes=1300)
    pair = SizedPair(*engines, carries=1500, dialer_config=fixed, listener_config=fixed)
    pair.begin()
    pair.advance(2.0)
    for side in (pair.dialer, pair.listener):
        assert side.carrier.datagram_bytes() == 1300
    pair.transfer(pair.dialer, pair.listener, 300_000)
    assert pair.largest[True] <= 1300


def test_datagram_frames_fit_whatever_size_is_in_force(engines: tuple[str, str]) -> None:
    pair = SizedPair(*engines, carries=1500)
    pair.begin()
    pair.advance(2.0)
    for side, other in ((pair.dialer, pair.listener), (pair.listener, pair.dialer)):
        room = side.carrier.datagram_room()
        side.carrier.send_datagram(b"x" * room)
        with pytest.raises(CarrierError) as refused:
            side.carrier.send_datagram(b"x" * (room + 1))
        assert refused.value.code == "datagram_too_large"
        pair.run(partial(operator.contains, other.datagrams, b"x" * room))
        # A frame that waits when the size falls does not hold up what comes after it.
        lane = side.carrier.open_lane()
        side.carrier.send(lane, bytes(400_000), fin=True)
        for _ in range(5):
            side.carrier.send_datagram(b"y" * room)
        side.carrier.use_datagram_bytes(BASE)
        side.carrier.send_datagram(b"after the fall")
        pair.run(partial(operator.contains, other.datagrams, b"after the fall"))
        pair.run(partial(_has, other, lane, 400_000))
