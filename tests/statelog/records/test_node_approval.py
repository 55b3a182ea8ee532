"""Approvals: a node id is its key, and once revoked it never returns."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.signing import encode_base64, key_id_of
from tests.support.authority import DAY_S, Cluster, node_id, node_signer, signer
from tests.support.verdicts import ADMITTED, refusal, verdict


def test_an_approved_node_is_known_until_its_approval_ends(cluster: Cluster) -> None:
    record = cluster.approval("new-1", display_name="Ann's phone", trust_tier="candidate", lifetime_s=DAY_S)
    cluster.append(record)
    node = cluster.state.node_in_force(node_id("new-1"), cluster.now)
    assert node is not None
    assert (node.public, node.display_name, node.trust_tier, node.organizations) == (
        node_signer("new-1").public,
        "Ann's phone",
        "candidate",
        ("org-1",),
    )
    assert cluster.state.node_in_force(node_id("new-1"), cluster.now + DAY_S - 1) is node
    assert cluster.state.node_in_force(node_id("new-1"), cluster.now + DAY_S) is None


def test_the_node_id_is_the_hash_of_the_key(cluster: Cluster) -> None:
    found = refusal(cluster, cluster.approval("home-1", node_id=node_id("node-9")))
    assert not isinstance(found, str)
    assert (found.code, found.path) == ("SL-KEY", "node_id")


def test_an_unsound_key_is_refused(cluster: Cluster) -> None:
    public = b"\1" + bytes(31)
    found = refusal(cluster, cluster.approval("x", node_id=key_id_of(public), public=encode_base64(public)))
    assert not isinstance(found, str)
    assert (found.code, found.path) == ("SL-KEY", "public")


@pytest.mark.parametrize("name", ["root-1", "control-1", "route-1", "witness-1", "sequencer-1", "recovery-1"])
def test_a_key_of_another_purpose_is_no_node(cluster: Cluster, name: str) -> None:
    public = signer(name).public
    record = cluster.approval("x", node_id=key_id_of(public), public=encode_base64(public))
    assert verdict(cluster, record) == "SL-KEY"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("trust_tier", "root"),
        ("organizations", ["a", "a"]),
        ("organizations", ["*"]),
        ("display_name", ""),
        ("display_name", "a\x1b[2J"),
    ],
)
def test_shape(cluster: Cluster, field: str, value: Any) -> None:
    assert verdict(cluster, cluster.approval("home-1", **{field: value})) == "SL-SHAPE"


def test_a_revoked_node_never_returns(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.approval("home-1")) == ADMITTED
    cluster.append(cluster.revocation({"node_id": node_id("home-1")}))
    assert verdict(cluster, cluster.approval("home-1")) == "SL-REVOKED"
    assert verdict(cluster, cluster.approval("node-9")) == ADMITTED


def test_a_node_does_not_approve_itself(cluster: Cluster) -> None:
    record = cluster.approval("home-1", issuer_role="node", by=["node:home-1"])
    assert verdict(cluster, record) == "SL-ROLE"
    assert verdict(cluster, cluster.approval("home-1", by=["node:home-1"])) == "SL-SIG"  # not its role
