"""The steps of admission one by one: cluster, time, order, signatures, roles, quorum."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.state import ROUTE
from tests.support.authority import DAY_S, HOUR_S, Cluster, endpoint, make_cluster
from tests.support.verdicts import ADMITTED, DUPLICATE, changed, verdict


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


# --- 4-5: cluster and time ---


def test_another_cluster(cluster: Cluster) -> None:
    other = make_cluster(cluster_id="other.abcdefghijklmnopqrstuvwxyz")
    assert verdict(cluster, other.registry()) == "SL-CLUSTER"
    assert verdict(other, other.registry()) == ADMITTED


@pytest.mark.parametrize(
    ("issued_after_s", "expected"),
    [(0, ADMITTED), (120, ADMITTED), (121, "SL-FUTURE"), (-HOUR_S + 1, ADMITTED)],
)
def test_the_clock_skew_of_the_descriptor(cluster: Cluster, issued_after_s: int, expected: str) -> None:
    assert verdict(cluster, cluster.registry(issued_at=cluster.now + issued_after_s)) == expected


def test_expiry_is_the_first_second_without(cluster: Cluster) -> None:
    record = cluster.registry(lifetime_s=HOUR_S)
    cluster.now += HOUR_S - 1
    assert verdict(cluster, record) == ADMITTED
    cluster.now += 1
    assert verdict(cluster, record) == "SL-EXPIRED"


def test_a_record_is_valid_for_some_time_and_not_for_ever(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.registry(lifetime_s=30 * DAY_S)) == ADMITTED
    assert verdict(cluster, cluster.registry(lifetime_s=30 * DAY_S + 1)) == "SL-VALIDITY"
    for lifetime_s, expected in ((-30, "SL-VALIDITY"), (0, "SL-VALIDITY"), (1, ADMITTED)):
        record = cluster.registry(issued_at=cluster.now + 60, lifetime_s=lifetime_s)
        assert verdict(cluster, record) == expected


# --- 6, 11: duplicates, stale copies, equivocation, jumps ---


def test_a_duplicate_has_no_effect(cluster: Cluster) -> None:
    record = cluster.registry()
    first = cluster.append(record)
    before = cluster.state.copy()
    again = cluster.admit(record)
    assert (again.duplicate, again.change, again.record_id) == (True, None, first.record_id)
    assert before == cluster.state


def test_a_duplicate_with_other_signatures_is_the_same_record(cluster: Cluster) -> None:
    cluster.append(cluster.registry())
    assert verdict(cluster, cluster.sign(cluster.registry(epoch=1), ("control-2", "control-3"))) == DUPLICATE


def test_epochs_only_grow(cluster: Cluster) -> None:
    cluster.append(cluster.registry(epoch=7))
    assert verdict(cluster, cluster.registry(epoch=6)) == "SL-STALE"
    assert verdict(cluster, cluster.registry(epoch=8)) == ADMITTED
    assert verdict(cluster, cluster.registry(epoch=1_007)) == ADMITTED
    assert verdict(cluster, cluster.registry(epoch=1_008)) == "SL-EPOCH"
    assert verdict(cluster, cluster.registry("web-admin", epoch=1)) == ADMITTED  # a subject of its own
    assert verdict(cluster, cluster.registry("web-admin", epoch=1_001)) == "SL-EPOCH"


def test_a_stale_copy_costs_no_signature_check(cluster: Cluster) -> None:
    cluster.append(cluster.registry(epoch=7))
    unsigned = cluster.registry(epoch=6, by=())
    assert verdict(cluster, unsigned) == "SL-STALE"


@pytest.mark.parametrize("ahead_of_log", [False, True])
def test_equivocation_needs_valid_signatures(cluster: Cluster, ahead_of_log: bool) -> None:
    cluster.append(cluster.registry(epoch=1))
    other = [endpoint("node-9")]

    def second(**changes: Any) -> str:
        return verdict(cluster, cluster.registry(endpoints=other, **changes), ahead_of_log=ahead_of_log)

    assert second(epoch=1) == "SL-EQUIVOCATION"
    assert second(epoch=1, by=("control-1",)) == "SL-QUORUM"  # anybody could invent that
    assert second(epoch=2) == ADMITTED


# --- 7-9: signatures, roles, quorum ---


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (("control-1", "control-2"), ADMITTED),
        (("control-2", "control-3"), ADMITTED),
        (("control-1", "control-2", "control-3"), ADMITTED),
        (("control-1",), "SL-QUORUM"),
        ((), "SL-QUORUM"),
        (("control-1", "control-2", "nobody"), "SL-SIG"),
        (("root-1", "root-2"), "SL-SIG"),  # not control's keys, whatever the entry says
        (("witness-1", "witness-2"), "SL-SIG"),
        (("sequencer-1", "control-1"), "SL-SIG"),
        (("node:home-1", "control-1"), "SL-SIG"),
    ],
)
def test_who_may_sign_for_control(cluster: Cluster, by: tuple[str, ...], expected: str) -> None:
    assert verdict(cluster, cluster.registry(by=by)) == expected


def test_the_root_signs_as_root_but_not_this(cluster: Cluster) -> None:
    mixed = cluster.registry(by=("control-1", "control-2"))
    as_root = cluster.sign(cluster.registry(), ("root-1", "root-2"), role="root-authority")
    assert verdict(cluster, as_root) == "SL-ROLE"
    entries = sorted([*mixed["signatures"], *as_root["signatures"]], key=lambda entry: entry["key_id"])
    assert verdict(cluster, {**mixed, "signatures": entries}) == "SL-ROLE"
    assert verdict(cluster, mixed) == ADMITTED


def test_a_signature_is_valid_for_one_record(cluster: Cluster) -> None:
    one, other = cluster.registry("web-admin"), cluster.registry("control-api")
    assert verdict(cluster, {**one, "signatures": other["signatures"]}) == "SL-SIG"


def test_a_bad_copy_says_nothing_about_the_record(cluster: Cluster) -> None:
    record = cluster.registry()
    assert verdict(cluster, changed(record, "signatures.0.value", "A" * 86 + "==")) == "SL-SIG"
    assert verdict(cluster, record) == ADMITTED


def test_without_cryptography_keys_roles_and_quorum_still_count(cluster: Cluster) -> None:
    record = changed(cluster.registry(), "signatures.0.value", "A" * 86 + "==")
    assert verdict(cluster, record, verify_signatures=False) == ADMITTED
    assert verdict(cluster, cluster.registry(by=("control-1",)), verify_signatures=False) == "SL-QUORUM"
    stranger = cluster.registry(by=("control-1", "nobody"))
    assert verdict(cluster, stranger, verify_signatures=False) == "SL-SIG"
    assert verdict(cluster, cluster.registry(issuer_role=ROUTE), verify_signatures=False) == "SL-ROLE"
