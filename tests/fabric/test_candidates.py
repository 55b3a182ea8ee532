"""A node's own candidate set."""

from __future__ import annotations

import pytest

from fabric import limits
from fabric.candidates import addresses_of, candidate_set
from fabric.identity import NodeIdentity
from fabric.peering import Address
from statelog.admission import admit_node_signed
from statelog.canonical import decode
from statelog.errors import Refused
from tests.support.authority import Cluster, make_cluster
from tests.support.farm import identity_of

ADDRESSES = ("quic://192.0.2.1:7400", "quic://[2001:db8::1]:7400")


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster()


def made(cluster: Cluster, identity: NodeIdentity, last_epoch: int = 0) -> tuple[bytes, int]:
    return candidate_set(identity, cluster.cluster_id, ("0.0.0.0:7400",), ADDRESSES, cluster.now, last_epoch)


def test_it_is_admitted_and_says_where_to_dial(cluster: Cluster) -> None:
    identity = identity_of("phone-a")
    data, epoch = made(cluster, identity)
    admitted = admit_node_signed(cluster.state, data, cluster.now)
    record = admitted.record
    assert record["epoch"] == epoch == cluster.now * 1000
    expected = tuple(Address(address, identity.certificate_sha256) for address in ADDRESSES)
    assert addresses_of(identity.node_id, record["candidates"]) == expected
    later = cluster.now + limits.CANDIDATES_VALIDITY_S
    with pytest.raises(Refused) as caught:
        admit_node_signed(cluster.state, data, later)
    assert caught.value.code == "SL-EXPIRED"


def test_the_epoch_only_grows_even_when_the_clock_steps_back(cluster: Cluster) -> None:
    identity = identity_of("phone-a")
    _, first = made(cluster, identity)
    assert made(cluster, identity, last_epoch=first)[1] == first + 1
    assert made(cluster, identity, last_epoch=first + 10_000)[1] == first + 10_001


def test_a_node_nobody_approved_is_refused(cluster: Cluster) -> None:
    with pytest.raises(Refused) as caught:
        admit_node_signed(cluster.state, made(cluster, identity_of("stranger"))[0], cluster.now)
    assert caught.value.code == "SL-SIG"


def test_only_the_nodes_own_direct_endpoints_are_dialed_best_first(cluster: Cluster) -> None:
    identity = identity_of("phone-a")
    first, second = decode(made(cluster, identity)[0])["candidates"]
    relayed = {**first, "transport": "relay_quic", "address": "quic://192.0.2.9:1"}
    others = {**first, "endpoint_id": f"{'9' * 64}/1", "address": "quic://192.0.2.10:1"}
    last = {**first, "priority": 99}
    found = addresses_of(identity.node_id, [relayed, others, last, second])
    assert [one.address for one in found] == [second["address"], first["address"]]
