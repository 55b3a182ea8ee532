"""Whom to hold sessions with."""

from __future__ import annotations

import random

from fabric import limits
from fabric.peering import (
    Address,
    Allow,
    Connected,
    Dial,
    DialFailed,
    Disconnected,
    Effect,
    Forbid,
    Hangup,
    Keep,
    Learn,
    Need,
    Peering,
    Timer,
)

ME = "0" * 64


def node(number: int) -> str:
    return f"{number:064x}"


def at(number: int) -> Address:
    return Address(f"quic://192.0.2.1:{7000 + number}", node(number))


def peering(wanted: int = 8, seed: int = 1) -> Peering:
    return Peering(ME, random.Random(seed), wanted=wanted)


def dials(effects: list[Effect]) -> list[str]:
    return [e.node_id for e in effects if isinstance(e, Dial)]


def test_a_seed_is_dialed_at_once_and_then_left_in_peace() -> None:
    made = peering()
    assert made.handle(0.0, Learn(node(1), (at(1),), seed=True)) == [Dial(node(1), at(1))]
    assert made.handle(0.1, Connected(node(1))) == []
    assert made.deadline() is None
    assert made.snapshot().connected == (node(1),)


def test_no_more_sessions_are_dialed_than_wanted_unless_something_needs_them() -> None:
    made = peering(wanted=2)
    for i in (1, 2):
        made.handle(0.0, Learn(node(i), (at(i),)))
        made.handle(0.0, Connected(node(i)))
    assert dials(made.handle(1.0, Learn(node(3), (at(3),)))) == []
    assert made.deadline() is None
    assert dials(made.handle(2.0, Need(node(3)))) == [node(3)]


def test_kept_nodes_are_redialed_whatever_the_number() -> None:
    made = peering(wanted=1)
    for i in (1, 2):
        made.handle(0.0, Learn(node(i), (at(i),)))
        made.handle(0.0, Connected(node(i)))
    made.handle(1.0, Keep((node(2),)))
    assert dials(made.handle(2.0, Disconnected(node(2)))) == []
    due = made.deadline()
    assert due is not None
    assert dials(made.handle(due, Timer())) == [node(2)]


def test_all_addresses_are_tried_then_again_after_growing_pauses() -> None:
    made = peering()
    first, second = at(1), Address("quic://192.0.2.9:1", node(1))
    assert made.handle(0.0, Learn(node(1), (first, second))) == [Dial(node(1), first)]
    now, pauses = 0.0, []
    for _ in range(3):
        assert made.handle(now, DialFailed(node(1), first.address, "timeout")) == [Dial(node(1), second)]
        assert made.handle(now, DialFailed(node(1), second.address, "timeout")) == []
        due = made.deadline()
        assert due is not None
        assert made.handle(due, Timer()) == [Dial(node(1), first)]
        pauses.append(due - now)
        now = due
    for pause, expected in zip(pauses, (0.5, 1.0, 2.0), strict=True):
        assert 0.75 * expected <= pause <= 1.25 * expected


def test_a_failed_peer_that_moved_is_dialed_at_its_new_place_at_once() -> None:
    made = peering()
    made.handle(0.0, Learn(node(1), (at(1),)))
    made.handle(0.0, DialFailed(node(1), at(1).address, "refused"))
    moved = Address("quic://192.0.2.77:7001", node(1))
    assert made.handle(0.1, Learn(node(1), (moved,))) == [Dial(node(1), moved)]


def test_a_seed_address_remains_beside_what_is_learned() -> None:
    made = peering()
    made.handle(0.0, Learn(node(1), (at(1),), seed=True))
    moved = Address("quic://192.0.2.77:7001", node(1))
    made.handle(0.0, Learn(node(1), (moved,)))
    assert made.addresses(node(1)) == (moved, at(1))


def test_a_need_overrides_the_pause_once() -> None:
    made = peering()
    made.handle(0.0, Learn(node(1), (at(1),)))
    made.handle(0.0, DialFailed(node(1), at(1).address, "timeout"))
    assert dials(made.handle(0.1, Need(node(1)))) == [node(1)]
    assert dials(made.handle(0.2, DialFailed(node(1), at(1).address, "timeout"))) == []


def test_needs_without_end_do_not_dial_without_end() -> None:
    """Whoever opens streams over a hop that is down needs it hundreds of times a second."""
    made = peering()
    made.handle(0.0, Learn(node(1), (at(1),)))
    made.handle(0.0, DialFailed(node(1), at(1).address, "timeout"))
    dialed = 0
    for number in range(2000):
        now = number / 100
        for event in (Need(node(1)), Timer()):
            if dials(made.handle(now, event)):
                dialed += 1
                made.handle(now, DialFailed(node(1), at(1).address, "timeout"))
    assert 10 <= dialed <= 20 / limits.PEER_REDIAL_FIRST_S + 1


def test_a_revoked_node_is_hung_up_on_and_never_dialed_again() -> None:
    made = peering()
    made.handle(0.0, Learn(node(1), (at(1),)))
    made.handle(0.0, Connected(node(1)))
    assert made.handle(1.0, Forbid(node(1))) == [Hangup(node(1), "revoked")]
    assert made.handle(2.0, Learn(node(1), (at(1),))) == []
    assert made.handle(2.0, Need(node(1))) == []
    assert made.handle(3.0, Connected(node(1))) == [Hangup(node(1), "revoked")]


def test_a_node_whose_revocation_is_undone_is_dialed_where_it_was() -> None:
    made = peering()
    made.handle(0.0, Learn(node(1), (at(1),), seed=True))
    made.handle(0.0, DialFailed(node(1), at(1).address, "carrier_lost"))
    made.handle(1.0, Forbid(node(1)))
    assert made.deadline() is None
    assert made.handle(2.0, Allow(node(1))) == [Dial(node(1), at(1))]
    assert made.handle(2.1, Connected(node(1))) == []
    assert made.handle(3.0, Allow(node(2))) == []  # never forbidden: nothing to allow
    made.handle(4.0, Forbid(node(3)))  # nothing was known of it
    assert made.handle(5.0, Allow(node(3))) == []
    assert made.handle(6.0, Learn(node(3), (at(3),))) == [Dial(node(3), at(3))]


def test_a_node_never_dials_itself() -> None:
    made = peering()
    assert made.handle(0.0, Learn(ME, (at(0),), seed=True)) == []
    assert made.handle(0.0, Need(ME)) == []
    assert made.snapshot().known == 0


def test_dials_under_way_are_bounded() -> None:
    made = peering(wanted=100)
    begun = [n for i in range(1, 20) for n in dials(made.handle(0.0, Learn(node(i), (at(i),))))]
    assert len(begun) == limits.PEERS_DIALING
    assert len(dials(made.handle(0.1, Connected(begun[0])))) == 1


def test_what_is_known_is_bounded_and_seeds_stay() -> None:
    made = peering(wanted=0)
    made.handle(0.0, Learn(node(1), (at(1),), seed=True))
    for i in range(2, limits.PEERS_KNOWN + 50):
        made.handle(0.0, Learn(node(i), (at(i),)))
    assert made.snapshot().known == limits.PEERS_KNOWN
    assert made.addresses(node(1)) == (at(1),)


def test_which_of_many_is_dialed_differs_from_node_to_node() -> None:
    chosen = set()
    for seed in range(20):
        made = peering(wanted=1, seed=seed)
        made.handle(0.0, Learn(node(99), (at(99),)))
        made.handle(0.0, Connected(node(99)))
        for i in range(1, 10):
            made.handle(0.0, Learn(node(i), (at(i),)))
        chosen.update(dials(made.handle(1.0, Disconnected(node(99)))))
    assert len(chosen) > 3


def test_neighbours_are_wanted_while_they_are_few_and_those_that_matter_always() -> None:
    made = peering(wanted=2)
    made.handle(0.0, Learn(node(1), (at(1),), seed=True))
    made.handle(0.0, Keep((node(2),)))
    for i in range(1, 4):
        made.handle(0.0, Connected(node(i)))
    assert [made.wants(node(i)) for i in range(1, 5)] == [True, True, False, False]
    made.handle(1.0, Disconnected(node(1)))
    assert made.wants(node(3))
