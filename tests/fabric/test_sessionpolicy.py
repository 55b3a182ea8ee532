"""Which sessions an endpoint keeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fabric.sessionpolicy import Idle, Standing, expired, victim

idles = st.lists(
    st.builds(Idle, st.integers(), st.floats(0, 1000), st.sampled_from(Standing)),
    unique_by=lambda one: one.session,
)


@given(idles, st.floats(0, 2000), st.floats(0, 500))
def test_what_was_idle_for_long_ends_unless_wanted(idle: list[Idle[int]], now: float, ttl: float) -> None:
    ended = set(expired(idle, now, ttl))
    for one in idle:
        assert (one.session in ended) == (now - one.since >= ttl and one.standing is not Standing.WANTED)


@given(idles)
def test_strangers_make_room_first_and_of_equals_the_one_idle_for_longest(idle: list[Idle[int]]) -> None:
    going = victim(idle)
    found = [one for one in idle if one.session == going]
    free = [one for one in idle if one.standing is not Standing.WANTED]
    assert bool(found) == bool(free)
    for one in found:
        assert one.standing is not Standing.WANTED
        assert all(one.standing <= other.standing for other in free)
        assert all(one.since <= other.since for other in free if other.standing is one.standing)


def test_wanted_neighbours_stay_whatever_comes() -> None:
    idle = [Idle(number, 0.0, Standing.WANTED) for number in range(3)]
    assert expired(idle, 1e9, 1.0) == []
    assert victim(idle) is None
    assert victim([*idle, Idle(9, 5.0, Standing.KNOWN)]) == 9
    assert expired([*idle, Idle(9, 5.0, Standing.KNOWN)], 6.0, 1.0) == [9]
