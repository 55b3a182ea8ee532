"""Token buckets."""

from __future__ import annotations

import pytest

from fabric.buckets import TokenBucket


def test_a_burst_is_taken_at_once_and_no_more() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=100.0)
    assert [bucket.take(100.0, 1) for _ in range(4)] == [True, True, True, False]


def test_tokens_come_back_at_the_rate_up_to_the_burst() -> None:
    bucket = TokenBucket(rate=2, burst=3, now=0.0)
    assert bucket.take(0.0, 3)
    assert not bucket.take(0.4, 1)
    assert bucket.take(0.5, 1)
    assert bucket.take(1000.0, 3)
    assert not bucket.take(1000.0, 1)


def test_what_is_not_granted_is_not_taken() -> None:
    bucket = TokenBucket(rate=1, burst=4, now=0.0)
    assert not bucket.take(0.0, 5)
    assert bucket.take(0.0, 4)


def test_ready_at_is_when_take_succeeds() -> None:
    bucket = TokenBucket(rate=4, burst=2, now=0.0)
    assert bucket.ready_at(0.0, 2) == 0.0
    assert bucket.take(0.0, 2)
    at = bucket.ready_at(0.0, 1)
    assert at == pytest.approx(0.25)
    assert not bucket.take(at - 0.01, 1)
    assert bucket.take(at, 1)


def test_a_clock_that_steps_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, now=10.0)
    assert bucket.take(10.0, 1)
    assert not bucket.take(5.0, 1)
    assert not bucket.take(5.5, 1)
    assert bucket.take(6.0, 1)
