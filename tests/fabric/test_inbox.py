"""Whose datagrams come next: turns by what they cost, bounds by sender."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.inbox import Inbox, worth

PART = limits.INBOX_DATAGRAMS_PART
WHERE = "port"


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [str(start + number).encode() for number in range(count)]


def serve(inbox: Inbox[str, str], cost: dict[str, float], turns: int) -> list[str]:
    """Who is served, in order; each part costs its sender so much."""
    served = []
    for _ in range(turns):
        taken = inbox.take()
        if taken is None:
            break
        served.append(taken[0])
        inbox.spent(taken[0], cost.get(taken[0], 1.0))
    return served


def test_who_is_alone_gets_large_parts_in_order() -> None:
    inbox = Inbox[str, str]()
    inbox.spent("a", PART * 1e-6, PART)
    assert inbox.put("a", numbered(200), WHERE) == 0
    first, second = inbox.take(), inbox.take()
    assert first is not None
    assert second is not None
    assert first[1] + second[1] == numbered(200)
    assert len(first[1]) == limits.UDP_DATAGRAMS_PER_TURN
    assert (inbox.take(), inbox.waiting, bool(inbox)) == (None, 0, False)


def test_a_flood_waits_behind_whoever_comes() -> None:
    inbox = Inbox[str, str]()
    inbox.put("flood", numbered(1000), WHERE)
    assert serve(inbox, {}, 3) == ["flood"] * 3
    inbox.put("person", numbered(1), WHERE)
    inbox.put("other", numbered(1), WHERE)
    assert serve(inbox, {}, 3) == ["person", "other", "flood"]


def test_turns_are_equal_in_time_not_in_number() -> None:
    inbox = Inbox[str, str]()
    inbox.put("dear", numbered(100 * PART), WHERE)
    inbox.put("cheap", numbered(100 * PART), WHERE)
    served = serve(inbox, {"dear": 4.0, "cheap": 1.0}, 50)
    assert served.count("cheap") == pytest.approx(40, abs=1)


def test_silence_saves_nothing_up() -> None:
    inbox = Inbox[str, str]()
    inbox.put("busy", numbered(limits.INBOX_DATAGRAMS_EACH), WHERE)
    assert serve(inbox, {}, 20) == ["busy"] * 20
    inbox.put("late", numbered(50 * PART), WHERE)
    served = serve(inbox, {}, 10)
    assert served.count("busy") == pytest.approx(5, abs=1)


def test_what_a_sender_is_sent_counts_too() -> None:
    inbox = Inbox[str, str]()
    inbox.put("a", numbered(10 * PART), WHERE)
    inbox.put("b", numbered(10 * PART), WHERE)
    inbox.spent("a", 100.0)
    assert serve(inbox, {}, 9) == ["b"] * 9


def test_each_has_its_bound_and_loses_only_its_own() -> None:
    inbox = Inbox[str, str]()
    assert inbox.put("flood", numbered(limits.INBOX_DATAGRAMS_EACH + 7), WHERE) == 7
    assert inbox.put("flood", numbered(1), WHERE) == 1
    assert inbox.put("person", numbered(1), WHERE) == 0


def test_all_together_are_bounded_and_newcomers_still_get_in() -> None:
    inbox = Inbox[str, str]()
    for number in range(40):
        inbox.put(f"flood-{number}", numbered(limits.INBOX_DATAGRAMS_EACH), WHERE)
    assert inbox.waiting <= limits.INBOX_DATAGRAMS + 40 * PART
    assert inbox.put("person", numbered(1), WHERE) == 0


def test_an_empty_run_is_a_turn() -> None:
    inbox = Inbox[str, str]()
    inbox.put("a", [], WHERE)
    assert inbox
    assert inbox.take() == ("a", [], WHERE)
    assert not inbox


def test_who_is_forgotten_is_not_served() -> None:
    inbox = Inbox[str, str]()
    inbox.put("gone", numbered(9), WHERE)
    inbox.put("here", numbered(1), WHERE)
    inbox.forget("gone")
    assert inbox.waiting == 1
    assert "gone" not in inbox._used
    assert serve(inbox, {}, 5) == ["here"]
    inbox.put("gone", numbered(1), WHERE)
    assert serve(inbox, {}, 5) == ["gone"]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40), st.booleans()), max_size=60))
def test_nothing_is_lost_doubled_or_reordered(steps: list[tuple[str, int, bool]]) -> None:
    inbox = Inbox[str, str]()
    sent: dict[str, int] = dict.fromkeys("abc", 0)
    got: dict[str, list[bytes]] = {name: [] for name in "abc"}
    for sender, count, take in steps:
        assert inbox.put(sender, numbered(count, sent[sender]), WHERE) == 0
        sent[sender] += count
        if take and (taken := inbox.take()):
            got[taken[0]] += taken[1]
            inbox.spent(taken[0], 0.5)
    while taken := inbox.take():
        got[taken[0]] += taken[1]
    assert got == {name: numbered(count) for name, count in sent.items()}
    assert inbox.waiting == 0


def test_dear_datagrams_come_in_small_parts_even_alone() -> None:
    inbox = Inbox[str, str]()
    inbox.put("a", numbered(1000), WHERE)
    sizes = []
    for cost in (2e-6, 100e-6, 100e-6, 2e-6, *[2e-6] * 60):
        taken = inbox.take()
        if taken is None:
            break
        sizes.append(len(taken[1]))
        inbox.spent("a", cost * len(taken[1]), len(taken[1]))
    assert sizes[:4] == [PART, limits.UDP_DATAGRAMS_PER_TURN, 20, 20]
    assert sizes[-2] > 20, "cheap again"


def test_one_dear_datagram_is_a_part_where_more_would_take_a_turn() -> None:
    """Whether its sender is alone or others wait: nobody waits for sixteen of them."""
    for others in (False, True):
        inbox = Inbox[str, str]()
        inbox.put("dear", numbered(100), WHERE)
        assert inbox.take() == ("dear", numbered(PART), WHERE)
        inbox.spent("dear", PART * limits.UDP_TURN_S, PART)
        if others:
            inbox.put("cheap", numbered(100), WHERE)
            inbox.spent("cheap", 1.0, 10_000_000)
        assert inbox.take() == ("dear", numbered(1, PART), WHERE)
        inbox.spent("dear", limits.UDP_TURN_S / 3, 1)
        assert (next_ := inbox.take()) is not None
        assert len(next_[1]) < PART


def test_a_large_datagram_counts_as_several() -> None:
    large = 6 * limits.INBOX_DATAGRAM_BYTES
    assert worth([b"", bytes(1200), bytes(large - 1), bytes(large)]) == 14
    inbox = Inbox[str, str]()
    fit = limits.INBOX_DATAGRAMS_EACH // 6
    assert inbox.put("flood", [bytes(large)] * (fit + 5), WHERE) == 5
    assert inbox.waiting == 6 * fit
    assert inbox.put("flood", [b""] * 5, WHERE) == 5 - (limits.INBOX_DATAGRAMS_EACH - 6 * fit)
    taken = inbox.take()
    assert taken is not None
    assert len(taken[1]) == PART // 6, "as much as a part of usual ones"
    inbox.spent("flood", 1e-6, worth(taken[1]))
    taken = inbox.take()
    assert taken is not None
    assert len(taken[1]) == limits.UDP_DATAGRAMS_PER_TURN // 6
    while inbox.take():
        pass
    assert inbox.waiting == 0
    inbox.put("one", [bytes(PART * limits.INBOX_DATAGRAM_BYTES + 1)], WHERE)
    assert inbox.take() is not None, "one goes, however large"
