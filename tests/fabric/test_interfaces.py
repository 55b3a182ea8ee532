"""Which addresses are bound and left: a table of rules, then changes over time."""

from __future__ import annotations

import pytest

from fabric import interfaces, limits
from fabric.interfaces import Add, Changed, Drop, Effect, Event, Interfaces, Moved, Refused, Rule, Seen, Timer

A, B, SIX, LOOP, LINK = "192.0.2.1", "192.0.2.2", "2001:db8::1", "127.0.0.1", "fe80::1"
EVERY, ANY4, ANY6 = Rule({"*": 7400}), Rule({"0.0.0.0": 7400}), Rule({"::": 7400})
BOTH = Rule({A: 7400, SIX: 7401})


@pytest.mark.parametrize(
    ("rule", "present", "wanted", "reachable"),
    [
        (EVERY, {LOOP, LINK, A, SIX}, {A, SIX}, {A, SIX}),
        (EVERY, {LOOP}, set(), set()),
        (ANY4, {LOOP, A, SIX}, {"0.0.0.0"}, {A}),
        (ANY6, {LOOP, A, SIX, LINK}, {"::"}, {SIX}),
        (ANY4, set(), {"0.0.0.0"}, set()),
        (BOTH, {LOOP, A, B, SIX}, {A, SIX}, {A, SIX}),
        (BOTH, {LOOP, B}, set(), set()),
        (Rule({LOOP: 1}), {A}, {LOOP}, {LOOP}),
        (Rule({"127.0.0.9": 1}), {LOOP}, {"127.0.0.9"}, {"127.0.0.9"}),
        (Rule({"host.example": 1}), set(), {"host.example"}, {"host.example"}),
    ],
)
def test_what_a_rule_wants(rule: Rule, present: set[str], wanted: set[str], reachable: set[str]) -> None:
    assert rule.wanted(frozenset(present)) == wanted
    assert set(rule.reachable(wanted, frozenset(present))) == reachable


def test_ports() -> None:
    assert EVERY.port(A) == 7400
    assert (BOTH.port(A), BOTH.port(SIX)) == (7400, 7401)


def test_a_machine_with_very_many_addresses_binds_some() -> None:
    many = frozenset(f"198.51.100.{n}" for n in range(200))
    assert len(EVERY.wanted(many)) == limits.INTERFACES_BOUND


@pytest.mark.parametrize(
    "host", [LOOP, LINK, "ff02::1", "224.0.0.1", "0.0.0.0", "::", "fe80::1%eth0", "name"]
)
def test_others_cannot_reach_a_node_there(host: str) -> None:
    assert not interfaces.is_usable(host)
    assert interfaces.is_usable(A)
    assert interfaces.is_usable("10.0.0.1")


class World:
    """A machine whose addresses change, and what was done about it."""

    def __init__(self, rule: Rule, present: set[str], bound: set[str] | None = None) -> None:
        self.now = 100.0
        self.taken: set[str] = set()
        """Addresses that cannot be bound."""
        self.machine = Interfaces(rule, set(present if bound is None else bound), frozenset(present))

    def handle(self, event: Event) -> list[Effect]:
        done = []
        for effect in self.machine.handle(self.now, event):
            if isinstance(effect, Add) and effect.host in self.taken:
                self.machine.handle(self.now, Refused(effect.host))
            else:
                done.append(effect)
        return done

    def seen(self, *present: str) -> None:
        self.handle(Seen(frozenset(present)))

    def run(self, seconds: float) -> list[Effect]:
        """Every timer that is due within so long."""
        end, done = self.now + seconds, list[Effect]()
        while (at := self.machine.deadline()) is not None and at <= end:
            self.now = max(self.now, at)
            done += self.handle(Timer())
        self.now = end
        return done


def test_nothing_happens_while_nothing_changes() -> None:
    world = World(EVERY, {A})
    world.seen(A)
    assert world.machine.deadline() is None


def test_an_address_that_came_is_bound_and_published() -> None:
    world = World(EVERY, {A})
    world.seen(A, B)
    assert world.run(limits.INTERFACES_SETTLE_S / 2) == []
    assert world.run(limits.INTERFACES_SETTLE_S) == [Add(B), Changed()]
    assert world.machine.reachable() == (A, B)
    assert world.machine.deadline() is None


def test_who_takes_over_is_bound_before_who_is_gone_is_left() -> None:
    world = World(EVERY, {A})
    world.seen(B)
    assert world.run(1) == [Add(B), Drop(A), Changed()]
    assert world.machine.bound == {B}


def test_an_address_that_is_gone_is_left_at_once_where_another_carries_its_sessions() -> None:
    world = World(EVERY, {A, B})
    world.seen(B)
    assert world.run(limits.INTERFACES_SETTLE_S) == [Drop(A), Changed()]


def test_sessions_wait_for_an_address_to_come() -> None:
    world = World(EVERY, {A, SIX})
    world.seen(SIX)
    assert world.run(limits.INTERFACES_GRACE_S / 2) == [Changed()], "an address of another family is no help"
    assert world.machine.reachable() == (SIX,)
    world.seen(SIX, B)
    assert world.run(1) == [Add(B), Drop(A), Changed()]


def test_sessions_do_not_wait_for_ever() -> None:
    world = World(EVERY, {A})
    world.seen()
    assert world.run(limits.INTERFACES_GRACE_S) == [Changed()]
    assert world.run(1) == [Drop(A)]
    assert world.machine.deadline() is None
    world.seen(A)
    assert world.run(1) == [Add(A), Changed()]


def test_an_address_that_comes_back_in_time_was_never_gone() -> None:
    world = World(EVERY, {A})
    world.seen()
    world.run(limits.INTERFACES_GRACE_S / 2)
    world.seen(A)
    assert world.run(2 * limits.INTERFACES_GRACE_S) == [Changed()]
    assert world.machine.bound == {A}
    # The next time it has the whole of it again.
    world.seen()
    assert world.run(limits.INTERFACES_GRACE_S) == [Changed()]


def test_a_flap_within_the_settling_time_is_not_even_seen() -> None:
    world = World(EVERY, {A, B})
    world.seen(A)
    world.seen(A, B)
    assert world.machine.deadline() is None
    for _ in range(100):
        world.seen(A)
        world.seen(A, B, SIX)
    assert world.run(1) == [Add(SIX), Changed()]


def test_a_storm_of_changes_does_not_put_off_what_is_due() -> None:
    world = World(EVERY, {A})
    done = []
    for number in range(50):
        world.seen(A, f"198.51.100.{number}")
        done += world.run(limits.INTERFACES_SETTLE_S / 5)
    assert len([one for one in done if isinstance(one, Add)]) >= 5


def test_an_address_that_cannot_be_bound_is_tried_again() -> None:
    world = World(EVERY, {A})
    world.taken = {SIX}
    world.seen(SIX)
    assert world.run(limits.INTERFACES_RETRY_S * 2.5) == [Changed()], "A is gone, which is told once"
    assert world.machine.bound == {A}
    world.taken = set()
    assert Add(SIX) in world.run(limits.INTERFACES_RETRY_S)
    assert world.machine.bound == {A, SIX}


def test_nobody_is_left_for_an_address_that_could_not_be_bound() -> None:
    world = World(EVERY, {A})
    world.taken = {B}
    world.seen(B)
    assert not [one for one in world.run(limits.INTERFACES_GRACE_S / 2) if isinstance(one, Drop)]
    world.taken = set()
    assert Drop(A) in world.run(limits.INTERFACES_RETRY_S * 2)


def test_a_refused_address_that_is_gone_is_forgotten() -> None:
    world = World(EVERY, {A})
    world.taken = {B}
    world.seen(A, B)
    world.run(limits.INTERFACES_SETTLE_S)
    world.seen(A)
    world.run(2)
    assert world.machine.deadline() is None


def test_an_explicit_address_is_bound_when_it_comes() -> None:
    world = World(BOTH, {SIX}, {SIX})
    world.seen(SIX, B)
    assert world.run(1) == [], "nobody asked for this one"
    world.seen(SIX, A, B)
    assert world.run(1) == [Add(A), Changed()]


def test_what_an_explicit_rule_still_lacks_is_bound_at_the_first_look() -> None:
    world = World(BOTH, {A, SIX}, {A})
    assert world.handle(Timer()) == [Add(SIX)]
    assert world.run(0) == [Changed()]


def test_behind_a_wildcard_sessions_are_told_and_nothing_is_bound() -> None:
    world = World(ANY4, {A, LOOP}, {"0.0.0.0"})
    world.seen(LOOP, B)
    assert world.run(1) == [Moved(), Changed()]
    world.seen(LOOP, B, SIX)
    assert world.run(1) == [], "not of this wildcard's family"
    world.seen(LOOP, A, B)
    assert world.run(1) == [Changed()], "what came moves nobody"
    assert world.machine.bound == {"0.0.0.0"}


def test_a_placeholder_is_left_when_an_address_comes() -> None:
    # A machine that starts without any: the endpoint is bound to loopback meanwhile.
    world = World(EVERY, {LOOP}, {LOOP})
    assert world.machine.reachable() == (), "nobody is told of it"
    world.seen(LOOP, A)
    assert Drop(LOOP) in world.run(1)
    assert world.machine.bound == {A}
