"""Named risks: what a change takes away that a role has now, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.errors import Refused, UsageError
from statelog.risks import RISKS, check_accepted, risks
from statelog.state import CONTROL, ROUTE
from tests.support.authority import Cluster, key_entry, make_cluster, node_id


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


def keys(custody: str, *names: str) -> list[dict[str, Any]]:
    return [key_entry(name, custody=custody) for name in names]


def names(cluster: Cluster, record: dict[str, Any]) -> list[str]:
    return [f"{risk.name} {risk.role}" for risk in risks(record, cluster.state, cluster.now)]


def test_the_last_online_signer(cluster: Cluster) -> None:
    one = [*keys("online", "route-4"), *keys("offline", "route-5")]
    none = keys("offline", "route-4", "route-5")
    assert names(cluster, cluster.members(ROUTE, keys=one)) == []
    assert names(cluster, cluster.members(ROUTE, keys=none)) == ["last-online-signer route-authority"]
    cluster.append(cluster.members(ROUTE, keys=none))
    again = cluster.members(ROUTE, keys=keys("hardware", "route-6", "route-7"))
    assert names(cluster, again) == []  # there was none to lose


def test_a_partition_loses_what_spoke_for_it(cluster: Cluster) -> None:
    own = cluster.members(ROUTE, keys=keys("offline", "route-4", "route-5"), partition="eu-1")
    (risk,) = risks(own, cluster.state, cluster.now)
    assert (risk.name, risk.partition) == ("last-online-signer", "eu-1")
    assert str(risk).startswith("route-authority of eu-1: no key of the role is online")


def test_a_first_set_takes_nothing_away() -> None:
    cluster = make_cluster(members=False)
    assert names(cluster, cluster.members(ROUTE, keys=keys("offline", "route-4", "route-5"))) == []


def test_a_root_is_never_online_and_loses_nothing(cluster: Cluster) -> None:
    assert names(cluster, cluster.descriptor()) == []
    control = keys("hardware", "control-4", "control-5")
    change = {
        "keys": [*keys("offline", "root-1", "root-2", "root-3"), *control],
        "control": cluster.holders("control-4", "control-5", threshold=2),
    }
    assert names(cluster, cluster.descriptor(**change)) == [f"last-online-signer {CONTROL}"]


def test_the_last_signer_that_is_no_phone(cluster: Cluster) -> None:
    phones = [key_entry(f"route-of-{name}", issuer_id=node_id(name)) for name in ("phone-a", "node-9")]
    record = cluster.members(ROUTE, keys=phones)
    assert names(cluster, record) == []
    granted = cluster.append(cluster.certificate("phone-a", "mobile-edge"))
    assert names(cluster, record) == []
    cluster.append(cluster.certificate("node-9", "mobile-edge"))
    assert names(cluster, record) == ["last-non-mobile-signer route-authority"]
    cluster.append(cluster.revocation({"certificate": granted.record_id}))
    assert names(cluster, record) == []


def test_without_a_state_the_worst_is_assumed(cluster: Cluster) -> None:
    none = cluster.members(ROUTE, keys=keys("offline", "route-4", "route-5"))
    assert [risk.name for risk in risks(none, None, cluster.now)] == ["last-online-signer"]
    assert risks(cluster.members(ROUTE), None, cluster.now) == []
    assert risks(cluster.genesis, None, cluster.now) == []


def test_a_risk_is_accepted_by_its_name(cluster: Cluster) -> None:
    record = cluster.members(ROUTE, keys=keys("offline", "route-4", "route-5"))
    with pytest.raises(Refused) as refused:
        check_accepted(record, cluster.state, cluster.now, ["last-non-mobile-signer"])
    assert refused.value.code == "SL-RISK"
    assert refused.value.finding.expected == "--accept-risk=last-online-signer"
    check_accepted(record, cluster.state, cluster.now, ["last-online-signer"])
    check_accepted(cluster.policy(), cluster.state, cluster.now, list(RISKS))
    with pytest.raises(UsageError, match="no risk is called anything"):
        check_accepted(record, cluster.state, cluster.now, ["anything"])
