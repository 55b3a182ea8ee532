"""A peer that says too much: what one session takes of each kind, on the virtual clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from fabric import limits, wire
from fabric.classes import TrafficClass
from fabric.events import SessionEvent, StreamConfig, StreamOpened, StreamReset
from fabric.lanes import LaneKey
from fabric.session import Session
from fabric.wire import FrameType, RouteRef
from tests.support.fabric_frames import DIRECT_OPEN
from tests.support.fabric_net import Net, Raw, Stream, ready_pair
from tests.support.hop_streams import LANE, resets
from tests.support.leases import hops
from tests.support.relay_chain import Chain

NEWS = {
    "ping": wire.encode_ping(0, 1, 2),
    "pong": wire.encode_pong(0, 1, 2),
    "goaway": wire.encode_map(wire.Goaway(last_id=6, drain_s=10, reason="going_away")),
    "pressure": wire.encode_map(wire.NodePressure(queue=1)),
    "route": wire.encode_map(wire.RouteUpdate(route_id="r", epoch=1)),
    "credit": wire.encode_credit(0, 5),
    "unknown": wire.encode_frame(99, 0, b"", 0),
}


@pytest.mark.parametrize("kind", NEWS)
def test_news_without_end_close_the_session(kind: str) -> None:
    net, _, listener = ready_pair()
    raw = Raw(net, listener)
    burst = NEWS[kind] * 1000
    for _ in range(limits.SESSION_NEWS_BURST // 1000 - 1):
        assert raw.closes(burst) == "", "a burst is no flood"
    assert raw.closes(burst * 2) == "frame_flood"
    assert listener.counters["frame_flood"] == 1


@pytest.mark.parametrize("kind", NEWS)
def test_news_at_the_rate_are_fine_for_ever(kind: str) -> None:
    net, _, listener = ready_pair()
    raw = Raw(net, listener)
    second = NEWS[kind] * limits.SESSION_NEWS_PER_S
    for _ in range(2 * limits.SESSION_NEWS_BURST // limits.SESSION_NEWS_PER_S):
        net.now += 1
        assert raw.closes(second) == ""


def test_a_goaway_is_acted_upon_once_and_again_only_where_it_takes_fewer() -> None:
    """Each makes streams look for another way, so that thousands a second would be work without end."""
    net, dialer, _ = ready_pair()
    raw = Raw(net, dialer)
    ids = [dialer.open_stream(net.now, DIRECT_OPEN) for _ in range(3)]

    def goaway(last_id: int) -> list[str]:
        body = wire.Goaway(last_id=last_id, drain_s=10, reason="going_away")
        return [type(event).__name__ for event in raw.send(wire.encode_map(body))]

    assert goaway(1 << 40) == ["PeerGoaway"]
    assert goaway(1 << 40) == goaway((1 << 40) - 1) == goaway(ids[-1]) == []
    assert dialer.streams() == tuple(ids)
    assert goaway(ids[0]) == ["StreamReset", "StreamReset", "PeerGoaway"]
    assert goaway(ids[0]) == goaway(ids[1]) == []
    assert dialer.streams() == (ids[0],)
    assert goaway(0) == ["StreamReset", "PeerGoaway"]


def opened(events: list[SessionEvent]) -> list[int]:
    return [event.stream_id for event in events if isinstance(event, StreamOpened)]


def open_and_reset(session: Session, net: Net, count: int, first: int) -> list[SessionEvent]:
    """Streams of ids from `first` on, each reset as soon as it is open."""
    raw, events = Raw(net, session), []
    for stream_id in range(first, first + 2 * count, 2):
        events += raw.send(wire.encode_map(DIRECT_OPEN, stream_id), LANE)
        events += raw.send(wire.encode_map(wire.ResetStream(reason="cancelled"), stream_id))
        resets(session, net.now)
    return events


def test_streams_opened_and_reset_in_a_loop_are_slowed() -> None:
    net, _, listener = ready_pair()
    net.host(2).accepts = False
    events = open_and_reset(listener, net, limits.SESSION_OPENS_BURST + 100, 2)
    assert len(opened(events)) == limits.SESSION_OPENS_BURST
    assert listener.streams() == ()
    assert listener.resets_sent == {"too_many_streams": 100}
    assert not listener.closed
    net.now += 2
    first = 2 + 2 * (limits.SESSION_OPENS_BURST + 100)
    later = open_and_reset(listener, net, 3 * limits.SESSION_OPENS_PER_S, first)
    assert len(opened(later)) == 2 * limits.SESSION_OPENS_PER_S


def test_more_streams_than_may_be_open_are_refused_one_by_one() -> None:
    net, _, listener = ready_pair()
    net.host(2).accepts = False
    raw, events = Raw(net, listener), []
    for number in range(limits.SESSION_STREAMS + 9):
        events += raw.send(wire.encode_map(DIRECT_OPEN, 2 + 2 * number), LANE)
    assert len(opened(events)) == len(listener.streams()) == limits.SESSION_STREAMS
    assert [reason for _, reason in resets(listener, net.now)] == ["too_many_streams"] * 9
    # One that ends makes room for another.
    raw.send(wire.encode_map(wire.ResetStream(reason="cancelled"), 2))
    assert opened(raw.send(wire.encode_map(DIRECT_OPEN, 8000), LANE)) == [8000]


def test_half_a_frame_on_every_lane_holds_little_and_nobody_else_up() -> None:
    net, _, listener = ready_pair()
    net.host(2).accepts = False
    raw = Raw(net, listener)
    head = wire.encode_frame(FrameType.DATA, 2, bytes(limits.FRAME_BODY_BYTES), 0)[:-1]
    lanes = [LaneKey(TrafficClass.BULK, shard) for shard in range(limits.LANE_SHARDS)]
    for lane in lanes:
        assert raw.send(head, lane) == []
    held = sum(len(reader._frames._partial) for reader in listener._readers.values())
    assert held <= limits.SESSION_LANES * (limits.FRAME_BODY_BYTES + wire.HEADER_BYTES)
    assert opened(raw.send(wire.encode_map(DIRECT_OPEN, 2), LANE)) == [2]


def test_a_stream_the_session_ended_itself_is_no_flood() -> None:
    """The twin of the bound on news: what a peer could not know is dead may come for long."""
    net, _, listener = ready_pair()
    net.host(2).accepts = False
    raw = Raw(net, listener)
    raw.send(wire.encode_map(DIRECT_OPEN, 2), LANE)
    listener.reset_stream(net.now, 2, "refused")
    late = (wire.encode_data_head(2, 0, 0, 1) + b"x") * 1000
    for _ in range(2 * limits.SESSION_NEWS_BURST // 1000):
        events = raw.send(late, LANE)
        assert not any(isinstance(event, StreamReset) for event in events)
    assert not listener.closed


# -- over a relay ----------------------------------------------------------------------------------------

SLOWER = 3
"""Rounds that a neighbour's echo may take over an attacked relay, against the same alone."""
BUDGET = 4 << 20


class Relayed:
    """A client that does what it likes and one that types, over one relay to one exit."""

    def __init__(self) -> None:
        chain = self.chain = Chain(allowed_classes=frozenset(TrafficClass))
        self.net, self.relay = chain.net, chain.relays[0]
        (person, _) = self.net.connect(6, 2)
        self.net.run()
        own = replace(chain.lease, route_id="own", hops=hops(6, 2, 3), organization_id="own")
        for number in (6, 2, 3):
            chain.host(number).leases["own"] = own
        route = RouteRef(route_id="own", epoch=3, position=1)
        self.typed = chain.host(6).open(
            person, "echo", TrafficClass.INTERACTIVE, to=chain.host(3), route=route
        )
        self.net.run()
        (self.answers,) = chain.host(3).accepted
        # What a carrier takes at once: without it nothing would ever wait.
        self.net.room = lambda _session, _lane: limits.LANE_UNSENT_BYTES
        self.net.total = limits.SESSION_UNSENT_BYTES

    def streams(self, count: int) -> list[tuple[Stream, Stream]]:
        """Bulk streams of the attacker, both ends."""
        found = [self.chain.open(TrafficClass.BULK) for _ in range(count)]
        return list(zip(found, self.chain.host(3).accepted[-count:], strict=True))

    def echo(self, attack: Callable[[], None]) -> int:
        """Rounds until a key has come back, the attacker having its turn in each."""
        self.typed.machine.write(b"k")
        for rounds in range(1, 200):
            attack()
            self.net.step()
            assert self.relay.held <= BUDGET
            self.answers.machine.write(self.answers.machine.read())
            if self.typed.machine.read():
                return rounds
        raise AssertionError("no echo")

    def raw(self, stream: Stream, payload: bytes, count: int) -> None:
        """Records that the attacker's own end would not make, into the relay."""
        inbound = self.chain.links[0][1]
        if not inbound.lives(stream.stream_id):
            return
        frame = wire.encode_data_head(stream.stream_id, 0, 0, len(payload)) + payload
        lane = inbound._streams[stream.stream_id].queue.lane
        self.chain.host(2).take(inbound, Raw(self.net, inbound).send(frame * count, lane))

    def bulk_is_stuck(self) -> None:
        """The exit takes no bulk any more."""
        out = self.chain.links[1][0]
        self.net.room = lambda session, lane: (
            0 if session is out and lane.traffic_class is TrafficClass.BULK else limits.LANE_UNSENT_BYTES
        )


def slow_readers(scene: Relayed) -> Callable[[], None]:
    ends = scene.streams(10)

    def attack() -> None:
        for one, _ in ends:
            if not one.machine.over:
                one.machine.write(bytes(1 << 20))

    return attack


def tiny_windows(scene: Relayed) -> Callable[[], None]:
    scene.chain.host(1).config = StreamConfig(window=16, window_max=16)
    ends = scene.streams(10)

    def attack() -> None:
        for one, far in ends:
            far.machine.write(bytes(1 << 20))
            one.machine.read(1)

    return attack


def sparse_records(scene: Relayed) -> Callable[[], None]:
    ends = scene.streams(10)
    scene.bulk_is_stuck()

    def attack() -> None:
        for one, _ in ends:
            scene.raw(one, bytes(17), 100)

    return attack


def credit_overrun(scene: Relayed) -> Callable[[], None]:
    ends = scene.streams(20)
    scene.bulk_is_stuck()

    def attack() -> None:
        if ends:
            one, _ = ends.pop()
            records = limits.STREAM_WINDOW_BYTES // 65_576 + 1
            scene.raw(one, bytes(65_552), records)
            assert scene.chain.links[0][1].resets_sent["credit_exceeded"] == 20 - len(ends)

    return attack


@pytest.mark.parametrize("attack", [slow_readers, tiny_windows, sparse_records, credit_overrun])
def test_a_neighbour_types_over_a_relay_that_somebody_floods(
    monkeypatch: pytest.MonkeyPatch, attack: Callable[[Relayed], Callable[[], None]]
) -> None:
    for bound in ("RELAY_SESSION_BYTES", "RELAY_TENANT_BYTES", "RELAY_BYTES"):
        monkeypatch.setattr(limits, bound, BUDGET)
    scene = Relayed()
    alone = max(scene.echo(lambda: None) for _ in range(10))
    turn = attack(scene)
    before = sum(one.records for one in scene.relay.accounts.values())
    attacked = [scene.echo(turn) for _ in range(30)]
    assert max(attacked) <= SLOWER * alone, attacked
    assert sum(one.records for one in scene.relay.accounts.values()) > before + 2 * 30 + 10
    assert not any(session.closed for session in scene.net.flows)
    assert not scene.typed.machine.over
