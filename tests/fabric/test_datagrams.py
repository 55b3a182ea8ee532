"""Datagram mode: numbers, the replay window, what a slow reader loses, and the way through sessions."""

from __future__ import annotations

from collections import Counter
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits, wire
from fabric.classes import Mode, TrafficClass
from fabric.datagrams import OVERHEAD_BYTES, DatagramReceiver, DatagramSender
from fabric.errors import StreamError
from fabric.events import DataReadable, HopDatagram, SendDatagram, StreamConfig
from fabric.lanes import DATAGRAM_SHARD
from fabric.seal import RECORD_DATAGRAM, RECORD_EMPTY, RECORD_END, StreamKeys
from fabric.session import DatagramData, Session, SessionClosed, StreamDatagram, StreamReset
from fabric.stream import perform
from fabric.wire import SUITES, RouteRef
from tests.support.carriers import Ends
from tests.support.fabric_frames import DIRECT_OPEN
from tests.support.fabric_net import Chop, Net, Raw, Stream, ready_pair
from tests.support.hop_streams import ACCEPTED, LANE
from tests.support.leases import LEASE

ONE = StreamKeys(bytes(64), b"uid" + bytes(13), TrafficClass.BULK, initiator=True)
OTHER = StreamKeys(bytes(64), b"uid" + bytes(13), TrafficClass.BULK, initiator=False)


def sealed(count: int) -> list[SendDatagram]:
    sender = DatagramSender()
    return [sender.datagram(ONE, b"%d" % number) for number in range(count)]


def receiver() -> DatagramReceiver:
    return DatagramReceiver(Counter())


def take(into: DatagramReceiver, one: SendDatagram) -> bool:
    return into.datagram(OTHER, one.number, one.flags, one.ciphertext)


def drain(from_: DatagramReceiver) -> list[bytes]:
    found = []
    while (data := from_.next()) is not None:
        found.append(data)
    return found


# -- numbers and windows ---------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), max_size=120))
def test_each_number_is_taken_once_in_any_order(order: list[int]) -> None:
    into, all_ = receiver(), sealed(41)
    taken = [number for number in order if take(into, all_[number])]
    assert taken == list(dict.fromkeys(order))
    assert drain(into) == [b"%d" % number for number in taken]
    assert into.counters["datagrams_replayed"] == len(order) - len(taken)


def test_the_replay_window_reaches_back_so_far() -> None:
    window = limits.DATAGRAM_REPLAY_WINDOW
    all_ = sealed(window + 2)
    into = receiver()
    assert take(into, all_[window])
    assert take(into, all_[1])
    assert not take(into, all_[0])
    assert take(into, all_[window + 1])
    assert not take(into, all_[1])
    far = receiver()
    assert take(far, all_[0])
    assert take(far, all_[window + 1])
    assert not take(far, all_[0])


@pytest.mark.parametrize("change", ["number", "flags", "byte", "short"])
def test_a_forged_datagram_is_counted_and_changes_nothing(change: str) -> None:
    (genuine,) = sealed(1)
    number, flags, payload = genuine.number, genuine.flags, genuine.ciphertext
    if change == "number":
        number = 5
    elif change == "flags":
        flags = 0
    elif change == "byte":
        payload = bytes([payload[0] ^ 1]) + payload[1:]
    else:
        payload = payload[:10]
    into = receiver()
    assert not into.datagram(OTHER, number, flags, payload)
    assert into.counters == {"datagrams_invalid": 1}
    assert take(into, genuine)


def test_a_slow_reader_keeps_the_newest() -> None:
    into = receiver()
    for one in sealed(limits.DATAGRAM_QUEUE + 10):
        assert take(into, one)
    assert into.counters["datagrams_overrun"] == 10
    assert drain(into)[0] == b"10"
    assert into.readable == 0
    large = DatagramSender()
    for _ in range(10):
        take(into, large.datagram(ONE, bytes(60_000)))
    assert into.readable <= limits.DATAGRAM_QUEUE_BYTES


def test_the_lane_carries_only_what_opens_and_ends() -> None:
    sender, into = DatagramSender(), receiver()
    sender.owes_confirmation = True
    empty = sender.next_record(ONE)
    assert empty is not None
    assert empty.flags == RECORD_EMPTY
    sender.datagram(ONE, b"one")
    sender.finishing = True
    end = sender.next_record(ONE)
    assert end is not None
    assert (end.offset, end.flags) == (1, RECORD_END)
    assert sender.next_record(ONE) is None
    assert into.take(OTHER, empty.offset, empty.flags, empty.ciphertext)
    assert not into.ended
    with pytest.raises(StreamError, match="record_invalid"):
        into.take(OTHER, 2, RECORD_END, end.ciphertext)
    for flags, payload in ((0, bytes(17)), (RECORD_END, bytes(17)), (RECORD_DATAGRAM, bytes(16))):
        with pytest.raises(StreamError, match="record_shape"):
            into.take(OTHER, 0, flags, payload)
    assert into.take(OTHER, end.offset, end.flags, end.ciphertext)
    assert not into.take(OTHER, end.offset, end.flags, end.ciphertext)
    assert (into.position, into.at_end) == (1, True)


def test_an_end_counts_every_datagram() -> None:
    """One that was late may still come; one beyond the count, or another count, no sender makes."""
    all_, end = sealed(3), ONE.seal(2, RECORD_END, b"")
    into = receiver()
    assert take(into, all_[1])
    assert into.take(OTHER, 2, RECORD_END, end)
    assert take(into, all_[0])
    forged = all_[2].ciphertext[:-1] + b"x"
    assert not into.datagram(OTHER, 2, RECORD_DATAGRAM, forged), "a relay's word ends nothing"
    with pytest.raises(StreamError, match="record_after_end"):
        take(into, all_[2])
    with pytest.raises(StreamError, match="record_after_end"):
        into.take(OTHER, 3, RECORD_END, ONE.seal(3, RECORD_END, b""))
    short = receiver()
    assert take(short, all_[2])
    with pytest.raises(StreamError, match="record_after_end"):
        short.take(OTHER, 2, RECORD_END, end)
    assert short.take(OTHER, 3, RECORD_END, ONE.seal(3, RECORD_END, b""))


def test_an_end_is_kept_until_it_is_acknowledged() -> None:
    sender = DatagramSender()
    with pytest.raises(StreamError, match="bad_ack"):
        sender.acknowledge(1)
    sender.finishing = True
    end = sender.next_record(ONE)
    assert sender.kept() == [end]
    sender.resend()
    assert sender.next_record(ONE) is end
    assert not sender.acknowledge(0)
    assert sender.acknowledge(1)
    assert not sender.acknowledge(1)
    assert sender.kept() == []


def test_no_nonce_of_a_datagram_is_one_of_a_record() -> None:
    assert ONE.seal(0, RECORD_DATAGRAM, b"") != ONE.seal(0, RECORD_EMPTY, b"")
    assert RECORD_DATAGRAM & (RECORD_EMPTY | RECORD_END) == 0


# -- one end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_a_datagram_stream_ends_and_is_resumed_like_another(suite: str) -> None:
    ends = Ends(mode=Mode.DATAGRAM, config=StreamConfig(suites=(suite,)))
    ends.settle()
    (one,) = ends.initiator.send(b"first")
    assert isinstance(one, SendDatagram)
    assert ends.responder.handle(0.0, HopDatagram(one.number, one.flags, one.ciphertext)) == [DataReadable()]
    for hop in ends.hops:
        assert hop is not None
        hop.die()
    ends.notice(0)
    assert ends.initiator.send(b"lost on the way") == []
    ends.settle()
    (two,) = ends.initiator.send(b"second")
    assert isinstance(two, SendDatagram)
    assert two.number == 1
    ends.responder.handle(0.0, HopDatagram(two.number, two.flags, two.ciphertext))
    assert [ends.responder.receive(), ends.responder.receive(), ends.responder.receive()] == [
        b"first",
        b"second",
        None,
    ]
    ends.initiator.finish()
    ends.responder.finish()
    ends.settle()
    assert ends.responder.at_end
    assert ends.initiator.over
    assert ends.responder.over
    assert ends.finished(0)


# -- through sessions ------------------------------------------------------------------------------------


def opened(net: Net, session: Session, traffic_class: TrafficClass = TrafficClass.INTERACTIVE) -> Stream:
    stream = net.owner[session].open(session, traffic_class=traffic_class, mode=Mode.DATAGRAM)
    net.run()
    return stream


def send(net: Net, stream: Stream, *data: bytes) -> None:
    for one in data:
        perform(net.now, stream.session, stream.stream_id, stream.machine.send(one))


def received(stream: Stream) -> list[bytes]:
    found = []
    while (data := stream.machine.receive()) is not None:
        found.append(data)
    return found


@pytest.mark.parametrize("traffic_class", list(TrafficClass))
def test_datagrams_go_both_ways_in_every_class(traffic_class: TrafficClass) -> None:
    net, dialer, _ = ready_pair()
    one = opened(net, dialer, traffic_class)
    (other,) = net.host(2).accepted
    send(net, one, b"there", b"")
    send(net, other, b"back")
    net.run()
    assert received(other) == [b"there", b""]
    assert received(one) == [b"back"]
    for end in (one, other):
        end.machine.finish()
    net.run()
    assert one.kinds()[-1] == other.kinds()[-1] == "Finished"
    assert dialer.streams() == ()


def test_no_credit_is_asked_and_losses_are_gaps() -> None:
    net = Net(Chop(Random(3), 1 << 20))
    dialer, _ = net.connect(1, 2)
    net.run()
    one = opened(net, dialer)
    sent_before = dialer.scheduler.session_credit.sent
    (other,) = net.host(2).accepted
    net.datagram_loss = 0.3
    for number in range(200):
        send(net, one, b"%d" % number)
        net.run()
    got = [int(data) for data in received(other)]
    assert 100 < len(got) < 180
    assert got == sorted(set(got))
    assert dialer.scheduler.session_credit.sent == sent_before


def test_too_many_that_wait_lose_the_oldest_and_hold_up_nobody() -> None:
    net, dialer, _ = ready_pair()
    one = opened(net, dialer, TrafficClass.BULK)
    (other,) = net.host(2).accepted
    send(net, one, *(b"%d" % number for number in range(limits.DATAGRAM_QUEUE + 5)))
    assert dialer.counters["datagrams_dropped"] == 5
    net.run()
    assert received(other)[0] == b"5"
    send(net, one, *(bytes(1000) for _ in range(400)))
    assert dialer.scheduler.queued <= limits.DATAGRAM_QUEUE_BYTES


def test_an_express_claim_over_its_rate_waits_with_the_rest() -> None:
    net, dialer, _ = ready_pair()
    one = opened(net, dialer, TrafficClass.DNS)
    _, burst = limits.SCHEDULER_STREAM_RATES[TrafficClass.DNS]
    size = 1100
    for _ in range(2 * burst // size):
        send(net, one, bytes(size))
        dialer.outgoing(net.now, lambda lane: 1 << 20 if lane.shard == DATAGRAM_SHARD else 0, 0)
    assert dialer.scheduler.queued > 0, "with no room for the rest, only the burst went"
    assert dialer.datagrams_outgoing(net.now) == []


def test_what_the_carrier_does_not_fetch_is_dropped() -> None:
    net, dialer, _ = ready_pair()
    one = opened(net, dialer)
    send(net, one, b"late")
    dialer.outgoing(net.now, lambda _lane: 1 << 20)
    dialer.outgoing(net.now, lambda _lane: 1 << 20)
    assert dialer.datagrams_outgoing(net.now) == []


def raw_datagram(stream_id: int = 2) -> bytes:
    return wire.encode_data_head(stream_id, 0, RECORD_DATAGRAM, 20) + bytes(20)


def accepted(mode: Mode) -> tuple[Net, Session]:
    """A listener's session with one stream of a raw peer."""
    net, _, listener = ready_pair()
    net.host(2).accepts = False
    opening = msgspec.structs.replace(DIRECT_OPEN, mode=int(mode))
    Raw(net, listener).send(wire.encode_map(opening, 2), LANE)
    listener.accept_stream(net.now, 2, ACCEPTED)
    return net, listener


def test_a_datagram_is_for_a_stream_of_its_mode() -> None:
    net, listener = accepted(Mode.DATAGRAM)
    (event,) = listener.handle(net.now, DatagramData(raw_datagram()))
    assert event == StreamDatagram(2, 0, RECORD_DATAGRAM, bytes(20), 44)
    net, listener = accepted(Mode.STREAM)
    (event,) = listener.handle(net.now, DatagramData(raw_datagram()))
    assert isinstance(event, StreamReset)
    assert event.reason == "stream_state"
    net, listener = accepted(Mode.STREAM)
    with pytest.raises(StreamError, match="stream_state"):
        listener.send_datagram(net.now, 2, 0, 8, b"")


def test_a_datagram_may_come_before_its_stream_and_after() -> None:
    net, listener = accepted(Mode.DATAGRAM)
    assert listener.handle(net.now, DatagramData(raw_datagram(4))) == []
    listener.reset_stream(net.now, 2, "cancelled")
    assert listener.handle(net.now, DatagramData(raw_datagram())) == []
    assert listener.counters["datagrams_dropped"] == 2


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "truncated_frame"),
        (raw_datagram()[:15], "truncated_frame"),
        (wire.encode_frame(wire.FrameType.DATA, 2, bytes(7)), "unexpected_datagram"),
        (wire.encode_frame(99, 2, b"later", wire.FLAG_CRITICAL), "unknown_critical_frame"),
        (raw_datagram()[:-1], "truncated_frame"),
        (raw_datagram() + b"x", "truncated_frame"),
        (b"\x02" + raw_datagram()[1:], "unsupported_version"),
        (raw_datagram(0), "unexpected_datagram"),
        (wire.encode_ping(0, 1, 2), "unexpected_datagram"),
    ],
)
def test_what_no_correct_peer_sends_ends_the_session(data: bytes, code: str) -> None:
    net, listener = accepted(Mode.DATAGRAM)
    (closed,) = listener.handle(net.now, DatagramData(data))
    assert isinstance(closed, SessionClosed)
    assert closed.code == code


# -- through a relay -------------------------------------------------------------------------------------


def test_a_relay_passes_datagrams_counts_them_and_cannot_forge_or_replay_them() -> None:
    net = Net()
    first, _ = net.connect(1, 2)
    net.connect(2, 3)
    net.run()
    relay = net.host(2).relays()
    for number in (1, 2, 3):
        net.host(number).leases["r"] = LEASE
    route = RouteRef(route_id="r", epoch=LEASE.epoch, position=1)
    one = net.host(1).open(
        first, "echo", TrafficClass.RELIABLE, to=net.host(3), route=route, mode=Mode.DATAGRAM
    )
    net.run()
    (other,) = net.host(3).accepted
    (account,) = relay.accounts.values()
    before = account.bytes_forward
    send(net, one, b"through")
    net.run()
    assert received(other) == [b"through"]
    assert account.bytes_forward == before + len(b"through") + OVERHEAD_BYTES
    # What the relay has seen, as often as it likes; what it makes up.
    (sent,) = one.machine.send(b"again")
    assert isinstance(sent, SendDatagram)
    forged = bytes([sent.ciphertext[0] ^ 1]) + sent.ciphertext[1:]
    for number, payload in ((1, sent.ciphertext), (1, sent.ciphertext), (1, forged), (99, forged)):
        head = wire.encode_data_head(other.stream_id, number, sent.flags, len(payload))
        net.host(3).take(other.session, other.session.handle(net.now, DatagramData(head + payload)))
    assert received(other) == [b"again"]
    assert other.machine.counters["datagrams_replayed"] == 2
    assert other.machine.counters["datagrams_invalid"] == 1
    assert other.kinds()[-1] == "DataReadable"
