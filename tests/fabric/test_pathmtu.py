"""The search for the path's datagram size, as a table of paths and against a simulated one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.pathmtu import (
    Effect,
    Event,
    Found,
    Losses,
    Moved,
    PathMtu,
    Phase,
    Probed,
    SendProbe,
    Start,
    Timer,
    TooBig,
    UseSize,
)

BASE, CEILING = 1200, 1452


class World:
    """A path that carries `limit` bytes, a search that runs on it, and what it sent."""

    def __init__(self, limit: int, ceiling: int = CEILING) -> None:
        self.limit = limit
        self.now = 100.0
        self.machine = PathMtu(BASE)
        self.probes: list[int] = []
        self.used: list[int] = []
        self.lost: set[int] = set()
        """The numbers of probes that the path loses for no reason of theirs."""
        self.handle(Start(ceiling))

    def handle(self, event: Event) -> None:
        queue: list[Effect] = self.machine.handle(self.now, event)
        while queue:
            effect = queue.pop(0)
            if isinstance(effect, UseSize):
                self.used.append(effect.size)
                continue
            self.probes.append(effect.size)
            delivered = effect.size <= self.limit and effect.number not in self.lost
            if delivered:
                queue += self.machine.handle(self.now, Probed(effect.number, delivered=True))

    def wait(self) -> None:
        """Until the timer, which ends probes that nobody heard of."""
        at = self.machine.deadline()
        assert at is not None
        self.now = at
        self.handle(Timer())

    def settle(self) -> int:
        while self.machine.phase is Phase.SEARCHING:
            self.wait()
        return self.machine.size


@pytest.mark.parametrize(
    ("limit", "found"),
    [
        (1200, 1200),
        (1279, 1200),
        (1280, 1280),
        (1372, 1350),
        (1400, 1400),
        (1439, 1420),
        (1451, 1440),
        (1452, 1452),
        (9000, 1452),
    ],
)
def test_what_is_found(limit: int, found: int) -> None:
    world = World(limit)
    assert world.machine.size <= limit, "nothing unproved is ever used"
    assert world.settle() == found
    assert world.machine.phase is Phase.COMPLETE
    assert world.used == sorted(world.used)


def test_nothing_is_probed_before_the_peer_is_proved_nor_past_the_ceiling() -> None:
    machine = PathMtu(BASE)
    assert machine.handle(1.0, Moved()) == []
    assert machine.deadline() is None
    assert (machine.phase, machine.size) == (Phase.BASE, BASE)
    assert machine.handle(1.0, Start(BASE)) == []
    assert machine.phase is Phase.COMPLETE
    assert World(9000, ceiling=1300).probes == [1280, 1300]


def test_only_the_probe_under_way_confirms() -> None:
    machine = PathMtu(BASE)
    [first] = machine.handle(1.0, Start(CEILING))
    assert isinstance(first, SendProbe)
    assert machine.handle(1.0, Probed(first.number + 1, delivered=True)) == []
    assert machine.size == BASE
    assert machine.handle(1.0, Probed(first.number, delivered=True))[0] == UseSize(first.size)


def test_what_is_heard_twice_of_a_probe_counts_once() -> None:
    machine = PathMtu(BASE)
    [probe] = machine.handle(1.0, Start(1280))
    assert isinstance(probe, SendProbe)
    assert machine.handle(1.0, Probed(probe.number, delivered=True)) == [UseSize(1280)]
    for delivered in (True, False):
        assert machine.handle(1.0, Probed(probe.number, delivered=delivered)) == []
    assert (machine.size, machine.phase) == (1280, Phase.COMPLETE)


def test_a_size_is_given_up_after_three_probes_and_not_before() -> None:
    world = World(1279)
    assert world.probes == [1280]
    world.wait()
    world.wait()
    assert world.machine.phase is Phase.SEARCHING
    world.wait()
    assert world.machine.phase is Phase.COMPLETE
    assert world.probes == [1280] * limits.PATH_MTU_TRIES


def test_a_probe_that_is_lost_by_chance_costs_a_moment() -> None:
    world = World(9000)
    world.lost = {1, 2, 8}
    world.machine = PathMtu(BASE)
    world.handle(Start(CEILING))
    assert world.settle() == CEILING


def test_a_timer_that_is_early_does_nothing() -> None:
    world = World(1279)
    world.now += limits.PATH_MTU_PROBE_S / 2
    world.handle(Timer())
    assert world.probes == [1280]


def test_a_path_that_grew_is_found_out_at_the_raise_timer() -> None:
    world = World(1300)
    assert world.settle() == 1280
    world.limit = 9000
    at = world.machine.deadline()
    assert at == world.now + limits.PATH_MTU_RAISE_S
    world.wait()
    assert world.settle() == CEILING


def test_a_black_hole_is_left_at_once_and_not_entered_again() -> None:
    world = World(9000)
    assert world.settle() == CEILING
    world.limit = 1410
    world.handle(Losses(limits.PATH_MTU_LOSSES - 1))
    assert world.machine.size == CEILING, "congestion looks like this"
    world.used.clear()
    world.handle(Losses(limits.PATH_MTU_LOSSES))
    assert world.used[0] == BASE
    assert world.settle() == 1400
    # Where single probes get through and full packets do not, the size is not tried again before the timer.
    world.limit = 9000
    world.handle(Losses(limits.PATH_MTU_LOSSES))
    assert world.settle() == 1350


def test_losses_at_the_base_say_nothing_of_its_size() -> None:
    world = World(1200)
    world.settle()
    world.used.clear()
    world.handle(Losses(100))
    assert world.used == []


def test_another_path_is_searched_anew() -> None:
    world = World(9000)
    world.settle()
    world.limit = 1300
    world.used.clear()
    world.handle(Moved())
    assert world.used[0] == BASE
    assert world.settle() == 1280
    world.limit = 9000
    world.handle(Moved())
    assert world.settle() == CEILING, "what did not pass there may pass here"


def test_a_probe_of_the_old_path_proves_nothing_of_the_new_one() -> None:
    machine = PathMtu(BASE)
    [old] = machine.handle(1.0, Start(CEILING))
    assert isinstance(old, SendProbe)
    [new] = machine.handle(1.0, Moved())
    assert isinstance(new, SendProbe)
    assert machine.handle(1.0, Probed(old.number, delivered=True)) == []
    assert machine.size == BASE
    assert machine.handle(1.0, Probed(new.number, delivered=True))[0] == UseSize(new.size)


# -- ICMP, which anybody may forge --


def test_a_true_icmp_error_finds_the_exact_size() -> None:
    world = World(1272)
    world.handle(TooBig(1272))
    assert world.settle() == 1272
    assert world.probes[:3] == [1280, 1272, 1280]


def test_nonsense_does_not_take_the_place_of_a_true_error() -> None:
    world = World(1272)
    for lie in (0, 68, 1200, 1453, 65_507):
        world.handle(TooBig(lie))
    world.handle(TooBig(1272))
    assert world.settle() == 1272


@pytest.mark.parametrize("lie", [0, 1, 68, 1199, 1200, 1201, 1279, 1300, 1452, 1453, 65_507])
def test_a_forged_icmp_error_costs_a_probe_and_changes_nothing(lie: int) -> None:
    world = World(9000)
    assert world.settle() == CEILING
    for event in (TooBig(lie), TooBig(lie)):
        world.used.clear()
        world.handle(event)
        assert world.used == [], "a size in force is never lowered by it"
    assert world.machine.size == CEILING
    # While the search runs it is a size more to try.
    busy = World(1200)
    busy.handle(TooBig(lie))
    busy.limit = 9000
    assert busy.settle() == CEILING
    assert min(busy.probes) > BASE


def test_a_flood_of_forged_errors_does_not_slow_the_search_down() -> None:
    machine = PathMtu(BASE)
    effects = machine.handle(1.0, Start(CEILING))
    probes = 0
    while machine.phase is Phase.SEARCHING:
        probe = effects[-1]
        assert isinstance(probe, SendProbe)
        machine.handle(1.0, TooBig(probe.size + 1))
        probes += 1
        effects = machine.handle(1.0, Probed(probe.number, delivered=True))
    assert machine.size == CEILING
    assert probes <= len(limits.PATH_MTU_SIZES) + 2


# -- an engine that searches by itself --


def test_what_an_engine_found_is_left_on_a_black_hole() -> None:
    world = World(9000, ceiling=BASE)
    world.handle(Found(1452))
    assert (world.machine.size, world.probes, world.used) == (1452, [], [])
    world.handle(Losses(limits.PATH_MTU_LOSSES))
    assert (world.machine.size, world.probes, world.used) == (BASE, [], [BASE])


@given(
    limit=st.integers(BASE, 1600),
    ceiling=st.integers(BASE, 1500),
    lost=st.sets(st.integers(1, 40), max_size=10),
    hints=st.lists(st.integers(0, 2000), max_size=5),
    changes=st.lists(st.tuples(st.sampled_from(["move", "hole"]), st.integers(BASE, 1600)), max_size=4),
)
def test_whatever_happens_the_size_was_proved_on_this_path(
    limit: int, ceiling: int, lost: set[int], hints: list[int], changes: list[tuple[str, int]]
) -> None:
    world = World(limit, ceiling)
    world.lost = lost
    for hint in hints:
        world.handle(TooBig(hint))
    for change, other in changes:
        world.limit = other
        world.handle(Moved() if change == "move" else Losses(limits.PATH_MTU_LOSSES))
        assert BASE <= world.machine.size <= max(BASE, min(ceiling, other))
        world.settle()
    assert BASE <= world.settle() <= max(BASE, min(ceiling, world.limit))
