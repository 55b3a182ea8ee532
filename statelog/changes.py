"""The edits that records make to the authority state, one class per kind of effect.

Each is computed by its kind (`records/…`), carried in a `state.Change`, and committed by
`AuthorityState.apply`.  A commit only assigns: whatever can be refused has been refused before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from statelog.precedents import Release, ShardSet
from statelog.quorum import KeySet
from statelog.state import (
    AuthorityState,
    Certificate,
    Descriptor,
    Lease,
    Mark,
    Node,
    PendingRecovery,
    Policy,
    Recovery,
    Target,
    Term,
)


@dataclass(frozen=True, slots=True)
class InstallDescriptor:
    """Root, control, witnesses, recovery and mode, all at once, at ``now``; a recovery under way ends."""

    descriptor: Descriptor
    now: int

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Put the descriptor in force."""
        new = self.descriptor
        if not state.witness_history or state.witness_history[-1][1] != new.witnesses:
            state.witness_history = (*state.witness_history, (log_index or 0, new.witnesses))
        pending = state.recovery
        recovered = pending is not None and pending.descriptor == new.record_id
        # The root did not sign a recovery's descriptor, and a first one has no root before its own.
        state.former_root = None if recovered or not state.subjects else state.descriptor.root
        state.recovery_sets = recovery_sets_after(state.recovery_sets, new.recovery, self.now)
        state.recovery = None
        state.descriptor = new
        state.install_key_sets((new.root, new.control), log_index)
        state.uses.update({key.key_id: "witness" for key in new.witnesses.keys})
        state.uses.update(dict.fromkeys(new.recovery.key_sha256, "recovery"))


RecoverySets = tuple[tuple[int, Recovery], ...]  # (in force since, set)


def recovery_sets_after(sets: RecoverySets, new: Recovery, now: int) -> RecoverySets:
    """The recovery set in force and, where ``new`` differs, the one to come after the delay of the former.

    A change that waits already keeps its time; one that is taken back is forgotten.
    """
    if not sets:
        return ((now, new),)
    *_, (since, current) = [one for one in sets if one[0] <= now] or sets[:1]
    if new == current:
        return ((since, current),)
    waiting = [one for one in sets if one[0] > now and one[1] == new]
    return ((since, current), *(waiting or [(now + current.delay_s, new)]))


@dataclass(frozen=True, slots=True)
class BeginRecovery:
    """Recovery keys were shown; the delay runs.  An earlier intent ends."""

    recovery: PendingRecovery

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Let the delay run."""
        state.recovery = self.recovery


@dataclass(frozen=True, slots=True)
class EndRecovery:
    """The recovery under way was vetoed."""

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Forget it."""
        state.recovery = None


@dataclass(frozen=True, slots=True)
class InstallMembers:
    """Who speaks for one role, in one partition or everywhere."""

    key_set: KeySet

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Put the set in force."""
        state.install_key_sets((self.key_set,), log_index)


@dataclass(frozen=True, slots=True)
class BeginTerm:
    """Who may write one log from now on."""

    term: Term

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Begin the term."""
        state.terms[self.term.log] = self.term
        state.uses.update({one.key_id: "sequencer" for one in self.term.sequencers})


@dataclass(frozen=True, slots=True)
class ApproveNode:
    """A node is known, with its key."""

    node: Node

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the node."""
        state.nodes[self.node.node_id] = self.node
        state.uses[self.node.node_id] = "node"


@dataclass(frozen=True, slots=True)
class GrantCertificate:
    """A node has a role; the certificate that this one follows (``replaces``) ends."""

    certificate: Certificate
    replaces: str | None

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the certificate."""
        if self.replaces is not None:
            state.certificates.pop(self.replaces, None)
        state.certificates[self.certificate.record_id] = self.certificate


@dataclass(frozen=True, slots=True)
class Revoke:
    """A certificate or a node id is gone for good."""

    target: Target
    mark: Mark

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the mark; drop what it names."""
        state.revoked[self.target] = Mark(self.mark.record_id, self.mark.issued_at, log_index)
        if self.target.kind == "node_id":
            state.nodes.pop(self.target.id, None)
        else:
            state.certificates.pop(self.target.id, None)


class GrantLease(NamedTuple):
    """A route is leased; an earlier lease of the same route ends."""

    lease: Lease

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the lease and its places in the index, which most renewals leave as they are."""
        lease = self.lease
        old = state.leases.get(lease.route_id)
        if old is not None and old.hops == lease.hops:  # and of one partition, which no route leaves
            state.leases[lease.route_id] = lease
            return
        drop_lease(state, lease.route_id)
        state.leases[lease.route_id] = lease
        state.partition_of[lease.route_id] = lease.partition
        for target in _index_of(lease.partition, lease.hops):
            routes = state.leases_of.get(target)
            if routes is None:
                state.leases_of[target] = {lease.route_id}
            else:
                routes.add(lease.route_id)


@dataclass(frozen=True, slots=True)
class Fence:
    """Every lease of a route, a node or a partition ends, and no copy as old as the fence returns."""

    target: Target
    mark: Mark

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the mark; drop the leases that it names."""
        old = state.fenced.get(self.target)
        if old is None or self.mark.issued_at >= old.issued_at:
            state.fenced[self.target] = Mark(self.mark.record_id, self.mark.issued_at, log_index)
        if self.target.kind == "route_id":
            drop_lease(state, self.target.id)
        for route_id in tuple(state.leases_of.get(self.target, ())):
            drop_lease(state, route_id)


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """The latest document of a policy."""

    policy: Policy

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the policy."""
        state.policies[self.policy.policy] = self.policy


@dataclass(frozen=True, slots=True)
class PublishRelease:
    """The release in force of a product's channel."""

    subject: tuple[str, str]
    release: Release

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the release."""
        state.releases[self.subject] = self.release


@dataclass(frozen=True, slots=True)
class PlaceShards:
    """The latest manifest of a shard set."""

    shard_set_id: str
    shard_set: ShardSet

    def commit(self, state: AuthorityState, log_index: int | None) -> None:
        """Enter the manifest."""
        state.shard_sets[self.shard_set_id] = self.shard_set


def drop_lease(state: AuthorityState, route_id: str) -> None:
    """Forget the lease of ``route_id``, if there is one, and its places in the index."""
    lease = state.leases.pop(route_id, None)
    if lease is None:
        return
    for target in _index_of(lease.partition, lease.hops):
        routes = state.leases_of[target]
        routes.discard(route_id)
        if not routes:
            del state.leases_of[target]


@lru_cache(maxsize=1_024)  # routes run through the same few nodes
def _index_of(partition: str, hops: tuple[str, ...]) -> tuple[Target, ...]:
    return (Target("partition", partition), *(Target("node_id", hop) for hop in hops))
