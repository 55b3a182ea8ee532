"""Edits: each commits exactly its own part of the state."""

from __future__ import annotations

from dataclasses import fields

import pytest

from statelog.changes import (
    ApproveNode,
    BeginRecovery,
    BeginTerm,
    Fence,
    GrantCertificate,
    GrantLease,
    InstallDescriptor,
    InstallMembers,
    PlaceShards,
    PublishRelease,
    Revoke,
    SetPolicy,
    drop_lease,
    recovery_sets_after,
)
from statelog.signing import record_id_of
from statelog.state import ROUTE, AuthorityState, Mark, Recovery, Target
from tests.support.authority import Cluster, key_id, make_cluster, node_id

EXPECTED = {
    "descriptor": (InstallDescriptor, {"descriptor", "former_root"}),
    "witnesses": (InstallDescriptor, {"descriptor", "former_root", "witness_history", "uses"}),
    "recovery": (BeginRecovery, {"recovery"}),
    "members": (InstallMembers, {"key_sets", "keys", "uses"}),
    "term": (BeginTerm, {"terms"}),
    "node": (ApproveNode, {"nodes", "uses"}),
    "certificate": (GrantCertificate, {"certificates"}),
    "lease": (GrantLease, {"leases", "leases_of", "partition_of"}),
    "policy": (SetPolicy, {"policies"}),
    "release": (PublishRelease, {"releases"}),
    "manifest": (PlaceShards, {"shard_sets"}),
    "revocation": (Revoke, {"revoked", "nodes"}),
    "fence": (Fence, {"fenced"}),
}


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


def differences(before: AuthorityState, after: AuthorityState) -> set[str]:
    return {one.name for one in fields(after) if getattr(before, one.name) != getattr(after, one.name)}


@pytest.mark.parametrize("name", EXPECTED)
def test_each_edit_changes_its_own_tables(cluster: Cluster, name: str) -> None:
    witnesses = cluster.witness_set(*(f"witness-{n}" for n in range(2, 6)))
    records = {
        "descriptor": cluster.descriptor(clock_skew_s=60),
        "witnesses": cluster.descriptor(witnesses=witnesses),
        "recovery": cluster.recovery_intent(cluster.descriptor()),
        "members": cluster.members(ROUTE, "x-1", "x-2", partition="eu-1"),
        "term": cluster.log_term(),
        "node": cluster.approval("new-1"),
        "certificate": cluster.certificate("home-1"),
        "lease": cluster.lease(),
        "policy": cluster.policy(),
        "release": cluster.release(),
        "manifest": cluster.manifest(),
        "revocation": cluster.revocation({"node_id": node_id("home-1")}),
        "fence": cluster.fence({"partition": "eu-1"}),
    }
    kind, tables = EXPECTED[name]
    cluster.grant_roles()
    before = cluster.state.copy()
    admitted = cluster.append(records[name])
    assert admitted.change is not None
    assert [type(edit) for edit in admitted.change.edits] == [kind]
    assert differences(before, cluster.state) == {*tables, "subjects"}


def test_a_registry_record_changes_its_subject_alone(cluster: Cluster) -> None:
    before = cluster.state.copy()
    admitted = cluster.append(cluster.registry())
    assert admitted.change is not None
    assert admitted.change.edits == ()
    assert differences(before, cluster.state) == {"subjects"}


def test_marks_know_where_the_log_carries_them(cluster: Cluster) -> None:
    target = Target("node_id", node_id("home-1"))
    index = cluster.log.size
    cluster.append(cluster.revocation({"node_id": target.id}))
    cluster.append(cluster.fence({"node_id": target.id}))
    assert cluster.state.revoked[target].log_index == index
    assert cluster.state.fenced[target].log_index == index + 1


def test_the_stronger_fence_stays() -> None:
    state = make_cluster().state
    target = Target("partition", "eu-1")
    Fence(target, Mark("a", 100, None)).commit(state, 5)
    Fence(target, Mark("b", 99, None)).commit(state, 6)
    assert state.fenced[target] == Mark("a", 100, 5)
    Fence(target, Mark("c", 100, None)).commit(state, 7)
    assert state.fenced[target] == Mark("c", 100, 7)


def test_dropping_a_lease_leaves_no_trace_in_the_index(cluster: Cluster) -> None:
    cluster.append(cluster.lease("route-a"))
    drop_lease(cluster.state, "route-a")
    drop_lease(cluster.state, "route-a")
    assert (cluster.state.leases, cluster.state.leases_of) == ({}, {})
    assert cluster.state.partition_of == {"route-a": "eu-1"}


def test_a_replaced_certificate_is_gone(cluster: Cluster) -> None:
    first, second = cluster.certificate("home-1"), None
    cluster.append(first)
    second = cluster.certificate("home-1")
    cluster.append(second)
    assert set(cluster.state.certificates) == {record_id_of(second)}


def test_retired_keys_know_when(cluster: Cluster) -> None:
    index = cluster.log.size
    cluster.append(cluster.members(ROUTE, "x-1", "x-2"))
    assert cluster.state.retired == {key_id(f"route-{n}"): index for n in (1, 2, 3)}


def test_a_new_recovery_set_waits_for_the_old_delay() -> None:
    """The table of `recovery_sets_after`: what is in force, what waits, and since when."""
    state = make_cluster().state
    one, two, three = (Recovery(2, (name,), delay_s) for name, delay_s in (("a", 10), ("b", 1), ("c", 5)))
    for before, new, now, after in (
        ((), one, 7, ((7, one),)),
        (((7, one),), one, 9, ((7, one),)),
        (((7, one),), two, 9, ((7, one), (19, two))),
        (((7, one), (19, two)), two, 12, ((7, one), (19, two))),  # another change of the descriptor
        (((7, one), (19, two)), one, 12, ((7, one),)),  # taken back
        (((7, one), (19, two)), three, 12, ((7, one), (22, three))),  # a change of the change
        (((7, one), (19, two)), three, 19, ((19, two), (20, three))),
    ):
        assert recovery_sets_after(before, new, now) == after
    state.recovery_sets = ((7, one), (19, two))
    assert [state.recovery_in_force(now) for now in (0, 18, 19)] == [state.descriptor.recovery, one, two]
