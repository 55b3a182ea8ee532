"""Candidates: signed by the node itself, for minutes, never in a log."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.authority import DAY_S, Cluster, endpoint, node_id
from tests.support.verdicts import ADMITTED, judge, verdict


def test_an_approved_node_speaks_for_itself(cluster: Cluster) -> None:
    admitted = cluster.admit_node_signed(cluster.candidates("phone-a"))
    assert admitted.subject == (node_id("phone-a"),)
    assert admitted.kind.name == "endpoint.candidates"
    assert not admitted.duplicate


def test_nobody_speaks_for_another(cluster: Cluster) -> None:
    assert judge(cluster, cluster.candidates("phone-a", by=["node:phone-a"])) == ADMITTED
    assert judge(cluster, cluster.candidates("phone-a", by=["node:home-1"])) == "SL-SCOPE"
    assert judge(cluster, cluster.candidates("phone-a", by=["control-1", "control-2"])) == "SL-SIG"
    assert judge(cluster, cluster.candidates("phone-a", by=[])) == "SL-QUORUM"
    both = cluster.candidates("phone-a", by=["node:phone-a", "node:home-1"])
    assert judge(cluster, both) == "SL-SCOPE"


def test_the_role_is_node(cluster: Cluster) -> None:
    record = cluster.candidates("phone-a", issuer_role="control-authority", by=["control-1", "control-2"])
    assert judge(cluster, record) == "SL-ROLE"


def test_the_node_is_approved(cluster: Cluster) -> None:
    assert judge(cluster, cluster.candidates("stranger")) == "SL-SIG"
    cluster.append(cluster.approval("stranger", lifetime_s=DAY_S))
    assert judge(cluster, cluster.candidates("stranger")) == ADMITTED
    cluster.now += DAY_S
    assert judge(cluster, cluster.candidates("stranger")) == "SL-NODE"


def test_the_node_is_not_revoked(cluster: Cluster) -> None:
    cluster.append(cluster.revocation({"node_id": node_id("phone-a")}))
    assert judge(cluster, cluster.candidates("phone-a")) == "SL-REVOKED"
    assert judge(cluster, cluster.candidates("home-1")) == ADMITTED


def test_never_in_a_log(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.candidates()) == "SL-SCHEMA"
    assert verdict(cluster, cluster.candidates(), ahead_of_log=True) == "SL-SCHEMA"
    assert judge(cluster, cluster.registry()) == "SL-SCHEMA"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"candidates": []}, ADMITTED),
        ({"candidates": [endpoint(n=n) for n in range(1, 33)]}, ADMITTED),
        ({"candidates": [endpoint(n=n) for n in range(1, 34)]}, "SL-SHAPE"),
        ({"candidates": [endpoint(), endpoint()]}, "SL-SHAPE"),
        ({"candidates": [endpoint(nat_group="home", maps_to="192.168.200.85:18080")]}, ADMITTED),
        ({"candidates": [endpoint(maps_to=None)]}, "SL-SHAPE"),
        ({"candidates": [endpoint(address="wss://a:1")]}, "SL-SHAPE"),
        ({"candidates": [endpoint(battery="low")]}, "SL-SHAPE"),
        ({"listen": []}, ADMITTED),
        ({"listen": ["0.0.0.0:1", "0.0.0.0:1"]}, "SL-SHAPE"),
    ],
)
def test_shape(cluster: Cluster, changes: dict[str, Any], expected: str) -> None:
    assert judge(cluster, cluster.candidates(**changes)) == expected


def test_epochs_are_clock_readings(cluster: Cluster) -> None:
    """Unix milliseconds, so that a wiped node recovers: the bound on jumps is for logs."""
    record = cluster.candidates()
    assert record["epoch"] > 1_700_000_000_000
    assert judge(cluster, record) == ADMITTED
