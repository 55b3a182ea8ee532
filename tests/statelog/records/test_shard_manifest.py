"""Shard manifests: every shard placed, its bytes fixed within a recovery epoch."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.state import CONTROL, STORAGE
from statelog.times import format_time
from tests.support.authority import BASE_TIME, DAY_S, QUORUMS, STORES, Cluster, make_cluster, node_id
from tests.support.verdicts import ADMITTED, changed, place, verdict

HASH = "cd" * 32


@pytest.fixture
def cluster() -> Cluster:
    made = make_cluster()
    for node in (*STORES, "usa-los-1"):
        made.append(made.certificate(node, "storage", lifetime_s=90 * DAY_S))
    return made


def signed(cluster: Cluster, path: str, value: Any) -> dict[str, Any]:
    return cluster.sign(changed(cluster.manifest(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("cipher", "chacha20-poly1305", ADMITTED),
        ("cipher", "none", ("SL-SHAPE", "cipher")),
        ("object.length", 0, ADMITTED),
        ("code.k", 0, ("SL-SHAPE", "code.k")),
        ("code.k", 3, ("SL-SHAPE", "shards")),
        ("code.m", 2, ("SL-SHAPE", "shards")),
        ("code.m", 254, ("SL-SHAPE", "code")),
        ("replication_factor", 2, ("SL-SHAPE", "shards")),
        ("replication_factor", 0, ("SL-SHAPE", "replication_factor")),
        ("shards.1.index", 0, ("SL-SHAPE", "shards")),
        ("shards.0.index", 255, ("SL-SHAPE", "shards[0].index")),
        ("shards.0.length", 513, ADMITTED),
        ("retention_until", format_time(BASE_TIME), ADMITTED),
        ("retention_until", format_time(BASE_TIME - 1), ("SL-SHAPE", "retention_until")),
        ("recovery_epoch", 0, ("SL-SHAPE", "recovery_epoch")),
        ("recovery_epoch", 9, ADMITTED),
    ],
)
def test_shape(cluster: Cluster, path: str, value: object, expected: object) -> None:
    assert (verdict if expected == ADMITTED else place)(cluster, signed(cluster, path, value)) == expected


def copies(cluster: Cluster) -> list[dict[str, Any]]:
    """Two copies of each of three shards, in order."""
    shards = cluster.manifest()["shards"]
    low, high = sorted([node_id("home-1"), node_id("node-9")])
    return [{**shard, "node_id": node} for shard in shards for node in (low, high)]


@pytest.mark.parametrize(
    ("position", "part", "value", "expected"),
    [
        (1, "length", 511, ("SL-SHAPE", "shards[1].length")),
        (3, "sha256", HASH, ("SL-SHAPE", "shards[3].sha256")),
    ],
)
def test_copies_lie_apart_and_agree(
    cluster: Cluster, position: int, part: str, value: object, expected: tuple[str, str]
) -> None:
    placed = copies(cluster)
    assert verdict(cluster, cluster.manifest(shards=placed, replication_factor=2)) == ADMITTED
    placed[position] = {**placed[position], part: value}
    assert place(cluster, cluster.manifest(shards=placed, replication_factor=2)) == expected


def test_copies_are_on_different_nodes_in_order(cluster: Cluster) -> None:
    placed = copies(cluster)
    doubled = [*placed[:1], *placed[:1], *placed[2:]]
    swapped = [placed[1], placed[0], *placed[2:]]
    for shards in (doubled, swapped):
        refused = cluster.manifest(shards=shards, replication_factor=2)
        assert place(cluster, refused) == ("SL-SHAPE", "shards[1].node_id")


def test_bytes_are_fixed_within_a_recovery_epoch(cluster: Cluster) -> None:
    cluster.append(cluster.manifest())
    moved = signed(cluster, "shards.0.node_id", node_id("usa-los-1"))
    assert verdict(cluster, moved) == ADMITTED
    kept = signed(cluster, "retention_until", format_time(BASE_TIME + DAY_S))
    assert verdict(cluster, kept) == ADMITTED
    for path, value in (
        ("shards.0.sha256", HASH),
        ("shards.0.length", 511),
        ("object.sha256", HASH),
        ("cipher", "chacha20-poly1305"),
        ("code.scheme", "cauchy"),
    ):
        assert place(cluster, signed(cluster, path, value)) == ("SL-SHARDS", "recovery_epoch"), path
        again = cluster.sign(changed(signed(cluster, path, value), "recovery_epoch", 2))
        assert verdict(cluster, again) == ADMITTED, path


def test_more_copies_are_other_places_only(cluster: Cluster) -> None:
    cluster.append(cluster.manifest())
    assert verdict(cluster, cluster.manifest(shards=copies(cluster), replication_factor=2)) == ADMITTED


def test_the_recovery_epoch_never_goes_back(cluster: Cluster) -> None:
    cluster.append(cluster.manifest(recovery_epoch=4))
    assert verdict(cluster, cluster.manifest(recovery_epoch=4)) == ADMITTED
    assert place(cluster, cluster.manifest(recovery_epoch=3)) == ("SL-SHARDS", "recovery_epoch")
    assert verdict(cluster, cluster.manifest("another", recovery_epoch=1)) == ADMITTED


def test_a_holder_stores(cluster: Cluster) -> None:
    strange = signed(cluster, "shards.2.node_id", node_id("phone-a"))
    assert place(cluster, strange) == ("SL-NODE", "shards[2].node_id")
    cluster.append(cluster.certificate("phone-a", "entry"))
    assert place(cluster, strange) == ("SL-NODE", "shards[2].node_id")
    cluster.append(cluster.certificate("phone-a", "storage"))
    assert verdict(cluster, strange) == ADMITTED
    cluster.append(cluster.revocation({"node_id": node_id("phone-a")}))
    assert place(cluster, strange) == ("SL-REVOKED", "shards[2].node_id")


def test_only_storage_authority_signs_it(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.manifest(by=QUORUMS[STORAGE])) == ADMITTED
    assert verdict(cluster, cluster.manifest(issuer_role=CONTROL, by=QUORUMS[CONTROL])) == "SL-ROLE"
