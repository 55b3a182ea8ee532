"""The read models as typed, immutable values: what queries hand out. Each is made from one projected row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from projections.base import Row

Subject = tuple[str, str, str]  # service, scope, organization_id ("" unless the scope is "organization")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One way to reach a service, as its authority signed it.

    `endpoint_id` is `<node_id>/<n>`, or `<node_id>/via/<relay_id>/<n>` through a relay (docs/wire.md).
    """

    endpoint_id: str
    address: str
    transport: str
    reachability: str
    connectivity_mode: str
    priority: int
    weight: int
    peer_cert_sha256: str

    @classmethod
    def from_map(cls, value: Mapping[str, Any]) -> Endpoint:
        """From an endpoint object of an admitted record."""
        return cls(**{name: value[name] for name in cls.__slots__})

    @property
    def node_ids(self) -> tuple[str, ...]:
        """The target node, then the relay if there is one; empty when the id does not name nodes."""
        parts = self.endpoint_id.split("/")
        if len(parts) == 4 and parts[1] == "via":
            return (parts[0], parts[2])
        return (parts[0],) if len(parts) == 2 else ()


@dataclass(frozen=True, slots=True)
class RegistryRecord:
    """A signed statement where a service is. `log_index` is None while the record is ahead of the log."""

    record_id: str
    subject: Subject
    epoch: int
    issued_at: int
    expires_at: int
    generation: int
    endpoints: tuple[Endpoint, ...]
    log_index: int | None
    bootstrap: bool = False

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Greater is preferred: epoch, issued_at, generation as an integer, then the lower record_id."""
        return (self.epoch, self.issued_at, self.generation, -int(self.record_id, 16))

    @property
    def best_first(self) -> list[Endpoint]:
        """Its endpoints: lower priority first, then greater weight."""
        return sorted(self.endpoints, key=lambda e: (e.priority, -e.weight, e.endpoint_id))

    @property
    def unlogged(self) -> bool:
        """Whether the record acts ahead of the log."""
        return self.log_index is None


@dataclass(frozen=True, slots=True)
class RegistryView:
    """What a node makes of one subject. Fallbacks and candidates come best first.

    `active` passed a live probe and is the newest that did; `fallbacks` are older than it and unexpired,
    verified ones first; `candidates` are newer than it (or all there are) and wait for their probe.
    """

    active: RegistryRecord | None = None
    fallbacks: tuple[RegistryRecord, ...] = ()
    candidates: tuple[RegistryRecord, ...] = ()
    verified: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Cluster:
    """The descriptor in force, as far as readers need it."""

    cluster_id: str
    mode: str
    epoch: int
    record_id: str
    clock_skew_s: int
    max_checkpoint_age_s: int
    issued_at: int
    expires_at: int
    log_index: int

    @classmethod
    def from_row(cls, row: Row) -> Cluster:
        """From the projected row."""
        return cls(**{name: row[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Node:
    """An approved node. `ended_by` is the record that revoked it, or empty."""

    node_id: str
    public: str
    display_name: str
    trust_tier: str
    organizations: tuple[str, ...]
    epoch: int
    record_id: str
    issued_at: int
    expires_at: int
    log_index: int
    ended_by: str
    bootstrap: bool

    @classmethod
    def from_row(cls, row: Row) -> Node:
        """From the projected row."""
        values = {name: row[name] for name in cls.__slots__}
        return cls(**{**values, "organizations": tuple(row["organizations"])})


@dataclass(frozen=True, slots=True)
class Scope:
    """What a certificate allows; an empty tuple allows nothing, ("*",) all that the parent allows."""

    actions: tuple[str, ...]
    organizations: tuple[str, ...]
    services: tuple[str, ...]
    partitions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A node's role. `parent` is empty for one signed by the control quorum."""

    record_id: str
    node_id: str
    role: str
    parent: str
    scope: Scope
    delegation_depth: int
    epoch: int
    issued_at: int
    expires_at: int
    log_index: int
    ended_by: str
    bootstrap: bool

    @classmethod
    def from_row(cls, row: Row) -> Certificate:
        """From the projected row."""
        values = {name: row[name] for name in cls.__slots__}
        scope = Scope(**{name: tuple(row["scope"][name]) for name in Scope.__slots__})
        return cls(**{**values, "scope": scope})


@dataclass(frozen=True, slots=True)
class Lease:
    """A route that the route authority leased. `hops` includes both ends and is empty under a next-hop
    policy. `log` carries it at `log_index`, judged by the first `authority_size` authority entries.
    """

    route_id: str
    partition: str
    organization_id: str
    service: str
    hops: tuple[str, ...]
    next_hop_policy: str
    allowed_channels: tuple[str, ...]
    allowed_classes: tuple[str, ...]
    allowed_services: tuple[str, ...]
    alternates: tuple[str, ...]
    epoch: int
    record_id: str
    issued_at: int
    expires_at: int
    log: str
    log_index: int
    authority_size: int
    ended_by: str
    bootstrap: bool

    @property
    def targets(self) -> tuple[tuple[str, str], ...]:
        """What a fence may name to end it: (kind of target, target)."""
        own = (("route_id", self.route_id), ("partition", self.partition))
        return (*own, *(("node_id", hop) for hop in self.hops))

    @classmethod
    def from_row(cls, row: Row) -> Lease:
        """From the projected row."""
        lists = ("hops", "allowed_channels", "allowed_classes", "allowed_services", "alternates")
        values = {name: row[name] for name in cls.__slots__}
        return cls(**{**values, **{name: tuple(row[name]) for name in lists}})


@dataclass(frozen=True, slots=True)
class Fence:
    """The newest fence of a target: where it stands, so that leases of other logs can be compared with it."""

    record_id: str
    log: str
    log_index: int

    @classmethod
    def from_row(cls, row: Row) -> Fence:
        """From the projected row."""
        return cls(**{name: row[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Policy:
    """A named policy document, as signed."""

    policy: str
    document: Mapping[str, Any]
    epoch: int
    record_id: str
    issued_at: int
    expires_at: int
    log_index: int
    bootstrap: bool

    @classmethod
    def from_row(cls, row: Row) -> Policy:
        """From the projected row."""
        return cls(**{name: row[name] for name in cls.__slots__})
