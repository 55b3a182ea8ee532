"""Who of the waiting writers goes on: in line, as many as there is room for, none looked at in vain."""

from __future__ import annotations

from fabric.writers import Writers

ENOUGH = 100


class Rooms(dict[int, int]):
    """Room in each stream's own queue, and who asked for it."""

    def __init__(self, **_: int) -> None:
        super().__init__()
        self.asked: list[int] = []

    def __call__(self, stream_id: int) -> int:
        self.asked.append(stream_id)
        return self.get(stream_id, 256)


def test_a_full_queue_is_waited_for_until_it_drained_enough() -> None:
    writers, rooms = Writers(), Rooms()
    writers.wait(2, full=True)
    rooms[2] = 50
    assert writers.wake([2], rooms, ENOUGH, 1000) == []
    rooms[2] = 150
    assert writers.wake([4], rooms, ENOUGH, 1000) == [], "another's queue drained"
    assert writers.wake([2], rooms, ENOUGH, 1000) == [2]
    assert not writers
    assert writers.wake([2], rooms, ENOUGH, 1000) == []


def test_shared_room_wakes_as_many_as_it_serves_in_line() -> None:
    writers, rooms = Writers(), Rooms()
    for stream_id in (6, 2, 4, 2):
        writers.wait(stream_id, full=False)
    assert writers.wake([], rooms, ENOUGH, ENOUGH) == []
    assert writers.wake([], rooms, ENOUGH, 400) == [6, 2]
    assert writers.wake([], rooms, ENOUGH, 400) == [4]
    assert not writers


def test_without_a_shared_bound_all_that_drained_go_on() -> None:
    writers, rooms = Writers(), Rooms()
    for stream_id in range(2, 42, 2):
        writers.wait(stream_id, full=True)
    assert writers.wake(range(2, 42, 2), rooms, ENOUGH, None) == list(range(2, 42, 2))


def test_a_stream_that_ended_is_not_woken() -> None:
    writers, rooms = Writers(), Rooms()
    writers.wait(2, full=True)
    writers.wait(4, full=False)
    writers.forget(2)
    writers.forget(4)
    writers.forget(6)
    assert not writers
    assert writers.wake([2, 4], rooms, ENOUGH, 1000) == []


def test_those_who_must_wait_cost_nothing() -> None:
    writers, rooms = Writers(), Rooms()
    for stream_id in range(1000):
        writers.wait(stream_id, full=stream_id % 2 == 0)
    assert writers.wake([0], rooms, ENOUGH, 300) == [1]
    assert len(rooms.asked) <= 3
