"""Who speaks for a role: installed by control, everywhere or in one partition."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.state import CONTROL, OBSERVER, ROUTE, STORAGE, UPDATE
from tests.support.authority import DAY_S, Cluster, key_entry, key_id
from tests.support.verdicts import ADMITTED, refusal, verdict


@pytest.mark.parametrize("role", [ROUTE, UPDATE, STORAGE])
def test_a_mutating_role_needs_two(cluster: Cluster, role: str) -> None:
    assert verdict(cluster, cluster.members(role, "x-1", "x-2", threshold=2)) == ADMITTED
    assert verdict(cluster, cluster.members(role, "x-1", "x-2", threshold=1)) == "SL-PRODUCTION"


def test_one_observer_may_speak(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.members(OBSERVER, "x-1", threshold=1)) == ADMITTED


def test_development_may_use_one_signer(small: Cluster) -> None:
    record = small.members(ROUTE, "x-1", threshold=1)
    assert verdict(small, record) == ADMITTED
    small.append(record)
    key_set = small.state.key_set(ROUTE)
    assert key_set is not None
    assert key_set.bootstrap


@pytest.mark.parametrize("role", [CONTROL, "root-authority", "node", "entry"])
def test_only_delegated_roles_have_members_records(cluster: Cluster, role: str) -> None:
    assert verdict(cluster, cluster.members(ROUTE, role=role)) == "SL-SHAPE"


def test_the_threshold_can_be_met(cluster: Cluster) -> None:
    keys = [key_entry("x-1", issuer_id="one"), key_entry("x-2", issuer_id="one")]
    assert verdict(cluster, cluster.members(ROUTE, keys=keys)) == "SL-THRESHOLD"
    keys[1] = key_entry("x-2", issuer_id="two")
    assert verdict(cluster, cluster.members(ROUTE, keys=keys)) == ADMITTED
    assert verdict(cluster, cluster.members(ROUTE, keys=keys, threshold=3)) == "SL-THRESHOLD"
    assert verdict(cluster, cluster.members(ROUTE, keys=keys, threshold=0)) == "SL-SHAPE"


def test_a_root_key_serves_no_other_role(cluster: Cluster) -> None:
    found = refusal(cluster, cluster.members(ROUTE, "x-1", "root-1"))
    assert not isinstance(found, str)
    assert (found.code, found.path) == ("SL-PRODUCTION", "keys[1]")
    assert verdict(cluster, cluster.members(ROUTE, "x-1", "control-1")) == ADMITTED


def test_in_development_a_root_key_may(small: Cluster) -> None:
    assert verdict(small, small.members(ROUTE, "root-1", threshold=1)) == ADMITTED


@pytest.mark.parametrize("name", ["witness-1", "sequencer-1", "node:home-1", "recovery-1"])
def test_a_key_of_another_purpose_cannot_become_a_member(cluster: Cluster, name: str) -> None:
    assert verdict(cluster, cluster.members(ROUTE, "x-1", name)) == "SL-KEY"


def test_members_expire(cluster: Cluster) -> None:
    cluster.append(cluster.members(ROUTE, lifetime_s=DAY_S))
    assert verdict(cluster, cluster.lease()) == ADMITTED
    cluster.now += DAY_S
    found = refusal(cluster, cluster.lease())
    assert not isinstance(found, str)
    assert (found.code, found.path) == ("SL-EXPIRED", "issuer_role")


def test_a_key_keeps_its_issuer(cluster: Cluster) -> None:
    same = key_entry("route-1")
    renamed: dict[str, Any] = key_entry("route-1", issuer_id="somebody-else")
    more = key_entry("x-1")
    assert verdict(cluster, cluster.members(UPDATE, keys=[same, more])) == ADMITTED
    assert verdict(cluster, cluster.members(UPDATE, keys=[renamed, more])) == "SL-KEY"


def test_a_partition_has_its_own_members_or_the_clusters(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.lease(partition="eu-1")) == ADMITTED
    cluster.append(cluster.members(ROUTE, "eu-a", "eu-b", partition="eu-1"))
    assert verdict(cluster, cluster.lease(partition="eu-1")) == "SL-SCOPE"
    assert verdict(cluster, cluster.lease(partition="eu-1", by=("eu-a", "eu-b"))) == ADMITTED
    assert verdict(cluster, cluster.lease(partition="us-1")) == ADMITTED
    assert verdict(cluster, cluster.lease(partition="us-1", by=("eu-a", "eu-b"))) == "SL-SCOPE"


def test_a_removed_key_signs_nothing_new_and_never_returns(cluster: Cluster) -> None:
    before = cluster.lease(by=("route-1", "route-3"))
    assert verdict(cluster, before) == ADMITTED
    cluster.append(cluster.members(ROUTE, "route-1", "route-2"))
    assert verdict(cluster, before) == "SL-REVOKED"
    assert verdict(cluster, cluster.lease(by=("route-1", "route-2"))) == ADMITTED
    assert verdict(cluster, cluster.lease(by=("route-1", "never-known"))) == "SL-SIG"
    assert verdict(cluster, cluster.members(UPDATE, "x-1", "route-3")) == "SL-REVOKED"
    assert cluster.state.retired == {key_id("route-3"): cluster.log.size - 1}


def test_a_key_that_leaves_one_role_keeps_the_other(cluster: Cluster) -> None:
    cluster.append(cluster.members(UPDATE, "route-1", "update-2"))
    cluster.append(cluster.members(ROUTE, "route-2", "route-3"))
    assert cluster.state.keys[key_id("route-1")].roles == {UPDATE}
    assert verdict(cluster, cluster.registry("update-store", by=("route-1", "update-2"))) == ADMITTED
    assert verdict(cluster, cluster.lease(by=("route-1", "route-2"))) == "SL-SIG"  # no longer a role of it


def test_nobody_installs_themselves(cluster: Cluster) -> None:
    record = cluster.members(ROUTE, "x-1", "x-2", issuer_role=ROUTE, by=("route-1", "route-2"))
    assert verdict(cluster, record) == "SL-ROLE"
    assert verdict(cluster, cluster.members(ROUTE, "x-1", "x-2")) == ADMITTED
