"""One end of a sealed stream: opening, confirming, ending, and what ends it early."""

# Long on purpose: each state of one end with what may come in it and what may not.
from __future__ import annotations

from random import Random

import msgspec
import pytest

from fabric import limits
from fabric.classes import Mode, TrafficClass
from fabric.errors import SealError, StreamError
from fabric.events import SessionEvent
from fabric.session import Session, SessionClosed
from fabric.stream import (
    DataReadable,
    EndToEnd,
    Failed,
    Finished,
    HopAccepted,
    HopAck,
    HopClosed,
    HopDatagram,
    HopInput,
    HopRecord,
    HopReset,
    Opened,
    SendAccepted,
    SendAck,
    SendClose,
    SendRecord,
    SendReset,
    StreamConfig,
    StreamTimer,
    Writable,
    perform,
)
from fabric.wire import OpenStream, RouteRef
from tests.support.fabric_net import CLUSTER, identity, ready_pair

ONE, OTHER, STRANGER = identity(1), identity(2), identity(3)
ROOM = 1 << 20


class Ends:
    """Initiator and responder with nothing between them; the test carries what it likes."""

    def __init__(self, mode: Mode = Mode.STREAM, **config: int) -> None:
        self.config = StreamConfig(**config)
        random = Random(7)
        self.one, opening = EndToEnd.initiate(
            0.0,
            ONE,
            CLUSTER,
            OTHER.node_id,
            "echo",
            TrafficClass.RELIABLE,
            random.randbytes,
            mode=mode,
            config=self.config,
        )
        self.open = opening.open
        self.other, outcome = EndToEnd.respond(
            0.0, OTHER, CLUSTER, ONE.node_id, self.open, random.randbytes, config=self.config
        )
        first = outcome[0]
        assert isinstance(first, SendAccepted)
        self.accepted = first.accepted
        self.answer = outcome

    def confirmed(self) -> Ends:
        assert self.one.handle(0.0, HopAccepted(self.accepted)) == [Opened(OTHER.node_id)]
        self.carry(self.one, self.other)
        return self

    def carry(self, source: EndToEnd, sink: EndToEnd, room: int = ROOM) -> list[object]:
        """Records and acknowledgements of `source` to `sink`; returns what came of them."""
        outcome: list[object] = []
        for item in source.pull(0.0, room):
            if isinstance(item, SendRecord):
                outcome += sink.handle(0.0, HopRecord(item.offset, item.flags, item.ciphertext))
            elif isinstance(item, SendAck):
                outcome += sink.handle(0.0, HopAck(item.received_up_to, item.limit))
        return outcome


def records(machine: EndToEnd) -> list[SendRecord]:
    return [item for item in machine.pull(0.0, ROOM) if isinstance(item, SendRecord)]


def hop(record: SendRecord) -> HopRecord:
    return HopRecord(record.offset, record.flags, record.ciphertext)


# -- opening ---------------------------------------------------------------------------------------------


def test_the_responder_calls_its_service_after_the_first_valid_record_and_not_before() -> None:
    ends = Ends()
    assert ends.answer == [SendAccepted(ends.accepted)]
    assert ends.other.pull(0.0, ROOM) == []
    assert ends.one.handle(0.0, HopAccepted(ends.accepted)) == [Opened(OTHER.node_id)]
    (confirmation,) = records(ends.one)
    assert ends.other.handle(0.0, hop(confirmation)) == [Opened(ONE.node_id)]
    assert ends.other.peer_node_id == ONE.node_id


def test_data_confirms_too_and_so_does_the_end() -> None:
    ends = Ends()
    ends.one.write(b"hello")
    ends.one.handle(0.0, HopAccepted(ends.accepted))
    (first,) = records(ends.one)
    assert ends.other.handle(0.0, hop(first)) == [Opened(ONE.node_id), DataReadable()]
    ends = Ends()
    ends.one.finish()
    ends.one.handle(0.0, HopAccepted(ends.accepted))
    (only,) = records(ends.one)
    outcome = ends.other.handle(0.0, hop(only))
    assert outcome[0] == Opened(ONE.node_id)
    assert DataReadable() in outcome
    assert ends.other.at_end


def test_nothing_opens_on_an_invalid_first_record() -> None:
    ends = Ends()
    ends.one.handle(0.0, HopAccepted(ends.accepted))
    (confirmation,) = records(ends.one)
    outcome = ends.other.handle(0.0, HopRecord(0, confirmation.flags, bytes(16)))
    assert [type(item) for item in outcome] == [SendReset, Failed]
    assert isinstance(outcome[1], Failed)
    assert outcome[1].reason == "record_invalid"


def test_a_responder_that_answers_first_may_write_once_confirmed() -> None:
    ends = Ends()
    ends.other.write(b"SSH-2.0")
    assert records(ends.other) == []
    ends.confirmed()
    assert DataReadable() in ends.carry(ends.other, ends.one)
    assert ends.one.read() == b"SSH-2.0"


def test_an_open_is_for_one_responder_from_one_initiator() -> None:
    ends = Ends()
    with pytest.raises(SealError, match="seal_initiator"):
        EndToEnd.respond(0.0, OTHER, CLUSTER, STRANGER.node_id, ends.open, Random(1).randbytes)
    with pytest.raises(SealError, match="seal_signature"):
        EndToEnd.respond(0.0, STRANGER, CLUSTER, ONE.node_id, ends.open, Random(1).randbytes)
    with pytest.raises(SealError, match="seal_signature"):
        EndToEnd.respond(0.0, OTHER, "other.cluster", ONE.node_id, ends.open, Random(1).randbytes)
    assert EndToEnd.respond(0.0, OTHER, CLUSTER, ONE.node_id, ends.open, Random(1).randbytes)


def test_an_answer_from_another_node_fails_the_stream() -> None:
    ends = Ends()
    forged = msgspec.structs.replace(
        ends.accepted, seal=msgspec.structs.replace(ends.accepted.seal, public=STRANGER.public)
    )
    outcome = ends.one.handle(0.0, HopAccepted(forged))
    assert [getattr(item, "reason", "") for item in outcome] == ["seal_responder", "seal_responder"]
    assert Ends().confirmed()


def test_each_mode_takes_what_is_its_own() -> None:
    for mode in (Mode.STREAM, Mode.DATAGRAM):
        ends = Ends(mode).confirmed()
        if mode is Mode.STREAM:
            assert ends.one.write(b"bytes") == 5
            refused, event = ends.one.send, HopDatagram(0, 8, bytes(20))
        else:
            assert len(ends.one.send(b"datagram")) == 1
            refused, event = ends.one.write, HopRecord(0, 0, bytes(20))
        with pytest.raises(StreamError, match="stream_state"):
            refused(b"of the other mode")  # type: ignore[operator]  # either method takes bytes
        assert isinstance(ends.other.handle(0.0, event)[0], SendReset)


def test_waiting_ends() -> None:
    ends = Ends()
    accept_by, confirm_by = ends.one.timer(), ends.other.timer()
    assert accept_by == ends.config.accept_timeout_s
    assert confirm_by == ends.config.confirm_timeout_s
    assert ends.one.handle(accept_by - 1, StreamTimer()) == []
    assert ends.one.handle(accept_by, StreamTimer())[1] == Failed("accept_timeout")
    assert ends.other.handle(confirm_by, StreamTimer())[1] == Failed("confirm_timeout")
    open_ends = Ends().confirmed()
    assert (open_ends.one.timer(), open_ends.other.timer()) == (None, None)
    assert open_ends.one.handle(1e9, StreamTimer()) == []


# -- data ------------------------------------------------------------------------------------------------


def test_both_directions_carry_and_end() -> None:
    ends = Ends().confirmed()
    for source, sink in ((ends.one, ends.other), (ends.other, ends.one)):
        source.write(b"question" * 1000)
        source.finish()
        assert DataReadable() in ends.carry(source, sink)
        assert sink.read() == b"question" * 1000
        assert sink.at_end
    # What `handle` answered to an END was not carried by `carry`; give it by hand.
    assert ends.one.handle(0.0, HopAck(8001, 1 << 20)) == [SendClose(), Finished()]
    assert ends.one.end_acknowledged
    assert ends.other.handle(0.0, HopAck(8001, 1 << 20)) == [SendClose(), Finished()]
    assert ends.one.pull(0.0, ROOM) == []
    with pytest.raises(StreamError, match="stream_state"):
        ends.one.write(b"more")


def test_an_end_is_acknowledged_at_once() -> None:
    ends = Ends().confirmed()
    ends.one.finish()
    (end,) = records(ends.one)
    outcome = ends.other.handle(0.0, hop(end))
    assert [item for item in outcome if isinstance(item, SendAck)] == [SendAck(1, limits.E2E_WINDOW_BYTES)]


def test_a_record_after_both_ends_resets_the_hop_stream_and_fails_nobody() -> None:
    ends = Ends().confirmed()
    for end in (ends.one, ends.other):
        end.finish()
    ends.carry(ends.one, ends.other)
    ends.carry(ends.other, ends.one)
    assert Finished() in ends.other.handle(0.0, HopAck(1, 0))
    (reset,) = ends.other.handle(0.0, HopRecord(0, 0, bytes(17)))
    assert isinstance(reset, SendReset)
    assert reset.reason == "record_after_end"
    assert ends.other.over


def test_one_acknowledgement_for_many_records() -> None:
    ends = Ends().confirmed()
    ends.one.write(bytes(300_000))
    for record in records(ends.one):
        ends.other.handle(0.0, hop(record))
    assert ends.other.pull(0.0, 0) == [SendAck(300_000, limits.E2E_WINDOW_BYTES)]
    assert ends.other.pull(0.0, 0) == []


def test_reading_opens_the_window_again() -> None:
    ends = Ends(window=1000, window_max=1000).confirmed()
    ends.one.write(bytes(1500))
    ends.carry(ends.one, ends.other)
    assert ends.other.readable == 1000
    assert ends.other.read() == bytes(1000)
    ends.carry(ends.other, ends.one)
    ends.carry(ends.one, ends.other)
    assert ends.other.readable == 500


def test_a_writer_is_held_back_and_called() -> None:
    ends = Ends(send_buffer=1000).confirmed()
    assert ends.one.write(bytes(1500)) == 1000
    outcome = ends.one.pull(0.0, ROOM)
    assert Writable() in outcome
    assert ends.one.write(bytes(500)) == 500


def test_room_is_what_a_shell_can_take() -> None:
    ends = Ends().confirmed()
    ends.one.write(bytes(300_000))
    assert ends.one.pull(0.0, 0) == []
    assert len(ends.one.pull(0.0, 1)) == 1
    assert len(ends.one.pull(0.0, 100_000)) == 2
    assert ends.one.unacknowledged == 300_000


def test_unacknowledged_records_are_kept_as_they_were_sealed() -> None:
    ends = Ends().confirmed()
    ends.one.write(bytes(100_000))
    sent = records(ends.one)
    assert ends.one._sender.kept() == sent
    ends.one.handle(0.0, HopAck(65_536, 1 << 20))
    assert ends.one._sender.kept() == sent[1:]


# -- what a relay or the network may do ------------------------------------------------------------------


def outcome_of(attack: str) -> tuple[str, int, bytes]:
    """Three records of 100 bytes and the end, under attack: (failure, duplicates, what the reader got)."""
    ends = Ends().confirmed()
    sent = []
    for letter in b"abc":
        ends.one.write(bytes([letter]) * 100)
        sent += records(ends.one)
    ends.one.finish()
    sent += records(ends.one)
    a, b, c, end = (hop(record) for record in sent)
    altered = HopRecord(b.offset, b.flags, bytes([bytes(b.payload)[0] ^ 1]) + bytes(b.payload)[1:])
    orders: dict[str, list[HopInput]] = {
        "none": [a, b, c, end, HopClosed()],
        "altered": [a, altered, c, end],
        "replayed": [a, b, a, b, c, end, c, end],
        "reordered": [a, c, b, end],
        "dropped": [a, b, end],
        "truncated": [a, b, HopClosed()],
        "stripped": [a, b, c, HopClosed()],
        "end moved forward": [a, b, HopRecord(200, end.flags, end.payload)],
        "end put on data": [a, b, HopRecord(c.offset, end.flags, c.payload)],
        "end taken off": [a, b, c, HopRecord(end.offset, 0x4, end.payload)],
        "moved to another offset": [a, HopRecord(b.offset, c.flags, c.payload)],
        "reset": [a, b, HopReset("route_failed")],
        "cut short": [a, HopRecord(b.offset, b.flags, bytes(b.payload)[:-1])],
        "glued": [HopRecord(0, 0, bytes(a.payload) + bytes(b.payload))],
    }
    failure = ""
    for event in orders[attack]:
        for item in ends.other.handle(0.0, event):
            if isinstance(item, Failed):
                failure = item.reason
    return failure, ends.other.counters["duplicate_records"], ends.other.read()


WHOLE = b"a" * 100 + b"b" * 100 + b"c" * 100


@pytest.mark.parametrize(
    ("attack", "failure", "duplicates", "read"),
    [
        ("none", "", 0, WHOLE),
        ("altered", "record_invalid", 0, WHOLE[:100]),
        ("replayed", "", 4, WHOLE),
        ("reordered", "record_gap", 0, WHOLE[:100]),
        ("dropped", "record_gap", 0, WHOLE[:200]),
        ("truncated", "stream_truncated", 0, WHOLE[:200]),
        ("stripped", "stream_truncated", 0, WHOLE),
        ("end moved forward", "record_invalid", 0, WHOLE[:200]),
        ("end put on data", "record_invalid", 0, WHOLE[:200]),
        ("end taken off", "record_invalid", 0, WHOLE),
        ("moved to another offset", "record_invalid", 0, WHOLE[:100]),
        ("reset", "route_failed", 0, WHOLE[:200]),
        ("cut short", "record_invalid", 0, WHOLE[:100]),
        ("glued", "record_invalid", 0, b""),
    ],
)
def test_records_are_found_out(attack: str, failure: str, duplicates: int, read: bytes) -> None:
    assert outcome_of(attack) == (failure, duplicates, read)


def test_a_failed_stream_says_so_once_and_takes_nothing_more() -> None:
    ends = Ends().confirmed()
    assert ends.other.handle(0.0, HopReset("route_failed", "hop 2")) == [Failed("route_failed", "hop 2")]
    assert ends.other.handle(0.0, HopReset("route_failed")) == []
    assert ends.other.pull(0.0, ROOM) == []
    assert ends.other.reset() == []
    with pytest.raises(StreamError, match="stream_state"):
        ends.other.write(b"x")
    assert ends.one.reset("cancelled", "enough") == [
        SendReset("cancelled", "enough"),
        Failed("cancelled", "enough"),
    ]


def test_lies_about_acknowledgement_end_the_stream() -> None:
    ends = Ends().confirmed()
    ends.one.write(b"abc")
    records(ends.one)
    assert ends.one.handle(0.0, HopAck(3, 1 << 20)) == []
    outcome = ends.one.handle(0.0, HopAck(4, 1 << 20))
    assert isinstance(outcome[-1], Failed)
    assert outcome[-1].reason == "bad_ack"


@pytest.mark.parametrize("early", [HopRecord(0, 4, bytes(16)), HopClosed()])
def test_an_initiator_waits_for_accepted_first(early: HopInput) -> None:
    ends = Ends()
    outcome = ends.one.handle(0.0, early)
    assert isinstance(outcome[-1], Failed)
    assert outcome[-1].reason in {"stream_state", "stream_truncated"}
    twice = Ends().confirmed()
    assert twice.one.handle(0.0, HopAccepted(twice.accepted))[-1] == Failed(
        "stream_state", "ACCEPTED is not due"
    )


# -- probes ----------------------------------------------------------------------------------------------


def test_a_probe_shows_the_identity_and_calls_no_service() -> None:
    ends = Ends(Mode.PROBE)
    assert ends.answer == [SendAccepted(ends.accepted), SendClose()]
    assert ends.one.handle(0.0, HopAccepted(ends.accepted)) == [
        SendClose(),
        Opened(OTHER.node_id),
        Finished(),
    ]
    assert ends.other.handle(0.0, HopClosed()) == [Finished()]


def test_a_probe_carries_no_data() -> None:
    ends = Ends(Mode.PROBE)
    with pytest.raises(StreamError, match="stream_state"):
        ends.one.write(b"x")
    assert isinstance(ends.other.handle(0.0, HopRecord(0, 4, bytes(16)))[-1], Failed)


# -- on a session ----------------------------------------------------------------------------------------


def closes(events: list[SessionEvent]) -> list[SessionClosed]:
    return [event for event in events if isinstance(event, SessionClosed)]


def test_perform_carries_out_everything_and_returns_the_events() -> None:
    net, dialer, _ = ready_pair()
    stream = net.host(1).open(dialer)
    net.run()
    assert stream.kinds() == ["Opened"]
    events = perform(
        net.now, dialer, stream.stream_id, [SendReset("cancelled"), Failed("cancelled"), DataReadable()]
    )
    assert events == [Failed("cancelled"), DataReadable()]
    assert dialer.streams() == ()


def finished_pair() -> tuple[Session, Session, list[str], list[str]]:
    net, dialer, listener = ready_pair()
    stream = net.host(1).open(dialer)
    net.run()
    (far,) = net.host(2).accepted
    stream.machine.write(b"ping")
    stream.machine.finish()
    net.run()
    far.machine.write(far.machine.read())
    far.machine.finish()
    net.run()
    assert stream.machine.read() == b"ping"
    return dialer, listener, stream.kinds(), far.kinds()


def test_a_finished_stream_leaves_nothing_behind() -> None:
    dialer, listener, one, other = finished_pair()
    assert one[-1] == other[-1] == "Finished"
    for session in (dialer, listener):
        assert session.streams() == ()
        assert session.counters == {}
        assert session.scheduler.queued == 0
        assert session._window.held == 0


def test_a_leased_open_names_its_route() -> None:
    _, opening = EndToEnd.initiate(
        0.0,
        ONE,
        CLUSTER,
        OTHER.node_id,
        "echo",
        TrafficClass.BULK,
        Random(1).randbytes,
        route=RouteRef(route_id="r", epoch=1, position=1),
    )
    assert isinstance(opening.open, OpenStream)
    assert opening.open.route == RouteRef(route_id="r", epoch=1, position=1)
