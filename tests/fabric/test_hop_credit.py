"""Credit of hop streams and sessions: obeyed by senders, enforced by receivers, given back."""

from __future__ import annotations

import pytest

from fabric import limits, wire
from fabric.errors import SessionError
from fabric.session import (
    SessionClosed,
    SessionConfig,
    StreamRecord,
    StreamReset,
    StreamSent,
)
from fabric.wire import SessionReady
from tests.support.fabric_frames import DIRECT_OPEN, READY
from tests.support.fabric_net import Net, ready_pair, sent_frames
from tests.support.hop_streams import ACCEPTED, LANE, SMALL, WINDOW, data, opened, opening, resets

# -- credit ----------------------------------------------------------------------------------------------


def test_a_stream_that_sends_beyond_its_credit_is_reset_alone() -> None:
    net, listener, raw, stream_id = opened(SMALL)
    record = data(stream_id, bytes(60_000))
    for _ in range(WINDOW // len(record)):
        (event,) = raw.send(record, LANE)
        assert isinstance(event, StreamRecord)
    (event,) = raw.send(record, LANE)
    assert isinstance(event, StreamReset)
    assert event.reason == "credit_exceeded"
    assert resets(listener, net.now) == [(stream_id, "credit_exceeded")]
    assert not listener.closed


@pytest.mark.parametrize("relayed", [False, True])
def test_streams_that_overrun_their_credit_never_use_up_the_sessions(relayed: bool) -> None:
    net, listener, raw, stream_id = opened(SMALL)
    for stream_id in range(2, 12, 2):
        if stream_id > 2:
            raw.send(wire.encode_map(DIRECT_OPEN, stream_id), LANE)
            listener.accept_stream(net.now, stream_id, ACCEPTED)
        if relayed:
            listener.adopt(stream_id, tenant="org")
        events = raw.send(data(stream_id, bytes(60_000)) * 6, LANE)
        assert [type(event) for event in events] == [StreamRecord] * 4 + [StreamReset]
        assert listener._window.held == 0
    assert not listener.closed


def test_consumed_bytes_come_back_as_credit() -> None:
    net, listener, raw, stream_id = opened(SMALL)
    record = data(stream_id, bytes(60_000))
    granted = []
    for _ in range(12):
        for event in raw.send(record, LANE):
            assert isinstance(event, StreamRecord)
            listener.consumed(net.now, event.stream_id, event.carried)
        granted += [body.allowed for _, sid, body in sent_frames(listener, net.now) if sid == stream_id]  # type: ignore[union-attr]  # only credit is sent here
    assert granted == sorted(granted)
    assert granted[-1] > 12 * len(record)
    assert not listener.closed


def test_overrunning_the_sessions_credit_is_fatal() -> None:
    config = SessionConfig(session_window=WINDOW + limits.SESSION_RESERVE_BYTES)
    _, _, raw, stream_id = opened(config)
    record = data(stream_id, bytes(60_000))
    for _ in range(config.session_window // len(record)):
        assert raw.closes(record, LANE) == ""
    assert raw.closes(record, LANE) == "credit_exceeded"


def test_late_and_dead_data_gives_the_sessions_credit_back() -> None:
    net, listener, raw, stream_id = opened()
    for _ in range(5):
        raw.send(data(stream_id, bytes(60_000)), LANE)
    assert listener._window.held == 5 * 60_024
    listener.reset_stream(net.now, stream_id, "cancelled")
    assert listener._window.held == 0
    raw.send(data(stream_id, bytes(60_000)), LANE)
    assert listener._window.held == 0
    # The shell may still give back what it had in hand.
    listener.consumed(net.now, stream_id, 60_024)
    assert listener._window.held == 0


def test_the_sender_obeys_stream_and_session_credit() -> None:
    net, dialer, raw, stream_id = opening()
    raw.send(wire.encode_map(ACCEPTED, stream_id), LANE)
    for _ in range(60):
        dialer.send_data(net.now, stream_id, 0, 0, bytes(60_000))
    carried = sum(24 + len(body.payload) for _, _, body in sent_frames(dialer, net.now))  # type: ignore[union-attr]  # only data is sent here
    assert limits.STREAM_WINDOW_BYTES - 60_024 < carried <= limits.STREAM_WINDOW_BYTES
    assert sent_frames(dialer, net.now) == []
    raw.send(wire.encode_credit(stream_id, limits.STREAM_WINDOW_BYTES + 60_024))
    assert len(sent_frames(dialer, net.now)) == 1
    raw.send(wire.encode_credit(stream_id, 5))
    assert sent_frames(dialer, net.now) == []


def test_a_first_flights_stream_gets_the_credit_of_session_ready() -> None:
    net = Net()
    dialer, _ = net.connect(1, 2)
    stream = net.host(1).open(dialer)
    net.run()
    stream.machine.write(b"x" * 1000)
    net.run()
    (far,) = net.host(2).accepted
    assert far.machine.read() == b"x" * 1000


def test_limits_are_what_session_ready_says() -> None:
    net, dialer, _ = ready_pair(
        listener_config=SessionConfig(
            max_streams=7, session_window=8 << 20, stream_window=WINDOW, route_epoch=3, peer_epoch=4
        )
    )
    assert isinstance(dialer._peer_limits, SessionReady)
    assert dialer._peer_limits.max_streams == 7
    assert dialer.scheduler.session_credit.allowed == 8 << 20
    assert dialer.scheduler.reserve == limits.SESSION_RESERVE_BYTES == READY.session_reserve
    ready = net.host(1).events[0]
    assert (getattr(ready, "route_epoch", 0), getattr(ready, "peer_epoch", 0)) == (3, 4)


def test_an_adopted_stream_reports_what_leaves() -> None:
    net, listener, _, stream_id = opened()
    listener.adopt(stream_id, tenant="org")
    listener.send_data(net.now, stream_id, 0, 0, bytes(100))
    listener.send_data(net.now, stream_id, 0, 0, bytes(100))
    sent_frames(listener, net.now)
    assert listener.take_events() == [StreamSent(stream_id, 248)]


def test_a_closed_session_takes_no_commands() -> None:
    net, listener, _, stream_id = opened()
    listener.close(net.now)
    listener.send_data(net.now, stream_id, 0, 0, b"x")
    listener.consumed(net.now, stream_id, 1)
    assert listener.room(stream_id) == 0
    assert listener.streams() == ()
    assert [type(event) for event in listener.take_events()] == [SessionClosed]
    with pytest.raises(SessionError, match="closed"):
        listener.open_stream(net.now, DIRECT_OPEN)
