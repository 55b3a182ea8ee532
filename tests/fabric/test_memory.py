"""The budget of unread bytes: sums, and who is ended when one of them is exceeded."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from fabric.memory import MemoryBudget


def budget() -> MemoryBudget[str]:
    return MemoryBudget(session=100, peer=150, process=300)


def test_what_fits_ends_nobody() -> None:
    held = budget()
    assert held.hold("a", "p", 1, 60) is None
    assert held.hold("b", "p", 1, 40) is None
    assert held.hold("c", "p", 2, 50) is None
    assert (held.total, held._by_peer) == (150, {"p": 150})


def test_the_one_that_holds_most_of_the_session_pays() -> None:
    held = budget()
    held.hold("large", "p", 1, 80)
    held.hold("other session", "p", 2, 45)
    assert held.hold("small", "p", 1, 21) == "large"
    assert held.hold("large", "p", 1, 0) is None
    assert held.total == 66


def test_a_peer_with_many_sessions_has_one_budget() -> None:
    held = budget()
    for number in range(3):
        assert held.hold(f"s{number}", "p", number, 40 + number) is None
    assert held.hold("s3", "p", 3, 40) == "s2"
    assert held.hold("q", "other", 9, 100) is None


def test_when_all_is_full_the_peer_that_holds_most_pays() -> None:
    held = budget()
    held.hold("big", "p", 1, 90)
    held.hold("more", "p", 2, 50)
    held.hold("b", "q", 3, 99)
    assert held.hold("c", "r", 4, 99) == "big"


def test_writers_wait_from_half_of_any_budget_on() -> None:
    held = budget()
    held.hold("a", "p", 1, 50)
    assert not held.crowded("p", 1)
    held.hold("a", "p", 1, 51)
    assert held.crowded("p", 1)
    assert not held.crowded("p", 2), "another session of the peer has its own"
    held.hold("b", "p", 2, 25)
    assert held.crowded("p", 3), "the peer's is half used"
    assert not held.crowded("q", 4)


def test_of_half_the_process_those_wait_who_use_more_than_an_equal_share() -> None:
    held = budget()
    for peer in "pqr":
        held.hold(peer, peer, peer, 50)
    assert not any(held.crowded(peer, peer) for peer in "pqrs"), "half, and no more"
    held.hold("s", "s", "s", 10)
    assert [peer for peer in "pqrs" if held.crowded(peer, peer)] == ["p", "q", "r"]
    assert not held.crowded("t", "t"), "one that holds nothing yet"
    held.hold("s", "s", "s", 37)
    assert not held.crowded("s", "s")
    held.hold("s", "s", "s", 38)
    assert held.crowded("s", "s"), "four shares of 37.5"
    held.hold("p", "p", "p", 0)
    assert not any(held.crowded(peer, peer) for peer in "pqrs")


def test_reading_never_ends_anybody() -> None:
    held = MemoryBudget[str](session=10, peer=10, process=10)
    assert held.hold("a", "p", 1, 100) == "a"
    assert held.hold("a", "p", 1, 50) is None
    assert held.hold("a", "p", 1, 0) is None
    assert (held.total, held._by_peer) == (0, {})


@example([(0, 0, 34), (0, 1, 44), (0, 2, 60), (1, 0, 43), (1, 1, 60), (2, 0, 43), (1, 2, 60)])  # two go
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 60)), max_size=80),
)
def test_with_victims_ended_every_budget_holds(steps: list[tuple[int, int, int]]) -> None:
    held, now = budget(), {}
    for number, peer, size in steps:
        stream = f"{peer}/{number}"
        now[stream] = size
        session = peer * 10 + number % 2
        victim = held.hold(stream, str(peer), session, size)
        while victim is not None:
            name, _, of = victim.partition("/")
            held.hold(victim, name, int(name) * 10 + int(of) % 2, 0)
            now[victim] = 0
            victim = held.excess(str(peer), session)
        assert held.total == sum(now.values())
        for name in "012":
            mine = sum(value for key, value in now.items() if key[0] == name)
            assert held._by_peer.get(name, 0) == mine <= 150
        assert held.total <= 300
