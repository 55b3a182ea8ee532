"""The control lane's queue: order, merging, bounds."""

from __future__ import annotations

from fabric import limits, wire
from fabric.outbox import Outbox
from fabric.wire import FrameDecoder, NodePressure, ResetStream, RouteUpdate

PLENTY = 1 << 20


def bodies(outbox: Outbox, room: int = PLENTY) -> list[tuple[int, wire.Body]]:
    frames = FrameDecoder().feed(b"".join(outbox.take(room)))
    return [(frame.stream_id, wire.decode_frame(frame)) for frame in frames]


def test_the_urgent_goes_first() -> None:
    outbox = Outbox()
    assert not outbox
    outbox.pressure(NodePressure(cpu=5))
    outbox.route(RouteUpdate(route_id="r", epoch=1))
    outbox.ack(4, 10, 20)
    outbox.credit(2, 7)
    outbox.probe(wire.encode_ping(0, 1, 2))
    outbox.reset(6, "gone", "")
    outbox.session(wire.encode_map(wire.Goaway(last_id=0, drain_s=1, reason="going_away")))
    assert outbox
    assert [type(body).__name__ for _, body in bodies(outbox)] == [
        "Goaway",
        "ResetStream",
        "Ping",
        "StreamCredit",
        "Ack",
        "RouteUpdate",
        "NodePressure",
    ]
    assert not outbox


def test_totals_and_news_are_merged_to_the_newest() -> None:
    outbox = Outbox()
    for number in range(1000):
        outbox.credit(0, number)
        outbox.ack(2, number, number + 1)
        outbox.route(RouteUpdate(route_id="r", epoch=number))
        outbox.pressure(NodePressure(queue=number % 100))
    assert bodies(outbox) == [
        (0, wire.StreamCredit(999)),
        (2, wire.Ack(999, 1000)),
        (0, RouteUpdate(route_id="r", epoch=999)),
        (0, NodePressure(queue=99)),
    ]


def test_a_reset_replaces_what_the_stream_had_to_say() -> None:
    outbox = Outbox()
    outbox.ack(2, 1, 1)
    outbox.ack(4, 1, 1)
    outbox.credit(2, 1)
    assert outbox.reset(2, "cancelled", "x" * 500)
    found = bodies(outbox)
    assert found[0] == (2, ResetStream(reason="cancelled", detail="x" * limits.DETAIL_CHARS))
    assert [stream_id for stream_id, _ in found] == [2, 4]


def test_what_a_peer_can_make_us_owe_is_bounded() -> None:
    outbox = Outbox()
    assert all(outbox.probe(wire.encode_pong(0, n, n)) for n in range(limits.PENDING_PONGS))
    assert not outbox.probe(wire.encode_pong(0, 0, 0))
    assert all(outbox.reset(2 * n, "gone", "") for n in range(1, limits.SESSION_PENDING_RESETS + 1))
    assert not outbox.reset(2, "gone", "")


def test_room_is_obeyed_but_for_the_last_frame() -> None:
    outbox = Outbox()
    for stream_id in (2, 4, 6):
        outbox.ack(stream_id, 0, 0)
    assert outbox.take(0) == []
    assert len(outbox.take(1)) == 1
    assert len(outbox.take(33)) == 2
