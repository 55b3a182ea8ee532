"""Service leases: approved nodes that serve a name, and one of them that leads where one does."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.limits import MAX_REPLICAS
from statelog.state import CONTROL, ROUTE
from tests.support.authority import DAY_S, QUORUMS, Cluster, node_id
from tests.support.verdicts import ADMITTED, changed, place, verdict, without

HOME, OTHER = node_id("home-1"), node_id("node-9")


def test_the_next_lease_follows(cluster: Cluster) -> None:
    assert cluster.append(cluster.service_lease("web-admin")).subject == ("web-admin",)
    assert cluster.service_lease("web-admin")["epoch"] == 2
    assert verdict(cluster, cluster.service_lease("web-admin", leader=OTHER)) == ADMITTED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"leader": OTHER}, ADMITTED),
        ({"leader": node_id("relay-1")}, ("SL-SHAPE", "leader")),
        ({"mode": "active-active"}, ("SL-SHAPE", "leader")),
        ({"mode": "primary"}, ("SL-SHAPE", "mode")),
        ({"replicas": [HOME]}, ADMITTED),
        ({"replicas": []}, ("SL-SHAPE", "replicas")),
        ({"replicas": [HOME, HOME]}, ("SL-SHAPE", "replicas")),
        ({"replicas": [f"{n:064x}" for n in range(MAX_REPLICAS + 1)]}, ("SL-SHAPE", "replicas")),
        ({"service": "a b"}, ("SL-SHAPE", "service")),
        ({"lifetime_s": DAY_S}, ADMITTED),
        ({"lifetime_s": DAY_S + 1}, ("SL-VALIDITY", "expires_at")),
    ],
)
def test_shape(cluster: Cluster, changes: dict[str, Any], expected: object) -> None:
    record = cluster.service_lease(**changes)
    assert (verdict if expected == ADMITTED else place)(cluster, record) == expected


def test_without_a_leader_all_are_equal(cluster: Cluster) -> None:
    record = without(cluster.service_lease(), "leader")
    assert place(cluster, record) == ("SL-SHAPE", "leader")
    assert verdict(cluster, cluster.sign(changed(record, "mode", "active-active"))) == ADMITTED


def test_replicas_are_approved_and_not_revoked(cluster: Cluster) -> None:
    stranger = cluster.service_lease(replicas=[HOME, node_id("stranger")])
    assert place(cluster, stranger) == ("SL-NODE", "replicas[1]")
    assert verdict(cluster, cluster.service_lease()) == ADMITTED
    cluster.append(cluster.revocation({"node_id": OTHER}))
    assert place(cluster, cluster.service_lease()) == ("SL-REVOKED", "replicas[1]")
    assert verdict(cluster, cluster.service_lease(replicas=[HOME])) == ADMITTED


def test_only_control_signs_it(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.service_lease(by=QUORUMS[CONTROL])) == ADMITTED
    assert verdict(cluster, cluster.service_lease(issuer_role=ROUTE, by=QUORUMS[ROUTE])) == "SL-ROLE"
