"""Codes as counters: of peers' words only so many."""

from __future__ import annotations

from collections import Counter

from fabric import limits
from fabric.errors import count_code


def test_words_of_a_peers_choice_do_not_make_a_table_grow_for_ever() -> None:
    counters: Counter[str] = Counter(opened=1)
    count_code(counters, "failed", "refused")
    for number in range(10_000):
        count_code(counters, "failed", f"word_{number}")
    assert len(counters) == limits.COUNTED_CODES + 1
    assert counters["failed_other"] == 10_000 - (limits.COUNTED_CODES - 2)
    count_code(counters, "failed", "refused")
    assert counters["failed_refused"] == 2
