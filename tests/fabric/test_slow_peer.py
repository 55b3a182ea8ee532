"""A session whose peer takes nothing is given up; one that is only slow is not."""

from __future__ import annotations

from fabric import wire
from fabric.classes import TrafficClass
from fabric.lanes import CONTROL_LANE
from fabric.session import SessionClosed, Timer
from tests.support.fabric_net import PLENTY, Raw, ready_pair


def test_a_peer_that_takes_no_control_frames_is_given_up() -> None:
    net, dialer, _ = ready_pair()
    patience = dialer.config.slow_peer_s
    began = net.now
    dialer.ping(net.now)
    assert dialer.outgoing(net.now, lambda _lane: 0) == []
    due = dialer.timer()
    assert due is not None
    assert due <= began + patience
    # What it still says shows that it lives, not that it takes anything.
    net.now = began + patience / 2
    Raw(net, dialer).send(wire.encode_ping(0, 1, 2))
    net.now = began + patience
    (closed,) = [e for e in dialer.handle(net.now, Timer()) if isinstance(e, SessionClosed)]
    assert closed.code == "slow_peer"


def test_one_frame_taken_in_time_is_enough() -> None:
    net, dialer, _ = ready_pair()
    patience = dialer.config.slow_peer_s
    for _ in range(4):
        dialer.ping(net.now)
        assert dialer.outgoing(net.now, lambda _lane: 0) == []
        net.now += patience - 1
        Raw(net, dialer).send(wire.encode_ping(0, 1, 2))
        assert dialer.outgoing(net.now, lambda _lane: PLENTY) != []
        assert not dialer.closed


def test_bulk_that_finds_no_room_is_no_slow_peer() -> None:
    net, dialer, _ = ready_pair()
    stream = net.host(1).open(dialer, traffic_class=TrafficClass.BULK)
    net.run()
    dialer.send_data(net.now, stream.stream_id, 0, 0, bytes(60_000))
    assert dialer.outgoing(net.now, lambda lane: PLENTY if lane == CONTROL_LANE else 0) == []
    due = dialer.timer()
    net.now += dialer.config.slow_peer_s
    Raw(net, dialer).send(wire.encode_ping(0, 1, 2))
    dialer.handle(net.now, Timer())
    assert not dialer.closed
    assert due is not None
