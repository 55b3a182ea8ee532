"""A peer that says too much: what one session takes of each kind, on the virtual clock."""

from __future__ import annotations

import pytest

from fabric import limits, wire
from fabric.classes import TrafficClass
from fabric.events import SessionEvent, StreamOpened, StreamReset
from fabric.lanes import LaneKey
from fabric.session import Session
from fabric.wire import FrameType
from tests.support.fabric_frames import DIRECT_OPEN
from tests.support.fabric_net import Net, Raw, ready_pair
from tests.support.hop_streams import LANE, resets

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
    held = sum(reader._frames.buffered for reader in listener._readers.values())
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
