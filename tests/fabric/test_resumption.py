"""Streams that outlive their carriers: nothing lost, nothing doubled, whatever dies and whenever."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabric.classes import Mode
from fabric.errors import StreamError
from fabric.events import Failed, HopLost, HopRecord, Resumed, StreamConfig, StreamTimer, Suspended
from fabric.wire import SUITES, RouteRef
from tests.support.carriers import Ends, Hop

PATTERN = bytes(range(251)) * 1000


def opened(**config: int) -> Ends:
    ends = Ends(config=StreamConfig(**config) if config else None)
    ends.settle()
    return ends


def cut(ends: Ends) -> None:
    """The carrier dies and both ends know it."""
    for hop in ends.hops:
        if hop is not None:
            hop.die()
    ends.notice(0)
    ends.notice(1)


@pytest.mark.parametrize("suite", SUITES)
def test_a_stream_goes_on_at_the_record_where_it_was(suite: str) -> None:
    ends = Ends(config=StreamConfig(suites=(suite,)))
    ends.settle()
    ends.initiator.write(b"one ")
    ends.settle()
    ends.initiator.write(b"two ")
    ends.pump(0)
    cut(ends)
    ends.initiator.write(b"three")
    assert ends.events[0][-1] == Suspended("route_failed")
    assert not ends.initiator.bound
    ends.settle()
    assert ends.responder.read() == b"one two three"
    assert ends.initiator.counters["records_resent"] == 1
    assert Resumed() in ends.events[0]
    assert Resumed() in ends.events[1]


def test_without_a_carrier_nothing_is_pulled_and_the_writer_is_bounded() -> None:
    ends = opened(send_buffer=1000)
    cut(ends)
    assert ends.initiator.write(bytes(5000)) == 1000
    assert ends.initiator.pull(0.0, 1 << 20) == []
    assert ends.initiator.write(b"x") == 0


def test_a_resend_is_the_identical_ciphertext() -> None:
    ends = opened()
    ends.initiator.write(b"sealed once")
    ends.pump(0)
    hop = ends.hops[0]
    assert hop is not None
    before = list(hop.lanes[1])
    cut(ends)
    again = ends.resume()
    assert again is not None
    ends.open(again)
    ends.deliver(0, again, control=False)
    ends.pump(0)
    assert list(again.lanes[1]) == before


def test_both_ends_wait_their_time_and_no_longer() -> None:
    for side in (0, 1):
        ends = opened(hold_s=7)
        cut(ends)
        end = ends.ends[side]
        assert end is not None
        assert end.timer() == 7.0
        assert end.handle(6.9, StreamTimer()) == []
        (_, failed) = end.handle(7.0, StreamTimer())
        assert failed == Failed("route_failed", "no other way in 7 s")
        assert end.timer() is None


def test_a_failed_attempt_does_not_prolong_the_wait() -> None:
    ends = opened(hold_s=7)
    cut(ends)
    ends.now = 5.0
    hop = ends.resume()
    assert hop is not None
    hop.die()
    ends.notice(0)
    assert ends.initiator.timer() == 7.0
    assert ends.initiator.handle(7.0, StreamTimer())[-1] == Failed("route_failed", "no other way in 7 s")


def test_the_shorter_hold_counts_and_none_is_none() -> None:
    ends = opened(hold_s=0)
    (failed,) = ends.initiator.handle(0.0, HopLost())
    assert failed == Failed("route_failed")
    (failed,) = ends.responder.handle(0.0, HopLost())
    assert failed == Failed("route_failed")
    with pytest.raises(StreamError, match="stream_state"):
        ends.initiator.resume(0.0)


def test_the_other_end_may_not_know_yet_that_the_carrier_is_lost() -> None:
    ends = opened()
    ends.responder.write(b"to be sent again")
    ends.pump(1)
    hop = ends.hops[0]
    assert hop is not None
    hop.die()
    ends.notice(0)
    assert ends.responder.bound
    ends.settle()
    assert ends.initiator.read() == b"to be sent again"


def test_a_stream_moves_from_a_carrier_that_lives() -> None:
    ends = opened()
    ends.initiator.write(b"a")
    ends.settle()
    assert ends.initiator.bound
    ends.resume()
    ends.initiator.write(b"b")
    ends.settle()
    assert ends.responder.read() == b"ab"


def test_while_a_way_is_tried_the_stream_is_on_no_other() -> None:
    """A lease that ends meanwhile must not end an attempt that does not use it."""
    ends = opened()
    lease = RouteRef(route_id="r-1", epoch=1, position=1)
    for route in (lease, None):
        before = ends.initiator.route
        cut(ends)
        assert ends.initiator.route == before
        opening = ends.initiator.resume(ends.now, route)
        assert opening.open.route == route
        assert ends.initiator.route == route
        ends.initiator.handle(ends.now, HopLost())
        assert ends.initiator.route == before
        hop = ends.resume(route)
        assert hop is not None
        ends.settle()
        assert ends.initiator.bound
        assert ends.initiator.route == route


def test_a_stream_lost_before_its_first_record_is_confirmed_by_the_resumption() -> None:
    ends = Ends()
    first = ends.hops[0]
    assert first is not None
    ends.open(first)
    ends.deliver(0, first, control=False)
    ends.initiator.write(b"never arrived")
    ends.pump(0)
    cut(ends)
    assert ends.events[1] == [Suspended("route_failed")]
    ends.settle()
    assert [type(e).__name__ for e in ends.events[1]][:3] == ["Suspended", "Resumed", "Opened"]
    assert ends.responder.read() == b"never arrived"


def test_an_end_that_finished_tells_the_other_that_missed_it() -> None:
    """The last acknowledgement is lost with the carrier, towards either end."""
    for last in (0, 1):
        ends = opened()
        first, second = (ends.responder, ends.initiator) if last else (ends.initiator, ends.responder)
        second.finish()
        ends.settle()
        first.finish()
        side = 0 if first is ends.initiator else 1
        ends.pump(side)
        hop = ends.hops[0]
        assert hop is not None
        while ends.deliver(1 - side, hop, control=False):
            assert hop.delivered[1 - side]
        assert ends.finished(1 - side)
        assert not ends.finished(side)
        cut(ends)
        assert not ends.failure(0)
        assert not ends.failure(1)
        ends.settle()
        assert ends.finished(0)
        assert ends.finished(1)
        assert ends.initiator.over
        assert ends.responder.over


def test_a_finished_stream_whose_other_end_knows_ends_in_silence() -> None:
    ends = opened()
    ends.initiator.finish()
    ends.responder.finish()
    ends.settle()
    assert ends.initiator.over
    assert ends.responder.over
    assert ends.initiator.handle(0.0, HopLost()) == []


def test_an_unknown_stream_is_gone_and_that_is_final() -> None:
    ends = opened()
    cut(ends)
    ends.responder.reset()
    assert ends.responder.over
    ends.settle()
    assert ends.failure(0) == "gone"


def test_other_refusals_are_of_one_way_only() -> None:
    ends = opened()
    cut(ends)
    hop = ends.resume()
    assert hop is not None
    ends.hops[0] = None
    from fabric.events import HopReset  # noqa: PLC0415 - one use

    assert ends.initiator.handle(0.0, HopReset("next_hop_unreachable")) == [Suspended("next_hop_unreachable")]
    ends.settle()
    assert ends.initiator.bound


def test_a_captured_resumption_is_good_once() -> None:
    ends = opened()
    cut(ends)
    ends.settle()
    captured = ends.openings[-1]
    ends.initiator.write(b"after")
    ends.settle()
    assert ends.open(Hop(captured.opening)) == "resume_stale"
    # One that was held back on the way is as stale once a newer one was here.
    cut(ends)
    held = ends.resume()
    assert held is not None
    held_opening = held.opening
    held.die()
    ends.notice(0)
    ends.settle()
    assert ends.open(Hop(held_opening)) == "resume_stale"
    ends.initiator.write(b" all")
    ends.settle()
    assert ends.responder.read() == b"after all"


def test_a_captured_open_does_not_make_a_second_stream() -> None:
    ends = opened()
    assert ends.open(Hop(ends.openings[0].opening)) == "uid_in_use"
    ends.initiator.write(b"unharmed")
    ends.settle()
    assert ends.responder.read() == b"unharmed"


def test_datagrams_of_a_probe_are_never_held() -> None:
    ends = Ends(mode=Mode.PROBE)
    assert ends.openings[0].opening.hold_s == 0
    ends.settle()
    assert ends.finished(0)


class Carriers(RuleBasedStateMachine):
    """What services, networks and hostile relays may do to two ends of one stream."""

    @initialize(seed=st.integers(0, 1 << 32), window=st.sampled_from([300, 20_000]))
    def begin(self, seed: int, window: int) -> None:
        config = StreamConfig(window=window, window_max=2 * window, send_buffer=30_000, hold_s=3600)
        self.net = Ends(seed, config=config)
        self.written = [0, 0]
        self.read = [0, 0]
        self.finished = [False, False]

    @precondition(lambda self: hasattr(self, "net"))
    @rule(side=st.sampled_from([0, 1]), size=st.integers(1, 40_000))
    def write(self, side: int, size: int) -> None:
        end = self.net.ends[side]
        if end is None or self.finished[side] or end.over:
            return
        start = self.written[side] % 251
        self.written[side] += end.write(PATTERN[start : start + size])

    @rule(side=st.sampled_from([0, 1]))
    def finish(self, side: int) -> None:
        end = self.net.ends[side]
        if end is not None:
            self.finished[side] = True
            end.finish()

    @rule(side=st.sampled_from([0, 1]), size=st.integers(1, 40_000))
    def take(self, side: int, size: int) -> None:
        end = self.net.ends[side]
        if end is not None:
            data = end.read(size)
            start = self.read[side] % 251
            assert data == PATTERN[start : start + len(data)]
            self.read[side] += len(data)

    @rule(side=st.sampled_from([0, 1]), room=st.sampled_from([1, 5000, 1 << 20]))
    def pump(self, side: int, room: int) -> None:
        self.net.pump(side, room)

    @rule(side=st.sampled_from([0, 1]), count=st.integers(1, 20), order=st.randoms(use_true_random=False))
    def arrive(self, side: int, count: int, order: Any) -> None:
        for _ in range(count):
            hop = order.choice(self.net.openings)
            if side == 1 and not hop.opened:
                self.net.open(hop)
            else:
                self.net.deliver(side, hop, control=order.random() < 0.5)

    @rule(side=st.sampled_from([0, 1]), pick=st.integers(0, 1000))
    def a_copy_of_a_record_arrives(self, side: int, pick: int) -> None:
        end, hop = self.net.ends[side], self.net.hops[side]
        if end is None or hop is None or hop.dead or not hop.delivered[side] or not end.bound:
            return
        copy = hop.delivered[side][pick % len(hop.delivered[side])]
        self.net.perform(side, end.handle(0.0, HopRecord(copy.offset, copy.flags, copy.ciphertext)))

    @rule(pick=st.integers(0, 1000))
    def a_captured_open_arrives(self, pick: int) -> None:
        hop = self.net.openings[pick % len(self.net.openings)]
        # One that never got there is no copy: its first arrival is the attempt itself, whoever brings it.
        if hop.arrived and self.net.ends[1] is not None and not self.net.responder.over:
            before = self.net.hops[1]
            assert self.net.open(Hop(hop.opening)) in ("resume_stale", "uid_in_use", "gone")
            assert self.net.hops[1] is before

    @rule(pick=st.integers(0, 1000))
    def die(self, pick: int) -> None:
        hop = self.net.openings[pick % len(self.net.openings)]
        # What dies before the first ACCEPTED is a stream that was never opened.
        if hop is not self.net.openings[0] or (self.net.ends[1] is not None and not hop.lanes[0]):
            hop.die()

    @rule(side=st.sampled_from([0, 1]))
    def notice(self, side: int) -> None:
        self.net.notice(side)

    @rule()
    def resume(self) -> None:
        self.net.resume()

    @invariant()
    def nobody_fails_and_nobody_reads_what_was_not_written(self) -> None:
        if not hasattr(self, "net"):
            return
        for side in (0, 1):
            assert self.net.failure(side) == ""
            end = self.net.ends[side]
            if end is not None:
                assert self.read[side] + end.readable <= self.written[1 - side]

    def teardown(self) -> None:
        if not hasattr(self, "net"):
            return
        for _ in range(400):
            self.net.settle()
            before = list(self.read)
            for side in (0, 1):
                self.finish(side)
                self.take(side, 1 << 20)
            if before == self.read and self.net.initiator.over and self.net.responder.over:
                break
        assert self.read == [self.written[1], self.written[0]]
        assert self.net.finished(0)
        assert self.net.finished(1)


TestCarriers = Carriers.TestCase
TestCarriers.settings = settings(max_examples=60, stateful_step_count=50, phases=set(Phase) - {Phase.explain})
