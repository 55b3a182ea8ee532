"""What a witness believes of the times that a sequencer writes: its own clock, and f + 1 of the others."""

from __future__ import annotations

import pytest

from statelog.canonical import encode
from statelog.checkpoint import parse_signed_checkpoint
from statelog.dating import is_vouched_for
from statelog.state import ROUTE
from tests.statelog.test_witness_rules import bad_note
from tests.support.authority import BASE_TIME, CLUSTER_ID, DAY_S, Cluster, key_id, make_cluster
from tests.support.logs import (
    WitnessHost,
    cosigned,
    cosigned_at,
    head_note,
    replay_of,
    request_body,
    verdict,
    with_lines,
)

SEEN = ("witness-2", "witness-3")  # f + 1


def asked(host: WitnessHost, by: tuple[str, ...], now: int) -> tuple[int, str]:
    """What the host says to the newest head with the cosignatures of others."""
    cluster, old = host.cluster, host.stored.size if host.stored else 0
    size = cluster.log.size
    note = cosigned(head_note(replay_of(cluster, size)), by)
    reply = host.ask(request_body(cluster, old, size, note), now=now)
    return (200, "") if reply.status == 200 else verdict(reply)


def begun(delay_s: int = 3 * DAY_S) -> tuple[Cluster, WitnessHost, int]:
    """A witness that is up to date, and then an intent; how late a witness may meet it."""
    recovery = {
        "threshold": 2,
        "key_sha256": [key_id(f"recovery-{n}") for n in (1, 2, 3)],
        "delay_s": delay_s,
    }
    cluster = Cluster("production", CLUSTER_ID, BASE_TIME, recovery=recovery)
    cluster.append(cluster.log_term())
    cluster.append(cluster.approval("home-1"))
    host = cosigned_at(cluster, cluster.log.size)
    cluster.append(cluster.recovery_intent(cluster.descriptor()))
    rules = cluster.state.descriptor
    return cluster, host, rules.clock_skew_s + min(rules.max_checkpoint_age_s, delay_s // 2)


@pytest.mark.parametrize("delay_s", [3 * DAY_S, 600, 1])
def test_an_intent_is_met_while_its_delay_runs(delay_s: int) -> None:
    cluster, host, allowed = begun(delay_s)
    before = host.stored
    assert asked(host, (), cluster.now + allowed + 1) == (422, "SL-RECOVERY")
    assert host.stored == before
    assert asked(host, (), cluster.now + allowed) == (200, "")


def test_a_witness_that_was_away_believes_f_plus_one_of_those_it_knows() -> None:
    cluster, host, allowed = begun()
    late = cluster.now + allowed + 1
    assert asked(host, SEEN[:1], late) == (422, "SL-RECOVERY")
    assert asked(host, (*SEEN[:1], "witness-9"), late) == (422, "SL-RECOVERY")
    assert asked(host, SEEN, late) == (200, "")


@pytest.mark.parametrize("is_much", [True, False])
def test_a_clock_that_was_wrong_is_not_held_against_an_entry(is_much: bool) -> None:
    """A stranger made the witness read the entry while its clock was days ahead, or a second."""
    cluster, host, allowed = begun()
    assert host.stored is not None
    old, size = host.stored.size, cluster.log.size
    by_a_stranger = head_note(replay_of(cluster, size), "control-1")
    late = cluster.now + allowed + 1
    assert verdict(host.ask(request_body(cluster, old, size, by_a_stranger), late)) == (403, "SL-CHECKPOINT")
    assert asked(host, (), late) == (422, "SL-RECOVERY")
    assert verdict(host.ask(request_body(cluster, old, size, by_a_stranger), late)) == (403, "SL-CHECKPOINT")
    assert asked(host, (), cluster.now if is_much else late - 1) == (200, "")


def test_who_has_cosigned_nothing_yet_vouches_for_no_date_either() -> None:
    """Else one that lies, and one that was never asked before, would be the f + 1 whom others believe."""
    cluster, _, allowed = begun()
    late = cluster.now + allowed + 1
    assert asked(WitnessHost(cluster), (), late) == (422, "SL-RECOVERY")
    assert asked(WitnessHost(cluster), SEEN[:1], late) == (422, "SL-RECOVERY")
    assert asked(WitnessHost(cluster), SEEN, late) == (200, "")
    assert asked(WitnessHost(cluster), (), cluster.now + allowed) == (200, "")


def test_a_look_is_no_cosignature_where_nothing_was_cosigned_either() -> None:
    cluster, _, allowed = begun()
    host, size = WitnessHost(cluster), cluster.log.size
    by_a_stranger = head_note(replay_of(cluster, size), "control-1")
    asked_by_it = host.ask(request_body(cluster, 0, size, by_a_stranger), cluster.now)
    assert verdict(asked_by_it) == (403, "SL-CHECKPOINT")
    assert asked(host, (), cluster.now + allowed + 1) == (422, "SL-RECOVERY")


def test_a_new_witness_judges_by_age_what_came_since_it_was_named() -> None:
    cluster = make_cluster()
    cluster.append(cluster.fence({"route_id": "route-1"}))
    cluster.now += DAY_S
    changed = cluster.witness_set("witness-1", "witness-2", "witness-3", "witness-5")
    cluster.append(cluster.descriptor(witnesses=changed))
    late = cluster.now + DAY_S
    assert asked(WitnessHost(cluster, "witness-1"), (), late) == (422, "SL-EXPIRED")
    before = ("witness-1", "witness-3", "witness-4")
    assert asked(WitnessHost(cluster, "witness-5"), before, late) == (200, "")
    cluster.append(cluster.fence({"route_id": "route-2"}))
    alone = ("witness-1", "witness-4")  # one of the set that names it: not f + 1
    assert asked(WitnessHost(cluster, "witness-5"), alone, late) == (422, "SL-EXPIRED")
    assert asked(WitnessHost(cluster, "witness-5"), before, late) == (200, "")


def test_what_only_names_an_intent_is_none() -> None:
    cluster = make_cluster(nodes=("home-1",))
    host = cosigned_at(cluster, cluster.log.size)
    cluster.append(cluster.approval("home-2", display_name="rap.fabric.authority.recovery_intent.v1"))
    assert asked(host, (), cluster.now + 30 * DAY_S) == (200, "")


def test_keys_that_have_expired_sign_nothing_under_an_old_date() -> None:
    cluster = make_cluster()
    cluster.append(cluster.members(ROUTE, lifetime_s=DAY_S))
    host = cosigned_at(cluster, cluster.log.size)
    cluster.now += DAY_S - 1
    cluster.append(cluster.fence({"route_id": "route-1"}, lifetime_s=90 * DAY_S))
    rules = cluster.state.descriptor
    allowed = rules.clock_skew_s + rules.max_checkpoint_age_s
    assert asked(host, (), cluster.now + allowed + 1) == (422, "SL-EXPIRED")
    assert asked(host, SEEN, cluster.now + allowed + 1) == (200, "")


def test_a_veto_after_its_time_is_none_under_an_old_date() -> None:
    cluster, host, _ = begun()
    assert asked(host, (), cluster.now) == (200, "")
    pending = cluster.state.recovery
    assert pending is not None
    cluster.append(cluster.veto(pending.record_id, lifetime_s=90 * DAY_S))
    assert asked(host, (), pending.due_at) == (422, "SL-RECOVERY")
    assert asked(host, (), pending.due_at - 1) == (200, "")


def test_an_outage_is_harmless_to_what_is_still_valid_or_without_effect() -> None:
    cluster = make_cluster()
    host = cosigned_at(cluster, cluster.log.size)
    cluster.append(cluster.policy(lifetime_s=90 * DAY_S))
    cluster.append(cluster.lease("route-1"))  # for an hour: nobody gains by it any more
    assert asked(host, (), cluster.now + 20 * DAY_S) == (200, "")


def test_a_refusal_of_the_fold_comes_before_one_of_the_clock() -> None:
    cluster = make_cluster()
    host = cosigned_at(cluster, cluster.log.size)
    cluster.log.append(encode(cluster.lease("route-1", by=("route-1",))), cluster.now, 1)
    size = cluster.log.size
    reply = host.ask(request_body(cluster, size - 1, size, bad_note(cluster, size)), cluster.now + 20 * DAY_S)
    assert verdict(reply) == (422, "SL-QUORUM")


def test_cosignatures_of_another_head_vouch_for_nothing() -> None:
    cluster = make_cluster()
    size = cluster.log.size
    witnesses = cluster.state.witnesses
    _, note = parse_signed_checkpoint(cosigned(head_note(replay_of(cluster, size)), SEEN))
    _, other = parse_signed_checkpoint(head_note(replay_of(cluster, size - 1)))
    assert is_vouched_for(note, witnesses)
    assert not is_vouched_for(with_lines(other, note.signatures[1:]), witnesses)


def test_a_look_that_was_not_cosigned_lets_no_delay_run() -> None:
    """Whoever holds the source shows the intent to witnesses in time, and to all others when it is due."""
    cluster, host, allowed = begun()
    assert host.stored is not None
    old, size, before = host.stored.size, cluster.log.size, host.stored
    by_a_stranger = head_note(replay_of(cluster, size), "control-1")
    assert verdict(host.ask(request_body(cluster, old, size, by_a_stranger), cluster.now)) == (
        403,
        "SL-CHECKPOINT",
    )
    assert asked(host, (), cluster.now + allowed + 1) == (422, "SL-RECOVERY")
    assert host.stored == before
    assert asked(host, SEEN, cluster.now + allowed + 1) == (200, "")
