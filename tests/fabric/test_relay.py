"""Relays: what passes, what is refused and why, bounded memory, accounts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from fabric import limits, wire
from fabric.classes import TrafficClass
from fabric.lanes import LaneKey
from fabric.relay import OTHER_ROUTES, Account, Lease, Relay
from fabric.session import Session, StreamOpened, StreamPong, StreamRecord
from fabric.stream import Failed
from fabric.wire import RouteRef
from projections.model import Lease as LeaseRow
from tests.support.fabric_frames import DIRECT_OPEN, LEASED_OPEN
from tests.support.fabric_net import Host, Net, Raw, Stream
from tests.support.leases import EXPIRES, LEASE, asked, hops


class Chain:
    """Hosts 1, 2, ... in a row, all but the ends relaying, and one lease along the whole row."""

    def __init__(self, length: int = 3, **lease: Any) -> None:
        self.net = Net()
        self.links = [self.net.connect(number, number + 1) for number in range(1, length)]
        self.net.run()
        self.lease = replace(LEASE, hops=hops(*range(1, length + 1)), **lease)
        self.relays = [self.host(number).relays() for number in range(2, length)]
        self.length = length
        self.know(self.lease)

    def host(self, number: int) -> Host:
        return self.net.host(number)

    def know(self, lease: Lease | None, *numbers: int) -> None:
        """All hosts, or those named, have this lease now."""
        for number in numbers or range(1, self.length + 1):
            if lease is None:
                self.host(number).leases.pop("r", None)
            else:
                self.host(number).leases["r"] = lease

    def open(
        self,
        traffic_class: TrafficClass = TrafficClass.RELIABLE,
        *,
        service: str = "echo",
        epoch: int = 3,
        position: int = 1,
    ) -> Stream:
        stream = self.host(1).open(
            self.links[0][0],
            service,
            traffic_class,
            to=self.host(self.length),
            route=RouteRef(route_id="r", epoch=epoch, position=position),
        )
        self.net.run()
        return stream

    def opened(self) -> tuple[Stream, Stream]:
        """Both ends of a stream through the chain."""
        stream = self.open()
        assert stream.kinds() == ["Opened"]
        return stream, self.host(self.length).accepted[-1]

    def reason(self, stream: Stream) -> str:
        self.net.run()
        return next((event.reason for event in stream.events if isinstance(event, Failed)), "")


# -- what passes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [3, 4, 5])
def test_a_leased_stream_passes_sealed_from_end_to_end(length: int) -> None:
    chain = Chain(length)
    one, other = chain.opened()
    assert other.machine.peer_node_id == chain.host(1).node_id
    one.machine.write(b"there" * 50_000)
    one.machine.finish()
    chain.net.run()
    assert other.machine.read() == b"there" * 50_000
    other.machine.write(b"back" * 50_000)
    other.machine.finish()
    chain.net.run()
    assert one.machine.read() == b"back" * 50_000
    assert one.kinds()[-1] == other.kinds()[-1] == "Finished"
    for relay in chain.relays:
        assert relay._legs == {}
    for session in chain.net.flows:
        assert session.streams() == ()
        assert session._window.held == 0
        assert not session.counters


def test_frames_pass_unchanged_but_for_ids_and_position() -> None:
    chain = Chain(4)
    chain.links[2][0].open_stream(0.0, DIRECT_OPEN)  # so that the hops' ids differ
    one, other = chain.opened()
    opens = [
        event
        for number in (2, 3, 4)
        for event in chain.host(number).events
        if isinstance(event, StreamOpened)
    ]
    leased = [event.open for event in opens if event.open.route is not None]
    assert [body.route.position for body in leased if body.route] == [1, 2, 3]
    for body in leased[1:]:
        assert msgspec.structs.replace(body, route=leased[0].route) == leased[0]
    one.machine.write(bytes(200_000))
    one.machine.write(b"tail")
    chain.net.run()
    seen: list[list[tuple[int, int, bytes]]] = [
        [
            (event.offset, event.flags, bytes(event.payload))
            for event in chain.host(number).events
            if isinstance(event, StreamRecord)
        ]
        for number in (2, 3, 4)
    ]
    assert len(seen[0]) == 5
    assert seen[0] == seen[1] == seen[2]
    assert other.stream_id != one.stream_id


def test_keys_that_a_relay_does_not_know_pass_it() -> None:
    chain = Chain()
    chain.host(3).accepts = False
    body = msgspec.structs.replace(
        LEASED_OPEN, service="echo", class_=3, route=RouteRef(route_id="r", epoch=3, position=1)
    )
    fields = msgspec.msgpack.decode(wire.encode_map(body, 2)[16:])
    chain.links[0][0].open_stream(0.0, msgspec.msgpack.encode({**fields, "suites": ["later"]}))
    chain.net.run()
    (event,) = [event for event in chain.host(3).events if isinstance(event, StreamOpened)]
    assert msgspec.msgpack.decode(event.raw)["suites"] == ["later"]


def test_end_to_end_pings_pass() -> None:
    chain = Chain(4)
    one, _ = chain.opened()
    nonce = one.session.ping(chain.net.now, one.stream_id)
    chain.net.run()
    pongs = [event for event in chain.host(1).events if isinstance(event, StreamPong)]
    assert [pong.nonce for pong in pongs] == [nonce]


def test_a_direct_stream_and_one_that_ends_here_are_not_the_relays() -> None:
    chain = Chain()
    relay = chain.relays[0]
    assert relay.wants(LEASED_OPEN)
    assert not relay.wants(DIRECT_OPEN)
    chain.know(replace(LEASE, hops=hops(1, 2)), 2)
    ending = msgspec.structs.replace(LEASED_OPEN, route=RouteRef(route_id="r", epoch=3, position=1))
    assert not relay.wants(ending)


# -- what does not ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "lease"),
    [
        ("no_lease", None),
        ("fenced", replace(LEASE, fenced=True)),
        ("lease_expired", replace(LEASE, expires_at=1.0)),
        ("class_not_allowed", replace(LEASE, allowed_classes=frozenset({TrafficClass.DNS}))),
        ("wrong_previous", replace(LEASE, hops=hops(4, 2, 3))),
        ("next_hop_unreachable", replace(LEASE, hops=hops(1, 2, 5))),
    ],
)
def test_a_relay_refuses_with_the_reason(reason: str, lease: Lease | None) -> None:
    chain = Chain()
    chain.know(lease, 2)
    stream = chain.open()
    assert chain.reason(stream) == reason
    assert chain.host(3).streams == {}
    assert chain.relays[0].accounts == {}
    # The session lives, and the same stream passes once the lease is there.
    chain.know(LEASE, 2)
    assert chain.open().kinds() == ["Opened"]


def test_the_last_hop_asks_the_same() -> None:
    chain = Chain()
    chain.know(replace(LEASE, fenced=True), 3)
    assert chain.reason(chain.open()) == "fenced"
    chain.know(LEASE, 3)
    assert chain.open().kinds() == ["Opened"]


def test_a_neighbour_that_drains_is_out_of_reach() -> None:
    chain = Chain()
    chain.opened()  # keeps the session from closing at once
    chain.links[1][1].goaway(chain.net.now)
    chain.net.run()
    assert chain.reason(chain.open()) == "next_hop_unreachable"


def test_a_raw_body_that_cannot_be_passed_on_is_refused() -> None:
    chain = Chain()
    relay_end = chain.links[0][1]
    raw = Raw(chain.net, relay_end)
    fields = msgspec.msgpack.decode(wire.encode_map(asked(), 2)[16:])
    # Ignored here, but not text: only whoever must write the map again sees it.
    body = msgspec.msgpack.encode({**fields, "zz": "zz"}).replace(b"\xa2zz\xa2zz", b"\xa2zz\xa2\xff\xff")
    lane = LaneKey(TrafficClass.RELIABLE, 0)
    events = raw.send(wire.encode_frame(wire.FrameType.OPEN_STREAM, 2, body, 1), lane)
    assert [type(event) for event in events] == [StreamOpened]
    assert chain.relays[0].handle(chain.net.now, relay_end, events[0])
    assert relay_end.streams() == ()
    assert not relay_end.closed


# -- ends ------------------------------------------------------------------------------------------------


def test_a_reset_by_either_end_reaches_the_other() -> None:
    for number in (0, 1):
        chain = Chain()
        ends = chain.opened()
        ends[number].machine.reset("cancelled")
        ends[number].session.reset_stream(chain.net.now, ends[number].stream_id, "cancelled")
        assert chain.reason(ends[1 - number]) == "cancelled"
        assert chain.relays[0]._legs == {}


def test_a_lost_session_fails_the_route_and_is_never_an_end() -> None:
    chain = Chain(4)
    one, other = chain.opened()
    one.machine.write(b"half")
    chain.net.run()
    chain.net.cut(chain.links[1][0])
    assert chain.reason(one) == chain.reason(other) == "route_failed"
    assert other.machine.read() == b"half"
    assert not other.machine.at_end
    assert [relay._legs for relay in chain.relays] == [{}, {}]
    assert not chain.links[0][0].closed


def test_a_fence_ends_streams_at_once() -> None:
    chain = Chain()
    one, other = chain.opened()
    chain.relays[0].recheck(chain.net.now)
    chain.net.run()
    assert chain.reason(one) == ""
    chain.know(replace(LEASE, fenced=True), 2)
    chain.relays[0].recheck(chain.net.now)
    assert set(chain.relays[0].take_touched()) == {chain.links[0][1], chain.links[1][0]}
    assert chain.reason(one) == chain.reason(other) == "fenced"


def test_a_lease_ends_in_time_unless_it_is_renewed() -> None:
    chain = Chain(expires_at=1010.0)
    one, other = chain.opened()
    assert chain.relays[0].timer() == 1010.0
    chain.know(replace(chain.lease, epoch=4, expires_at=1020.0))
    chain.net.settle(10.5, every=0.5)
    assert chain.reason(one) == ""
    assert chain.relays[0].timer() == 1020.0
    chain.net.settle(10.0, every=0.5)
    assert chain.reason(one) == chain.reason(other) == "lease_expired"
    assert chain.relays[0].timer() is None


def test_the_timer_is_on_the_session_clock() -> None:
    relay = Relay(hops(2)[0], {"r": LEASE}.get, lambda _: None, lambda now: now + 900.0)
    assert relay._until(100.0, LEASE) == EXPIRES - 900.0


def test_a_renewed_lease_that_leads_elsewhere_ends_the_stream() -> None:
    chain = Chain()
    one, _ = chain.opened()
    chain.know(replace(LEASE, epoch=4, hops=hops(1, 2, 5)), 2)
    chain.relays[0].recheck(chain.net.now)
    assert chain.reason(one) == "wrong_hop"


# -- memory ----------------------------------------------------------------------------------------------


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
    assert leg.held == chain.relays[0].held == held
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
    for _ in range(limits.SESSION_STREAMS + 500):
        stream = chain.host(1).open(
            chain.links[0][0],
            "echo",
            TrafficClass.BULK,
            to=chain.host(3),
            route=RouteRef(route_id="r", epoch=3, position=1),
        )
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


# -- accounts --------------------------------------------------------------------------------------------


def test_accounts_say_who_carried_what_without_reading_it() -> None:
    chain = Chain()
    one, other = chain.opened()
    one.machine.write(bytes(1000))
    chain.net.run()
    other.machine.write(bytes(200))
    chain.net.run()
    frame = 24 + 16
    (key,) = chain.relays[0].accounts
    assert key == (TrafficClass.RELIABLE, "r", "org")
    account = chain.relays[0].accounts[key]
    assert account == Account(streams=1, records=3, bytes_forward=1000 + 2 * frame, bytes_back=200 + frame)
    assert chain.relays[0].take_accounts() == {key: account}
    one.machine.write(bytes(50))
    chain.net.run()
    assert chain.relays[0].accounts == {key: Account(records=1, bytes_forward=50 + frame)}


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_ACCOUNTS", 1)
    chain = Chain()
    chain.open(TrafficClass.RELIABLE)
    chain.open(TrafficClass.BULK)
    assert set(chain.relays[0].accounts) == {
        (TrafficClass.RELIABLE, "r", "org"),
        (TrafficClass.BULK, OTHER_ROUTES, OTHER_ROUTES),
    }


def test_both_legs_take_turns_as_the_lease_holders() -> None:
    chain = Chain()
    chain.opened()
    for session in (chain.links[0][1], chain.links[1][0]):
        assert [stream.queue.tenant for stream in session._streams.values()] == ["org"]


def test_a_lease_row_becomes_a_lease() -> None:
    row = LeaseRow(
        route_id="r",
        partition="eu-1",
        organization_id="org",
        service="echo",
        hops=hops(1, 2, 3),
        next_hop_policy="",
        allowed_channels=(),
        allowed_classes=("reliable", "bulk", "later"),
        allowed_services=(),
        alternates=(),
        epoch=3,
        record_id="ab" * 32,
        issued_at=0,
        expires_at=2000,
        log="authority",
        log_index=5,
        authority_size=0,
        ended_by="",
        bootstrap=False,
    )
    assert Lease.of(row, stands=True) == LEASE
    assert Lease.of(row, stands=False).fenced
