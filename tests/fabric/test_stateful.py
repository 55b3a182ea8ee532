"""Two nodes, any streams, any order of everything: a carrier that cuts and delays lanes as it likes.

Whatever happens, a reader gets exactly what was written, in order, up to the sealed end or a reset; no
correct peer ever breaks a rule of the wire; and when all is read nothing is held anywhere.
"""

from __future__ import annotations

from functools import partial
from random import Random

from hypothesis import Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fabric.classes import TrafficClass
from fabric.errors import StreamError
from fabric.lanes import LaneKey
from fabric.session import LaneData, Session, SessionConfig, StreamReset
from fabric.stream import Failed, HopReset, StreamConfig, perform
from tests.support.fabric_net import PLENTY, Chop, Net, Stream

FRAME = 66_576
TIGHT = SessionConfig(
    stream_window=4 * FRAME,
    stream_window_max=8 * FRAME,
    session_window=10 * FRAME,
    session_reserve=2 * FRAME,
    max_streams=6,
    shards={TrafficClass.BULK: 3, TrafficClass.INTERACTIVE: 2},
)
PATTERN = bytes(range(251)) * 2000


class End:
    """One end of a stream and what the model knows of it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.written = 0
        self.read = 0
        self.finished = False
        self.other: End | None = None


class TwoNodes(RuleBasedStateMachine):
    """The machine of Hypothesis: rules are what shells, services and networks may do."""

    @initialize(
        seed=st.integers(0, 1 << 32),
        largest=st.sampled_from([1, 7, 100, 1200, 70_000]),
        window=st.sampled_from([300, 20_000, 1 << 20]),
        proved=st.booleans(),
    )
    def connect(self, seed: int, largest: int, window: int, proved: bool) -> None:
        self.rng = Random(seed)
        # Byte by byte, a carrier of much data would take all the test's time.
        self.most = 1500 if largest < 100 else 100_000
        self.net = Net(Chop(Random(seed), largest))
        self.sessions = self.net.connect(1, 2, dialer_config=TIGHT, listener_config=TIGHT)
        for number in (1, 2):
            self.net.host(number).config = StreamConfig(
                window=window, window_max=2 * window, send_buffer=100_000
            )
        self.ends: list[End] = []
        self.lane_room = PLENTY
        self.net.room = lambda _session, _lane: self.lane_room
        if proved:
            self.net.run()

    # -- what services do --

    @rule(side=st.sampled_from([0, 1]), traffic_class=st.sampled_from(TrafficClass))
    def open(self, side: int, traffic_class: TrafficClass) -> None:
        try:
            stream = self.net.host(side + 1).open(self.sessions[side], traffic_class=traffic_class)
        except StreamError as error:
            assert error.code in {"too_many_streams", "not_ready"}  # noqa: PT017 - refusing is as good
            return
        self.ends.append(End(stream))

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 1000), size=st.integers(1, 150_000))
    def write(self, pick: int, size: int) -> None:
        end = self.ends[pick % len(self.ends)]
        if end.finished or self.failure(end):
            return
        start = end.written % 251
        end.written += end.stream.machine.write(PATTERN[start : start + min(size, self.most)])

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 1000))
    def finish(self, pick: int) -> None:
        end = self.ends[pick % len(self.ends)]
        end.finished = True
        end.stream.machine.finish()

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 1000), size=st.integers(1, 100_000))
    def read(self, pick: int, size: int) -> None:
        self.take(self.ends[pick % len(self.ends)], size)

    @precondition(lambda self: self.ends)
    @rule(pick=st.integers(0, 1000))
    def reset(self, pick: int) -> None:
        stream = self.ends[pick % len(self.ends)].stream
        outcome = stream.machine.reset("cancelled")
        stream.events += perform(self.net.now, stream.session, stream.stream_id, outcome)

    # -- what shells and networks do --

    @rule(
        side=st.sampled_from([0, 1]), lane_room=st.sampled_from([0, 500, 70_000, PLENTY]), total=st.booleans()
    )
    def send(self, side: int, lane_room: int, total: bool) -> None:
        self.lane_room = lane_room
        session = self.sessions[side]
        self.net.host(side + 1).pump()
        chunks = session.outgoing(self.net.now, partial(self.net.room, session), PLENTY if total else 0)
        for key, chunk in chunks:
            for piece in self.net.chop(bytes(chunk)):
                self.net.flows[session].send(key, piece)
        self.net.host(side + 1).take(session, session.take_events())
        self.lane_room = PLENTY

    @rule(side=st.sampled_from([0, 1]), count=st.integers(1, 60))
    def arrive(self, side: int, count: int) -> None:
        session = self.sessions[side]
        flow = self.net.flows[session]
        for _ in range(count):
            ready = flow.ready()
            if not ready:
                return
            lane_id = self.rng.choice(ready)
            self.arrived(session, lane_id, flow.lanes[lane_id].popleft())

    @rule()
    def everything_arrives(self) -> None:
        self.net.step()
        self.pair_up()

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.2]))
    def wait(self, seconds: float) -> None:
        self.net.now += seconds

    @rule(side=st.sampled_from([0, 1]))
    def ping(self, side: int) -> None:
        if self.sessions[side].ready:
            self.sessions[side].ping(self.net.now)

    # -- what must hold --

    @invariant()
    def nobody_breaks_a_rule(self) -> None:
        for session in getattr(self, "sessions", ()):
            assert not session.closed, self.net.owner[session].events[-1]
            assert set(session.counters) <= {"late_frames", "pings_dropped"}
            assert 0 <= session._window.held <= TIGHT.session_window

    @invariant()
    def nobody_reads_what_was_not_written(self) -> None:
        for end in getattr(self, "ends", ()):
            if end.other is not None:
                assert end.read + end.stream.machine.readable <= end.other.written

    def teardown(self) -> None:
        """Let everything through and end every stream: all that was written must be read."""
        if not hasattr(self, "net"):
            return
        for _ in range(2_000):
            self.net.now += 0.01
            moved = self.net.step()
            self.pair_up()
            for end in self.ends:
                moved |= not end.finished
                end.finished = True
                end.stream.machine.finish()
                moved |= self.take(end, 1 << 30)
            if not moved and all(session.scheduler.queued == 0 for session in self.sessions):
                break
        else:
            raise AssertionError("still moving, or stuck")
        self.nobody_breaks_a_rule()
        for end in self.ends:
            if not self.failure(end):
                assert end.stream.kinds()[-1] == "Finished", end.stream.events
                assert end.other is not None
                assert end.read == end.other.written
                assert end.stream.machine.at_end
        event(f"bytes: {len(str(sum(end.written for end in self.ends)))} digits, ends: {len(self.ends)}")
        for session in self.sessions:
            assert session.streams() == ()
            assert session._window.held == 0
            assert not session._outbox

    # -- parts --

    def arrived(self, session: Session, lane_id: int, data: bytes) -> None:
        far = self.net.far[session]
        self.net.owner[far].take(far, far.handle(self.net.now, LaneData(lane_id, data)))
        self.pair_up()

    def pair_up(self) -> None:
        """A stream the responder's service was called for is an end as well."""
        known = {id(end.stream) for end in self.ends}
        for number in (1, 2):
            for stream in self.net.host(number).accepted:
                if id(stream) not in known:
                    far = self.net.far[stream.session]
                    opener = next(
                        end
                        for end in self.ends
                        if end.stream.session is far and end.stream.stream_id == stream.stream_id
                    )
                    opener.other = End(stream)
                    opener.other.other = opener
                    self.ends.append(opener.other)

    def take(self, end: End, size: int) -> bool:
        data = end.stream.machine.read(size)
        start = end.read % 251
        assert data == (PATTERN[start:] * (len(data) // len(PATTERN) + 2))[: len(data)]
        end.read += len(data)
        return bool(data)

    @staticmethod
    def failure(end: End) -> str:
        return next((event.reason for event in end.stream.events if isinstance(event, Failed)), "")


TestTwoNodes = TwoNodes.TestCase
TestTwoNodes.settings = settings(max_examples=40, stateful_step_count=40, phases=set(Phase) - {Phase.explain})


def test_the_model_sees_a_lost_byte() -> None:
    """The check above is not vacuous: a carrier that drops a piece is found out."""
    net = Net()
    dialer, listener = net.connect(1, 2)
    stream = net.host(1).open(dialer)
    net.run()
    stream.machine.write(b"x" * 10_000)
    net.host(1).pump()
    ((lane, chunk),) = [
        part
        for part in dialer.outgoing(net.now, lambda _lane: PLENTY)
        if part[0] == LaneKey(TrafficClass.RELIABLE, 0)
    ][:1]
    lane_id = net.flows[dialer].ids[lane]
    net.host(2).take(listener, listener.handle(net.now, LaneData(lane_id, bytes(chunk)[:5000])))
    events = listener.handle(net.now, LaneData(lane_id, bytes(chunk)[5001:] + bytes(40_000)))
    assert listener.closed or any(isinstance(event, StreamReset) for event in events)
    assert stream.machine.handle(net.now, HopReset("route_failed")) == [Failed("route_failed")]
