"""Credit: totals, windows, growth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.credit import ReceiveWindow, SendCredit


def test_a_window_takes_its_limit_and_no_byte_more() -> None:
    window = ReceiveWindow(100, 100, 0.0)
    assert window.receive(100)
    assert window.held == 100
    assert not window.receive(1)


def test_credit_comes_back_in_quarters() -> None:
    window = ReceiveWindow(100, 100, 0.0)
    assert window.receive(100)
    assert not window.consume(0.0, 24)
    assert window.limit == 100
    assert window.consume(0.0, 1)
    assert window.limit == 125
    assert window.receive(25)
    assert not window.receive(1)


def test_a_window_consumed_quickly_grows_to_its_maximum() -> None:
    window = ReceiveWindow(100, 350, 0.0)
    sizes = []
    for _ in range(4):
        window.receive(window.window)
        window.consume(1.0, window.window)
        sizes.append(window.window)
    assert sizes == [200, 350, 350, 350]


def test_a_window_consumed_slowly_does_not_grow() -> None:
    window = ReceiveWindow(100, 400, 0.0)
    for number in range(20):
        window.receive(50)
        window.consume(number * 2 * limits.WINDOW_GROWTH_S, 50)
    assert window.window == 100


@given(st.integers(1, 1000), st.lists(st.integers(1, 300), max_size=60))
def test_what_is_allowed_is_never_more_than_a_window_ahead_of_reading(size: int, reads: list[int]) -> None:
    window = ReceiveWindow(size, size, 0.0)
    for wanted in reads:
        count = min(wanted, window.limit - window.received)
        assert window.receive(count)
        before = window.limit
        moved = window.consume(0.0, count)
        assert moved == (window.limit != before)
        assert window.limit - window.consumed <= size
        # Everything is consumed, so the sender can go on: three quarters of the window at least.
        assert (window.limit - window.consumed) * 4 >= size * 3


def test_totals_of_credit_never_go_back() -> None:
    credit = SendCredit()
    assert credit.left == 0
    assert credit.allow(100)
    credit.sent += 60
    assert credit.left == 40
    assert not credit.allow(50)
    assert not credit.allow(100)
    assert credit.left == 40
    assert credit.allow(101)
