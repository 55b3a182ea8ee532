"""Fences: every lease before one ends, and no copy as old as it returns."""

from __future__ import annotations

import pytest

from statelog.state import CONTROL, ROUTE
from tests.support.authority import QUORUMS, Cluster, node_id
from tests.support.verdicts import ADMITTED, verdict

TARGETS = [{"route_id": "route-a"}, {"node_id": node_id("relay-1")}, {"partition": "eu-1"}]
LEFT = [["route-b", "route-c"], ["route-b"], ["route-b"]]


def leased(cluster: Cluster) -> list[str]:
    """Three leases: one hit by every target, one of another partition and other nodes, one of the same."""
    cluster.append(cluster.lease("route-a", "phone-a", "relay-1", "home-1", partition="eu-1"))
    cluster.append(cluster.lease("route-b", "phone-a", "home-1", partition="us-1"))
    cluster.append(cluster.lease("route-c", "phone-a", "relay-1", "node-9", partition="eu-1"))
    return sorted(cluster.state.leases)


@pytest.mark.parametrize(("target", "left"), list(zip(TARGETS, LEFT, strict=True)))
def test_it_ends_the_leases_of_its_target(cluster: Cluster, target: dict[str, str], left: list[str]) -> None:
    assert leased(cluster) == ["route-a", "route-b", "route-c"]
    cluster.append(cluster.fence(target))
    assert sorted(cluster.state.leases) == left


@pytest.mark.parametrize("target", TARGETS)
def test_only_later_leases_pass(cluster: Cluster, target: dict[str, str]) -> None:
    held_back = cluster.lease("route-a")  # signed before the fence, delivered after it
    assert verdict(cluster, held_back) == ADMITTED
    cluster.append(cluster.fence(target))
    assert verdict(cluster, held_back) == "SL-FENCED"
    assert verdict(cluster, cluster.lease("route-x", "usa-los-1", "home-1", partition="us-1")) == ADMITTED
    cluster.now += 1
    assert verdict(cluster, cluster.lease("route-a")) == ADMITTED


@pytest.mark.parametrize("target", TARGETS)
def test_it_acts_ahead_of_the_log(cluster: Cluster, target: dict[str, str]) -> None:
    leased(cluster)
    admitted = cluster.admit(cluster.fence(target), ahead_of_log=True)
    assert admitted.change is not None
    acting = cluster.state.copy()
    acting.apply(admitted.change, None)
    assert "route-a" not in acting.leases
    assert "route-a" in cluster.state.leases


@pytest.mark.parametrize("target", TARGETS)
def test_who_fences_what(cluster: Cluster, target: dict[str, str]) -> None:
    """Control fences nodes, route authority fences routes and partitions, and neither the other's."""
    leased(cluster)
    right, wrong = (CONTROL, ROUTE) if "node_id" in target else (ROUTE, CONTROL)
    assert verdict(cluster, cluster.fence(target, issuer_role=right, by=QUORUMS[right])) == ADMITTED
    assert verdict(cluster, cluster.fence(target, issuer_role=wrong, by=QUORUMS[wrong])) == "SL-ROLE"


def test_the_partitions_own_authority_fences_its_routes(cluster: Cluster) -> None:
    leased(cluster)
    cluster.append(cluster.members(ROUTE, "eu-a", "eu-b", partition="eu-1"))
    by = ("eu-a", "eu-b")
    assert verdict(cluster, cluster.fence({"route_id": "route-a"}, by=by)) == ADMITTED
    assert verdict(cluster, cluster.fence({"route_id": "route-b"}, by=by)) == "SL-SCOPE"
    assert verdict(cluster, cluster.fence({"partition": "eu-1"}, by=by)) == ADMITTED
    assert verdict(cluster, cluster.fence({"partition": "us-1"}, by=by)) == "SL-SCOPE"
    cluster.append(cluster.fence({"route_id": "route-a"}, by=by))
    cluster.now += 1
    assert verdict(cluster, cluster.fence({"route_id": "route-a"}, by=by)) == ADMITTED  # it has no lease now


def test_an_older_fence_does_not_weaken_a_newer(cluster: Cluster) -> None:
    cluster.append(cluster.fence({"route_id": "route-a"}))
    cluster.append(cluster.fence({"route_id": "route-a"}, issued_at=cluster.now - 60))
    assert verdict(cluster, cluster.lease("route-a", issued_at=cluster.now - 30)) == "SL-FENCED"
    cluster.now += 1
    assert verdict(cluster, cluster.lease("route-a")) == ADMITTED


@pytest.mark.parametrize(
    "target", [{}, {"route_id": "a", "partition": "b"}, {"cluster": "a"}, {"node_id": "a"}]
)
def test_targets(cluster: Cluster, target: dict[str, str]) -> None:
    assert verdict(cluster, {**cluster.fence({"partition": "eu-1"}), "target": target}) == "SL-SHAPE"
