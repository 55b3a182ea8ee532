"""What must be renewed soon: each kind by its own rule, and nothing that has ended anyway."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.records import KINDS_BY_NAME
from statelog.renewal import HALF_LIFE, LASTING, NEVER_FORGOTTEN, Due, renewals
from statelog.signing import record_id_of
from statelog.state import AuthorityState, Subject
from tests.support.authority import DAY_S, HOUR_S, Cluster, make_cluster, node_id
from tests.support.partitions import Partition


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


def due(cluster: Cluster, after_s: int, within_s: int = 0) -> dict[str, list[Due]]:
    found: dict[str, list[Due]] = {}
    for one in renewals([cluster.state], cluster.now + after_s, within_s):
        found.setdefault(one.kind, []).append(one)
    return found


def expiry(cluster: Cluster, kind: str, *subject: str) -> int:
    """Seconds from now until the latest record of a subject ends."""
    return cluster.state.subjects[(kind, *subject)].expires_at - cluster.now


def test_what_expires_within_the_window_is_due_and_not_before(cluster: Cluster) -> None:
    end = expiry(cluster, "authority.descriptor", "cluster")
    assert "authority.descriptor" not in due(cluster, end - DAY_S - 1, DAY_S)
    (found,) = due(cluster, end - DAY_S, DAY_S)["authority.descriptor"]
    assert (found.why, found.subject, found.epoch) == ("expires", ("cluster",), 1)
    assert (found.expires_at, found.due_at) == (cluster.now + end, cluster.now + end - DAY_S)


def test_what_just_expired_says_so_and_is_forgotten_later(cluster: Cluster) -> None:
    node = node_id("phone-a")
    end = expiry(cluster, "node.approval", node)
    approvals = [one for one in due(cluster, end + 5, 10)["node.approval"] if one.subject == (node,)]
    assert [one.why for one in approvals] == ["expired"]
    assert "node.approval" not in due(cluster, end + 11, 10)


@pytest.mark.parametrize("kind", sorted(NEVER_FORGOTTEN))
def test_an_authority_that_ended_is_never_forgotten(cluster: Cluster, kind: str) -> None:
    assert {one.why for one in due(cluster, 3_000 * DAY_S, 10)[kind]} == {"expired"}


def test_a_lease_is_due_at_half_its_life_whatever_the_window(cluster: Cluster) -> None:
    cluster.append(cluster.lease("r7", lifetime_s=12 * HOUR_S))
    life = expiry(cluster, "route.lease", "r7")
    assert "route.lease" not in due(cluster, life // 2 - 1, 30 * DAY_S)
    (found,) = due(cluster, life // 2)["route.lease"]
    assert (found.why, found.subject) == ("half-life", ("r7",))
    assert found.due_at == cluster.now + life // 2


def test_a_lease_that_was_fenced_is_not_due(cluster: Cluster) -> None:
    cluster.append(cluster.lease("r7", lifetime_s=12 * HOUR_S))
    assert "route.lease" in due(cluster, 6 * HOUR_S)
    cluster.now += 1
    cluster.append(cluster.fence({"route_id": "r7"}))
    assert "route.lease" not in due(cluster, 6 * HOUR_S)


def test_what_was_revoked_is_not_due(cluster: Cluster) -> None:
    certificate = cluster.append(cluster.certificate("relay-1", "relay", lifetime_s=DAY_S))
    cluster.append(cluster.certificate("node-9", "relay", lifetime_s=DAY_S))

    def holders() -> set[str]:
        return {one.subject[0] for one in due(cluster, 0, DAY_S).get("role.certificate", [])}

    assert holders() >= {node_id("relay-1"), node_id("node-9")}
    cluster.now += 1
    cluster.append(cluster.revocation({"certificate": certificate.record_id}))
    assert node_id("relay-1") not in holders()
    assert node_id("node-9") in holders()
    cluster.append(cluster.revocation({"node_id": node_id("phone-a")}))
    approvals = {one.subject for one in due(cluster, 0, 500 * DAY_S)["node.approval"]}
    assert (node_id("phone-a"),) not in approvals
    assert (node_id("home-1"),) in approvals


@pytest.mark.parametrize("kind", sorted(LASTING))
def test_what_lasts_is_never_due(cluster: Cluster, kind: str) -> None:
    old = Subject(1, "ab" * 32, cluster.now, cluster.now + 1, 3, bootstrap=False)
    cluster.state.subjects[(kind, "x")] = old
    assert kind not in due(cluster, 1, DAY_S)
    cluster.state.subjects[("policy.epoch", "x")] = old
    assert "policy.epoch" in due(cluster, 1, DAY_S)


def test_of_two_logs_the_higher_epoch_counts(cluster: Cluster) -> None:
    cluster.append(cluster.lease("r7", lifetime_s=12 * HOUR_S))
    partition = cluster.state.copy()
    cluster.now += HOUR_S
    admitted = cluster.admit(cluster.lease("r7", epoch=2, lifetime_s=12 * HOUR_S))
    assert admitted.change is not None
    partition.apply(admitted.change, 0)
    at = cluster.now + 5 * HOUR_S  # half the life of the first, not of the second

    def leases(*states: AuthorityState) -> list[int]:
        return [one.epoch for one in renewals(states, at, 0) if one.kind == "route.lease"]

    assert leases(cluster.state) == [1]
    assert leases(cluster.state, partition) == leases(partition, cluster.state) == []
    at += HOUR_S
    assert leases(cluster.state, partition) == [2]


def test_what_one_log_ends_another_does_not_name(cluster: Cluster) -> None:
    for route in ("eu-1/a", "eu-1/b"):
        cluster.append(cluster.lease(route, lifetime_s=12 * HOUR_S))  # before the partition has a log
    eu = Partition(cluster)
    cluster.now += 1
    eu.append(eu.fence({"route_id": "eu-1/a"}))
    assert set(cluster.state.leases) == {"eu-1/a", "eu-1/b"}
    states = [cluster.state, eu.replay.state]
    for asked in (states, states[::-1]):
        due_then = renewals(asked, cluster.now + 7 * HOUR_S, 0)
        assert [one.subject for one in due_then if one.kind == "route.lease"] == [("eu-1/b",)]


def delegated(cluster: Cluster, *nodes: str) -> list[dict[str, Any]]:
    """A chain of certificates, each signed by the node of the one above."""
    chain: list[dict[str, Any]] = []
    for depth, node in zip(range(len(nodes) - 1, -1, -1), nodes, strict=True):
        parent = chain[-1] if chain else None
        made = cluster.certificate(node, parent=parent, lifetime_s=60 * DAY_S, delegation_depth=depth)
        cluster.append(made)
        chain.append(made)
    return chain


def due_certificates(cluster: Cluster, within_s: int = 0) -> dict[str, str]:
    return {one.record_id: one.why for one in due(cluster, 0, within_s).get("role.certificate", [])}


@pytest.mark.parametrize("which", ["node_id", "certificate"])
def test_what_ended_with_a_revocation_above_it_is_not_due(cluster: Cluster, which: str) -> None:
    chain = delegated(cluster, "home-1", "node-9", "phone-a")
    ids = [record_id_of(one) for one in chain]
    assert due_certificates(cluster, 61 * DAY_S) == dict.fromkeys(ids, "expires")
    cluster.now += 1
    cluster.append(
        cluster.revocation({which: chain[0]["node_id"] if which == "node_id" else record_id_of(chain[0])})
    )
    assert due_certificates(cluster, 61 * DAY_S) == {}


def test_what_ended_with_the_renewal_above_it_is_due_at_once(cluster: Cluster) -> None:
    chain = delegated(cluster, "home-1", "node-9", "phone-a")
    assert due_certificates(cluster) == {}
    cluster.now += DAY_S
    renewed = cluster.certificate("home-1", lifetime_s=60 * DAY_S, delegation_depth=2)
    cluster.append(renewed)
    ids = [record_id_of(one) for one in chain]
    assert due_certificates(cluster) == {ids[1]: "parent", ids[2]: "parent"}
    again = cluster.certificate("node-9", parent=renewed, delegation_depth=1)
    cluster.append(again)
    assert due_certificates(cluster) == {ids[2]: "parent"}
    cluster.append(cluster.certificate("phone-a", parent=again))
    assert due_certificates(cluster) == {}


def test_soonest_first(cluster: Cluster) -> None:
    found = renewals([cluster.state], cluster.now, 500 * DAY_S)
    assert len(found) > 3
    assert [one.expires_at for one in found] == sorted(one.expires_at for one in found)


def test_the_rules_name_kinds_that_exist() -> None:
    assert set(KINDS_BY_NAME) >= HALF_LIFE | LASTING | NEVER_FORGOTTEN
