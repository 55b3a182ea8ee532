"""Revocations: at once, for good, by control alone."""

from __future__ import annotations

import pytest

from statelog.signing import record_id_of
from statelog.state import Target
from tests.support.authority import HOUR_S, Cluster, node_id
from tests.support.verdicts import ADMITTED, DUPLICATE, verdict


def test_it_acts_ahead_of_the_log(cluster: Cluster) -> None:
    record = cluster.revocation({"node_id": node_id("home-1")})
    admitted = cluster.admit(record, ahead_of_log=True)
    assert admitted.change is not None
    acting = cluster.state.copy()  # a node's own view: the log's state and what acts ahead of it
    acting.apply(admitted.change, None)
    assert acting.node_in_force(node_id("home-1"), cluster.now) is None
    assert acting.revoked[Target("node_id", node_id("home-1"))].log_index is None
    assert cluster.state.node_in_force(node_id("home-1"), cluster.now) is not None
    cluster.state = acting
    assert verdict(cluster, record, ahead_of_log=True) == DUPLICATE


def test_its_expiry_ends_its_admission_not_its_effect(cluster: Cluster) -> None:
    record = cluster.revocation({"node_id": node_id("home-1")}, lifetime_s=HOUR_S)
    cluster.append(record)
    cluster.now += 2 * HOUR_S
    assert verdict(cluster, record) == "SL-EXPIRED"
    assert verdict(cluster, cluster.approval("home-1")) == "SL-REVOKED"
    assert verdict(cluster, cluster.approval("node-9")) == ADMITTED


def test_a_revoked_node_signs_nothing(cluster: Cluster) -> None:
    assert cluster.admit_node_signed(cluster.candidates("home-1")).record_id
    certificate = cluster.certificate("home-1", delegation_depth=1)
    cluster.append(certificate)
    child = cluster.certificate("node-9", parent=certificate)
    assert verdict(cluster, child) == ADMITTED
    cluster.append(cluster.revocation({"node_id": node_id("home-1")}))
    assert verdict(cluster, child) == "SL-REVOKED"


def test_a_certificate_alone(cluster: Cluster) -> None:
    certificate = cluster.certificate("home-1")
    cluster.append(certificate)
    record_id = record_id_of(certificate)
    assert cluster.state.certificate_in_force(record_id, cluster.now) is not None
    cluster.append(cluster.revocation({"certificate": record_id}))
    assert cluster.state.certificate_in_force(record_id, cluster.now) is None
    assert cluster.state.node_in_force(node_id("home-1"), cluster.now) is not None


@pytest.mark.parametrize(
    "target", [{}, {"key": "a"}, {"node_id": "home-1"}, {"node_id": "a" * 64, "certificate": "b" * 64}]
)
def test_targets(cluster: Cluster, target: dict[str, str]) -> None:
    good = cluster.revocation({"node_id": node_id("home-1")})
    assert verdict(cluster, {**good, "target": target}) == "SL-SHAPE"


def test_only_control_revokes(cluster: Cluster) -> None:
    target = {"node_id": node_id("home-1")}
    assert verdict(cluster, cluster.revocation(target)) == ADMITTED
    by_route = cluster.revocation(target, issuer_role="route-authority", by=("route-1", "route-2"))
    assert verdict(cluster, by_route) == "SL-ROLE"
