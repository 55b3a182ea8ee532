"""Leases: by the partition's route authority, through approved nodes, until a fence."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from statelog.admission import admit
from statelog.canonical import encode
from statelog.errors import Refused
from statelog.signing import encode_base64
from statelog.state import Target
from tests.support.authority import Cluster, Log, node_id
from tests.support.verdicts import ADMITTED, refusal, verdict, without

A, B, C = (node_id(name) for name in ("phone-a", "relay-1", "home-1"))


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, None),
        ({"organization_id": "org-1"}, None),
        ({"hops": [A, C]}, None),
        ({"hops": [A]}, "hops"),
        ({"hops": [A, B, A]}, "hops"),
        ({"hops": [f"{n:064x}" for n in range(17)]}, "hops"),
        ({"hops": ["phone-a", "home-1"]}, "hops[0]"),
        ({"next_hop": {"policy": "nearest"}}, "hops"),  # both
        ({"allowed_classes": ["bulk", "bulk"]}, "allowed_classes"),
        ({"allowed_classes": ["urgent"]}, "allowed_classes[0]"),
        ({"allowed_services": ["*", "ssh"]}, "allowed_services[0]"),
        ({"alternates": ["route-b", "route-c"]}, None),
        ({"alternates": ["route-a"]}, "alternates"),
        ({"partition": "EU"}, "partition"),
    ],
)
def test_shape(cluster: Cluster, changes: dict[str, Any], path: str | None) -> None:
    found = refusal(cluster, cluster.lease(**changes))
    if path is None:
        assert found == ADMITTED
    else:
        assert not isinstance(found, str)
        assert (found.code, found.path) == ("SL-SHAPE", path)


def test_hops_or_a_policy_for_the_next_hop(cluster: Cluster) -> None:
    by_policy = without(cluster.lease(next_hop={"policy": "nearest"}), "hops")
    by_policy = cluster.sign(by_policy)
    assert verdict(cluster, by_policy) == ADMITTED
    assert verdict(cluster, cluster.sign(without(by_policy, "next_hop"))) == "SL-SHAPE"
    cluster.append(by_policy)
    assert cluster.state.leases["route-a"].hops == ()


def test_every_hop_is_approved(cluster: Cluster) -> None:
    found = refusal(cluster, cluster.lease("route-a", "phone-a", "stranger", "home-1"))
    assert not isinstance(found, str)
    assert (found.code, found.path) == ("SL-NODE", "hops[1]")
    cluster.append(cluster.approval("stranger"))
    assert verdict(cluster, cluster.lease("route-a", "phone-a", "stranger", "home-1")) == ADMITTED


def test_no_hop_is_revoked(cluster: Cluster) -> None:
    cluster.append(cluster.revocation({"node_id": B}))
    found = refusal(cluster, cluster.lease())
    assert not isinstance(found, str)
    assert (found.code, found.path) == ("SL-REVOKED", "hops[1]")
    assert verdict(cluster, cluster.lease("route-a", "phone-a", "home-1")) == ADMITTED


def test_a_route_stays_in_its_partition(cluster: Cluster) -> None:
    cluster.append(cluster.lease("route-a", partition="eu-1"))
    found = refusal(cluster, cluster.lease("route-a", partition="us-1"))
    assert not isinstance(found, str)
    assert (found.code, found.path, found.expected) == ("SL-SCOPE", "partition", "eu-1")
    assert verdict(cluster, cluster.lease("route-b", partition="us-1")) == ADMITTED
    cluster.append(cluster.fence({"route_id": "route-a"}))
    cluster.now += 1
    assert verdict(cluster, cluster.lease("route-a", partition="us-1")) == "SL-SCOPE"
    assert verdict(cluster, cluster.lease("route-a", partition="eu-1")) == ADMITTED


def test_the_index_follows_the_leases(cluster: Cluster) -> None:
    cluster.append(cluster.lease("route-a", "phone-a", "home-1"))
    cluster.append(cluster.lease("route-b", "phone-a", "node-9"))
    index = cluster.state.leases_of
    assert index[Target("node_id", A)] == {"route-a", "route-b"}
    cluster.append(cluster.lease("route-a", "relay-1", "home-1"))
    assert index[Target("node_id", A)] == {"route-b"}
    assert index[Target("node_id", B)] == {"route-a"}
    assert index[Target("partition", "eu-1")] == {"route-a", "route-b"}


def test_it_never_acts_ahead_of_the_log(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.lease(), ahead_of_log=True) == "SL-UNLOGGED"
    assert verdict(cluster, cluster.lease()) == ADMITTED


def test_once_open_the_partitions_log_carries_its_leases(cluster: Cluster) -> None:
    empty = encode_base64(sha256(b"").digest())
    cluster.append(cluster.log_term("routes-eu-1", start_size=0, start_root=empty))
    there = Log(name="routes-eu-1")

    def in_log(log: Log, record: dict[str, Any]) -> str:
        try:
            admit(cluster.state, encode(record), cluster.now, log=log)
        except Refused as refused:
            return refused.code
        return ADMITTED

    eu, us = cluster.lease("eu-1/a", partition="eu-1"), cluster.lease("route-b", partition="us-1")
    assert (in_log(there, eu), in_log(cluster.log, eu)) == (ADMITTED, "SL-SCOPE")
    assert (in_log(there, us), in_log(cluster.log, us)) == ("SL-SCOPE", ADMITTED)
    fence = cluster.fence({"partition": "eu-1"})
    assert (in_log(there, fence), in_log(cluster.log, fence)) == (ADMITTED, "SL-SCOPE")
    of_node = cluster.fence({"node_id": A})
    assert (in_log(there, of_node), in_log(cluster.log, of_node)) == ("SL-SCOPE", ADMITTED)
    assert in_log(there, cluster.registry()) == "SL-SCOPE"
