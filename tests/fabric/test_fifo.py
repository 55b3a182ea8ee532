"""The queue behaves as a deque and is smaller when it is empty."""

from __future__ import annotations

import sys
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.fifo import Fifo


@given(st.lists(st.sampled_from(["append", "popleft", "replace", "clear"]), max_size=60))
def test_it_does_what_a_deque_does(steps: list[str]) -> None:
    queue, model = Fifo[int](), deque[int]()
    for number, step in enumerate(steps):
        if step == "append":
            queue.append(number)
            model.append(number)
        elif step == "clear":
            queue.clear()
            model.clear()
        elif not model:
            with pytest.raises(IndexError):
                queue.popleft()
        elif step == "popleft":
            assert queue.popleft() == model.popleft()
        else:
            queue.first = model[0] = -number
        assert (len(queue), bool(queue), list(queue)) == (len(model), bool(model), list(model))
        if model:
            assert (queue.first, queue.last) == (model[0], model[-1])


def test_an_empty_one_has_no_ends() -> None:
    queue = Fifo[int]()
    for look in (lambda: queue.first, lambda: queue.last):
        with pytest.raises(IndexError):
            look()
    with pytest.raises(IndexError):
        queue.first = 1


def test_it_starts_with_what_it_is_given() -> None:
    assert list(Fifo([1, 2])) == [1, 2]
    assert not Fifo([])


def test_an_empty_one_is_small_and_so_is_one_that_was_emptied() -> None:
    queue = Fifo[int]()
    queue.append(1)
    queue.popleft()
    assert sys.getsizeof(queue) < 50 < sys.getsizeof(deque()) / 10
    assert queue._items is None
