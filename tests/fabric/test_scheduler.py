"""Which frame goes next: urgency, tokens, weights, turns, room and credit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.classes import TrafficClass
from fabric.lanes import LaneKey
from fabric.scheduler import Item, Pulled, Ring, Scheduler, StreamQueue

MIB = 1 << 20
KIB = 1 << 10
FULL = 65_576


def room_of(size: int) -> Callable[[LaneKey], int]:
    return lambda _lane: size


class World:
    """A scheduler with plenty of credit, and named streams."""

    def __init__(self, session_credit: int = 1 << 40, reserve: int = 0) -> None:
        self.scheduler = Scheduler(0.0)
        self.scheduler.session_credit.allow(session_credit)
        self.scheduler.reserve = reserve
        self.queues: dict[int, StreamQueue] = {}

    def stream(
        self,
        traffic_class: TrafficClass,
        *,
        shard: int = 0,
        tenant: str = "",
        credit: int = 1 << 40,
    ) -> StreamQueue:
        stream_id = 2 * len(self.queues) + 2
        queue = StreamQueue(stream_id, LaneKey(traffic_class, shard), credit, 0.0)
        self.queues[stream_id] = queue
        self.scheduler.move(queue, tenant)
        return queue

    def push(self, queue: StreamQueue, count: int = 1, size: int = FULL) -> None:
        for number in range(count):
            self.scheduler.push(queue, Item(number.to_bytes(24), bytes(size - 24), data=True))

    def pull(self, room: int = MIB, total: int = 1 << 40, now: float = 0.0) -> list[Pulled]:
        return self.scheduler.pull(now, room_of(room), total)


def ids(pulled: list[Pulled]) -> list[int]:
    return [queue.stream_id for queue, _ in pulled]


def classes(pulled: list[Pulled]) -> list[str]:
    return [queue.lane.traffic_class.name for queue, _ in pulled]


# -- urgency ---------------------------------------------------------------------------------------------


def test_an_interactive_frame_passes_a_saturated_bulk_queue_in_the_next_pull() -> None:
    world = World()
    bulk = world.stream(TrafficClass.BULK)
    world.push(bulk, 100)
    world.pull(room=128 * KIB, total=512 * KIB)
    interactive = world.stream(TrafficClass.INTERACTIVE)
    world.push(interactive, size=200)
    pulled = world.pull(room=128 * KIB, total=512 * KIB)
    assert classes(pulled)[0] == "INTERACTIVE"
    # Even when bulk has used up what the session may have untransmitted.
    world.push(interactive, size=200)
    assert classes(world.pull(room=128 * KIB, total=0)) == ["INTERACTIVE"]


def test_classes_go_in_order() -> None:
    world = World()
    for traffic_class in reversed(TrafficClass):
        world.push(world.stream(traffic_class), size=100)
    found = classes(world.pull())
    assert found[:3] == ["CONTROL", "DNS", "INTERACTIVE"]
    assert sorted(found[3:]) == ["BULK", "DROPPABLE", "RELIABLE"]


def test_frames_of_one_stream_keep_their_order() -> None:
    world = World()
    queue = world.stream(TrafficClass.RELIABLE)
    world.push(queue, 50, size=1000)
    heads = [item.head for _, item in world.pull()]
    assert heads == sorted(heads)
    assert len(heads) == 50


def test_an_interactive_claim_over_its_rate_is_scheduled_with_the_rest() -> None:
    world = World()
    liar = world.stream(TrafficClass.INTERACTIVE)
    honest = world.stream(TrafficClass.RELIABLE)
    world.push(liar, 400, size=10_000)
    world.push(honest, 400, size=10_000)
    pulled = world.pull(room=1 << 40, total=3 * MIB)
    burst = limits.SCHEDULER_STREAM_RATES[2][1] // 10_000
    assert ids(pulled)[:burst] == [liar.stream_id] * burst
    rest = Counter(ids(pulled)[burst:])
    # By weight: what is over its rate never gets more than honest reliable traffic.
    assert rest[honest.stream_id] > 1.7 * rest[liar.stream_id] > 0


def test_of_what_is_over_its_rate_no_class_goes_before_another() -> None:
    world = World()
    flood, desktop = world.stream(TrafficClass.CONTROL), world.stream(TrafficClass.INTERACTIVE)
    world.push(flood, 100)
    world.push(desktop, 5000, size=1000)
    world.pull(room=1 << 40, total=0)
    sent = Counter[int]()
    for queue, item in world.pull(room=1 << 40, total=3 * MIB):
        sent[queue.stream_id] += item.size
    assert sent[flood.stream_id] == pytest.approx(sent[desktop.stream_id], rel=0.1)
    assert sent.total() > 3 * MIB - FULL


def test_tokens_come_back_with_time() -> None:
    world = World()
    queue = world.stream(TrafficClass.DNS)
    world.push(queue, 400, size=1000)
    rate, burst = limits.SCHEDULER_STREAM_RATES[1]
    assert len(world.pull(total=0)) == burst // 1000
    assert world.pull(total=0) == []
    assert len(world.pull(total=0, now=20_000 / rate)) == 20


def test_a_neighbours_streams_share_one_allowance() -> None:
    world = World()
    _, burst = limits.SCHEDULER_NODE_RATES[1]
    for _ in range(8):
        world.push(world.stream(TrafficClass.DNS), 300, size=1000)
    assert len(world.pull(total=0, room=1 << 40)) == burst // 1000


# -- shares ----------------------------------------------------------------------------------------------


def test_reliable_and_bulk_share_by_weight_even_one_frame_at_a_time() -> None:
    world = World()
    reliable, bulk = world.stream(TrafficClass.RELIABLE), world.stream(TrafficClass.BULK)
    world.push(reliable, 400)
    world.push(bulk, 400)
    sent = Counter(name for _ in range(300) for name in classes(world.pull(total=FULL)))
    assert sum(sent.values()) == 300
    assert 1.8 < sent["RELIABLE"] / sent["BULK"] < 2.2


def test_a_share_that_is_not_used_is_not_saved() -> None:
    world = World()
    reliable, bulk = world.stream(TrafficClass.RELIABLE), world.stream(TrafficClass.BULK)
    world.push(bulk, 100)
    for _ in range(50):
        world.pull(total=FULL)
    world.push(reliable, 100)
    sent = Counter(name for _ in range(60) for name in classes(world.pull(total=FULL)))
    assert 10 <= sent["BULK"] <= 25


def test_droppable_goes_too() -> None:
    world = World()
    reliable, droppable = world.stream(TrafficClass.RELIABLE), world.stream(TrafficClass.DROPPABLE)
    world.push(reliable, 400)
    world.push(droppable, 400)
    sent = Counter(name for _ in range(180) for name in classes(world.pull(total=FULL)))
    assert 10 <= sent["DROPPABLE"] <= 30


def test_streams_take_turns_byte_for_byte() -> None:
    world = World()
    large, small = (world.stream(TrafficClass.BULK, shard=n) for n in (0, 1))
    world.push(large, 100)
    world.push(small, 10_000, size=1000)
    sent: Counter[int] = Counter()
    for queue, item in world.pull(room=1 << 40, total=2 * MIB):
        sent[queue.stream_id] += item.size
    assert 0.8 < sent[large.stream_id] / sent[small.stream_id] < 1.25


def test_tenants_take_turns_however_many_streams_they_have() -> None:
    world = World()
    greedy = [world.stream(TrafficClass.RELIABLE, tenant="greedy") for _ in range(9)]
    modest = world.stream(TrafficClass.RELIABLE, tenant="modest")
    for queue in (*greedy, modest):
        world.push(queue, 50)
    sent = Counter(queue.tenant for queue, _ in world.pull(room=1 << 40, total=40 * FULL))
    assert sent == {"greedy": 20, "modest": 20}


# -- room ------------------------------------------------------------------------------------------------


def test_a_lanes_room_is_obeyed_but_for_a_frame_larger_than_all_of_it() -> None:
    world = World()
    queue = world.stream(TrafficClass.RELIABLE)
    world.push(queue, 10)
    assert len(world.pull(room=128 * KIB)) == 1
    assert len(world.pull(room=2 * FULL)) == 2
    assert world.pull(room=FULL - 1) == []
    assert world.pull(room=0) == []
    small = World()
    queue = small.stream(TrafficClass.RELIABLE)
    small.push(queue, 3)
    assert len(small.pull(room=1000)) == 1  # nothing else would ever let it go
    assert small.pull(room=999) == []


def test_a_full_lane_does_not_hold_up_the_others() -> None:
    world = World()
    stuck, free = (world.stream(TrafficClass.BULK, shard=n) for n in (0, 1))
    world.push(stuck, 5)
    world.push(free, 5)
    pulled = world.scheduler.pull(0.0, lambda lane: 0 if lane.shard == 0 else MIB, 1 << 40)
    assert ids(pulled) == [free.stream_id] * 5


def test_a_full_lane_is_found_full_once_however_many_streams_wait_for_it() -> None:
    world = World()
    for _ in range(500):
        world.push(world.stream(TrafficClass.BULK), 2)
    fits, looked = world.scheduler._fits, Counter[str]()

    def counted(queue: StreamQueue) -> bool:
        looked["queues"] += 1
        return fits(queue)

    world.scheduler._fits = counted  # type: ignore[method-assign]  # counts, and answers as before
    assert len(world.pull(room=3 * FULL)) == 3
    assert looked["queues"] <= 5


@pytest.mark.parametrize("shard", [0, 1], ids=["one lane", "a lane each"])
@pytest.mark.parametrize("tenant", ["", "another"], ids=["one tenant", "two tenants"])
@pytest.mark.parametrize("small", [1000, 16_400])
def test_small_frames_do_not_pass_a_large_one_for_ever(shard: int, tenant: str, small: int) -> None:
    """The lanes empty a little at a time, as they do on a link that is full."""
    world = World()
    streams = [world.stream(TrafficClass.BULK), world.stream(TrafficClass.BULK, shard=shard, tenant=tenant)]
    sizes = dict(zip((stream.stream_id for stream in streams), (FULL, small), strict=True))
    unsent: Counter[LaneKey] = Counter()
    sent: Counter[int] = Counter()
    for _ in range(300):
        for stream in streams:
            while stream.queued < 2 * FULL:
                world.push(stream, size=sizes[stream.stream_id])
        pulled = world.scheduler.pull(
            0.0,
            lambda lane: max(0, limits.LANE_UNSENT_BYTES - unsent[lane]),
            max(0, limits.SESSION_UNSENT_BYTES - unsent.total()),
        )
        for queue, item in pulled:
            unsent[queue.lane] += item.size
            sent[queue.stream_id] += item.size
        for lane in unsent:
            unsent[lane] -= min(unsent[lane], 20_000)
    large, little = (sent[stream.stream_id] for stream in streams)
    assert large == pytest.approx(little, rel=0.1)
    assert large > 2_000_000


def test_bulk_shrinks_while_interactive_flows_and_recovers() -> None:
    world = World()
    bulk, interactive = world.stream(TrafficClass.BULK), world.stream(TrafficClass.INTERACTIVE)
    world.push(bulk, 20)
    assert classes(world.pull(room=256 * KIB)) == ["BULK"] * 3
    world.push(interactive, size=100)
    half_full = 80 * KIB
    assert classes(world.pull(room=half_full, now=1.0)) == ["INTERACTIVE"]
    # The lane is nearly empty: bulk goes on, it is not starved.
    assert classes(world.pull(room=256 * KIB, now=1.01)) == ["BULK"] * 3
    later = 1.0 + limits.SCHEDULER_PRESSURE_HOLD_S
    assert classes(world.pull(room=half_full, now=later)) == ["BULK"]


def test_reliable_does_not_shrink() -> None:
    world = World()
    reliable, interactive = world.stream(TrafficClass.RELIABLE), world.stream(TrafficClass.INTERACTIVE)
    world.push(reliable)
    world.pull(room=256 * KIB)
    world.push(reliable)
    world.push(interactive, size=100)
    assert classes(world.pull(room=80 * KIB)) == ["INTERACTIVE", "RELIABLE"]


# -- credit ----------------------------------------------------------------------------------------------


def test_a_stream_without_credit_stops_itself_and_nothing_else() -> None:
    world = World()
    blocked = world.stream(TrafficClass.BULK, credit=FULL)
    free = world.stream(TrafficClass.BULK)
    world.push(blocked, 3)
    world.push(free, 3)
    assert Counter(ids(world.pull())) == {blocked.stream_id: 1, free.stream_id: 3}
    assert not world.scheduler.has_output()
    world.scheduler.allow(blocked, 2 * FULL)
    assert ids(world.pull()) == [blocked.stream_id]


def test_frames_without_data_need_no_credit() -> None:
    world = World(session_credit=0)
    queue = world.stream(TrafficClass.BULK, credit=0)
    world.scheduler.push(queue, Item(b"open"))
    world.push(queue)
    assert [item.head for _, item in world.pull()] == [b"open"]


def test_the_end_of_the_sessions_credit_is_for_express() -> None:
    world = World(session_credit=3 * FULL, reserve=FULL)
    bulk, interactive = world.stream(TrafficClass.BULK), world.stream(TrafficClass.INTERACTIVE)
    world.push(bulk, 5)
    assert len(world.pull()) == 2
    world.push(interactive, 5)
    assert classes(world.pull(now=1.0)) == ["INTERACTIVE"]
    assert world.scheduler.session_credit.left == 0
    world.scheduler.session_credit.allow(5 * FULL)
    assert classes(world.pull(now=2.0)) == ["INTERACTIVE", "INTERACTIVE"]


def test_dropping_a_stream_forgets_its_frames() -> None:
    world = World()
    queue = world.stream(TrafficClass.BULK)
    world.push(queue, 3)
    assert world.scheduler.queued == 3 * FULL
    world.scheduler.drop(queue)
    assert world.scheduler.queued == 0
    assert not world.scheduler.has_output()
    assert world.pull() == []


def test_a_ring_is_left_clean() -> None:
    ring = Ring()
    queue = StreamQueue(2, LaneKey(TrafficClass.BULK, 0), 0, 0.0)
    ring.add(queue)
    ring.add(queue)
    assert ring.tenants
    ring.remove(queue)
    ring.remove(queue)
    assert not ring.tenants
    assert ring.find(lambda _queue: True, set()) is None


def test_a_class_in_debt_goes_on_when_nobody_else_has_anything() -> None:
    """One large frame leaves the lightest class deep in debt; the next must not wait for another pull."""
    world = World()
    queue = world.stream(TrafficClass.DROPPABLE)
    for size in (FULL, 30):
        world.scheduler.push(queue, Item(bytes(24), bytes(size - 24), data=True))
    assert len(world.pull(1 << 30)) == 2
    assert not world.scheduler.has_output()


@given(
    st.lists(
        st.tuples(
            st.sampled_from(TrafficClass), st.integers(0, 3), st.integers(30, FULL), st.sampled_from("ab")
        ),
        max_size=60,
    ),
    st.lists(st.tuples(st.integers(0, 300_000), st.integers(0, 300_000)), max_size=20),
)
def test_everything_goes_once_and_in_order(
    frames: list[tuple[TrafficClass, int, int, str]], offers: list[tuple[int, int]]
) -> None:
    world = World()
    queues: dict[tuple[TrafficClass, int, str], StreamQueue] = {}
    pushed: dict[int, list[bytes]] = {}
    for number, (traffic_class, shard, size, tenant) in enumerate(frames):
        key = (traffic_class, shard, tenant)
        if key not in queues:
            queues[key] = world.stream(traffic_class, shard=shard, tenant=tenant)
        head = number.to_bytes(24)
        world.scheduler.push(queues[key], Item(head, bytes(size - 24), data=True))
        pushed.setdefault(queues[key].stream_id, []).append(head)
    got: dict[int, list[bytes]] = {}
    now = 0.0
    for room, total in [*offers, *[(1 << 30, 1 << 30)] * 3]:
        now += 0.1
        for queue, item in world.pull(room, total, now):
            got.setdefault(queue.stream_id, []).append(item.head)
    assert got == pushed
    assert world.scheduler.queued == 0


# -- a pressed neighbour ---------------------------------------------------------------------------------


def test_bulk_leaves_part_of_its_window_to_a_pressed_neighbour_and_no_other_class_does() -> None:
    for percent, sent in ((0, 8), (50, 6), (80, 4), (100, 4)):
        for traffic_class in (TrafficClass.BULK, TrafficClass.DROPPABLE):
            world = World()
            queue = world.stream(traffic_class, credit=8 * FULL)
            world.push(queue, 8)
            world.scheduler.peer_pressed(0.0, percent)
            assert len(world.pull()) == sent
        world = World()
        queue = world.stream(TrafficClass.RELIABLE, credit=8 * FULL)
        world.push(queue, 8)
        world.scheduler.peer_pressed(0.0, percent)
        assert len(world.pull()) == 8


def test_a_neighbours_pressure_is_forgotten_in_time() -> None:
    world = World()
    queue = world.stream(TrafficClass.BULK, credit=8 * FULL)
    world.push(queue, 8)
    world.scheduler.peer_pressed(0.0, 100)
    assert world.scheduler.peer_pressure(1.0) == 100
    assert len(world.pull(now=1.0)) == 4
    assert world.scheduler.peer_pressure(limits.PEER_PRESSURE_S) == 0
    assert len(world.pull(now=limits.PEER_PRESSURE_S)) == 4
