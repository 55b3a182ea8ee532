"""Relay assignments: route authority picks among the relays that control has made."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.limits import MAX_MBIT_PER_S, MAX_RELAYS
from statelog.state import CONTROL, ROUTE, UPDATE
from tests.support.authority import DAY_S, QUORUMS, Cluster, make_cluster, node_id
from tests.support.verdicts import ADMITTED, changed, place, verdict

RELAY = "relays.0"


@pytest.fixture
def cluster() -> Cluster:
    made = make_cluster()
    made.append(made.certificate("relay-1", "relay", lifetime_s=90 * DAY_S))
    return made


def signed(cluster: Cluster, path: str, value: Any) -> dict[str, Any]:
    return cluster.sign(changed(cluster.assignment(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (f"{RELAY}.classes", ["dns"], ADMITTED),
        (f"{RELAY}.classes", [], ("SL-SHAPE", "relays[0].classes")),
        (f"{RELAY}.classes", ["dns", "dns"], ("SL-SHAPE", "relays[0].classes")),
        (f"{RELAY}.classes", ["express"], ("SL-SHAPE", "relays[0].classes[0]")),
        (f"{RELAY}.max_mbit_per_s", MAX_MBIT_PER_S, ADMITTED),
        (f"{RELAY}.max_mbit_per_s", MAX_MBIT_PER_S + 1, ("SL-SHAPE", "relays[0].max_mbit_per_s")),
        (f"{RELAY}.max_mbit_per_s", 0, ("SL-SHAPE", "relays[0].max_mbit_per_s")),
        ("relays", [], ADMITTED),
        ("rendezvous", [], ADMITTED),
        ("rendezvous", [node_id("home-1")] * 2, ("SL-SHAPE", "rendezvous")),
        ("rendezvous", [f"{n:064x}" for n in range(MAX_RELAYS + 1)], ("SL-SHAPE", "rendezvous")),
        ("partition", "EU", ("SL-SHAPE", "partition")),
    ],
)
def test_shape(cluster: Cluster, path: str, value: object, expected: object) -> None:
    assert (verdict if expected == ADMITTED else place)(cluster, signed(cluster, path, value)) == expected


def test_a_node_relays_once(cluster: Cluster) -> None:
    (relay,) = cluster.assignment()["relays"]
    assert place(cluster, signed(cluster, "relays", [relay, relay])) == ("SL-SHAPE", "relays")


def test_a_relay_holds_a_relay_certificate(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.assignment()) == ADMITTED
    other = signed(cluster, f"{RELAY}.node_id", node_id("node-9"))
    assert place(cluster, other) == ("SL-NODE", "relays[0].node_id")
    cluster.append(cluster.certificate("node-9", "entry"))
    assert place(cluster, other) == ("SL-NODE", "relays[0].node_id")
    cluster.append(cluster.certificate("node-9", "relay"))
    assert verdict(cluster, other) == ADMITTED


def test_the_certificate_is_in_force_and_for_the_partition(cluster: Cluster) -> None:
    for partitions, expected in ((["eu-1", "us-1"], ADMITTED), (["us-1"], "SL-NODE"), ([], "SL-NODE")):
        cluster.append(cluster.certificate("relay-1", "relay", scope={"partitions": partitions}))
        assert verdict(cluster, cluster.assignment()) == expected, partitions
    granted = cluster.append(cluster.certificate("relay-1", "relay", lifetime_s=2 * DAY_S))
    assert verdict(cluster, cluster.assignment()) == ADMITTED
    cluster.now += 2 * DAY_S
    assert verdict(cluster, cluster.assignment()) == "SL-NODE"
    cluster.now -= DAY_S
    assert verdict(cluster, cluster.assignment()) == ADMITTED
    cluster.append(cluster.revocation({"certificate": granted.record_id}))
    assert verdict(cluster, cluster.assignment()) == "SL-NODE"


def test_nodes_meet_at_approved_nodes(cluster: Cluster) -> None:
    assert place(cluster, signed(cluster, "rendezvous", [node_id("stranger")])) == (
        "SL-NODE",
        "rendezvous[0]",
    )
    assert verdict(cluster, signed(cluster, "rendezvous", [node_id("node-9")])) == ADMITTED
    cluster.append(cluster.revocation({"node_id": node_id("home-1")}))
    assert place(cluster, cluster.assignment()) == ("SL-REVOKED", "rendezvous[0]")


def test_only_route_authority_of_the_partition_signs_it(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.assignment(by=QUORUMS[ROUTE])) == ADMITTED
    for role in (CONTROL, UPDATE):
        assert verdict(cluster, cluster.assignment(issuer_role=role, by=QUORUMS[role])) == "SL-ROLE"
    cluster.append(cluster.members(ROUTE, "route-4", "route-5", partition="eu-1"))
    assert verdict(cluster, cluster.assignment(by=QUORUMS[ROUTE])) == "SL-SCOPE"
    assert verdict(cluster, cluster.assignment(by=("route-4", "route-5"))) == ADMITTED
    assert verdict(cluster, cluster.assignment("us-1", by=QUORUMS[ROUTE])) == ADMITTED


def test_it_belongs_in_the_partitions_log_once_that_is_open(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.assignment()) == ADMITTED
    cluster.append(cluster.log_term("routes-eu-1", start_size=0))
    assert verdict(cluster, cluster.assignment()) == "SL-SCOPE"
    assert verdict(cluster, cluster.assignment("us-1")) == ADMITTED
