"""Facts for the folds, as admission would have let them through; signatures play no part in a fold."""

from __future__ import annotations

import hashlib
from typing import Any

from projections.base import Fact
from statelog import canonical
from statelog.times import format_time

T0 = 1_800_000_000
CLUSTER = "farm.abcdefghijklmnopqrstuvwxyz"
HOUR = 3600


def hexid(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def header(kind: str, epoch: int, issued_at: int, expires_at: int) -> dict[str, Any]:
    return {
        "schema_version": f"rap.fabric.{kind}.v1",
        "cluster_id": CLUSTER,
        "epoch": epoch,
        "issued_at": format_time(issued_at),
        "expires_at": format_time(expires_at),
        "issuer_node_id": hexid("control-1"),
        "issuer_role": "control-authority",
    }


def record(
    kind: str, *, epoch: int = 1, issued_at: int = T0, valid_s: int = 20 * HOUR, **fields: Any
) -> dict[str, Any]:
    return {**header(kind, epoch, issued_at, issued_at + valid_s), **fields}


def id_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(canonical.encode(value)).hexdigest()


def descriptor(mode: str = "production", **more: Any) -> dict[str, Any]:
    return record(
        "authority.descriptor",
        mode=mode,
        clock_skew_s=60,
        max_checkpoint_age_s=600,
        keys=[key("alice"), key("bob")],
        root={"threshold": 2, "key_ids": []},
        control={"threshold": 2, "key_ids": []},
        witnesses={"threshold": 3, "faulty": 1, "keys": [key("w1", name="w1"), key("w2", name="w2")]},
        recovery={"threshold": 2, "key_sha256": [], "delay_s": 86400},
        **more,
    )


def key(issuer: str, **more: Any) -> dict[str, Any]:
    return {
        "key_id": hexid(issuer),
        "issuer_id": issuer,
        "custody": "offline",
        "public": "",
        "proof": "",
        **more,
    }


def members(role: str, **more: Any) -> dict[str, Any]:
    return record("authority.members", role=role, threshold=1, keys=[key("carol")], **more)


def endpoint(node: str = "usa-los-1", number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "endpoint_id": f"{hexid(node)}/{number}",
        "address": f"quic://192.0.2.{number}:4433",
        "transport": "direct_quic",
        "reachability": "public",
        "connectivity_mode": "direct",
        "priority": 10,
        "weight": 1,
        "peer_cert_sha256": hexid(f"cert {node}"),
        **more,
    }


def registry(service: str = "control-api", **more: Any) -> dict[str, Any]:
    endpoints = more.pop("endpoints", None) or [endpoint()]
    return record(
        "registry.gossip_record",
        service=service,
        scope=more.pop("scope", "cluster"),
        endpoints=endpoints,
        **more,
    )


def approval(node: str, **more: Any) -> dict[str, Any]:
    return record(
        "node.approval",
        node_id=hexid(node),
        public="A" * 43 + "=",
        display_name=node,
        trust_tier="standard",
        organizations=[],
        **more,
    )


def certificate(node: str, role: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    scope = {"actions": ["*"], "organizations": [], "services": ["*"], "partitions": ["eu"]}
    return record(
        "role.certificate",
        node_id=hexid(node),
        role=role,
        scope=scope,
        delegation_depth=1,
        parent=parent,
        **more,
    )


def revoke_node(node: str, **more: Any) -> dict[str, Any]:
    return record("role.revocation", target={"node_id": hexid(node)}, reason="stolen", **more)


def revoke_certificate(record_id: str, **more: Any) -> dict[str, Any]:
    return record("role.revocation", target={"certificate": record_id}, reason="narrower", **more)


def lease(route_id: str, hops: list[str], **more: Any) -> dict[str, Any]:
    return record(
        "route.lease",
        route_id=route_id,
        partition=more.pop("partition", "eu"),
        service=more.pop("service", "desk"),
        hops=[hexid(hop) for hop in hops],
        allowed_channels=["desk"],
        allowed_classes=["interactive"],
        allowed_services=["desk"],
        alternates=[],
        **more,
    )


def fence(target: dict[str, str], **more: Any) -> dict[str, Any]:
    return record("route.fence", target=target, reason="maintenance", **more)


def policy(name: str, document: dict[str, Any], **more: Any) -> dict[str, Any]:
    return record("policy.epoch", policy=name, document=document, assertions=[], **more)


def intent(descriptor_id: str, *shown: str, **more: Any) -> dict[str, Any]:
    return record(
        "authority.recovery_intent",
        descriptor=descriptor_id,
        keys=[key(name) for name in shown],
        sequencers=[],
        witnesses={},
        **more,
    )


def veto(intent_id: str, **more: Any) -> dict[str, Any]:
    return record("authority.veto", intent=intent_id, reason="here", **more)


def service_lease(service: str, *replicas: str, leader: str | None = None, **more: Any) -> dict[str, Any]:
    led = {} if leader is None else {"leader": hexid(leader)}
    mode = "active-active" if leader is None else "leader-follower"
    ids = [hexid(name) for name in replicas]
    return record("service.lease", service=service, mode=mode, replicas=ids, **led, **more)


def assignment(partition: str, relay: str, **more: Any) -> dict[str, Any]:
    relays = [{"node_id": hexid(relay), "classes": ["bulk"], "max_mbit_per_s": 50}]
    return record("relay.assignment", partition=partition, relays=relays, rendezvous=[], **more)


def directory(partition: str, node_count: int, **more: Any) -> dict[str, Any]:
    root = "A" * 43 + "="
    return record(
        "peer_directory.epoch", partition=partition, node_count=node_count, directory_root=root, **more
    )


def release(product: str, version: str, channel: str = "stable", **more: Any) -> dict[str, Any]:
    return record(
        "update.release",
        product=product,
        channel=channel,
        version=version,
        artifacts=[{"name": "a", "platform": "linux", "length": 1, "sha256": hexid(version)}],
        compatibility={"min_version": "1", "session_versions": [1]},
        rollback={"to": [], "window_s": 0},
        rollout=[{"cohort_percent": 100, "not_before": format_time(T0)}],
        **more,
    )


def manifest(shard_set_id: str, node: str, **more: Any) -> dict[str, Any]:
    return record(
        "storage.shard_manifest",
        shard_set_id=shard_set_id,
        object={"length": 9, "sha256": hexid("object")},
        cipher="aes-256-gcm",
        code={"scheme": "reed-solomon", "k": 1, "m": 0},
        replication_factor=1,
        shards=[{"index": 0, "node_id": hexid(node), "length": 9, "sha256": hexid("shard")}],
        retention_until=format_time(T0 + HOUR),
        recovery_epoch=1,
        **more,
    )


def seeds(platform: str, site: str, **more: Any) -> dict[str, Any]:
    return record(
        "bootstrap.seed_set",
        platform=platform,
        site=site,
        anchor=hexid("anchor"),
        endpoints=[endpoint()],
        **more,
    )


def snapshot(size: int, log: str = "authority", **more: Any) -> dict[str, Any]:
    root = "A" * 43 + "="
    listed = [{"name": "node", "rows": 1, "root": root}]
    return record("log.snapshot", log=log, size=size, root=root, state_root=root, projections=listed, **more)


def log(*records: dict[str, Any], start: int = 0, at: int = T0) -> list[Fact]:
    """The records as entries start, start + 1, …, one second apart."""
    return [Fact(r, id_of(r), start + n, at + n) for n, r in enumerate(records)]
