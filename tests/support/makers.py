"""One maker for each kind of record: what a valid one of it says in a test cluster.

Each takes ``by`` (the names of the keys that sign), and as ``changes`` any field of the record or any option
of `Cluster.draft`, in place of the defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from statelog.records.peer_directory import directory_of
from statelog.records.registry import role_for_service
from statelog.records.snapshot import state_root_of
from statelog.signing import encode_base64, record_id_of
from statelog.state import (
    AUTHORITY_LOG,
    CONTROL,
    NODE,
    RECOVERY,
    ROOT,
    ROUTE,
    STORAGE,
    UPDATE,
    AuthorityState,
    Mode,
)
from statelog.times import format_time
from tests.support.keys import (
    endpoint,
    key_entry,
    key_id,
    node_id,
    node_signer,
    sequencer_entry,
)

if TYPE_CHECKING:
    from tests.support.authority import Log

HOUR_S = 3_600
DAY_S = 86_400
NODES = ("home-1", "node-9", "usa-los-1", "relay-1", "phone-a", "control-1")
STORES = ("control-1", "home-1", "node-9")  # the nodes that `manifest` places shards on, one each


class Makers(ABC):
    """The records of a cluster; `tests.support.authority.Cluster` has what they are made of."""

    mode: Mode
    cluster_id: str
    now: int
    anchor: str
    log: Log
    state: AuthorityState

    @abstractmethod
    def draft(self, kind: str, **own: Any) -> dict[str, Any]:
        """An unsigned record of ``kind``."""

    @abstractmethod
    def sign(self, record: dict[str, Any], by: Sequence[str] | None = None) -> dict[str, Any]:
        """``record``, signed by the named keys."""

    def make(
        self, kind: str, by: Sequence[str] | None, defaults: dict[str, Any], changes: dict[str, Any]
    ) -> dict[str, Any]:
        """A record of ``kind`` with ``changes`` over ``defaults``, signed."""
        return self.sign(self.draft(kind, **{**defaults, **changes}), by)

    def descriptor(self, *, by: Sequence[str] | None = None, **changes: Any) -> dict[str, Any]:
        """A descriptor: root and control 2 of 3, witnesses 3 of 4 (development: root and control 1 of 1)."""
        production = self.mode == "production"
        people = range(1, 4) if production else range(1, 2)
        roots, controls = [f"root-{n}" for n in people], [f"control-{n}" for n in people]
        keys = [
            *(key_entry(name, cluster_id=self.cluster_id, custody="offline") for name in roots),
            *(key_entry(name, cluster_id=self.cluster_id) for name in controls),
        ]
        defaults = {
            "epoch": self.state.descriptor.epoch + 1 if self.log.size else 1,
            "lifetime_s": 365 * DAY_S,
            "issuer_role": ROOT,
            "mode": self.mode,
            "clock_skew_s": 120,
            "max_checkpoint_age_s": 600,
            "keys": keys,
            "root": self.holders(*roots, threshold=min(2, len(roots))),
            "control": self.holders(*controls, threshold=min(2, len(controls))),
            "witnesses": self.witness_set(),
            "recovery": {
                "threshold": 2 if production else 0,
                "key_sha256": [key_id(f"recovery-{n}") for n in people] if production else [],
                "delay_s": 3 * DAY_S,
            },
        }
        return self.make("authority.descriptor", by, defaults, changes)

    def holders(self, *names: str, threshold: int) -> dict[str, Any]:
        """The ``root`` or ``control`` part of a descriptor."""
        return {"threshold": threshold, "key_ids": [key_id(name) for name in names]}

    def witness_set(self, *names: str, threshold: int = 3, faulty: int = 1) -> dict[str, Any]:
        """The ``witnesses`` part of a descriptor; cosignature key names are ``<name>.example``."""
        named = names or tuple(f"witness-{n}" for n in range(1, 5))
        keys = [
            {**key_entry(name, cluster_id=self.cluster_id), "name": f"{name.replace(':', '-')}.example"}
            for name in named
        ]
        return {"threshold": threshold, "faulty": faulty, "keys": keys}

    def log_term(
        self,
        log: str = AUTHORITY_LOG,
        *,
        start_size: int | None = None,
        by: Sequence[str] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """The next term of ``log``, from the end of the authority log (default) or ``start_size`` on."""
        previous = self.state.terms.get(log)
        term = previous.term + 1 if previous is not None else 1
        start = self.log.size if start_size is None else start_size
        root = self.log.root_at(start)
        defaults = {
            "epoch": term,
            "lifetime_s": 30 * DAY_S,
            "log": log,
            "term": term,
            "start_size": start,
            "start_root": encode_base64(root if root is not None else sha256(b"").digest()),
            "sequencers": [sequencer_entry("sequencer-1", "control-1", self.cluster_id)],
        }
        return self.make("log.term", by, defaults, changes)

    def opening(self, log: str, key: str) -> dict[str, Any]:
        """The term that opens a partition's log, which control-1 writes with sequencer key ``key``."""
        entry = sequencer_entry(key, "control-1", self.cluster_id)
        return self.log_term(log, start_size=0, sequencers=[entry])

    def snapshot(
        self, *, size: int | None = None, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """What two read models come to at the end of the log (or at ``size``); the rows are made up."""
        at = self.log.size if size is None else size
        root = self.log.root_at(at)
        listed = [
            {"name": name, "rows": rows, "root": encode_base64(sha256(name.encode()).digest())}
            for name, rows in (("node", 6), ("route_lease", 0))
        ]
        defaults = {
            "log": self.log.name,
            "size": at,
            "root": encode_base64(root if root is not None else sha256(b"").digest()),
            "state_root": encode_base64(state_root_of(changes.get("projections", listed))),
            "projections": listed,
        }
        return self.make("log.snapshot", by, defaults, changes)

    def recovery_intent(
        self,
        descriptor: dict[str, Any],
        *,
        shown: Sequence[str] = ("recovery-1", "recovery-2"),
        by: Sequence[str] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """The intent to install ``descriptor`` by the recovery keys ``shown``, with sequencer-2 of node-9."""
        defaults = {
            "lifetime_s": 30 * DAY_S,
            "issuer_role": RECOVERY,
            "descriptor": record_id_of(descriptor),
            "keys": [key_entry(name, cluster_id=self.cluster_id, custody="offline") for name in shown],
            "sequencers": [sequencer_entry("sequencer-2", "node-9", self.cluster_id)],
            "witnesses": descriptor["witnesses"],
        }
        return self.make("authority.recovery_intent", shown if by is None else by, defaults, changes)

    def veto(
        self, intent: dict[str, Any] | str, *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """The old root's no to an intent (the record, or its id)."""
        defaults = {
            "issuer_role": ROOT,
            "intent": intent if isinstance(intent, str) else record_id_of(intent),
            "reason": "the root is here",
        }
        return self.make("authority.veto", by, defaults, changes)

    def members(
        self,
        of: str,
        *names: str,
        threshold: int = 2,
        partition: str | None = None,
        by: Sequence[str] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """Who speaks for the role ``of``: the named keys, by default three of the role's own."""
        named = names or tuple(f"{of.removesuffix('-authority')}-{n}" for n in range(1, 4))
        defaults = {
            "lifetime_s": 365 * DAY_S,
            "role": of,
            "threshold": threshold,
            "keys": [key_entry(name, cluster_id=self.cluster_id) for name in named],
            **({} if partition is None else {"partition": partition}),
        }
        return self.make("authority.members", by, defaults, changes)

    def approval(self, node: str, *, by: Sequence[str] | None = None, **changes: Any) -> dict[str, Any]:
        """The approval of the node of that name."""
        defaults = {
            "lifetime_s": 365 * DAY_S,
            "node_id": node_id(node),
            "public": encode_base64(node_signer(node).public),
            "display_name": node,
            "trust_tier": "standard",
            "organizations": ["org-1"],
        }
        return self.make("node.approval", by, defaults, changes)

    def certificate(
        self,
        node: str,
        role: str = "service-host",
        *,
        parent: dict[str, Any] | None = None,
        by: Sequence[str] | None = None,
        scope: dict[str, list[str]] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """A role of ``node``; below the record ``parent`` it is signed by the parent's node."""
        everything = {name: ["*"] for name in ("actions", "organizations", "services", "partitions")}
        defaults = {
            "lifetime_s": DAY_S,
            "issuer_role": CONTROL if parent is None else NODE,
            "node_id": node_id(node),
            "role": role,
            "scope": {**everything, **(scope or {})},
            "delegation_depth": 0,
            "parent": record_id_of(parent) if parent is not None else None,
        }
        if by is None and parent is not None:
            by = [f"node:{name}" for name in NODES if node_id(name) == parent["node_id"]]
        return self.make("role.certificate", by, defaults, changes)

    def revocation(
        self, target: dict[str, str], *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """The end of ``{"node_id": …}`` or ``{"certificate": …}``."""
        defaults = {"target": target, "reason": "the device was stolen"}
        return self.make("role.revocation", by, defaults, changes)

    def registry(
        self, service: str = "control-api", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Where ``service`` is, signed by the role that says so."""
        defaults = {
            "issuer_role": role_for_service(service),
            "service": service,
            "scope": "cluster",
            "endpoints": [endpoint()],
        }
        return self.make("registry.gossip_record", by, defaults, changes)

    def lease(
        self, route_id: str = "route-a", *hops: str, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """A lease of ``route_id`` along the named nodes (default: phone-a, relay-1, home-1)."""
        defaults = {
            "issuer_role": ROUTE,
            "route_id": route_id,
            "partition": "eu-1",
            "service": "forward/ssh",
            "hops": [node_id(hop) for hop in hops or ("phone-a", "relay-1", "home-1")],
            "allowed_channels": ["*"],
            "allowed_classes": ["control", "interactive", "reliable", "bulk"],
            "allowed_services": ["forward/ssh"],
            "alternates": [],
        }
        return self.make("route.lease", by, defaults, changes)

    def fence(
        self, target: dict[str, str], *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """The end of every lease of ``{"route_id": …}``, ``{"node_id": …}`` or ``{"partition": …}``."""
        role = CONTROL if "node_id" in target else ROUTE
        defaults = {"issuer_role": role, "target": target, "reason": "moved"}
        return self.make("route.fence", by, defaults, changes)

    def policy(
        self,
        policy: str = "probe_allow",
        document: dict[str, Any] | None = None,
        *,
        by: Sequence[str] | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        """A policy with its document."""
        defaults = {"policy": policy, "document": document or {"allow": []}, "assertions": []}
        return self.make("policy.epoch", by, defaults, changes)

    def service_lease(
        self, service: str = "web-admin", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Who serves ``service``: home-1, who leads, and node-9."""
        defaults = {
            "service": service,
            "mode": "leader-follower",
            "leader": node_id("home-1"),
            "replicas": [node_id("home-1"), node_id("node-9")],
        }
        return self.make("service.lease", by, defaults, changes)

    def assignment(
        self, partition: str = "eu-1", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """relay-1 relays in ``partition``, once it holds a relay certificate; nodes meet at home-1."""
        relay = {"node_id": node_id("relay-1"), "classes": ["interactive", "bulk"], "max_mbit_per_s": 200}
        defaults = {
            "issuer_role": ROUTE,
            "partition": partition,
            "relays": [relay],
            "rendezvous": [node_id("home-1")],
        }
        return self.make("relay.assignment", by, defaults, changes)

    def directory(
        self, partition: str = "eu-1", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """The peers of ``partition``: all nodes."""
        count, root = directory_of(bytes.fromhex(node_id(node)) for node in NODES)
        defaults = {
            "issuer_role": ROUTE,
            "partition": partition,
            "node_count": count,
            "directory_root": encode_base64(root),
        }
        return self.make("peer_directory.epoch", by, defaults, changes)

    def release(
        self, version: str = "1.4.0", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """A version of the agent on channel stable, for one node in ten, then for all."""
        later = changes.get("issued_at", self.now) + DAY_S
        artifact = {"name": "agent.tar.zst", "platform": "linux-x86-64", "length": 4_000_000}
        defaults = {
            "issuer_role": UPDATE,
            "product": "agent",
            "channel": "stable",
            "version": version,
            "artifacts": [{**artifact, "sha256": sha256(version.encode()).hexdigest()}],
            "compatibility": {"min_version": "1.0.0", "session_versions": [1]},
            "rollback": {"to": ["1.2.0"], "window_s": 7 * DAY_S},
            "rollout": [
                {"cohort_percent": 10, "not_before": format_time(later - DAY_S)},
                {"cohort_percent": 100, "not_before": format_time(later)},
            ],
        }
        return self.make("update.release", by, defaults, changes)

    def manifest(
        self, shard_set_id: str = "backup-7", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """Two shards and one for repair, on three nodes, once they hold storage certificates."""
        shards = [
            {
                "index": index,
                "node_id": node_id(node),
                "length": 512,
                "sha256": sha256(b"shard %d" % index).hexdigest(),
            }
            for index, node in enumerate(STORES)
        ]
        defaults = {
            "issuer_role": STORAGE,
            "shard_set_id": shard_set_id,
            "object": {"length": 1_000, "sha256": sha256(b"object").hexdigest()},
            "cipher": "aes-256-gcm",
            "code": {"scheme": "reed-solomon", "k": 2, "m": 1},
            "replication_factor": 1,
            "shards": shards,
            "retention_until": format_time(self.now + 365 * DAY_S),
            "recovery_epoch": 1,
        }
        return self.make("storage.shard_manifest", by, defaults, changes)

    def seeds(self, *, by: Sequence[str] | None = None, **changes: Any) -> dict[str, Any]:
        """Where new linux nodes of the site home begin."""
        defaults = {
            "platform": "linux",
            "site": "home",
            "anchor": self.anchor,
            "endpoints": [endpoint("usa-los-1", 1), endpoint("home-1", 2)],
        }
        return self.make("bootstrap.seed_set", by, defaults, changes)

    def observation(
        self, node: str = "phone-a", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """What ``node`` measured, signed by it; never in a log."""
        observed = {
            "target": {"node_id": node_id("relay-1")},
            "metric": "rtt_us",
            "value": 18_400,
            "observed_at": format_time(changes.get("issued_at", self.now)),
        }
        defaults = {
            "epoch": self.now * 1_000,
            "lifetime_s": 600,
            "issuer_role": NODE,
            "node_id": node_id(node),
            "observed": [observed],
        }
        return self.make("telemetry.observation", [f"node:{node}"] if by is None else by, defaults, changes)

    def candidates(
        self, node: str = "phone-a", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """The addresses of ``node``, signed by it; never in a log."""
        defaults = {
            "epoch": self.now * 1_000,
            "lifetime_s": 600,
            "issuer_role": NODE,
            "node_id": node_id(node),
            "listen": ["0.0.0.0:4433"],
            "candidates": [endpoint(node, interface="wlan0", provider="isp-1")],
        }
        return self.make("endpoint.candidates", [f"node:{node}"] if by is None else by, defaults, changes)

    def account(
        self, node: str = "relay-1", *, by: Sequence[str] | None = None, **changes: Any
    ) -> dict[str, Any]:
        """What ``node`` carried in the last hour, signed by it; never in a log."""
        line = {"route_id": "route-a", "class": "bulk", "frames": 1_200, "bytes": 1_500_000}
        defaults = {
            "epoch": self.now * 1_000,
            "lifetime_s": DAY_S,
            "issuer_role": NODE,
            "node_id": node_id(node),
            "since": format_time(self.now - HOUR_S),
            "until": format_time(self.now),
            "carried": [line, {**line, "class": "interactive", "organization_id": "org-1"}],
        }
        return self.make("traffic.account", [f"node:{node}"] if by is None else by, defaults, changes)
