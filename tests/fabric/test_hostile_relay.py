"""A relay that breaks its promises: whatever it does to what passes, the ends find out or lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from random import Random
from typing import Any

import msgspec
import pytest

from fabric import wire
from fabric.classes import TrafficClass
from fabric.events import Failed, SessionEvent, StreamConfig, StreamOpened
from fabric.relay import Relay
from fabric.session import Session, StreamAcceptedEvent, StreamRecord, StreamSent
from fabric.wire import AES_256_GCM, CHACHA20_POLY1305, SUITES, RouteRef
from tests.support.fabric_net import Net, Stream, identity
from tests.support.leases import LEASE

DATA = Random(1).randbytes(400_000)
Act = Callable[["Hostile", StreamRecord], list[StreamRecord]]


class Hostile(Relay):
    """Passes on what `act` makes of each record towards the responder, from the third on."""

    act: Act
    seen = 0
    kept: StreamRecord | None = None
    forged_offer: dict[str, Any] | None = None
    forged_answer: dict[str, Any] | None = None

    def handle(self, now: float, session: Session, event: SessionEvent) -> bool:
        if isinstance(event, StreamOpened) and self.forged_offer:
            offer = msgspec.structs.replace(event.open.seal, **self.forged_offer)
            opening = msgspec.structs.replace(event.open, seal=offer)
            event = StreamOpened(event.stream_id, opening, wire.encode_map(opening, 2)[16:])
        if isinstance(event, StreamAcceptedEvent) and self.forged_answer:
            answer = msgspec.structs.replace(event.accepted.seal, **self.forged_answer)
            accepted = msgspec.structs.replace(event.accepted, seal=answer)
            event = StreamAcceptedEvent(event.stream_id, accepted, wire.encode_map(accepted, 2)[16:])
        if isinstance(event, StreamRecord) and session.peer_node_id == LEASE.hops[0]:
            self.seen += 1
            if self.seen > 2:
                taken = [super(Hostile, self).handle(now, session, one) for one in self.act(self, event)]
                return all(taken)
        if isinstance(event, StreamSent) and event.carried:
            event = self._no_more_than_came(session, event)
        return super().handle(now, session, event)

    def _no_more_than_came(self, session: Session, event: StreamSent) -> StreamSent:
        """What it made itself it cannot give back as credit."""
        leg = self._legs[session][event.stream_id].other
        held = leg.session._streams[leg.stream_id].held
        return StreamSent(event.stream_id, min(event.carried, held))


def flipped(record: StreamRecord, at: int) -> StreamRecord:
    payload = bytearray(record.payload)
    payload[at % len(payload)] ^= 1
    return msgspec.structs.replace(record, payload=bytes(payload))


def swap(relay: Hostile, record: StreamRecord) -> list[StreamRecord]:
    """Each pair in the other order."""
    if relay.kept is None:
        relay.kept = record
        return []
    first, relay.kept = relay.kept, None
    return [record, first]


def splice(_relay: Hostile, record: StreamRecord) -> list[StreamRecord]:
    """A record in two halves, as if a relay might split them."""
    half = len(record.payload) // 2
    return [
        msgspec.structs.replace(record, payload=record.payload[:half], carried=half),
        msgspec.structs.replace(
            record, offset=record.offset + half, payload=record.payload[half:], carried=record.carried - half
        ),
    ]


ATTACKS: dict[str, tuple[Act, set[str]]] = {
    "first byte": (lambda _, r: [flipped(r, 0)], {"record_invalid"}),
    "last byte": (lambda _, r: [flipped(r, -1)], {"record_invalid"}),
    "some byte": (lambda _, r: [flipped(r, 777)], {"record_invalid"}),
    "flags: an end": (lambda _, r: [msgspec.structs.replace(r, flags=2)], {"record_invalid"}),
    "flags: another bit": (lambda _, r: [msgspec.structs.replace(r, flags=0x80)], {"record_shape"}),
    "offset before": (
        lambda _, r: [msgspec.structs.replace(r, offset=r.offset - 1)],
        {"record_overlap", "record_invalid"},
    ),
    "offset after": (lambda _, r: [msgspec.structs.replace(r, offset=r.offset + 1)], {"record_gap"}),
    "left out": (lambda relay, r: [] if relay.seen == 3 else [r], {"record_gap"}),
    "reordered": (swap, {"record_gap"}),
    "truncated": (
        lambda _, r: [msgspec.structs.replace(r, payload=r.payload[:-1])],
        {"record_invalid", "record_shape"},
    ),
    "lengthened": (
        lambda _, r: [msgspec.structs.replace(r, payload=bytes(r.payload) + b"x")],
        {"record_invalid", "record_shape"},
    ),
    "split": (splice, {"record_invalid"}),
    "emptied": (lambda _, r: [msgspec.structs.replace(r, payload=b"")], {"record_shape"}),
    "stripped of its seal": (
        lambda _, r: [msgspec.structs.replace(r, payload=bytes(r.payload)[:-16])],
        {"record_invalid", "record_shape"},
    ),
}


def chain(suites: tuple[str, ...] = SUITES) -> tuple[Net, Hostile, Session]:
    net = Net()
    first, _ = net.connect(1, 2)
    net.connect(2, 3)
    net.run()
    for number in (1, 2, 3):
        net.host(number).leases["r"] = LEASE
        net.host(number).config = StreamConfig(hold_s=0, suites=suites)
    honest = net.host(2).relays()
    relay = Hostile(net.host(2).node_id, net.host(2).leases.get, honest._next_session)
    relay.act = lambda _, record: [record]
    net.host(2).relay = relay
    return net, relay, first


def opened(net: Net, first: Session) -> Stream:
    stream = net.host(1).open(
        first,
        "echo",
        TrafficClass.RELIABLE,
        to=net.host(3),
        route=RouteRef(route_id="r", epoch=LEASE.epoch, position=1),
    )
    net.run()
    return stream


def failure(stream: Stream) -> str:
    return next((event.reason for event in stream.events if isinstance(event, Failed)), "")


def transfer(net: Net, one: Stream, *, end: bool = True) -> tuple[bytes, Stream]:
    (other,) = net.host(3).accepted
    got = b""
    at = 0
    for _ in range(60):
        if not failure(one) and at < len(DATA):
            at += one.machine.write(DATA[at : at + 30_000])
            if end and at == len(DATA):
                one.machine.finish()
        net.run()
        got += other.machine.read()
    return got, other


def suite_of(stream: Stream) -> str:
    keys = stream.machine._binding.keys
    return keys.suite if keys is not None else ""


def test_an_honest_relay_passes_everything() -> None:
    for suites in permutations(SUITES):
        net, _, first = chain(suites)
        one = opened(net, first)
        got, other = transfer(net, one)
        assert got == DATA
        assert other.machine.at_end
        assert suite_of(one) == suite_of(other) == suites[0]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("name", ATTACKS)
def test_what_a_relay_does_to_records_is_found_out(name: str, suite: str) -> None:
    act, reasons = ATTACKS[name]
    net, relay, first = chain((suite,))
    relay.act = act
    one = opened(net, first)
    got, other = transfer(net, one)
    assert failure(other) in reasons
    assert failure(one) in reasons, "the other end is told why"
    assert DATA.startswith(got)
    assert len(got) < len(DATA)
    assert not other.machine.at_end


def test_a_record_played_again_is_delivered_once() -> None:
    net, relay, first = chain()
    relay.act = lambda _, record: [record, record]
    one = opened(net, first)
    got, other = transfer(net, one)
    assert got == DATA
    assert other.machine.counters["duplicate_records"] > 0
    assert other.machine.at_end


def test_an_old_record_played_again_is_delivered_once() -> None:
    net, relay, first = chain()

    def replay(relay: Hostile, record: StreamRecord) -> list[StreamRecord]:
        relay.kept = relay.kept or record
        return [relay.kept, record]

    relay.act = replay
    got, other = transfer(net, opened(net, first))
    assert got == DATA
    assert other.machine.counters["duplicate_records"] > 5


def test_an_end_of_the_relays_making_is_no_end() -> None:
    net, _, first = chain()
    one = opened(net, first)
    got, other = transfer(net, one, end=False)
    other.session.close_stream(net.now, other.stream_id)
    relay_end = net.far[other.session]
    relay_end.close_stream(net.now, other.stream_id)
    net.run()
    assert failure(other) == "stream_truncated"
    assert got == DATA
    assert not other.machine.at_end


CHOICE = (CHACHA20_POLY1305, AES_256_GCM)
MINE = identity(2).public
FORGERIES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "the man in the middle": ({"key": MINE, "public": MINE}, {}, "seal_initiator"),
    "an answer of its own": ({}, {"signature": bytes(64)}, "seal_signature"),
    "no list, as in earlier builds": ({"suites": []}, {}, "seal_signature"),
    "no list, and an answer to the whole one": ({"suites": []}, {"suite": CHOICE[0]}, "seal_signature"),
    "AES alone": ({"suites": [AES_256_GCM]}, {}, "seal_signature"),
    "ChaCha alone": ({"suites": [CHACHA20_POLY1305]}, {}, "seal_signature"),
    "the other order": ({"suites": list(reversed(CHOICE))}, {}, "seal_signature"),
    "one more": ({"suites": [*CHOICE, "x"]}, {}, "seal_signature"),
    "none that is known": ({"suites": ["x"]}, {}, "seal_signature"),
    "the other choice": ({}, {"suite": AES_256_GCM}, "seal_signature"),
    "a choice that nobody knows": ({}, {"suite": "x"}, "seal_signature"),
}
"""What a relay makes of the offer and of the answer, and what comes of it."""


@pytest.mark.parametrize("name", FORGERIES)
def test_a_seal_that_a_relay_replaces_opens_nothing(name: str) -> None:
    net, relay, first = chain(CHOICE)
    relay.forged_offer, relay.forged_answer, reason = FORGERIES[name]
    stream = opened(net, first)
    assert failure(stream) == reason
    assert net.host(3).accepted == []


def test_ends_without_a_suite_in_common_open_nothing_and_the_session_goes_on() -> None:
    net, _, first = chain()
    net.host(1).config = StreamConfig(suites=(CHACHA20_POLY1305,))
    net.host(3).config = StreamConfig(suites=(AES_256_GCM,))
    assert failure(opened(net, first)) == "seal_suite"
    assert net.host(3).accepted == []
    net.host(1).config = StreamConfig(suites=("x", CHACHA20_POLY1305, AES_256_GCM))
    got, other = transfer(net, one := opened(net, first))
    assert got == DATA
    assert suite_of(one) == suite_of(other) == AES_256_GCM


def test_a_stream_captured_whole_and_played_to_another_session_calls_no_service() -> None:
    """Every record of a stream, replayed behind its OPEN in a new session: nobody has its keys any more."""
    net, relay, first = chain()
    captured: list[StreamRecord] = []
    opens: list[StreamOpened] = []

    def capture(_relay: Hostile, record: StreamRecord) -> list[StreamRecord]:
        captured.append(record)
        return [record]

    relay.act = capture
    one = opened(net, first)
    opens = [event for event in net.host(2).events if isinstance(event, StreamOpened)]
    transfer(net, one)
    assert captured
    called = len(net.host(3).accepted)
    again, _ = net.connect(2, 3)
    net.run()
    stream_id = again.open_stream(net.now, wire.with_position(opens[0].raw, 2))
    net.run()
    for record in captured:
        again.send_data(net.now, stream_id, record.offset, record.flags, record.payload)
    net.run()
    assert len(net.host(3).accepted) == called
    last = list(net.host(3).streams.values())[-1]
    assert failure(last) in {"record_invalid", "record_gap"}
