"""A peer that says anything at all: the session lives or closes by name, and nothing else ever happens."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric import wire
from fabric.classes import TrafficClass
from fabric.errors import CLOSE_CODES, RESET_REASONS, StreamError
from fabric.identity import node_id_of
from fabric.lanes import CONTROL_LANE, LaneKey
from fabric.session import LaneData, Session, SessionClosed, SessionEvent, StreamReset, Timer
from fabric.stream import EndToEnd
from fabric.wire import FrameType
from tests.support.fabric_frames import DIRECT_OPEN, GOLDEN, session_bodies, stream_bodies
from tests.support.fabric_net import CLUSTER, Net, Raw, identity, ready_pair, sent_frames
from tests.support.hop_streams import ACCEPTED

LANES = [CONTROL_LANE, LaneKey(TrafficClass.RELIABLE, 0), LaneKey(TrafficClass.INTERACTIVE, 1)]
ids = st.sampled_from([0, 1, 2, 3, 4, 6, 1 << 40])
u64 = st.integers(0, (1 << 64) - 1)
opens = st.sampled_from([DIRECT_OPEN, msgspec.structs.replace(DIRECT_OPEN, class_=2)])
plain = st.one_of(
    st.builds(wire.encode_map, session_bodies, st.just(0)),
    st.builds(wire.encode_map, stream_bodies | opens | st.just(ACCEPTED), ids),
    st.builds(wire.encode_ack, ids, u64, u64),
    st.builds(wire.encode_credit, ids, u64),
    st.builds(wire.encode_ping, ids, u64, u64),
    st.builds(wire.encode_pong, ids, u64, u64),
    st.builds(lambda i, p: wire.encode_frame(FrameType.DATA, i, p), ids, st.binary(max_size=40)),
    st.sampled_from(sorted(GOLDEN.values())),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A frame with one byte changed."""
    data = draw(plain)
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]


talk = st.lists(
    st.tuples(st.sampled_from(LANES), plain | damaged() | st.binary(max_size=60)), min_size=1, max_size=12
)


def check_named(session: Session, events: list[SessionEvent]) -> None:
    closes = [event for event in events if isinstance(event, SessionClosed)]
    assert session.closed == bool(closes)
    assert all(event.code in CLOSE_CODES for event in closes)
    assert events[-1:] == closes or not closes, "nothing follows the close"
    own = [event.reason for event in events if isinstance(event, StreamReset)]
    assert all(reason in RESET_REASONS or len(reason) <= 64 for reason in own)
    assert session._window.held <= session._window.limit or session.closed


@settings(max_examples=300)
@given(talk, st.booleans())
def test_noise_in_a_ready_session(said: list[tuple[LaneKey, bytes]], to_dialer: bool) -> None:
    net, dialer, listener = ready_pair()
    session = dialer if to_dialer else listener
    if to_dialer:
        dialer.open_stream(net.now, DIRECT_OPEN)
    raw = Raw(net, session)
    events: list[SessionEvent] = []
    for lane, data in said:
        events += raw.send(data, lane)
        if not session.closed:
            sent_frames(session, net.now)
        events += session.take_events()
    check_named(session, events)


@settings(max_examples=300)
@given(talk, st.booleans())
def test_noise_before_the_proof(said: list[tuple[LaneKey, bytes]], to_dialer: bool) -> None:
    net = Net()
    pair = net.connect(1, 2)
    session = pair[0] if to_dialer else pair[1]
    raw = Raw(net, session)
    events: list[SessionEvent] = []
    for lane, data in said:
        events += raw.send(data, lane)
    check_named(session, events)
    assert not session.ready, "nobody proved anything"
    assert session.streams() == ()
    assert all(isinstance(event, SessionClosed) for event in events)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=80)), max_size=8))
def test_bytes_that_are_no_lanes(said: list[tuple[int, bytes]]) -> None:
    net, _, listener = ready_pair()
    events: list[SessionEvent] = []
    for lane_id, data in said:
        events += listener.handle(net.now, LaneData(1000 + lane_id, data))
        events += listener.handle(net.now, Timer())
    check_named(listener, events)


@given(stream_bodies.filter(lambda body: isinstance(body, wire.OpenStream)))
def test_a_strangers_open_is_refused_by_name(body: wire.MapBody) -> None:
    """Whatever the fields say, nothing but a named refusal comes of an OPEN that nobody signed."""
    assert isinstance(body, wire.OpenStream)
    owner = node_id_of(body.seal.public)
    with pytest.raises(StreamError) as caught:
        EndToEnd.respond(0.0, identity(2), CLUSTER, owner, body, Random(1).randbytes)
    assert caught.value.code in {"seal_signature", "mode_not_supported"}
