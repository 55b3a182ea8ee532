"""A session with one stream whose other end is raw: it says what the test likes."""

from __future__ import annotations

from fabric import wire
from fabric.classes import TrafficClass
from fabric.lanes import LaneKey
from fabric.session import Session, SessionConfig, StreamOpened
from fabric.wire import ResetStream, StreamAccepted
from tests.support.fabric_frames import ANSWER, DIRECT_OPEN
from tests.support.fabric_net import Net, Raw, ready_pair, sent_frames

LANE = LaneKey(TrafficClass.RELIABLE, 0)
OTHER_LANE = LaneKey(TrafficClass.RELIABLE, 1)
ACCEPTED = StreamAccepted(limit=1 << 20, seal=ANSWER)
WINDOW = 4 * 66_576
SMALL = SessionConfig(stream_window=WINDOW, stream_window_max=WINDOW)


def opened(config: SessionConfig | None = None) -> tuple[Net, Session, Raw, int]:
    """A listener's session with a stream that its (raw) peer opened and it accepted."""
    net, _, listener = ready_pair(listener_config=config or SessionConfig())
    net.host(2).accepts = False
    raw = Raw(net, listener)
    (event,) = raw.send(wire.encode_map(DIRECT_OPEN, 2), LANE)
    assert event == StreamOpened(2, DIRECT_OPEN, wire.encode_map(DIRECT_OPEN, 2)[16:])
    listener.accept_stream(net.now, 2, ACCEPTED)
    assert sent_frames(listener, net.now) == [(LANE, 2, ACCEPTED)]
    return net, listener, raw, 2


def opening() -> tuple[Net, Session, Raw, int]:
    """A dialer's session with a stream that it opened and its (raw) peer has not answered."""
    net, dialer, _ = ready_pair()
    stream_id = dialer.open_stream(net.now, DIRECT_OPEN)
    assert sent_frames(dialer, net.now) == [(LANE, stream_id, DIRECT_OPEN)]
    return net, dialer, Raw(net, dialer), stream_id


def data(stream_id: int, payload: bytes, offset: int = 0, flags: int = 0) -> bytes:
    return wire.encode_data_head(stream_id, offset, flags, len(payload)) + payload


def resets(session: Session, now: float) -> list[tuple[int, str]]:
    return [
        (stream_id, body.reason)
        for _, stream_id, body in sent_frames(session, now)
        if isinstance(body, ResetStream)
    ]
