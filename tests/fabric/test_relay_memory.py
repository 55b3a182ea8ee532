"""What a relay holds, and whom that holds up."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from fabric import limits, wire
from fabric.classes import Mode, TrafficClass
from fabric.lanes import LaneKey
from fabric.session import Session, StreamPong
from fabric.wire import RouteRef
from tests.support.fabric_net import Raw, Stream
from tests.support.leases import LEASE, hops
from tests.support.relay_chain import Chain


def pour(chain: Chain, one: Stream, other: Stream, total: int) -> int:
    """Write as long as anything moves; returns how much the writer got rid of."""
    written = 0
    for _ in range(500):
        took = one.machine.write(bytes(min(1 << 20, total - written)))
        written += took
        moved = chain.net.step()
        other.machine.read()
        if not moved and not took:
            break
    return written


def test_a_slow_next_hop_holds_the_sender_back_through_hop_credit_alone() -> None:
    chain = Chain()
    one, other = chain.opened()
    out = chain.links[1][0]
    stuck = True

    def room(session: Session, lane: LaneKey) -> int:
        return 0 if stuck and session is out and lane.traffic_class is not TrafficClass.CONTROL else 1 << 22

    chain.net.room = room
    # End-to-end windows are out of the way: this responder would take all of it.
    one.machine._sender.allow(1 << 40)
    one.machine._sender._kept_max = 1 << 40
    other.machine._receiver.limit = 1 << 40
    pour(chain, one, other, 64 << 20)
    held = out.scheduler.queued
    assert limits.STREAM_WINDOW_BYTES - 66_000 < held <= limits.STREAM_WINDOW_BYTES
    inbound = chain.links[0][1]
    (leg,) = inbound._streams.values()
    (queue,) = (stream.queue for stream in out._streams.values())
    assert leg.held == held
    assert chain.relays[0].held == held + len(queue) * limits.QUEUED_FRAME_BYTES
    assert inbound._window.held == 0
    stuck = False
    one.machine.write(bytes(1 << 20))
    chain.net.run()
    assert out.scheduler.queued == 0
    assert leg.held == chain.relays[0].held == 0


def blocked(chain: Chain, out: Session) -> None:
    """Nothing of the classes above control leaves `out` any more."""
    chain.net.room = lambda session, lane: (
        0 if session is out and lane.traffic_class is not TrafficClass.CONTROL else 1 << 22
    )


def test_streams_that_cannot_be_passed_on_hold_up_nothing_but_themselves() -> None:
    """Two tenants share the session between two relays; one's exit takes nothing at all."""
    chain = Chain(4)
    net = chain.net
    other_exit, (other_client, _) = net.connect(3, 5), net.connect(6, 2)
    net.run()
    free = replace(LEASE, route_id="free", hops=hops(6, 2, 3, 5), organization_id="others")
    for number in (6, 2, 3, 5):
        chain.host(number).leases["free"] = free
    stuck = [chain.opened() for _ in range(20)]
    blocked(chain, chain.links[2][0])
    for one, _ in stuck:
        one.machine._sender.allow(1 << 40)
        one.machine._sender._kept_max = 1 << 40
    for _ in range(40):
        for one, _ in stuck:
            one.machine.write(bytes(1 << 20))
        net.step()
    assert chain.relays[1].held > 1 << 25
    assert chain.links[1][1]._window.held == 0
    moving = chain.host(6).open(
        other_client,
        "echo",
        TrafficClass.RELIABLE,
        to=chain.host(5),
        route=RouteRef(route_id="free", epoch=3, position=1),
    )
    net.run()
    assert moving.kinds() == ["Opened"]
    moving.machine.write(bytes(100_000))
    net.run()
    assert chain.host(5).accepted[-1].machine.read() == bytes(100_000)
    assert not other_exit[0].closed
    assert chain.relays[1].held <= limits.RELAY_SESSION_BYTES


def test_a_relays_own_streams_take_their_turns_with_those_that_it_passes_on() -> None:
    chain = Chain()
    net, out = chain.net, chain.links[1][0]
    passing = [chain.opened() for _ in range(4)]
    own = chain.host(2).open(out)
    net.run()
    net.room = lambda session, _lane: 70_000 if session is out else 1 << 22
    for _ in range(200):
        for one, other in passing:
            one.machine.write(bytes(1 << 20))
            other.machine.read()
        own.machine.write(bytes(1 << 20))
        chain.host(3).streams[chain.links[1][1], own.stream_id].machine.read()
        net.step()
    assert out.scheduler.queued > limits.SESSION_QUEUE_BYTES
    relayed = [other.machine.moved[1] for _, other in passing]
    assert own.machine.moved[0] > min(relayed) > 1_000_000
    net.room = lambda _session, _lane: 1 << 22
    net.run()
    assert out.scheduler.stuck == out.scheduler.queued == 0


@pytest.mark.parametrize(
    ("bound", "victim"), [("RELAY_SESSION_BYTES", 1), ("RELAY_TENANT_BYTES", 1), ("RELAY_BYTES", 1)]
)
def test_whoever_fills_a_relays_memory_pays_for_it(
    monkeypatch: pytest.MonkeyPatch, bound: str, victim: int
) -> None:
    monkeypatch.setattr(limits, bound, 300_000)
    chain = Chain()
    streams = [chain.opened()[0] for _ in range(3)]
    blocked(chain, chain.links[1][0])
    for size, stream in zip((50_000, 150_000, 90_000), streams, strict=True):
        stream.machine.write(bytes(size))
    chain.net.run()
    assert [chain.reason(stream) for stream in streams] == ["", "", ""]
    assert chain.relays[0].held > 290_000
    streams[0].machine.write(bytes(30_000))
    chain.net.run()
    reasons = ["", "", ""]
    reasons[victim] = "route_failed"
    assert [chain.reason(stream) for stream in streams] == reasons
    assert chain.relays[0].held < 180_000


def closed_by_both(chain: Chain, one: Stream, other: Stream) -> None:
    """Both ends close what they opened, with bytes that still wait on the way."""
    one.session.close_stream(chain.net.now, one.stream_id)
    other.session.close_stream(chain.net.now, other.stream_id)
    chain.net.run()


def test_closed_by_both_ends_a_stream_is_counted_until_what_waits_has_left() -> None:
    chain = Chain()
    relay, out = chain.relays[0], chain.links[1][0]
    one, other = chain.opened()
    blocked(chain, out)
    one.machine.write(bytes(100_000))
    chain.net.run()
    held = relay.held
    assert held > 100_000
    closed_by_both(chain, one, other)
    assert relay.held > held, "the CLOSE waits as well"
    assert relay.streams() == 1
    chain.net.room = lambda _session, _lane: 1 << 22
    chain.net.run()
    assert (relay.held, relay.streams(), out.streams()) == (0, 0, ())


def test_a_stream_closed_by_both_ends_with_nothing_on_the_way_is_over() -> None:
    chain = Chain()
    closed_by_both(chain, *chain.opened())
    assert (chain.relays[0].held, chain.relays[0].streams()) == (0, 0)


def test_filled_and_closed_again_and_again_streams_fill_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RELAY_SESSION_BYTES", 1_000_000)
    chain = Chain()
    relay, out = chain.relays[0], chain.links[1][0]
    streams = [chain.opened() for _ in range(30)]
    blocked(chain, out)
    for one, other in streams:
        one.machine.write(bytes(100_000))
        chain.net.run()
        closed_by_both(chain, one, other)
        assert sum(map(out.queued_memory, out.streams())) == relay.held < 1_100_000
    assert relay.counters["memory_exceeded"] > 10


def datagrams(chain: Chain, count: int) -> None:
    """That many of 1,000 bytes from host 1, on a stream in datagram mode that is stuck at the relay."""
    stream = chain.open(mode=Mode.DATAGRAM)
    blocked(chain, chain.links[1][0])
    for number in range(count):
        stream.session.send_datagram(chain.net.now, stream.stream_id, number, 0, bytes(1000))
        chain.net.run()


def test_datagrams_that_wait_are_counted_and_dropped_ones_are_not() -> None:
    chain = Chain()
    each = 1000 + wire.DATA_HEAD_BYTES + limits.QUEUED_FRAME_BYTES
    datagrams(chain, 10)
    assert chain.relays[0].held == 10 * each
    datagrams(chain, 300)
    (first, second) = chain.links[1][0]._streams.values()
    assert first.datagrams is not None
    assert second.datagrams is not None
    assert len(second.datagrams) < 300, "the oldest are gone"
    assert chain.relays[0].held == first.datagrams.memory + second.datagrams.memory
    chain.net.room = lambda _session, _lane: 1 << 22
    chain.net.run()
    assert chain.relays[0].held == 0


def test_the_smallest_records_take_no_more_memory_than_is_counted() -> None:
    chain = Chain()
    stream, _ = chain.opened()
    blocked(chain, chain.links[1][0])
    inbound, relay = chain.links[0][1], chain.relays[0]
    raw = Raw(chain.net, inbound)
    lane = inbound._streams[stream.stream_id].queue.lane
    # 17 bytes are a byte and its tag.
    frames = [wire.encode_data_head(stream.stream_id, at, 0, 17) + bytes(17) for at in range(2000)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for frame in frames:
            for event in raw.send(frame, lane):
                relay.handle(chain.net.now, inbound, event)
        took = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert sum(map(len, frames)) < took / 4, "so the bytes themselves say little"
    assert took <= relay.held


def test_what_is_asked_about_a_stream_waits_until_the_next_hop_knows_it() -> None:
    """A PING, PONG or ACK would pass the OPEN that waits for its lane, and end the session of all."""
    chain = Chain()
    out = chain.links[1][0]
    blocked(chain, out)
    stream = chain.open()
    raw = Raw(chain.net, chain.links[0][1])
    relay = chain.relays[0]
    for frame in (
        wire.encode_ping(stream.stream_id, 1, 2),
        wire.encode_pong(stream.stream_id, 3, 4),
        wire.encode_ack(stream.stream_id, 5, 6),
    ):
        for event in raw.send(frame):
            assert relay.handle(chain.net.now, chain.links[0][1], event)
    chain.net.run()
    assert not out.closed
    chain.net.room = lambda _session, _lane: 1 << 22
    chain.net.run()
    assert stream.kinds() == ["Opened"]
    nonce = stream.session.ping(chain.net.now, stream.stream_id)
    chain.net.run()
    assert [e.nonce for e in chain.host(1).events if isinstance(e, StreamPong)] == [nonce]


def test_a_client_that_opens_and_resets_without_end_costs_others_nothing() -> None:
    chain = Chain()
    other, far = chain.opened()
    for _ in range(200):
        stream = chain.ask(TrafficClass.BULK)
        stream.session.reset_stream(chain.net.now, stream.stream_id, "cancelled")
        chain.net.now += 0.01
        chain.net.run()
    other.machine.write(b"still here")
    chain.net.run()
    assert far.machine.read() == b"still here"
    assert [session.closed for session in chain.net.flows] == [False] * 4


def test_an_unread_stream_stops_itself_and_nothing_else() -> None:
    chain = Chain()
    unread, _ = chain.opened()
    for _ in range(20):
        unread.machine.write(bytes(1 << 20))
        chain.net.run()
    assert chain.links[0][1]._window.held == 0  # the relay holds nothing of it
    one, other = chain.opened()
    one.machine.write(b"still")
    chain.net.run()
    assert other.machine.read() == b"still"
