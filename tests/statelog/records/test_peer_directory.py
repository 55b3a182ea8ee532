"""Peer directories: a count and a root, signed by route authority of the partition or by control."""

from __future__ import annotations

from statelog.merkle import EMPTY_ROOT, leaf_hash, root_of
from statelog.records import KINDS_BY_NAME
from statelog.records.peer_directory import directory_of
from statelog.signing import encode_base64
from statelog.state import CONTROL, ROUTE, UPDATE
from tests.support.authority import QUORUMS, Cluster, make_cluster
from tests.support.verdicts import ADMITTED, place, verdict

EMPTY = encode_base64(EMPTY_ROOT)


def test_the_root_is_over_the_sorted_node_ids() -> None:
    one, other = bytes(32), b"\x01" * 32
    assert directory_of([other, one]) == (2, root_of([leaf_hash(one), leaf_hash(other)]))
    assert directory_of([one, one]) == directory_of([one])
    assert directory_of([]) == (0, EMPTY_ROOT)


def test_nothing_has_the_root_of_nothing(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.directory()) == ADMITTED
    assert verdict(cluster, cluster.directory(node_count=0, directory_root=EMPTY)) == ADMITTED
    assert place(cluster, cluster.directory(node_count=0)) == ("SL-SHAPE", "directory_root")
    assert place(cluster, cluster.directory(directory_root=EMPTY)) == ("SL-SHAPE", "directory_root")


def test_route_authority_or_control_signs_it(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.directory(by=QUORUMS[ROUTE])) == ADMITTED
    assert verdict(cluster, cluster.directory(issuer_role=CONTROL, by=QUORUMS[CONTROL])) == ADMITTED
    assert verdict(cluster, cluster.directory(issuer_role=UPDATE, by=QUORUMS[UPDATE])) == "SL-ROLE"
    assert verdict(cluster, cluster.directory(by=("route-1", "control-1"))) == "SL-SIG"  # one role speaks
    cluster.append(cluster.members(ROUTE, "route-4", "route-5", partition="eu-1"))
    assert verdict(cluster, cluster.directory(by=QUORUMS[ROUTE])) == "SL-SCOPE"
    assert verdict(cluster, cluster.directory(by=("route-4", "route-5"))) == ADMITTED


def test_a_draft_asks_control_where_nobody_is_route_authority(cluster: Cluster) -> None:
    kind = KINDS_BY_NAME["peer_directory.epoch"]
    draft = {**cluster.directory(), "issuer_role": "to-be-found"}
    assert kind.signer_role(draft, cluster.state) == (ROUTE, "eu-1")
    assert kind.signer_role(draft, make_cluster(members=False).state) == (CONTROL, None)


def test_epochs_grow_whoever_signs(cluster: Cluster) -> None:
    cluster.append(cluster.directory(epoch=4))
    control = {"issuer_role": CONTROL, "by": QUORUMS[CONTROL]}
    assert verdict(cluster, cluster.directory(epoch=3, **control)) == "SL-STALE"
    assert verdict(cluster, cluster.directory(epoch=5, **control)) == ADMITTED
