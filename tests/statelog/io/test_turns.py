"""The lock whose waiters go in order."""

from __future__ import annotations

import threading

import pytest

from statelog.io.turns import Turns


def test_one_at_a_time() -> None:
    turns, inside, most = Turns(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with turns:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (inside, most) == (0, 1)


def test_first_come_first_served() -> None:
    turns = Turns()
    order: list[int] = []
    threads: list[threading.Thread] = []

    def come(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        for number in range(10):
            queued = len(turns._waiting) + 1
            threads.append(threading.Thread(target=come, args=(number,)))
            threads[-1].start()
            while len(turns._waiting) < queued:
                threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(10))


def test_who_comes_back_queues_behind_who_waits() -> None:
    turns = Turns()
    order: list[str] = []

    def other() -> None:
        with turns:
            order.append("other")

    waiting = threading.Thread(target=other)
    with turns:
        waiting.start()
        while not turns._waiting:
            threading.Event().wait(0.001)
    with turns:
        order.append("back again")
    waiting.join()
    assert order == ["other", "back again"]


def test_an_error_inside_hands_the_lock_on() -> None:
    turns = Turns()
    with pytest.raises(ValueError, match="inside"), turns:
        raise ValueError("inside")
    with turns:
        assert turns._held
    assert not turns._held
