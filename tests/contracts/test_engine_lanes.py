"""The carrier contract, continued: what an engine holds of many lanes, filled as an endpoint fills them."""

from __future__ import annotations

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.engines import available_engines
from fabric.io.lanewriter import LaneWriter
from fabric.lanes import LaneKey
from fabric.session import SessionConfig
from tests.support.carrier_pair import Pair
from tests.support.fabric_net import Net, Stream

ENGINES = available_engines()
PAIRS = [(dialer, listener) for dialer in ENGINES for listener in ENGINES]
SHARDS = limits.SESSION_SHARDS
RECORD_FRAME_BYTES = limits.LANE_UNSENT_BYTES // 2
NEARLY_ONE = limits.LANE_UNSENT_BYTES + RECORD_FRAME_BYTES // 2


@pytest.fixture(params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def engines(request: pytest.FixtureRequest) -> tuple[str, str]:
    dialer, listener = request.param
    return dialer, listener


class World:
    """A session with streams on many lanes, whose chunks go to a real carrier from the start."""

    def __init__(self, engines: tuple[str, str]) -> None:
        self.net = Net()
        config = SessionConfig(shards={TrafficClass.BULK: SHARDS})
        self.session, _ = self.net.connect(1, 2, dialer_config=config)
        self.net.run()
        self.bulk = self._open_on(SHARDS, TrafficClass.BULK)
        self.bulk += self._open_on(1, TrafficClass.RELIABLE) + self._open_on(1, TrafficClass.DROPPABLE)
        (self.person,) = self._open_on(1, TrafficClass.INTERACTIVE)
        self.pair = Pair(*engines)
        self.pair.handshake()
        self.pair.advance(0.2)
        self.net.now += 1.0  # nothing urgent was said of late
        self.writer = LaneWriter(self.pair.dialer.carrier, self.net.now)

    def _open_on(self, lanes: int, traffic_class: TrafficClass) -> list[Stream]:
        """A stream on each of so many lanes of the class."""
        found: dict[LaneKey, Stream] = {}
        while len(found) < lanes:
            stream = self.net.host(1).open(self.session, traffic_class=traffic_class)
            found.setdefault(self.session._streams[stream.stream_id].queue.lane, stream)
        self.net.run()
        return list(found.values())

    def fill(self) -> None:
        """As an endpoint does in one flush, again and again, though nothing can leave."""
        for _ in range(20):
            self.net.host(1).pump()
            self.writer.fill(self.session, self.net.now)


def test_many_lanes_together_hold_little_more_than_one(engines: tuple[str, str]) -> None:
    world = World(engines)
    carrier = world.pair.dialer.carrier
    for stream in world.bulk:
        stream.machine.write(bytes(4 * limits.RECORD_BYTES))
    world.fill()
    lanes = {key: unsent for key, (_, unsent) in world.writer.sent().items() if unsent}
    assert RECORD_FRAME_BYTES <= carrier.unsent() <= NEARLY_ONE
    assert len(lanes) > 1, "more than one lane waits"
    # What a person sends now goes to the engine at once, and is behind no more than that.
    world.person.machine.write(b"a key was pressed")
    world.fill()
    assert carrier.unsent() <= NEARLY_ONE
    lane = world.writer._lanes[LaneKey(TrafficClass.INTERACTIVE, 0)]
    before = world.pair.listener.received.copy()
    assert lane not in before
    world.pair.run(lambda: lane in world.pair.listener.received)
    others = sum(len(data) for one, data in world.pair.listener.received.items() if one != lane)
    assert others <= NEARLY_ONE


def test_one_lane_may_use_what_all_may(engines: tuple[str, str]) -> None:
    world = World(engines)
    world.bulk[0].machine.write(bytes(6 * limits.RECORD_BYTES))
    world.fill()
    assert world.pair.dialer.carrier.unsent() == pytest.approx(limits.LANE_UNSENT_BYTES, abs=500)
