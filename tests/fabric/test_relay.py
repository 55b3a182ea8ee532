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
from fabric.session import SessionEvent, StreamOpened, StreamPong, StreamRecord, StreamReset
from fabric.stream import perform
from fabric.wire import RouteRef
from projections.model import Lease as LeaseRow
from tests.support.fabric_frames import DIRECT_OPEN, LEASED_OPEN
from tests.support.fabric_net import Raw
from tests.support.hop_streams import ACCEPTED
from tests.support.leases import EXPIRES, LEASE, asked, hops
from tests.support.relay_chain import Chain

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
    # A key that is ignored here, but no text: only whoever must write the map again sees it.
    body = msgspec.msgpack.encode({**fields, "zz": "zz"}).replace(b"\xa2zz\xa2zz", b"\xa2\xff\xff\xa2zz")
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


def test_when_the_next_lease_expires_is_known_without_a_look_at_every_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The shell asks with every frame that passes, and thousands of streams may stand still."""
    chain = Chain(expires_at=1010.0)
    first, _ = chain.opened()
    chain.know(replace(chain.lease, epoch=4, expires_at=1020.0))
    second, other = chain.opened()
    relay, looks = chain.relays[0], 0
    pairs = relay._pairs

    def counted() -> list[Any]:
        nonlocal looks
        looks += 1
        return pairs()

    monkeypatch.setattr(relay, "_pairs", counted)
    second.machine.write(b"hello")
    chain.net.run()
    assert other.machine.read() == b"hello"
    assert relay.timer() == 1010.0
    first.events += perform(chain.net.now, first.session, first.stream_id, first.machine.reset())
    chain.net.run()
    assert relay.timer() in (1010.0, 1020.0), "early at worst"
    assert looks == 0
    chain.net.settle(10.5, every=0.5)
    assert relay.timer() == 1020.0
    assert chain.reason(second) == ""
    chain.net.settle(10.0, every=0.5)
    assert chain.reason(second) == "lease_expired"
    assert relay.timer() is None


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


# -- what breaks one stream and nothing else -------------------------------------------------------------


def broken(chain: Chain, *frames: bytes, lane: LaneKey) -> list[SessionEvent]:
    """What the first relay's session makes of frames of the client's own making, acted upon."""
    inbound, events = chain.links[0][1], []
    for frame in frames:
        events += Raw(chain.net, inbound).send(frame, lane)
    chain.host(2).take(inbound, events)
    chain.net.run()
    return events


RECORD = bytes(65_552)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("a record", ""),
        ("after the end", "record_after_end"),
        ("twice accepted", "stream_state"),
        ("beyond the credit", "credit_exceeded"),
    ],
)
def test_a_client_that_breaks_a_streams_rules_loses_that_stream_alone(what: str, reason: str) -> None:
    chain = Chain()
    one, far = chain.opened()
    other, far_other = chain.opened()
    inbound = chain.links[0][1]
    lane = inbound._streams[one.stream_id].queue.lane
    record = wire.encode_data_head(one.stream_id, 0, 0, 17) + bytes(17)
    if what == "after the end":
        frames = [wire.encode_map(wire.CloseStream(), one.stream_id), record]
    elif what == "twice accepted":
        frames = [wire.encode_map(ACCEPTED, one.stream_id)]
    elif what == "beyond the credit":
        head = wire.encode_data_head(one.stream_id, 0, 0, len(RECORD))
        chain.net.room = lambda session, room_lane: (
            0 if session is chain.links[1][0] and room_lane == lane else 1 << 22
        )
        frames = [head + RECORD] * (limits.STREAM_WINDOW_BYTES // len(RECORD) + 1)
    else:
        frames = [record]
    events = broken(chain, *frames, lane=lane)
    found = [event.reason for event in events if isinstance(event, StreamReset)]
    assert found == ([reason] if reason else [])
    if reason:
        assert chain.reason(one) == reason
        chain.net.room = lambda _session, _lane: 1 << 22
        assert chain.reason(far) == reason
    assert chain.relays[0].held == 0
    assert inbound._window.held == 0, "the session's credit is whole"
    other.machine.write(b"still here")
    chain.net.run()
    assert far_other.machine.read() == b"still here"
    assert [session.closed for session in chain.net.flows] == [False] * 4


def test_an_open_does_not_grow_on_the_way() -> None:
    """Short floats come out long when a map is written anew; the next hop would end a session of many."""
    chain = Chain()
    raw = wire.encode_map(asked(), 2)[wire.HEADER_BYTES :]
    fields = msgspec.msgpack.decode(raw)
    room = limits.MAP_BODY_BYTES - len(raw) - 20
    floats = b"\xdc" + (room // 5).to_bytes(2, "big") + b"\xca\x3f\x80\x00\x00" * (room // 5)
    large = bytes([0x80 | len(fields) + 1]) + raw[1:] + b"\xa5later" + floats
    assert limits.MAP_BODY_BYTES - 30 < len(large) <= limits.MAP_BODY_BYTES
    for body in (large, raw):  # both come to the far end, which finds that nobody it knows has signed
        assert len(wire.with_position(body, 2)) == len(body)
        stream_id = chain.links[0][0].open_stream(chain.net.now, body)
        chain.net.run()
        resets = [one for one in chain.host(1).events if isinstance(one, StreamReset)]
        assert [one.reason for one in resets if one.stream_id == stream_id] == ["seal_initiator"]
    assert [session.closed for session in chain.net.flows] == [False] * 4


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
    assert account.live == 1
    one.machine.write(bytes(50))
    chain.net.run()
    assert (account.records, account.bytes_forward) == (4, 1050 + 3 * frame)
    one.session.reset_stream(chain.net.now, one.stream_id, "cancelled")
    chain.net.run()
    assert (account.live, account.streams) == (0, 1)


def test_accounts_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RELAY_ACCOUNTS", 1)
    chain = Chain()
    chain.open(TrafficClass.RELIABLE)
    chain.open(TrafficClass.BULK)
    assert set(chain.relays[0].accounts) == {
        (TrafficClass.RELIABLE, "r", "org"),
        (TrafficClass.BULK, OTHER_ROUTES, OTHER_ROUTES),
    }


def test_a_new_route_takes_the_row_of_one_that_carries_nothing_and_sums_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "RELAY_ACCOUNTS", 2)
    chain = Chain()
    relay = chain.relays[0]
    over, _ = chain.opened()
    over.machine.write(bytes(1000))
    chain.net.run()
    chain.open(TrafficClass.BULK)
    before = relay.accounts[TrafficClass.RELIABLE, "r", "org"]
    over.session.reset_stream(chain.net.now, over.stream_id, "cancelled")
    chain.net.run()
    chain.know(replace(chain.lease, organization_id="next"))
    chain.open()
    assert set(relay.accounts) == {
        (TrafficClass.BULK, "r", "org"),
        (TrafficClass.RELIABLE, OTHER_ROUTES, OTHER_ROUTES),
        (TrafficClass.RELIABLE, "r", "next"),
    }
    assert relay.accounts[TrafficClass.RELIABLE, OTHER_ROUTES, OTHER_ROUTES] == before
    assert sum(account.streams for account in relay.accounts.values()) == 3


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
