"""The hop machine around its streams: handshake in flights, lanes, pings, drains, timeouts, output."""

from __future__ import annotations

from random import Random

import pytest

from fabric import limits, wire
from fabric.classes import TrafficClass
from fabric.errors import SessionError, StreamError
from fabric.lanes import CONTROL_LANE, LaneKey, encode_preface
from fabric.session import (
    CarrierLost,
    DatagramData,
    LaneData,
    PeerGoaway,
    PeerPressure,
    PeerRouteUpdate,
    Pong,
    Ready,
    Session,
    SessionClosed,
    SessionConfig,
    Side,
    StreamOpened,
    StreamReset,
    Timer,
)
from fabric.wire import NodePressure, RouteUpdate
from tests.support.fabric_frames import DIRECT_OPEN
from tests.support.fabric_net import CLUSTER, PLENTY, Net, Raw, identity, ready_pair, sent_frames

BULK = LaneKey(TrafficClass.BULK, 0)
RELIABLE = LaneKey(TrafficClass.RELIABLE, 0)


def session(side: Side, me: int, peer: int, cluster_id: str = CLUSTER, **config: object) -> Session:
    listener = identity(peer if side is Side.DIALER else me)
    return Session(
        side,
        identity(me),
        cluster_id,
        0.0,
        Random(me).randbytes,
        listener_certificate_sha256=listener.certificate_sha256,
        expected_peer=identity(peer).node_id if side is Side.DIALER else None,
        config=SessionConfig(**config),  # type: ignore[arg-type]  # fields by name
    )


def flight(source: Session) -> list[tuple[LaneKey, bytes]]:
    return [(lane, bytes(chunk)) for lane, chunk in source.outgoing(0.0, lambda _lane: PLENTY)]


def deliver(chunks: list[tuple[LaneKey, bytes]], sink: Session) -> list[object]:
    return [
        event
        for lane, chunk in chunks
        for event in sink.handle(0.0, LaneData(lane.traffic_class * 100 + lane.shard, chunk))
    ]


def codes(events: list[object]) -> list[str]:
    return [event.code for event in events if isinstance(event, SessionClosed)]


# -- handshake -------------------------------------------------------------------------------------------


def test_hello_auth_ready_and_the_first_open_go_in_one_flight() -> None:
    dialer, listener = session(Side.DIALER, 1, 2, capabilities=("sequencer",)), session(Side.LISTENER, 2, 1)
    assert flight(dialer) == []
    stream_id = dialer.open_stream(0.0, DIRECT_OPEN)
    assert flight(dialer) == []
    assert deliver(flight(listener), dialer) == []
    events = deliver(flight(dialer), listener)
    assert [type(event) for event in events] == [Ready, StreamOpened]
    assert isinstance(events[0], Ready)
    assert events[0].peer_node_id == identity(1).node_id
    assert events[0].capabilities == ("sequencer",)
    assert not dialer.ready
    assert [type(event) for event in deliver(flight(listener), dialer)] == [Ready]
    assert dialer.streams() == (stream_id,)
    assert (dialer.peer_node_id, listener.peer_node_id) == (identity(2).node_id, identity(1).node_id)


def test_nothing_runs_before_the_proof_whatever_arrives_first() -> None:
    dialer, listener = session(Side.DIALER, 1, 2), session(Side.LISTENER, 2, 1)
    dialer.open_stream(0.0, DIRECT_OPEN)
    deliver(flight(listener), dialer)
    chunks = flight(dialer)
    opens = [part for part in chunks if part[0] == RELIABLE]
    control = [part for part in chunks if part[0] == CONTROL_LANE]
    assert deliver(opens, listener) == []
    assert listener.streams() == ()
    assert [type(event) for event in deliver(control, listener)] == [Ready, StreamOpened]


def test_bytes_before_the_proof_are_bounded() -> None:
    _, listener = session(Side.DIALER, 1, 2), session(Side.LISTENER, 2, 1)
    preface = encode_preface(BULK)
    fits = bytes(limits.PRE_AUTH_BYTES - len(preface))
    frame = wire.encode_frame(77, 2, fits[: len(fits) - 16])
    assert listener.handle(0.0, LaneData(2, preface + frame)) == []
    assert codes([*listener.handle(0.0, LaneData(2, b"x"))]) == ["pre_auth_overflow"]
    assert listener.counters["pre_auth_overflow"] == 1


def test_a_first_flight_is_bounded_and_a_listener_has_none() -> None:
    dialer, listener = session(Side.DIALER, 1, 2), session(Side.LISTENER, 2, 1)
    with pytest.raises(StreamError, match="not_ready"):
        listener.open_stream(0.0, DIRECT_OPEN)
    opened = limits.SESSION_FIRST_FLIGHT_BYTES // len(wire.encode_map(DIRECT_OPEN, 2))
    assert opened > 50
    for _ in range(opened):
        dialer.open_stream(0.0, DIRECT_OPEN)
    with pytest.raises(StreamError, match="not_ready"):
        dialer.open_stream(0.0, DIRECT_OPEN)
    deliver(flight(listener), dialer)
    chunks = flight(dialer)
    assert sum(len(chunk) for _, chunk in chunks) < limits.PRE_AUTH_BYTES
    assert len([event for event in deliver(chunks, listener) if isinstance(event, StreamOpened)]) == opened


def test_a_failed_handshake_closes_with_its_name() -> None:
    dialer, listener = session(Side.DIALER, 1, 2), session(Side.LISTENER, 2, 1, "other.cluster")
    deliver(flight(listener), dialer)
    events = deliver(flight(dialer), listener)
    assert codes(events) == ["wrong_cluster"]
    assert listener.closed
    assert flight(listener) == []
    assert listener.handle(0.0, Timer()) == []
    assert listener.timer() is None


def test_a_handshake_has_its_time() -> None:
    listener = session(Side.LISTENER, 2, 1)
    due = listener.timer()
    assert due == limits.SESSION_HANDSHAKE_TIMEOUT_S
    assert listener.handle(due - 0.1, Timer()) == []
    assert codes([*listener.handle(due, Timer())]) == ["handshake_timeout"]


def test_commands_wait_for_ready() -> None:
    dialer = session(Side.DIALER, 1, 2)
    for command in (
        lambda: dialer.ping(0.0),
        lambda: dialer.goaway(0.0),
        lambda: dialer.send_pressure(0.0, NodePressure()),
        lambda: dialer.send_route_update(0.0, RouteUpdate(route_id="r", epoch=1)),
    ):
        with pytest.raises(SessionError, match="not_ready"):
            command()


# -- lanes -----------------------------------------------------------------------------------------------


def test_each_lane_error_has_its_name() -> None:
    def fresh() -> Raw:
        net, _, listener = ready_pair()
        return Raw(net, listener)

    assert fresh().closes(wire.encode_ping(0, 1, 1)) == ""
    assert fresh().closes(b"\x02" + bytes(15)) == "unsupported_version"
    assert fresh().closes(wire.encode_frame(99, 0, b"", wire.FLAG_CRITICAL)) == "unknown_critical_frame"
    assert fresh().closes(wire.encode_ping(0, 1, 1), BULK) == "wrong_lane"
    assert fresh().closes(wire.encode_credit(0, 1 << 40), BULK) == "wrong_lane"
    assert fresh().closes(wire.encode_map(DIRECT_OPEN, 2), BULK) == "wrong_lane"
    assert fresh().closes(wire.encode_map(DIRECT_OPEN, 2), RELIABLE) == ""
    assert fresh().closes(wire.encode_map(DIRECT_OPEN, 1), RELIABLE) == "bad_stream_id"
    assert fresh().closes(wire.encode_ack(88, 0, 0)) == "bad_stream_id"
    assert fresh().closes(wire.encode_map(wire.Hello(public=bytes(32), versions=[1], nonce=bytes(32)))) == (
        "unexpected_frame"
    )
    raw = fresh()
    assert raw.session.handle(raw.net.now, LaneData(90, encode_preface(BULK))) == []
    duplicate = raw.session.handle(raw.net.now, LaneData(94, encode_preface(BULK)))
    assert codes([*duplicate]) == ["duplicate_lane"]
    raw = fresh()
    bad = raw.session.handle(raw.net.now, LaneData(90, b"GET / HT"))
    assert codes([*bad]) == ["bad_lane_preface"]
    raw = fresh()
    ended = raw.session.handle(raw.net.now, LaneData(raw.flow.ids[CONTROL_LANE], b"", fin=True))
    assert codes([*ended]) == ["lane_ended"]
    assert raw.session.counters == {"lane_ended": 1}


def test_lanes_are_bounded() -> None:
    _, _, listener = ready_pair()
    known = len(listener._readers)
    for number in range(limits.SESSION_LANES - known):
        assert listener.handle(0.0, LaneData(1000 + number, b"R")) == []
    assert codes([*listener.handle(0.0, LaneData(999, b"R"))]) == ["too_many_lanes"]


def test_unknown_frames_and_datagrams_are_counted_and_skipped() -> None:
    net, _, listener = ready_pair()
    raw = Raw(net, listener)
    assert raw.send(wire.encode_frame(99, 12345, b"later")) == []
    assert raw.send(wire.encode_frame(99, 0, b"later"), BULK) == []
    assert listener.handle(net.now, DatagramData(wire.encode_frame(99, 12345, b"later"))) == []
    assert listener.counters == {"unknown_frames": 3}
    assert listener.datagrams_outgoing(net.now) == []


def test_unknown_frames_are_counted_and_skipped_during_the_handshake_too() -> None:
    net = Net()
    _, listener = net.connect(1, 2)
    raw = Raw(net, listener)
    assert raw.send(wire.encode_frame(99, 0, b"later")) == []
    assert listener.counters == {"unknown_frames": 1}
    assert raw.closes(wire.encode_frame(99, 0, b"", wire.FLAG_CRITICAL)) == "unknown_critical_frame"


@pytest.mark.parametrize("datagram", [False, True])
def test_a_flood_of_unknown_frames_ends_the_session(datagram: bool) -> None:
    net, _, listener = ready_pair()
    unknown = wire.encode_frame(99, 0, b"")

    def flood(count: int) -> str:
        inputs = [DatagramData(unknown)] * count if datagram else []
        events = [event for one in inputs for event in listener.handle(net.now, one)]
        if not datagram:
            events = Raw(net, listener).send(unknown * count)
        return next((event.code for event in events if isinstance(event, SessionClosed)), "")

    assert flood(limits.SESSION_NEWS_BURST) == ""
    assert flood(1) == "frame_flood"


# -- pings, news -----------------------------------------------------------------------------------------


def test_ping_measures_the_hop() -> None:
    net, dialer, listener = ready_pair()
    nonce = dialer.ping(net.now)
    frames = sent_frames(dialer, net.now)
    assert frames == [(CONTROL_LANE, 0, wire.Ping(nonce, int(net.now * 1_000_000)))]
    Raw(net, listener).send(wire.encode_ping(0, nonce, 5))
    assert sent_frames(listener, net.now) == [(CONTROL_LANE, 0, wire.Pong(nonce, 5))]
    net.now += 0.2
    assert Raw(net, dialer).send(wire.encode_pong(0, nonce, 5)) == [Pong(nonce, pytest.approx(0.2))]
    assert dialer.rtt_s == pytest.approx(0.2)
    # A PONG that nobody asked for says nothing.
    assert Raw(net, dialer).send(wire.encode_pong(0, nonce, 5)) == []


def test_a_flood_of_pings_costs_a_few_answers() -> None:
    net, _, listener = ready_pair()
    raw = Raw(net, listener)
    assert raw.send(b"".join(wire.encode_ping(0, n, 0) for n in range(1000))) == []
    assert len(sent_frames(listener, net.now)) == limits.PENDING_PONGS
    assert listener.counters["pings_dropped"] == 1000 - limits.PENDING_PONGS


def test_own_pings_are_bounded() -> None:
    net, dialer, _ = ready_pair()
    for _ in range(100):
        dialer.ping(net.now)
    assert len(dialer._pings) == limits.PENDING_PINGS


def test_news_arrives() -> None:
    net, dialer, listener = ready_pair()
    pressure, update = NodePressure(cpu=70), RouteUpdate(route_id="r", epoch=2, alternates=["q"])
    dialer.send_pressure(net.now, pressure)
    dialer.send_route_update(net.now, update)
    net.run()
    assert PeerPressure(pressure) in net.host(2).events
    assert PeerRouteUpdate(update) in net.host(2).events
    assert not listener.closed


# -- time ------------------------------------------------------------------------------------------------


def test_an_idle_session_pings_and_lives() -> None:
    net, dialer, listener = ready_pair()
    net.settle(120.0, every=1.0)
    assert not dialer.closed
    assert not listener.closed
    assert dialer.rtt_s == pytest.approx(0.0)


def test_a_silent_peer_is_given_up() -> None:
    net, dialer, _ = ready_pair()
    start = net.now
    events: list[object] = []
    while not dialer.closed:
        due = dialer.timer()
        assert due is not None
        net.now = max(net.now, due)
        events += dialer.handle(net.now, Timer())
    assert codes(events) == ["idle_timeout"]
    assert net.now - start == pytest.approx(limits.SESSION_IDLE_TIMEOUT_S)


def test_keepalive_fits_the_peers_patience_and_can_be_off() -> None:
    net, dialer, _ = ready_pair(listener_config=SessionConfig(idle_timeout_s=6))
    assert dialer.timer() == pytest.approx(net.now + 2.0)
    net, dialer, _ = ready_pair(dialer_config=SessionConfig(keepalive_s=None))
    assert dialer.timer() == pytest.approx(net.now + limits.SESSION_IDLE_TIMEOUT_S)


# -- ends ------------------------------------------------------------------------------------------------


def test_a_drain_lets_streams_finish_and_takes_no_more() -> None:
    net, dialer, listener = ready_pair()
    host = net.host(1)
    stream = host.open(dialer)
    net.run()
    listener.goaway(net.now, drain_s=5)
    net.run()
    assert PeerGoaway(stream.stream_id, 5, "going_away") in host.events
    with pytest.raises(StreamError, match="going_away"):
        host.open(dialer)
    with pytest.raises(StreamError, match="going_away"):
        net.host(2).open(listener)
    (far,) = net.host(2).accepted
    for machine in (stream.machine, far.machine):
        machine.finish()
    assert not listener.closed
    net.run()
    assert stream.kinds()[-1] == "Finished"
    assert [e for e in net.host(2).events if isinstance(e, SessionClosed)] == [
        SessionClosed("going_away", "all streams ended", by_peer=False)
    ]


def test_a_drain_ends_in_time() -> None:
    net, dialer, listener = ready_pair()
    net.host(1).open(dialer)
    net.run()
    listener.goaway(net.now, drain_s=5)
    net.settle(4.0, every=0.5)
    assert not listener.closed
    net.settle(2.0, every=0.5)
    assert listener.closed


def test_an_open_that_crossed_the_goaway_is_refused() -> None:
    net, _, listener = ready_pair()
    listener.goaway(net.now)
    # The GOAWAY has not left yet: the session is still there.
    assert Raw(net, listener).send(wire.encode_map(DIRECT_OPEN, 2), RELIABLE) == []
    assert (CONTROL_LANE, 2, wire.ResetStream(reason="going_away")) in sent_frames(listener, net.now)


def test_streams_the_peer_did_not_take_are_reset_on_goaway() -> None:
    net, dialer, _ = ready_pair()
    stream_id = dialer.open_stream(net.now, DIRECT_OPEN)
    raw = Raw(net, dialer)
    events = raw.send(wire.encode_map(wire.Goaway(last_id=0, drain_s=1, reason="going_away")))
    assert StreamReset(stream_id, "going_away") in events
    assert dialer.streams() == ()


def test_close_and_a_lost_carrier() -> None:
    net, dialer, listener = ready_pair()
    dialer.open_stream(net.now, DIRECT_OPEN)
    dialer.close(net.now, "revoked", "node 2 was revoked")
    assert dialer.take_events() == [SessionClosed("revoked", "node 2 was revoked", by_peer=False)]
    dialer.close(net.now)
    assert dialer.take_events() == []
    with pytest.raises(SessionError, match="closed"):
        dialer.open_stream(net.now, DIRECT_OPEN)
    assert listener.handle(net.now, CarrierLost("revoked", "bye")) == [
        SessionClosed("revoked", "bye", by_peer=True)
    ]
    assert listener.handle(net.now, CarrierLost()) == []


# -- output ----------------------------------------------------------------------------------------------


def accepted_stream(traffic_class: TrafficClass = TrafficClass.BULK) -> tuple[Net, Session, int]:
    net, dialer, _ = ready_pair()
    stream = net.host(1).open(dialer, traffic_class=traffic_class)
    net.run()
    return net, dialer, stream.stream_id


def test_small_frames_are_joined_and_a_large_payload_is_not_copied() -> None:
    net, dialer, stream_id = accepted_stream()
    payload = bytes(60_000)
    dialer.send_data(net.now, stream_id, 0, 0, b"x" * 100)
    dialer.send_data(net.now, stream_id, 100, 0, payload)
    dialer.send_data(net.now, stream_id, 60_100, 0, b"y" * 100)
    chunks = dialer.outgoing(net.now, lambda _lane: PLENTY)
    assert [lane for lane, _ in chunks] == [BULK] * 3
    assert [len(chunk) for _, chunk in chunks] == [124 + 24, 60_000, 124]
    assert chunks[1][1] is payload


def test_a_lane_starts_with_its_preface() -> None:
    net, dialer, _ = ready_pair()
    dialer.open_stream(net.now, DIRECT_OPEN)
    ((lane, chunk),) = dialer.outgoing(net.now, lambda _lane: PLENTY)
    assert lane == RELIABLE
    assert bytes(chunk).startswith(encode_preface(RELIABLE))
    dialer.open_stream(net.now, DIRECT_OPEN)
    ((_, chunk),) = dialer.outgoing(net.now, lambda _lane: PLENTY)
    assert not bytes(chunk).startswith(b"RAPL")


def test_lanes_without_room_wait() -> None:
    net, dialer, stream_id = accepted_stream()
    dialer.send_data(net.now, stream_id, 0, 0, bytes(60_000))
    dialer.ping(net.now)
    assert dialer.has_output()
    assert dialer.outgoing(net.now, lambda _lane: 0) == []
    only_control = dialer.outgoing(net.now, lambda lane: PLENTY if lane == CONTROL_LANE else 0)
    assert [lane for lane, _ in only_control] == [CONTROL_LANE]
    assert dialer.has_output()
    assert dialer.outgoing(net.now, lambda _lane: PLENTY, 0) == []
    assert len(dialer.outgoing(net.now, lambda _lane: PLENTY)) == 2
    assert not dialer.has_output()


def test_control_streams_share_the_control_lane_and_its_room() -> None:
    net, dialer, stream_id = accepted_stream(TrafficClass.CONTROL)
    dialer.send_data(net.now, stream_id, 0, 0, bytes(1000))
    dialer.ping(net.now)
    asked: list[LaneKey] = []

    def room(lane: LaneKey) -> int:
        asked.append(lane)
        return 1040

    ((lane, chunk),) = dialer.outgoing(net.now, room)
    assert lane == CONTROL_LANE
    assert len(chunk) == 32  # the PING; with it, the record does not fit any more
    assert asked == [CONTROL_LANE]
    ((_, chunk),) = dialer.outgoing(net.now, room)
    assert len(chunk) == 1024
