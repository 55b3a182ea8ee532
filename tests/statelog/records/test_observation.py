"""Observations: signed by a node whom observer authority lists, for minutes, never in a log."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.limits import MAX_OBSERVATIONS
from statelog.state import CONTROL, OBSERVER, ROUTE
from statelog.times import format_time
from tests.support.authority import BASE_TIME, QUORUMS, Cluster, key_entry, make_cluster, node_id
from tests.support.verdicts import ADMITTED, changed, judge, verdict


@pytest.fixture
def cluster() -> Cluster:
    made = make_cluster()
    made.append(observers(made, "phone-a"))
    return made


def observers(cluster: Cluster, *nodes: str, **changes: Any) -> dict[str, Any]:
    """A members record of observer authority with one key for each node."""
    keys = [key_entry(f"observer-of-{node}", issuer_id=node_id(node)) for node in nodes]
    return cluster.members(OBSERVER, threshold=1, keys=keys, **changes)


def test_an_observer_speaks_for_itself(cluster: Cluster) -> None:
    admitted = cluster.admit_node_signed(cluster.observation("phone-a"))
    assert admitted.subject == (node_id("phone-a"),)
    assert judge(cluster, cluster.observation("phone-a", by=["node:home-1"])) == "SL-SCOPE"
    assert judge(cluster, cluster.observation("phone-a", by=["observer-of-phone-a"])) == "SL-SIG"
    assert judge(cluster, cluster.observation("phone-a", by=[])) == "SL-QUORUM"


def test_observer_authority_says_who_observes(cluster: Cluster) -> None:
    assert judge(cluster, cluster.observation("home-1")) == "SL-ROLE"
    cluster.append(observers(cluster, "home-1", partition="eu-1"))
    assert judge(cluster, cluster.observation("home-1")) == ADMITTED
    assert judge(cluster, cluster.observation("phone-a")) == ADMITTED
    cluster.append(observers(cluster, "home-1"))
    assert judge(cluster, cluster.observation("phone-a")) == "SL-ROLE"


def test_another_role_makes_no_observer(cluster: Cluster) -> None:
    keys = [key_entry(f"route-of-{n}", issuer_id=node_id(n)) for n in ("home-1", "node-9")]
    cluster.append(cluster.members(ROUTE, keys=keys))
    assert judge(cluster, cluster.observation("home-1")) == "SL-ROLE"


def test_the_members_record_is_in_force(cluster: Cluster) -> None:
    cluster.append(observers(cluster, "phone-a", lifetime_s=60))
    cluster.now += 59
    assert judge(cluster, cluster.observation()) == ADMITTED
    cluster.now += 1
    assert judge(cluster, cluster.observation()) == "SL-ROLE"


def test_development_makes_no_observers_in_production() -> None:
    cluster = make_cluster("development")
    cluster.append(observers(cluster, "phone-a"))
    assert judge(cluster, cluster.observation()) == ADMITTED
    cluster.mode = "production"
    cluster.append(cluster.descriptor(by=["root-1", "root-2"]))
    by = ("control-1", "control-2")
    cluster.append(cluster.approval("phone-a", by=by))
    assert judge(cluster, cluster.observation()) == "SL-ROLE"
    cluster.append(observers(cluster, "phone-a", by=by))
    assert judge(cluster, cluster.observation()) == ADMITTED


def test_the_node_is_approved_and_not_revoked(cluster: Cluster) -> None:
    cluster.append(observers(cluster, "phone-a", "stranger"))
    assert judge(cluster, cluster.observation("stranger")) == "SL-SIG"
    cluster.append(cluster.revocation({"node_id": node_id("phone-a")}))
    assert judge(cluster, cluster.observation()) == "SL-REVOKED"


def test_never_in_a_log(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.observation()) == "SL-SCHEMA"
    assert verdict(cluster, cluster.observation(), ahead_of_log=True) == "SL-SCHEMA"


def test_the_role_is_node(cluster: Cluster) -> None:
    assert judge(cluster, cluster.observation(issuer_role=CONTROL, by=QUORUMS[CONTROL])) == "SL-ROLE"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("observed", [], ADMITTED),
        ("observed.0.target", {"route_id": "r7"}, ADMITTED),
        ("observed.0.target", {"service": "web-admin"}, ADMITTED),
        ("observed.0.target", {"endpoint_id": "any text"}, ADMITTED),
        ("observed.0.target", {"route_id": "r7", "service": "s"}, "SL-SHAPE"),
        ("observed.0.target", {}, "SL-SHAPE"),
        ("observed.0.metric", "loss_ppm", ADMITTED),
        ("observed.0.metric", "", "SL-SHAPE"),
        ("observed.0.value", 0, ADMITTED),
        ("observed.0.value", "1", "SL-SHAPE"),
        ("observed.0.observed_at", format_time(BASE_TIME - 60), ADMITTED),
        ("observed.0.observed_at", format_time(BASE_TIME + 1), "SL-SHAPE"),
    ],
)
def test_shape(cluster: Cluster, path: str, value: object, expected: str) -> None:
    record = cluster.sign(changed(cluster.observation(), path, value), by=["node:phone-a"])
    assert judge(cluster, record) == expected


def test_each_metric_of_a_target_once_and_few(cluster: Cluster) -> None:
    (one,) = cluster.observation()["observed"]
    many = [{**one, "metric": f"m{n}"} for n in range(MAX_OBSERVATIONS + 1)]
    assert judge(cluster, cluster.observation(observed=many[:-1])) == ADMITTED
    assert judge(cluster, cluster.observation(observed=many)) == "SL-SHAPE"
    assert judge(cluster, cluster.observation(observed=[one, {**one, "value": 1}])) == "SL-SHAPE"
