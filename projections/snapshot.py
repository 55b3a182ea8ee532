"""What a node knows, at one moment, as one immutable value.

The data plane asks it on every decision, from any thread, while the next one is being made: a snapshot is
never changed, only followed by another that shares what stayed the same. It answers for the log up to
`size`, with what acts ahead of the log (registry records, revocations, fences; docs/records/) laid over
it.

Queries that take `now` (Unix seconds) leave out what has expired.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from projections import fences, leases, nodes, policies, roles
from projections.base import Change, Put
from projections.cluster import TABLE as CLUSTER
from projections.model import (
    Certificate,
    Cluster,
    Fence,
    Lease,
    Node,
    Policy,
    RegistryRecord,
    RegistryView,
    Scope,
    Subject,
)
from projections.pmap import PMap
from projections.revocations import FENCE, REVOCATION, target
from statelog.times import parse_time

MAX_CHAIN = 4  # delegation chains are no longer (docs/records/, bounds)


@dataclass(frozen=True, slots=True)
class Ahead:
    """Revocations and fences that act before the log has them. Fences map a target to the fence's
    `issued_at`.
    """

    nodes: frozenset[str] = frozenset()
    certificates: frozenset[str] = frozenset()
    fences: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Ahead:
        """From admitted, unlogged records; registry records among them are the `RegistryBook`'s matter."""
        ended: dict[str, set[str]] = {"node_id": set(), "certificate": set()}
        fences: dict[tuple[str, str], int] = {}
        for record in records:
            if record["schema_version"] == REVOCATION:
                kind, value = target(record)
                ended[kind].add(value)
            elif record["schema_version"] == FENCE:
                key = target(record)
                fences[key] = max(parse_time(record["issued_at"]), fences.get(key, 0))
        return cls(frozenset(ended["node_id"]), frozenset(ended["certificate"]), fences)

    def covers(self, lease: Lease) -> bool:
        """A fence ahead of the log kills the copies issued at or before it."""
        return any(self.fences.get(target, -1) >= lease.issued_at for target in lease.targets)


NOTHING_AHEAD = Ahead()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable. `size` is the authority log's size that the rows stand for (0: nothing yet).

    In a production cluster nothing counts that development mode admitted.
    """

    size: int = 0
    cluster: Cluster | None = None
    registry: PMap[Subject, RegistryView] = field(default_factory=PMap)
    nodes: PMap[str, Node] = field(default_factory=PMap)
    certificates: PMap[str, Certificate] = field(default_factory=PMap)
    leases: PMap[str, Lease] = field(default_factory=PMap)
    fences: PMap[tuple[str, str], Fence] = field(default_factory=PMap)  # by kind of target and target
    policies: PMap[str, Policy] = field(default_factory=PMap)
    ahead: Ahead = NOTHING_AHEAD
    _roles_of: PMap[str, tuple[str, ...]] = field(default_factory=PMap, repr=False)
    _leases_from: PMap[str, tuple[str, ...]] = field(default_factory=PMap, repr=False)

    # -- making the next one ---------------------------------------------------------------------------------

    def advance(self, changes: Iterable[Change], size: int | None = None) -> Snapshot:
        """The snapshot after these row changes of the projections (in order), standing for authority size
        `size`; without it, for the same as before, when a partition's log has moved.

        Registry rows are left to `with_registry`: what they mean is the book's finding.
        """
        by_table: dict[str, list[Change]] = {}
        for change in changes:
            by_table.setdefault(change.table, []).append(change)
        following = self if size is None else replace(self, size=size)
        for change in by_table.get(CLUSTER.name, []):
            following = replace(
                following, cluster=Cluster.from_row(change.row) if isinstance(change, Put) else None
            )
        node_changes = by_table.get(nodes.TABLE.name, [])
        policy_changes = by_table.get(policies.TABLE.name, [])
        certificates, roles_of = self._next_certificates(by_table.get(roles.TABLE.name, []))
        leased, leases_from = self._next_leases(by_table.get(leases.TABLE.name, []))
        return replace(
            following,
            nodes=self.nodes.update(
                (c.key[0], Node.from_row(c.row) if isinstance(c, Put) else None) for c in node_changes
            ),
            certificates=certificates,
            leases=leased,
            fences=self.fences.update(
                ((c.key[0], c.key[1]), Fence.from_row(c.row) if isinstance(c, Put) else None)
                for c in by_table.get(fences.TABLE.name, [])
            ),
            policies=self.policies.update(
                (c.key[0], Policy.from_row(c.row) if isinstance(c, Put) else None) for c in policy_changes
            ),
            _roles_of=roles_of,
            _leases_from=leases_from,
        )

    def with_registry(self, views: PMap[Subject, RegistryView]) -> Snapshot:
        """The same with the views of a `RegistryBook`."""
        return replace(self, registry=views)

    def with_ahead(self, ahead: Ahead) -> Snapshot:
        """The same with these unlogged revocations and fences laid over it, in place of the former ones."""
        return replace(self, ahead=ahead)

    def _next_certificates(
        self, changes: list[Change]
    ) -> tuple[PMap[str, Certificate], PMap[str, tuple[str, ...]]]:
        """The certificates and their index by node after the changes."""
        made = [(c.key[0], Certificate.from_row(c.row) if isinstance(c, Put) else None) for c in changes]
        certificates = self.certificates.update(made)
        touched = {
            certificate.node_id
            for record_id, new in made
            for certificate in (new, self.certificates.get(record_id))
            if certificate is not None
        }
        index: list[tuple[str, tuple[str, ...] | None]] = []
        for node_id in touched:
            mine = set(self._roles_of.get(node_id, ()))
            mine |= {record_id for record_id, new in made if new is not None and new.node_id == node_id}
            index.append((node_id, tuple(sorted(i for i in mine if i in certificates)) or None))
        return certificates, self._roles_of.update(index)

    def _next_leases(self, changes: list[Change]) -> tuple[PMap[str, Lease], PMap[str, tuple[str, ...]]]:
        """The leases and their index by first hop after the changes."""
        made = [(c.key[0], Lease.from_row(c.row) if isinstance(c, Put) else None) for c in changes]
        following = self.leases.update(made)
        first: dict[str, set[str]] = {}
        for route_id, new in made:
            for lease in (self.leases.get(route_id), new):
                if lease is not None and lease.hops:
                    first.setdefault(lease.hops[0], set(self._leases_from.get(lease.hops[0], ()))).add(
                        route_id
                    )
        index: list[tuple[str, tuple[str, ...] | None]] = []
        for node_id, route_ids in first.items():
            kept = [i for i in sorted(route_ids) if i in following and following[i].hops[:1] == (node_id,)]
            index.append((node_id, tuple(kept) or None))
        return following, self._leases_from.update(index)

    # -- registry --------------------------------------------------------------------------------------------

    def registry_view(self, service: str, scope: str = "cluster", organization_id: str = "") -> RegistryView:
        """Active, fallback and candidate records of a subject; empty when none is known."""
        return self.registry.get((service, scope, organization_id), RegistryView())

    def active(
        self, service: str, scope: str = "cluster", organization_id: str = "", *, now: float | None = None
    ) -> RegistryRecord | None:
        """The active record; when it has expired by `now`, the newest verified fallback that has not."""
        view = self.registry_view(service, scope, organization_id)
        known = [r for r in (view.active, *view.fallbacks) if r is not None and r.record_id in view.verified]
        return next((r for r in known if self._counts(r, now)), None)

    def fallback(
        self, service: str, scope: str = "cluster", organization_id: str = "", *, now: float | None = None
    ) -> tuple[RegistryRecord, ...]:
        """Unexpired older records, best first: what is left when the active one does not answer."""
        view = self.registry_view(service, scope, organization_id)
        active = self.active(service, scope, organization_id, now=now)
        return tuple(r for r in view.fallbacks if r is not active and self._counts(r, now))

    def candidates(
        self, service: str, scope: str = "cluster", organization_id: str = "", *, now: float | None = None
    ) -> tuple[RegistryRecord, ...]:
        """Records that wait for a live probe, best first."""
        view = self.registry_view(service, scope, organization_id)
        return tuple(r for r in view.candidates if self._counts(r, now))

    def _counts(self, item: RegistryRecord | Node | Certificate | Lease | Policy, now: float | None) -> bool:
        """Unexpired, and not a leftover of development mode in a production cluster."""
        if item.bootstrap and self.cluster is not None and self.cluster.mode == "production":
            return False
        return now is None or item.expires_at > now

    # -- nodes and roles -------------------------------------------------------------------------------------

    def node(self, node_id: str) -> Node | None:
        """The approval of a node, revoked or not; see `approved`."""
        return self.nodes.get(node_id)

    def revoked(self, node_id: str) -> bool:
        """Revoked by the log or ahead of it. A node never approved is not revoked."""
        if node_id in self.ahead.nodes:
            return True
        node = self.nodes.get(node_id)
        return node is not None and bool(node.ended_by)

    def approved(self, node_id: str, now: float) -> bool:
        """Approved, unexpired and not revoked: may use more than join, sync and gossip."""
        node = self.nodes.get(node_id)
        return node is not None and self._counts(node, now) and not self.revoked(node_id)

    def roles_of(self, node_id: str, now: float) -> tuple[Certificate, ...]:
        """The certificates that grant the node something at `now`; none without a valid approval."""
        if not self.approved(node_id, now):
            return ()
        held = (self.certificates[record_id] for record_id in self._roles_of.get(node_id, ()))
        return tuple(c for c in held if self._in_force(c, now))

    def has_role(self, node_id: str, role: str, now: float) -> bool:
        """Whether a certificate in force grants the node the role."""
        return any(certificate.role == role for certificate in self.roles_of(node_id, now))

    def _in_force(self, certificate: Certificate, now: float) -> bool:
        """Unexpired and not revoked, and so up the delegation chain, whose holders must be approved too."""
        current: Certificate | None = certificate
        for _ in range(MAX_CHAIN):
            if current is None or current.ended_by or not self._counts(current, now):
                return False
            if current.record_id in self.ahead.certificates or self.revoked(current.node_id):
                return False
            if not current.parent:
                return True
            current = self.certificates.get(current.parent)
        return False

    def scope_of(self, certificate: Certificate) -> Scope:
        """What the certificate allows in the end: "*" stands for all that its parent allows."""
        parent = self.certificates.get(certificate.parent) if certificate.parent else None
        above = self.scope_of(parent) if parent is not None else Scope(("*",), ("*",), ("*",), ("*",))
        own = ((name, getattr(certificate.scope, name)) for name in Scope.__slots__)
        return Scope(**{name: getattr(above, name) if value == ("*",) else value for name, value in own})

    # -- leases and policies ---------------------------------------------------------------------------------

    def lease(self, route_id: str, *, now: float | None = None) -> Lease | None:
        """The lease of a route if it stands: not fenced, no hop revoked, and at `now` not expired."""
        lease = self.leases.get(route_id)
        return lease if lease is not None and self.stands(lease, now=now) else None

    def stands(self, lease: Lease, *, now: float | None = None) -> bool:
        """Whether a lease that was found here or elsewhere may be used: `lease` says when it may not."""
        if lease.ended_by or self.ahead.covers(lease) or any(self.revoked(hop) for hop in lease.hops):
            return False
        if any(self._fenced_elsewhere(lease, target) for target in lease.targets):
            return False
        return self._counts(lease, now)

    def _fenced_elsewhere(self, lease: Lease, target: tuple[str, str]) -> bool:
        """Whether another log than the lease's fences the target after it."""
        fence = self.fences.get(target)
        return fence is not None and leases.ended_elsewhere(
            lease.log, lease.authority_size, fence.log, fence.log_index
        )

    def leases_from(
        self, node_id: str, service: str | None = None, *, now: float | None = None
    ) -> tuple[Lease, ...]:
        """Standing leases whose first hop is the node, for one service or all, sorted by route id."""
        mine = (self.leases[route_id] for route_id in self._leases_from.get(node_id, ()))
        return tuple(
            lease
            for lease in mine
            if (service is None or service == lease.service or {service, "*"} & set(lease.allowed_services))
            and self.stands(lease, now=now)
        )

    def policy(self, name: str, *, now: float | None = None) -> Policy | None:
        """The document in force under a name."""
        policy = self.policies.get(name)
        return policy if policy is not None and self._counts(policy, now) else None
