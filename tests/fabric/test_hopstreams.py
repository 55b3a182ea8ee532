"""Streams of one hop: their ids, states and credit, and what happens to a peer that breaks the rules."""

# Long on purpose: the states of a hop stream with every frame that may and may not come in them.
from __future__ import annotations

import msgspec
import pytest

from fabric import limits, wire
from fabric.classes import Mode, TrafficClass
from fabric.errors import StreamError, WireError
from fabric.lanes import CONTROL_LANE, LaneKey
from fabric.session import (
    SessionConfig,
    StreamAcceptedEvent,
    StreamAck,
    StreamClosed,
    StreamOpened,
    StreamPing,
    StreamPong,
    StreamRecord,
    StreamReset,
    StreamWritable,
)
from fabric.wire import CloseStream, ResetStream
from tests.support.fabric_frames import DIRECT_OPEN, LEASED_OPEN
from tests.support.fabric_net import PLENTY, Raw, ready_pair, sent_frames
from tests.support.hop_streams import (
    ACCEPTED,
    LANE,
    OTHER_LANE,
    SMALL,
    WINDOW,
    data,
    opened,
    opening,
    resets,
)

# -- the life of a stream --------------------------------------------------------------------------------


def test_open_accept_data_close() -> None:
    net, dialer, raw, stream_id = opening()
    accepted = wire.encode_map(ACCEPTED, stream_id)
    assert raw.send(accepted, LANE) == [StreamAcceptedEvent(stream_id, ACCEPTED, accepted[16:])]
    dialer.send_data(net.now, stream_id, 7, 2, b"sealed")
    dialer.close_stream(net.now, stream_id)
    dialer.close_stream(net.now, stream_id)
    assert sent_frames(dialer, net.now) == [
        (LANE, stream_id, wire.Data(7, 2, b"sealed")),
        (LANE, stream_id, CloseStream()),
    ]
    assert raw.send(data(stream_id, b"back", 5, 4), LANE) == [StreamRecord(stream_id, 5, 4, b"back", 28)]
    assert dialer.streams() == (stream_id,)
    assert raw.send(wire.encode_map(CloseStream(), stream_id), LANE) == [StreamClosed(stream_id, dead=True)]
    assert dialer.streams() == ()


def test_the_other_side_may_close_first() -> None:
    net, listener, raw, stream_id = opened()
    assert raw.send(wire.encode_map(CloseStream(), stream_id), LANE) == [StreamClosed(stream_id, dead=False)]
    listener.send_data(net.now, stream_id, 0, 0, b"still")
    listener.close_stream(net.now, stream_id)
    assert listener.streams() == (stream_id,)
    assert len(sent_frames(listener, net.now)) == 2
    assert listener.streams() == ()


def test_ids_are_even_for_the_dialer_and_odd_for_the_listener() -> None:
    net, dialer, listener = ready_pair()
    assert [dialer.open_stream(net.now, DIRECT_OPEN) for _ in range(3)] == [2, 4, 6]
    assert [listener.open_stream(net.now, DIRECT_OPEN) for _ in range(3)] == [1, 3, 5]


def test_acks_and_pings_of_streams_are_passed_up() -> None:
    net, listener, raw, stream_id = opened()
    assert raw.send(wire.encode_ack(stream_id, 5, 9)) == [StreamAck(stream_id, 5, 9)]
    assert raw.send(wire.encode_ping(stream_id, 1, 2)) == [StreamPing(stream_id, 1, 2)]
    assert raw.send(wire.encode_pong(stream_id, 1, 2)) == [StreamPong(stream_id, 1, 2)]
    listener.send_ack(net.now, stream_id, 3, 4)
    listener.send_ack(net.now, stream_id, 5, 6)
    listener.pong(net.now, stream_id, 1, 2)
    nonce = listener.ping(net.now, stream_id)
    assert sent_frames(listener, net.now) == [
        (CONTROL_LANE, stream_id, wire.Pong(1, 2)),
        (CONTROL_LANE, stream_id, wire.Ping(nonce, int(net.now * 1_000_000))),
        (CONTROL_LANE, stream_id, wire.Ack(5, 6)),
    ]


def test_a_reset_kills_both_directions_at_once() -> None:
    net, listener, raw, stream_id = opened()
    listener.send_data(net.now, stream_id, 0, 0, bytes(1000))
    listener.reset_stream(net.now, stream_id, "cancelled", "enough")
    assert listener.streams() == ()
    assert sent_frames(listener, net.now) == [
        (CONTROL_LANE, stream_id, ResetStream(reason="cancelled", detail="enough"))
    ]
    # Commands on it are void, and what still arrives is counted.
    listener.send_data(net.now, stream_id, 0, 0, b"x")
    listener.send_ack(net.now, stream_id, 0, 0)
    listener.reset_stream(net.now, stream_id, "cancelled")
    assert raw.send(data(stream_id, b"late"), LANE) == []
    assert raw.send(wire.encode_map(CloseStream(), stream_id), LANE) == []
    assert raw.send(wire.encode_ack(stream_id, 0, 0)) == []
    assert raw.send(wire.encode_map(ResetStream(reason="gone"), stream_id)) == []
    assert listener.counters == {"late_frames": 4}
    assert sent_frames(listener, net.now) == []


def test_a_reset_by_the_peer_is_told_once() -> None:
    _, listener, raw, stream_id = opened()
    reset = wire.encode_map(ResetStream(reason="route_failed", detail="hop 2"), stream_id)
    assert raw.send(reset) == [StreamReset(stream_id, "route_failed", "hop 2")]
    assert raw.send(reset) == []
    assert listener.streams() == ()


def test_a_reset_that_takes_back_an_open_follows_it_on_its_lane() -> None:
    _, listener, raw, stream_id = opened()
    reset = wire.encode_map(ResetStream(reason="cancelled"), stream_id)
    assert raw.send(reset, LANE) == [StreamReset(stream_id, "cancelled")]
    assert listener.streams() == ()
    assert raw.send(wire.encode_map(DIRECT_OPEN, 4), LANE) != []
    assert raw.closes(wire.encode_map(ResetStream(reason="cancelled"), 4), OTHER_LANE) == "wrong_lane"


def test_a_reset_of_a_stream_that_was_never_opened_ends_the_session() -> None:
    net, _, listener = ready_pair()
    raw = Raw(net, listener)
    assert raw.closes(wire.encode_map(ResetStream(reason="cancelled"), 2)) == "bad_stream_id"


def test_a_stream_given_up_before_the_peer_showed_that_it_knows_it_is_reset_behind_its_open() -> None:
    net, dialer, _ = ready_pair()
    stream_id = dialer.open_stream(net.now, DIRECT_OPEN)
    dialer.reset_stream(net.now, stream_id, "cancelled")
    reset = (LANE, stream_id, ResetStream(reason="cancelled"))
    assert sent_frames(dialer, net.now) == [(LANE, stream_id, DIRECT_OPEN), reset]
    net, dialer, raw, stream_id = opening()
    dialer.reset_stream(net.now, stream_id, "cancelled")
    assert sent_frames(dialer, net.now) == [reset]
    assert raw.send(wire.encode_map(ACCEPTED, stream_id), LANE) == []
    assert sent_frames(dialer, net.now) == []
    assert dialer.counters == {"late_frames": 1}


def test_streams_opened_and_reset_at_once_without_end_harm_nobody() -> None:
    net, dialer, listener = ready_pair()
    for _ in range(3 * limits.SESSION_STREAMS):
        dialer.reset_stream(net.now, dialer.open_stream(net.now, DIRECT_OPEN), "cancelled")
        net.now += 0.01
        net.run()
    assert dialer.streams() == listener.streams() == ()
    assert not listener.closed
    assert listener._peer_ids.unused == 0
    assert listener.resets_received == {"cancelled": 3 * limits.SESSION_STREAMS}


def test_streams_given_up_count_until_they_left() -> None:
    net, dialer, listener = ready_pair(listener_config=SessionConfig(max_streams=3))
    for _ in range(3):
        dialer.reset_stream(net.now, dialer.open_stream(net.now, DIRECT_OPEN), "cancelled")
    with pytest.raises(StreamError, match="too_many_streams"):
        dialer.open_stream(net.now, DIRECT_OPEN)
    net.run()
    assert dialer.open_stream(net.now, DIRECT_OPEN) == 8
    net.run()
    opened_ids = [event.stream_id for event in net.host(2).events if isinstance(event, StreamOpened)]
    assert opened_ids == [2, 4, 6, 8]
    assert not listener.counters


def test_nothing_is_said_on_the_control_lane_about_a_stream_the_peer_may_not_know() -> None:
    net, dialer, raw, stream_id = opening()
    dialer.ping(net.now, stream_id)
    dialer.pong(net.now, stream_id, 1, 2)
    dialer.send_ack(net.now, stream_id, 3, 4)
    assert sent_frames(dialer, net.now) == []
    raw.send(wire.encode_map(ACCEPTED, stream_id), LANE)
    dialer.pong(net.now, stream_id, 1, 2)
    dialer.send_ack(net.now, stream_id, 3, 4)
    assert sent_frames(dialer, net.now) == [
        (CONTROL_LANE, stream_id, wire.Pong(1, 2)),
        (CONTROL_LANE, stream_id, wire.Ack(3, 4)),
    ]


def test_a_flood_of_pings_about_one_stream_is_cut_and_leaves_the_others_theirs() -> None:
    net, listener, raw, stream_id = opened()
    raw.send(wire.encode_map(DIRECT_OPEN, 4), LANE)
    asked = 10 * limits.STREAM_PROBES_BURST
    events = raw.send(b"".join(wire.encode_ping(stream_id, n, 0) for n in range(asked)))
    assert len(events) == limits.STREAM_PROBES_BURST
    assert listener.counters["pings_dropped"] == asked - limits.STREAM_PROBES_BURST
    assert raw.send(wire.encode_ping(4, 7, 8)) == [StreamPing(4, 7, 8)]
    for event in events:
        assert isinstance(event, StreamPing)
        listener.pong(net.now, stream_id, event.nonce, event.time)
    listener.pong(net.now, 4, 7, 8)
    assert sent_frames(listener, net.now) == [
        (CONTROL_LANE, stream_id, wire.Pong(limits.STREAM_PROBES_BURST - 1, 0)),
        (CONTROL_LANE, 4, wire.Pong(7, 8)),
    ]
    net.now += 1.0
    events = raw.send(b"".join(wire.encode_ping(stream_id, n, 0) for n in range(asked)))
    assert len(events) == limits.STREAM_PROBES_PER_S


def test_a_lane_that_stands_still_stops_the_opener_and_not_the_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SESSION_STREAM_ID_GAPS", 50)
    net, dialer, listener = ready_pair()
    net.room = lambda _session, lane: 0 if lane.traffic_class is TrafficClass.BULK else PLENTY
    stuck = net.host(1).open(dialer, traffic_class=TrafficClass.BULK)
    for _ in range(50):
        passing = net.host(1).open(dialer, traffic_class=TrafficClass.INTERACTIVE)
        net.run()
        dialer.reset_stream(net.now, passing.stream_id, "cancelled")
    with pytest.raises(StreamError, match="too_many_streams"):
        net.host(1).open(dialer, traffic_class=TrafficClass.INTERACTIVE)
    net.room = lambda _session, _lane: PLENTY
    net.run()
    assert stuck.kinds() == ["Opened"]
    net.host(1).open(dialer, traffic_class=TrafficClass.INTERACTIVE)
    net.run()
    assert not listener.closed
    assert listener.counters == {}
    assert dialer._own_ids._opening == {}


def test_an_answer_does_not_speak_for_an_open_that_waits_behind_its_tenants_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SESSION_STREAM_ID_GAPS", 20)
    net, dialer, listener = ready_pair()
    net.room = lambda _session, _lane: 66_000

    def opened_of(tenant: str) -> int:
        stream_id = net.host(1).open(dialer, traffic_class=TrafficClass.BULK).stream_id
        dialer.scheduler.move(dialer._streams[stream_id].queue, tenant)
        return stream_id

    busy = [opened_of("busy") for _ in range(8)]
    net.run()
    for stream_id in busy:
        for number in range(3):
            dialer.send_data(net.now, stream_id, number, 0, bytes(60_000))
    late = opened_of("busy")
    passing = [opened_of("quick") for _ in range(20)]
    with pytest.raises(StreamError, match="too_many_streams"):
        opened_of("quick")
    while not all(dialer._streams[stream_id].accepted for stream_id in passing):
        net.step()
    assert not dialer._streams[late].accepted
    assert late not in listener.streams()
    with pytest.raises(StreamError, match="too_many_streams"):  # the peer would end the session
        opened_of("quick")
    while not dialer._streams[late].accepted:
        net.step()
    opened_of("quick")
    net.step()
    assert not listener.closed


def test_a_stream_that_waits_for_its_far_end_stops_no_others() -> None:
    """At the full rate that a peer takes, for as long as an OPEN may have no answer."""
    net, dialer, listener = ready_pair()
    net.host(2).accepts = False
    waiting = dialer.open_stream(net.now, DIRECT_OPEN, lane=LaneKey(TrafficClass.RELIABLE, 1))
    net.run()
    asked = limits.SESSION_OPENS_BURST + int(limits.SESSION_OPENS_PER_S * limits.SESSION_OPEN_ARRIVES_S)
    assert asked <= limits.SESSION_STREAM_ID_GAPS
    for _ in range(asked // 500):
        for _ in range(500):
            dialer.reset_stream(net.now, dialer.open_stream(net.now, DIRECT_OPEN), "cancelled")
        net.now += 500 / limits.SESSION_OPENS_PER_S
        net.run()
    assert not listener.closed
    assert waiting in listener.streams()
    assert listener.resets_sent == {}


def test_opens_that_were_taken_back_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SESSION_STREAM_ID_GAPS", 5)
    net, dialer, _ = ready_pair()
    given_up = net.host(1).open(dialer, traffic_class=TrafficClass.BULK)
    dialer.reset_stream(net.now, given_up.stream_id, "cancelled")
    net.run()
    for _ in range(5):
        net.host(1).open(dialer)
        net.run()
    with pytest.raises(StreamError, match="too_many_streams"):
        net.host(1).open(dialer)
    net.now += limits.SESSION_OPEN_ARRIVES_S
    net.host(1).open(dialer)


# -- rules of ids and lanes ------------------------------------------------------------------------------


def test_an_id_is_never_used_twice() -> None:
    _, _, raw, _ = opened()
    assert raw.closes(wire.encode_map(DIRECT_OPEN, 4), LANE) == ""
    assert raw.closes(wire.encode_map(DIRECT_OPEN, 2), LANE) == "stream_id_reused"
    _, _, raw, stream_id = opened()
    raw.send(wire.encode_map(ResetStream(reason="gone"), stream_id))
    assert raw.closes(wire.encode_map(DIRECT_OPEN, stream_id), LANE) == "stream_id_reused"


@pytest.mark.parametrize(
    "frame",
    [data(2, b"x"), wire.encode_map(CloseStream(), 2)],
    ids=["data", "close"],
)
def test_a_stream_stays_on_its_lane(frame: bytes) -> None:
    _, _, raw, _ = opened()
    assert raw.closes(frame, OTHER_LANE) == "wrong_lane"
    _, _, raw, _ = opened()
    assert raw.closes(frame, LANE) == ""


def test_accepted_comes_on_the_streams_lane() -> None:
    _, _, raw, stream_id = opening()
    assert raw.closes(wire.encode_map(ACCEPTED, stream_id), OTHER_LANE) == "wrong_lane"


@pytest.mark.parametrize(
    "frame",
    [data(88, b"x"), wire.encode_map(CloseStream(), 88), wire.encode_map(ACCEPTED, 3), data(3, b"x")],
    ids=["data", "close", "accepted", "data of ours"],
)
def test_frames_of_a_stream_that_never_was(frame: bytes) -> None:
    _, _, raw, _ = opened()
    assert raw.closes(frame, LANE) == "bad_stream_id"


# -- rules of states: the stream ends, the session lives -------------------------------------------------


def test_frames_that_are_not_due_reset_the_stream_alone() -> None:
    for frame in (data(2, b"x"), wire.encode_map(CloseStream(), 2)):
        net, dialer, raw, stream_id = opening()
        (event,) = raw.send(frame, LANE)
        assert isinstance(event, StreamReset)
        assert event.reason == "stream_state"
        assert resets(dialer, net.now) == [(stream_id, "stream_state")]
        assert not dialer.closed
    closed = wire.encode_map(CloseStream(), 2)
    for frame, reason in (
        (wire.encode_map(ACCEPTED, 2), "stream_state"),
        (closed + closed, "stream_state"),
        (closed + data(2, b"x"), "record_after_end"),
    ):
        net, listener, raw, stream_id = opened()
        events = raw.send(frame, LANE)
        assert isinstance(events[-1], StreamReset)
        assert resets(listener, net.now) == [(stream_id, reason)]
        assert not listener.closed


def test_commands_that_are_not_due_raise() -> None:
    net, dialer, _, stream_id = opening()
    with pytest.raises(StreamError, match="stream_state"):
        dialer.send_data(net.now, stream_id, 0, 0, b"x")
    with pytest.raises(StreamError, match="stream_state"):
        dialer.accept_stream(net.now, stream_id, ACCEPTED)
    net, listener, _, stream_id = opened()
    with pytest.raises(StreamError, match="stream_state"):
        listener.accept_stream(net.now, stream_id, ACCEPTED)
    with pytest.raises(StreamError, match="stream_state"):
        listener.consumed(net.now, stream_id, 1)
    listener.close_stream(net.now, stream_id)
    with pytest.raises(StreamError, match="stream_state"):
        listener.send_data(net.now, stream_id, 0, 0, b"x")


def test_datagram_mode_is_refused_by_name_where_it_is_off() -> None:
    off = SessionConfig(datagrams=False)
    net, dialer, listener = ready_pair(dialer_config=off, listener_config=off)
    datagrams = msgspec.structs.replace(DIRECT_OPEN, mode=int(Mode.DATAGRAM))
    with pytest.raises(StreamError, match="mode_not_supported"):
        dialer.open_stream(net.now, datagrams)
    assert Raw(net, listener).send(wire.encode_map(datagrams, 2), LANE) == []
    assert resets(listener, net.now) == [(2, "mode_not_supported")]
    probe = msgspec.structs.replace(DIRECT_OPEN, mode=int(Mode.PROBE))
    assert dialer.open_stream(net.now, probe) == 2


def test_a_raw_open_is_sent_as_it_is() -> None:
    net, dialer, _ = ready_pair()
    fields = msgspec.msgpack.decode(wire.encode_map(LEASED_OPEN, 2)[16:])
    raw = msgspec.msgpack.encode({**fields, "later": 1})
    dialer.open_stream(net.now, raw)
    ((_, chunk),) = dialer.outgoing(net.now, lambda _lane: PLENTY)
    assert bytes(chunk).endswith(raw)
    with pytest.raises(WireError, match="field_out_of_bounds"):
        dialer.open_stream(net.now, b"\x80")


# -- bounds ----------------------------------------------------------------------------------------------


def test_open_streams_are_bounded_by_the_receiver() -> None:
    net, dialer, listener = ready_pair(listener_config=SessionConfig(max_streams=2))
    dialer.open_stream(net.now, DIRECT_OPEN)
    dialer.check_room(0.0, Mode.STREAM)
    second = dialer.open_stream(net.now, DIRECT_OPEN)
    with pytest.raises(StreamError, match="too_many_streams"):
        dialer.check_room(0.0, Mode.STREAM)
    with pytest.raises(StreamError, match="too_many_streams"):
        dialer.open_stream(net.now, DIRECT_OPEN)
    dialer.reset_stream(net.now, second, "cancelled")
    dialer.outgoing(net.now, lambda _lane: PLENTY)  # lost, as far as the listener goes
    assert dialer.open_stream(net.now, DIRECT_OPEN) == 6
    raw = Raw(net, listener)
    for stream_id in (2, 4, 6):
        raw.send(wire.encode_map(DIRECT_OPEN, stream_id), LANE)
    assert listener.streams() == (2, 4)
    assert resets(listener, net.now) == [(6, "too_many_streams")]


def test_a_peer_that_makes_us_owe_resets_without_end_is_cut_off() -> None:
    net, _, listener = ready_pair(listener_config=SessionConfig(max_streams=0))
    raw = Raw(net, listener)
    for number in range(limits.SESSION_PENDING_RESETS):
        assert raw.send(wire.encode_map(DIRECT_OPEN, 2 + 2 * number), LANE) == []
    assert raw.closes(wire.encode_map(DIRECT_OPEN, 2 + 2 * limits.SESSION_PENDING_RESETS), LANE) == (
        "reset_flood"
    )


def test_bodies_are_no_larger_than_the_peer_takes() -> None:
    net, dialer, _ = ready_pair(listener_config=SessionConfig(body_limit=limits.FRAME_BODY_BYTES_MIN))
    stream_id = dialer.open_stream(net.now, DIRECT_OPEN)
    Raw(net, dialer).send(wire.encode_map(ACCEPTED, stream_id), LANE)
    dialer.send_data(net.now, stream_id, 0, 0, bytes(limits.RECORD_BYTES + 16))
    with pytest.raises(StreamError, match="record_shape"):
        dialer.send_data(net.now, stream_id, 0, 0, bytes(limits.RECORD_BYTES + 17))


def test_a_writer_is_held_back_and_called() -> None:
    net, dialer, raw, stream_id = opening()
    raw.send(wire.encode_map(ACCEPTED, stream_id), LANE)
    assert dialer.room(stream_id) == limits.STREAM_QUEUE_BYTES
    while dialer.room(stream_id):
        dialer.send_data(net.now, stream_id, 0, 0, bytes(60_000))
    assert dialer.room(stream_id) == 0
    dialer.outgoing(net.now, lambda _lane: 70_000)
    assert dialer.take_events() == []
    dialer.outgoing(net.now, lambda _lane: PLENTY)
    assert dialer.take_events() == [StreamWritable(stream_id)]
    assert dialer.take_events() == []
    assert dialer.room(999) == 0


def test_whoever_asks_is_told_when_its_frames_have_left() -> None:
    net, dialer, raw, stream_id = opening()
    raw.send(wire.encode_map(ACCEPTED, stream_id), LANE)
    assert not dialer.waits(stream_id)
    dialer.tell_when_left(stream_id)
    dialer.send_data(net.now, stream_id, 0, 0, bytes(50))
    assert dialer.waits(stream_id)
    dialer.outgoing(net.now, lambda _lane: PLENTY)
    assert dialer.take_events() == [], "nothing waited when it asked"
    dialer.send_data(net.now, stream_id, 50, 0, bytes(50))
    dialer.tell_when_left(stream_id)
    dialer.outgoing(net.now, lambda _lane: 0)
    assert dialer.take_events() == []
    dialer.outgoing(net.now, lambda _lane: PLENTY)
    assert dialer.take_events() == [StreamWritable(stream_id)]
    assert not dialer.waits(stream_id)


def test_a_queue_has_a_hard_end() -> None:
    net, dialer, raw, stream_id = opening()
    raw.send(wire.encode_map(ACCEPTED, stream_id), LANE)
    for _ in range(limits.STREAM_QUEUE_BYTES_MAX // 60_024 + 1):
        dialer.send_data(net.now, stream_id, 0, 0, bytes(60_000))
    with pytest.raises(StreamError, match="queue_full"):
        dialer.send_data(net.now, stream_id, 0, 0, bytes(60_000))


def test_what_waits_for_its_own_credit_leaves_room_for_others() -> None:
    net, dialer, listener = ready_pair(listener_config=SMALL)
    raw = Raw(net, dialer)
    opens = [dialer.open_stream(net.now, DIRECT_OPEN) for _ in range(24)]
    net.host(2).accepts = False
    net.run()
    for stream_id in opens:
        raw.send(wire.encode_map(ACCEPTED, stream_id), LANE)
    for stream_id in [*opens[:-1], *opens[:-1]]:
        while dialer.room(stream_id):
            dialer.send_data(net.now, stream_id, 0, 0, bytes(60_000))
        dialer.outgoing(net.now, lambda _lane: PLENTY)
    scheduler = dialer.scheduler
    assert scheduler.queued == scheduler.stuck > limits.SESSION_QUEUE_BYTES
    assert dialer.room(opens[-1]) == limits.STREAM_QUEUE_BYTES
    raw.send(wire.encode_credit(opens[0], 2 * WINDOW))
    assert 0 < scheduler.queued - scheduler.stuck < limits.STREAM_QUEUE_BYTES + 60_024
    for stream_id in opens:
        dialer.reset_stream(net.now, stream_id, "cancelled")
    assert scheduler.queued == scheduler.stuck == 0
    assert not listener.closed


def test_full_queues_of_bulk_leave_room_for_interactive() -> None:
    net, dialer, raw, _ = opening()
    opens = [dialer.open_stream(net.now, DIRECT_OPEN) for _ in range(20)]
    urgent = msgspec.structs.replace(DIRECT_OPEN, class_=int(TrafficClass.INTERACTIVE))
    interactive = dialer.open_stream(net.now, urgent)
    for stream_id in opens:
        raw.send(wire.encode_map(ACCEPTED, stream_id), LANE)
        while dialer.room(stream_id):
            dialer.send_data(net.now, stream_id, 0, 0, bytes(60_000))
    assert dialer.scheduler.queued > limits.SESSION_QUEUE_BYTES
    assert not dialer.room(opens[-1])
    assert dialer.room(interactive)
