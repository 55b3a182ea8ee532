"""The authority state: its indexes agree with its tables, whatever was admitted in which order."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from statelog.quorum import KeySet
from statelog.state import (
    ROUTE,
    STORAGE,
    UPDATE,
    AuthorityState,
    Change,
    Target,
    WitnessKey,
    WitnessSet,
)
from tests.support.authority import NODES, Cluster, key_id, make_cluster, node_id, signer
from tests.support.verdicts import ADMITTED, DUPLICATE, verdict


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


# --- indexes ---


def keys_of(state: AuthorityState) -> dict[str, set[tuple[str, str | None]]]:
    """The index of keys, computed from the sets anew."""
    found: dict[str, set[tuple[str, str | None]]] = {}
    for where, key_set in state.key_sets.items():
        for key in key_set.keys:
            found.setdefault(key.key_id, set()).add(where)
    return found


def leases_of(state: AuthorityState) -> dict[Target, set[str]]:
    """The index of leases, computed from the leases anew."""
    found: dict[Target, set[str]] = {}
    for lease in state.leases.values():
        for target in (Target("partition", lease.partition), *(Target("node_id", hop) for hop in lease.hops)):
            found.setdefault(target, set()).add(lease.route_id)
    return found


FENCED = [{"route_id": "a"}, {"partition": "eu-1"}, *({"node_id": node_id(name)} for name in NODES[:2])]
MEMBERS = [f"m-{n}" for n in range(6)]


class Growing(RuleBasedStateMachine):
    """Any order of records from the builder; refusals are fine, inconsistencies are not."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = make_cluster()

    def offer(self, record: dict[str, Any]) -> None:
        before = self.cluster.state.copy()
        outcome = verdict(self.cluster, record)
        assert before == self.cluster.state
        if outcome == ADMITTED:
            self.cluster.append(record)
            assert verdict(self.cluster, record) == DUPLICATE
            subject_count = len(before.subjects)
            assert subject_count <= len(self.cluster.state.subjects) <= subject_count + 1

    @rule(seconds=st.integers(1, 7_200))
    def time_passes(self, seconds: int) -> None:
        self.cluster.now += seconds

    @rule(
        of=st.sampled_from([ROUTE, UPDATE, STORAGE]),
        partition=st.sampled_from([None, "eu-1"]),
        names=st.sets(st.sampled_from(MEMBERS), min_size=2, max_size=4),
    )
    def members(self, of: str, partition: str | None, names: set[str]) -> None:
        self.offer(self.cluster.members(of, *sorted(names), partition=partition))

    @rule(
        route=st.sampled_from("abc"),
        hops=st.permutations(NODES[:4]),
        partition=st.sampled_from(["eu-1", "us-1"]),
    )
    def lease(self, route: str, hops: list[str], partition: str) -> None:
        self.offer(self.cluster.lease(route, *hops[:3], partition=partition, by=self.signers(partition)))

    @rule(fenced=st.sampled_from(FENCED))
    def fence(self, fenced: dict[str, str]) -> None:
        home = self.cluster.state.partition_of.get(fenced.get("route_id", ""), "")
        by = None if "node_id" in fenced else self.signers(fenced.get("partition", home))
        self.offer(self.cluster.fence(fenced, by=by))

    @rule(node=st.sampled_from(NODES))
    def approve(self, node: str) -> None:
        self.offer(self.cluster.approval(node))

    @rule(node=st.sampled_from(NODES[1:4]))
    def revoke(self, node: str) -> None:
        self.offer(self.cluster.revocation({"node_id": node_id(node)}))

    @rule(node=st.sampled_from(NODES), role=st.sampled_from(["entry", "relay"]))
    def certify(self, node: str, role: str) -> None:
        self.offer(self.cluster.certificate(node, role))

    @rule(service=st.sampled_from(["control-api", "web-admin"]), epoch=st.none() | st.integers(1, 5))
    def register(self, service: str, epoch: int | None) -> None:
        self.offer(self.cluster.registry(service, epoch=epoch))

    @rule()
    def rotate(self) -> None:
        self.offer(self.cluster.descriptor())

    def signers(self, partition: str) -> tuple[str, ...]:
        key_set = self.cluster.state.key_set(ROUTE, partition)
        assert key_set is not None
        names = {key_id(name): name for name in (*MEMBERS, "route-1", "route-2", "route-3")}
        return tuple(names[key.key_id] for key in key_set.keys)

    @invariant()
    def the_key_index_agrees(self) -> None:
        state = self.cluster.state
        assert {key: set(known.sets) for key, known in state.keys.items()} == keys_of(state)
        assert all(known.roles == {role for role, _ in known.sets} for known in state.keys.values())
        assert not state.retired.keys() & state.keys.keys()
        assert all(state.uses[key] == "authority" for key in (*state.keys, *state.retired))

    @invariant()
    def the_lease_index_agrees(self) -> None:
        state = self.cluster.state
        assert state.leases_of == leases_of(state)
        assert all(state.partition_of[lease.route_id] == lease.partition for lease in state.leases.values())

    @invariant()
    def the_revoked_are_gone(self) -> None:
        state = self.cluster.state
        assert not any(Target("node_id", node) in state.revoked for node in state.nodes)
        for certificate in state.certificates.values():
            if Target("node_id", certificate.node_id) in state.revoked:
                assert state.certificate_in_force(certificate.record_id, self.cluster.now) is None


Growing.TestCase.settings = settings(max_examples=25, stateful_step_count=25)
TestGrowing = Growing.TestCase


# --- copies, sets in force ---


def test_a_copy_is_independent(cluster: Cluster) -> None:
    cluster.append(cluster.lease())
    copy = cluster.state.copy()
    assert copy == cluster.state
    cluster.append(cluster.lease("route-b"))
    cluster.append(cluster.revocation({"node_id": node_id("home-1")}))
    assert "route-b" not in copy.leases
    assert copy.leases_of == leases_of(copy)
    assert node_id("home-1") in copy.nodes


def test_a_copy_has_every_field(cluster: Cluster) -> None:
    copy = cluster.state.copy()
    for one in fields(copy):
        mine, theirs = getattr(cluster.state, one.name), getattr(copy, one.name)
        assert mine == theirs
        assert mine is not theirs or not isinstance(mine, dict)


def test_apply_enters_the_subject(cluster: Cluster) -> None:
    change = Change(("policy.epoch", "p"), 3, "a" * 64, 10, 20, bootstrap=False)
    cluster.state.apply(change, 9)
    subject = cluster.state.subjects["policy.epoch", "p"]
    assert (subject.epoch, subject.record_id, subject.log_index) == (3, "a" * 64, 9)
    assert (subject.issued_at, subject.expires_at, subject.bootstrap) == (10, 20, False)


def test_who_speaks_where(cluster: Cluster) -> None:
    state = cluster.state
    everywhere = state.key_set(ROUTE)
    assert isinstance(everywhere, KeySet)
    assert state.key_set(ROUTE, "eu-1") is everywhere
    cluster.append(cluster.members(ROUTE, "x-1", "x-2", partition="eu-1"))
    own = state.key_set(ROUTE, "eu-1")
    assert own is not None
    assert set(own.by_id) == {key_id("x-1"), key_id("x-2")}
    assert state.key_set(ROUTE, "us-1") is everywhere
    assert state.key_set("nobody-authority") is None


# --- witnesses ---


def witness(n: int, **changes: Any) -> WitnessKey:
    values = {
        "name": f"w{n}",
        "key_id": key_id(f"w{n}"),
        "public": signer(f"w{n}").public,
        "issuer_id": f"i{n}",
        "custody": "online",
    }
    return WitnessKey(**{**values, **changes})


@pytest.mark.parametrize("n", range(1, 10))
def test_the_witness_threshold_protects_exactly_when_the_rule_holds(n: int) -> None:
    """Any two quorums share more than f witnesses, and a quorum remains when f are silent."""
    keys = tuple(witness(one) for one in range(n))
    for faulty in range(n + 1):
        for threshold in range(n + 2):
            overlap = 2 * threshold - n
            protects = overlap > faulty and threshold <= n - faulty
            assert (WitnessSet(threshold, faulty, keys).fault is None) == protects


@pytest.mark.parametrize("what", ["name", "public", "issuer_id"])
def test_witnesses_share_nothing(what: str) -> None:
    first = witness(1)
    keys = (first, witness(2), witness(3), witness(4, **{what: getattr(first, what)}))
    fault = WitnessSet(3, 1, keys).fault
    assert fault is not None
    assert fault.code == "SL-KEY"
    assert WitnessSet(3, 1, (first, witness(2), witness(3), witness(4))).fault is None


def test_witness_sets_between_two_heads(cluster: Cluster) -> None:
    state, first = cluster.state, cluster.state.witnesses
    second, third = (WitnessSet(3, 1, tuple(witness(n + k) for n in range(4))) for k in (10, 20))
    state.witness_history = ((0, first), (5, second), (9, third))
    assert state.witnesses_between(0, 1) == (first,)
    assert state.witnesses_between(2, 5) == (first,)
    assert state.witnesses_between(2, 6) == (first, second)  # size 6 covers entry 5
    assert state.witnesses_between(5, 6) == (first, second)
    assert state.witnesses_between(6, 9) == (second,)
    assert state.witnesses_between(2, 20) == (first, second, third)
    assert state.witnesses_between(20, 20) == (third,)
