"""Accounts: what a relay carried, signed by the relay, never in a log."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.limits import MAX_ACCOUNT_LINES
from statelog.times import format_time
from tests.support.authority import BASE_TIME, DAY_S, Cluster, make_cluster, node_id
from tests.support.verdicts import ADMITTED, changed, judge, verdict


@pytest.fixture
def cluster() -> Cluster:
    made = make_cluster()
    made.append(made.certificate("relay-1", "relay", lifetime_s=90 * DAY_S))
    return made


def signed(cluster: Cluster, path: str, value: Any) -> dict[str, Any]:
    return cluster.sign(changed(cluster.account(), path, value), by=["node:relay-1"])


def test_a_relay_speaks_for_itself(cluster: Cluster) -> None:
    admitted = cluster.admit_node_signed(cluster.account())
    assert admitted.subject == (node_id("relay-1"), format_time(cluster.now - 3_600))
    assert judge(cluster, cluster.account(by=["node:home-1"])) == "SL-SCOPE"
    assert judge(cluster, cluster.account(by=["control-1", "control-2"])) == "SL-SIG"
    assert judge(cluster, cluster.account(by=[])) == "SL-QUORUM"


def test_only_relays_carry(cluster: Cluster) -> None:
    assert judge(cluster, cluster.account("home-1")) == "SL-NODE"
    granted = cluster.append(cluster.certificate("home-1", "relay"))
    assert judge(cluster, cluster.account("home-1")) == ADMITTED
    cluster.append(cluster.revocation({"certificate": granted.record_id}))
    assert judge(cluster, cluster.account("home-1")) == "SL-NODE"
    cluster.append(cluster.revocation({"node_id": node_id("relay-1")}))
    assert judge(cluster, cluster.account()) == "SL-REVOKED"


def test_never_in_a_log(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.account()) == "SL-SCHEMA"
    assert verdict(cluster, cluster.account(), ahead_of_log=True) == "SL-SCHEMA"


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("carried", [], ADMITTED),
        ("carried.0.class", "express", "SL-SHAPE"),
        ("carried.0.class", "interactive", "SL-SHAPE"),  # the second line says that
        ("carried.0.class", "dns", ADMITTED),
        ("carried.0.bytes", "1", "SL-SHAPE"),
        ("since", format_time(BASE_TIME), "SL-SHAPE"),
        ("since", format_time(BASE_TIME - 1), ADMITTED),
        ("until", format_time(BASE_TIME + 1), "SL-SHAPE"),
        ("until", format_time(BASE_TIME - 1), ADMITTED),
    ],
)
def test_shape(cluster: Cluster, path: str, value: object, expected: str) -> None:
    assert judge(cluster, signed(cluster, path, value)) == expected


def test_lines_are_few(cluster: Cluster) -> None:
    (one, _) = cluster.account()["carried"]
    many = [{**one, "route_id": f"r{n}"} for n in range(MAX_ACCOUNT_LINES + 1)]
    assert judge(cluster, cluster.account(carried=many[:-1])) == ADMITTED
    assert judge(cluster, cluster.account(carried=many)) == "SL-SHAPE"
