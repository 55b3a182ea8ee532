"""Which way to a service: leased routes and registry endpoints, best first. Pure.

The order, for a node that wants `service`:

1. leases that start here and end at a node of the active record (so leased traffic follows the service)
2. the endpoints of the active record, reached directly
3. leases that start here for the service but end elsewhere
4. the endpoints of the fallback records, newest record first

All of them are tried before giving up. Neither a name nor an address decides anything: a route names the node
that must answer, and the session proves it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from projections.model import Endpoint, Lease, RegistryRecord
from projections.snapshot import Snapshot

Kind = Literal["leased", "direct"]


@dataclass(frozen=True, slots=True)
class Route:
    """One way. `hops` are node ids from this node to the target, both ends included.

    A direct route has two hops and may carry the registry's endpoint. A leased one carries the lease's
    `route_id` and `epoch`; its first session goes to `hops[1]`.
    """

    kind: Kind
    hops: tuple[str, ...]
    service: str
    route_id: str | None = None
    epoch: int = 0
    endpoint: Endpoint | None = None
    record_id: str | None = None

    @property
    def target(self) -> str:
        return self.hops[-1]

    @property
    def next_hop(self) -> str:
        return self.hops[1]


def subjects(snapshot: Snapshot, me: str, service: str) -> list[tuple[str, str, str]]:
    """Where to look a service name up: this node's organizations, then the cluster, then the farm."""
    node = snapshot.node(me)
    organizations = node.organizations if node is not None else ()
    own = [(service, "organization", organization) for organization in organizations]
    return [*own, (service, "cluster", ""), (service, "farm", "")]


def records_for(
    snapshot: Snapshot, me: str, service: str, now: float
) -> tuple[RegistryRecord | None, tuple[RegistryRecord, ...]]:
    """The active record and the fallbacks of the first subject that knows the service.

    A record still waiting for its probe is no destination: only a probe makes one.
    """
    for subject in subjects(snapshot, me, service):
        active = snapshot.active(*subject, now=now)
        fallback = snapshot.fallback(*subject, now=now)
        if active is not None or fallback:
            return active, fallback
    return None, ()


def plan(snapshot: Snapshot, me: str, service: str, now: float, *, held: Iterable[str] = ()) -> list[Route]:
    """Every usable route to `service`, best first; empty when there is none.

    `held`: peers this node has a session with; between otherwise equal leases one over a live session wins.
    """
    peers = frozenset(held)
    active, fallbacks = records_for(snapshot, me, service, now)
    leases = sorted(
        (lease for lease in snapshot.leases_from(me, service, now=now) if _usable(lease, me, service)),
        key=lambda lease: (lease.hops[1] not in peers, len(lease.hops), lease.route_id),
    )
    routes: list[Route] = []
    if active is not None:
        nodes = {e.node_ids[0] for e in active.endpoints if e.node_ids}
        routes += [_leased(lease, service, active) for lease in leases if lease.hops[-1] in nodes]
        routes += _direct(snapshot, active, me, service)
    routes += [_leased(lease, service, None) for lease in leases]
    for record in fallbacks:
        routes += _direct(snapshot, record, me, service)
    return _distinct(routes)


def leased_route(lease: Lease, service: str) -> Route:
    """The route of one lease, for a caller that insists on it; it is the relays that judge it."""
    return _leased(lease, service, None)


def _usable(lease: Lease, me: str, service: str) -> bool:
    return len(lease.hops) > 1 and lease.hops[0] == me and service in (lease.service, *lease.allowed_services)


def _leased(lease: Lease, service: str, record: RegistryRecord | None) -> Route:
    record_id = None if record is None else record.record_id
    return Route("leased", lease.hops, service, lease.route_id, lease.epoch, None, record_id)


def _direct(snapshot: Snapshot, record: RegistryRecord, me: str, service: str) -> list[Route]:
    return [
        Route("direct", (me, e.node_ids[0]), service, endpoint=e, record_id=record.record_id)
        for e in record.best_first
        if len(e.node_ids) == 1 and e.transport == "direct_quic" and not snapshot.revoked(e.node_ids[0])
    ]


def _distinct(routes: list[Route]) -> list[Route]:
    """One route through the same door twice (the fallback names the active's endpoint too) is tried once."""
    seen: dict[tuple[object, ...], Route] = {}
    for route in routes:
        address = None if route.endpoint is None else route.endpoint.address
        seen.setdefault((route.kind, route.hops, route.route_id, address), route)
    return list(seen.values())
