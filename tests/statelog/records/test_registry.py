"""Where services are: who may say so, in which shape, and which of two records prevails."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.records.registry import role_for_service
from statelog.state import CONTROL, ROUTE, STORAGE, UPDATE
from tests.support.authority import QUORUMS, Cluster, endpoint
from tests.support.verdicts import ADMITTED, refusal, verdict

SERVICES = [
    ("control-api", CONTROL),
    ("web-admin", CONTROL),
    ("anything-else", CONTROL),
    ("relay", CONTROL),  # the rule is about names that begin relay-
    ("storage", CONTROL),
    ("update-store", UPDATE),
    ("update-cache", UPDATE),
    ("update-other", CONTROL),
    ("storage-eu", STORAGE),
    ("vpn-egress-pool", ROUTE),
    ("relay-eu-1", ROUTE),
    ("rendezvous-eu-1", ROUTE),
]


@pytest.mark.parametrize(("service", "role"), SERVICES)
def test_the_service_decides_the_role(cluster: Cluster, service: str, role: str) -> None:
    assert role_for_service(service) == role
    assert verdict(cluster, cluster.registry(service)) == ADMITTED
    for other in {CONTROL, UPDATE, STORAGE, ROUTE} - {role}:
        claimed = cluster.registry(service, issuer_role=other, by=QUORUMS[other])
        assert verdict(cluster, claimed) == "SL-ROLE"


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"scope": "organization", "organization_id": "org-1"}, None),
        ({"scope": "farm"}, None),
        ({"scope": "organization"}, "organization_id"),
        ({"scope": "cluster", "organization_id": "org-1"}, "organization_id"),
        ({"scope": "galaxy"}, "scope"),
        ({"endpoints": []}, "endpoints"),
        ({"endpoints": [endpoint(n=n) for n in range(1, 17)]}, None),
        ({"endpoints": [endpoint(n=n) for n in range(1, 18)]}, "endpoints"),
        ({"endpoints": [endpoint(), endpoint()]}, "endpoints"),
        ({"endpoints": [endpoint(address="https://a:443")]}, "endpoints[0].address"),
        ({"endpoints": [endpoint(), endpoint(n=2, transport="websocket")]}, "endpoints[1].transport"),
        ({"endpoints": [endpoint(priority=65_536)]}, "endpoints[0].priority"),
        ({"endpoints": [endpoint(interface="eth0")]}, "endpoints[0].interface"),
        ({"generation": "1"}, "generation"),
    ],
)
def test_shape(cluster: Cluster, changes: dict[str, Any], path: str | None) -> None:
    found = refusal(cluster, cluster.registry("control-api", **changes))
    if path is None:
        assert found == ADMITTED
    else:
        assert not isinstance(found, str)
        assert (found.code, found.path) == ("SL-SHAPE", path)


def test_each_scope_and_organization_is_a_subject_of_its_own(cluster: Cluster) -> None:
    subjects = [
        cluster.append(cluster.registry("web-admin", **more)).subject
        for more in ({}, {"scope": "farm"}, *({"scope": "organization", "organization_id": o} for o in "ab"))
    ]
    assert subjects == [
        ("web-admin", "cluster", ""),
        ("web-admin", "farm", ""),
        ("web-admin", "organization", "a"),
        ("web-admin", "organization", "b"),
    ]


def test_it_acts_ahead_of_the_log(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.registry(), ahead_of_log=True) == ADMITTED
