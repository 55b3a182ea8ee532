"""What a node says about itself: one JSON document, schema `fabric.status.v1`.

Made on the node's loop from what is in memory. Lists that peers can make long hold the busiest, and say how
many were left out. Times are Unix seconds, durations say their unit.
"""

# Long on purpose: one document, a function for each of its parts.
from __future__ import annotations

import heapq
import importlib.metadata
import math
from collections.abc import Callable
from typing import Any, TypeVar

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.connection import Connection
from fabric.io.engines import available_engines
from fabric.io.node import Node
from fabric.io.streams import Stream
from fabric.io.updates import LogStatus
from fabric.pressure import Pressure
from fabric.relay import Account, AccountKey
from projections.model import RegistryRecord
from projections.snapshot import Snapshot
from statelog.alarms import is_stale
from statelog.io.evidence import EvidenceCounts

SCHEMA = "fabric.status.v1"

_Row = TypeVar("_Row")


def status(node: Node) -> dict[str, Any]:
    """The whole document."""
    now, snapshot = node.clock(), node.snapshot
    own = snapshot.node(node.node_id)
    return {
        "schema": SCHEMA,
        "name": node.config.name,
        "node_id": node.node_id,
        "cert_sha256": node.identity.certificate_sha256,
        "cluster": node.config.cluster,
        "anchor": node.config.anchor,
        "address": node.address,
        "engine": available_engines()[0] if node.config.engine == "auto" else node.config.engine,
        "uptime_s": round(now - node.started_at, 1),
        "mode": None if snapshot.cluster is None else snapshot.cluster.mode,
        "approved": snapshot.approved(node.node_id, now),
        "trust_tier": None if own is None else own.trust_tier,
        "roles": [one.role for one in snapshot.roles_of(node.node_id, now)],
        "services": {name: dict(one.counters) for name, one in sorted(node.services.items())},
        "log": _log(node, now),
        "alarms": _alarms(node, now),
        "unlogged": _unlogged(snapshot),
        "capabilities": list(node.endpoint.session_config.capabilities),
        **_sessions(node),
        **_streams(node),
        "totals": _totals(node),
        "pressure": pressure(node.pressure.current),
        "resumption": {
            "held": len(node.endpoint.resuming.held()),
            "counters": dict(node.endpoint.resuming.counters),
            "switches": dict(node.endpoint.resuming.switches.by_reason),
            "recovery_s": [
                {"up_to": None if math.isinf(bound) else bound, "switches": count}
                for bound, count in node.endpoint.resuming.switches.cumulative()
            ],
        },
        "registry": _registry(snapshot, now),
        "routes": _routes(node),
        "route_news": dict(node.routes.counters),
        **_relay(node),
        "relaying": _relaying(node),
        "addresses": dict(node.follower.counters),
        "gossip": _gossip(node),
        "probes": _probes(node),
        "peering": _peering(node),
        "submissions": {
            "waiting": len(node.forwarder),
            "refused": dict(sorted(node.forwarder.refusals.items())),
            "counters": dict(node.forwarder.counters),
        },
        "refusals": {
            "delivered": dict(node.desk.refused),
            "by_peer": node.gossip.machine.snapshot().refused,
            "services": {k: v for k, v in node.counters.items() if k.startswith("refused_")},
            "endpoint": dict(node.endpoint.counters),
        },
        "counters": dict(node.counters),
    }


def versions() -> dict[str, str]:
    """This software and its engines, by name."""
    names = ("fabric-node", *available_engines())
    return {name: importlib.metadata.version(name) for name in names}


def _log(node: Node, now: float) -> dict[str, Any]:
    log = node.update.log
    body: dict[str, Any] = {
        "origin": None,
        "size": 0,
        "final_size": 0,
        "final_root": None,
        "term": 0,
        "age_s": None,
        "max_age_s": None,
        "stale": None,
        **EvidenceCounts()._asdict(),
        "source": node.sync_client.sources.main,
        "followers": len(node.sync_server.followers),
        "ahead": len(node.snapshot.ahead.nodes) + len(node.snapshot.ahead.fences),
        "witness": None,
        "sequencer": None,
        "counters": {**node.replica.counters, **node.sync_client.counters},
    }
    if log is not None:
        age = None if log.fresh_at is None else max(0.0, now - log.fresh_at)
        body |= {
            "origin": log.origin,
            "size": log.size,
            "final_size": log.final_size,
            "final_root": log.final_root.hex(),
            "term": log.term,
            "age_s": None if age is None else round(age, 1),
            "max_age_s": log.max_age_s,
            "stale": is_stale(log.fresh_at, log.max_age_s, now),
            **log.evidence._asdict(),
        }
    body["partitions"] = [_partition(node, one) for one in node.update.partitions]
    if node.witness is not None:
        body["witness"] = {"name": node.witness.name, "counters": dict(node.witness.counters)}
    if node.sequencing is not None:
        body["sequencer"] = {
            "missing_witnesses": dict(node.sequencing.missing),
            "counters": {**node.sequencing.counters, **node.submit_server.counters},
        }
    return body


def _partition(node: Node, log: LogStatus) -> dict[str, Any]:
    """The log of a partition, as far as it differs from the authority log's story."""
    client = node.sync_clients.get(log.log)
    return {
        "log": log.log,
        "size": log.size,
        "final_size": log.final_size,
        "final_root": log.final_root.hex(),
        "term": log.term,
        "sequencers": list(log.sequencers),
        "source": None if client is None else client.sources.main,
        "counters": {} if client is None else dict(client.counters),
    }


def _unlogged(snapshot: Snapshot) -> dict[str, Any]:
    """What acts here and is in no final log yet; the log may still refuse it. Registry records say it of
    themselves. `bootstrap`: a development cluster let it act.
    """
    ahead, cluster = snapshot.ahead, snapshot.cluster
    return {
        "bootstrap": cluster is not None and cluster.mode == "development",
        "revoked_nodes": sorted(ahead.nodes),
        "revoked_certificates": sorted(ahead.certificates),
        "fences": [{"target": target, "value": value} for target, value in sorted(ahead.fences)],
    }


def _alarms(node: Node, now: float) -> list[dict[str, str | None]]:
    return [{"log": one.log, "code": one.code, "sentence": one.said} for one in node.update.alarms(now)]


def pressure(found: Pressure) -> dict[str, Any]:
    """How loaded the node is, as `fabric.pressure` judges it."""
    node = found.reading.node
    return {
        "level": found.level,
        "score": found.score,
        "reasons": list(found.reasons),
        "recommended_action": found.action,
        "node": {name: getattr(node, name) for name in node.__struct_fields__},
        "peers": found.reading.peer,
        "classes": {
            one.name.lower(): {
                "channels": flow.channels,
                "queued_bytes": flow.queued_bytes,
                "window_bytes": flow.window_bytes,
                "dropped": flow.dropped,
                "recommended_window_bytes": found.recommended_window_bytes(one),
            }
            for one, flow in found.reading.flows.items()
        },
        "history": [
            {
                "at": round(one.at, 3),
                "level": one.level,
                "score": one.score,
                "reasons": list(one.reasons),
                "recommended_action": one.action,
            }
            for one in found.history
        ],
    }


def _busiest(
    kind: str, rows: list[_Row], key: Callable[[_Row], int], most: int
) -> tuple[list[_Row], dict[str, int]]:
    """The rows to show, in their order, and how many were left out under the name that says so."""
    if len(rows) <= most:
        return rows, {f"{kind}_left_out": 0}
    shown = set(heapq.nlargest(most, range(len(rows)), key=lambda at: key(rows[at])))
    return [row for at, row in enumerate(rows) if at in shown], {f"{kind}_left_out": len(rows) - most}


def _sessions(node: Node) -> dict[str, Any]:
    rows, left_out = _busiest(
        "sessions", sorted(node.peers.sessions().items()), _session_moved, limits.STATUS_SESSIONS
    )
    return {"sessions": [_session(node.snapshot, peer, one) for peer, one in rows], **left_out}


def _session_moved(row: tuple[str, Connection]) -> int:
    session = row[1].session
    return sum(session.scheduler.sent_by_class.values()) + sum(session.received_by_class.values())


def _session(snapshot: Snapshot, peer: str, connection: Connection) -> dict[str, Any]:
    session = connection.session
    row = snapshot.node(peer)
    scheduler, windows, stats = session.scheduler, session.windows(), connection.carrier.stats()
    return {
        "node_id": peer,
        "name": None if row is None else row.display_name,
        "dialed": connection.is_dialer,
        "remote": f"{connection.remote[0]}:{connection.remote[1]}",
        "rtt_ms": _ms(session.rtt_s),
        "jitter_ms": _ms(session.rtt_var_s),
        "packets_lost": stats.packets_lost,
        "packets_resent": stats.packets_resent,
        "probe_timeouts": stats.probe_timeouts,
        "congestion_window_bytes": stats.congestion_window_bytes,
        "datagram_bytes": connection.carrier.datagram_bytes(),
        "bytes_in_flight": stats.bytes_in_flight,
        "peer_pressure": scheduler.peer_pressure(connection.now()),
        "capabilities": list(connection.capabilities),
        "route_epoch": connection.peer_route_epoch,
        "peer_epoch": connection.peer_epoch,
        "classes": {
            one.name.lower(): {
                "streams": windows[one][0],
                "queued_bytes": scheduler.queued_by_class[one],
                "window_bytes": windows[one][1],
                "sent_bytes": scheduler.sent_by_class[one],
                "received_bytes": session.received_by_class[one],
                "dropped": scheduler.dropped_by_class[one],
            }
            for one in TrafficClass
        },
        "lanes": _lanes(connection),
        "counters": dict(session.counters),
    }


def _lanes(connection: Connection) -> list[dict[str, Any]]:
    """Each lane in use: what waits in the session, what waits in the engine, and what went each way."""
    session = connection.session
    queued, sent, received = session.queued_by_lane(), connection.lanes_sent(), session.lanes_received()
    return [
        {
            "class": key.traffic_class.name.lower(),
            "shard": key.shard,
            "streams": queued.get(key, (0, 0))[0],
            "queued_bytes": queued.get(key, (0, 0))[1],
            "unsent_bytes": sent.get(key, (0, 0))[1],
            "sent_bytes": sent.get(key, (0, 0))[0],
            "received_bytes": received.get(key, 0),
        }
        for key in sorted({*queued, *sent, *received})
    ]


def _totals(node: Node) -> dict[str, Any]:
    """Over all sessions, those that are over included."""
    found = node.endpoint.totals.with_live(node.endpoint.connections())
    by_class = ("sent_bytes", "received_bytes", "dropped_frames", "streams_opened")
    by_name = ("resets_sent", "resets_received", "counters", "closed")
    return {
        **{name: {one.name.lower(): getattr(found, name)[one] for one in TrafficClass} for name in by_class},
        **{name: dict(sorted(getattr(found, name).items())) for name in by_name},
        "packets_lost": found.packets_lost,
        "probe_timeouts": found.probe_timeouts,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def _streams(node: Node) -> dict[str, Any]:
    every = [
        (peer, stream)
        for peer, connection in sorted(node.peers.sessions().items())
        for stream in connection.streams()
    ]
    rows, left_out = _busiest("streams", every, _stream_moved, limits.STATUS_STREAMS)
    return {"streams": [_stream(peer, stream) for peer, stream in rows], **left_out}


def _stream_moved(row: tuple[str, Stream]) -> int:
    return sum(row[1].machine.moved)


def _stream(peer: str, stream: Stream) -> dict[str, Any]:
    return {
        "service": stream.service,
        "class": stream.traffic_class.name.lower(),
        "mode": stream.mode.name.lower(),
        "peer": stream.peer_node_id,
        "next_hop": peer,
        "route_id": None if stream.route is None else stream.route.route_id,
        "uid": stream.stream_uid.hex(),
        "sent_bytes": stream.machine.moved[0],
        "received_bytes": stream.machine.moved[1],
        "held_bytes": stream.held_bytes,
        "path_rtt_ms": None if stream.way is None else _ms(stream.way.watch.rtt_s or None),
        "path_jitter_ms": None if stream.way is None else _ms(stream.way.watch.rtt_var_s or None),
        "suspect": stream.way is not None and stream.way.watch.suspect,
        "switches": stream.switches,
        "switch_reason": None if stream.last_switch is None else stream.last_switch.reason,
        "recovery_ms": None if stream.last_switch is None else _ms(stream.last_switch.seconds),
        "counters": dict(stream.machine.counters),
    }


def _registry(snapshot: Snapshot, now: float) -> list[dict[str, Any]]:
    rows = []
    for (service, scope, organization_id), view in sorted(snapshot.registry.items()):
        known = [one for one in (view.active, *view.fallbacks, *view.candidates) if one is not None]
        active = view.active
        rows.append(
            {
                "service": service,
                "scope": scope,
                "organization_id": organization_id,
                "active": None if active is None else active.record_id,
                "fallback": [one.record_id for one in view.fallbacks if one.expires_at > now],
                "candidate": [one.record_id for one in view.candidates if one.expires_at > now],
                "records": [_record(one, one.record_id in view.verified) for one in known],
            }
        )
    return rows


def _record(record: RegistryRecord, verified: bool) -> dict[str, Any]:
    return {
        "record_id": record.record_id,
        "epoch": record.epoch,
        "log_index": record.log_index,
        "unlogged": record.unlogged,
        "bootstrap": record.bootstrap,
        "verified": verified,
        "expires_at": record.expires_at,
        "endpoints": [
            {"endpoint_id": one.endpoint_id, "address": one.address, "transport": one.transport}
            for one in record.endpoints
        ],
    }


def _routes(node: Node) -> list[dict[str, Any]]:
    snapshot, now = node.snapshot, node.clock()
    rows = []
    for route_id, lease in sorted(snapshot.leases.items()):
        if node.node_id in lease.hops:
            rows.append(
                {
                    "route_id": route_id,
                    "partition": lease.partition,
                    "service": lease.service,
                    "hops": list(lease.hops),
                    "position": lease.hops.index(node.node_id),
                    "epoch": lease.epoch,
                    "expires_at": lease.expires_at,
                    "stands": snapshot.stands(lease, now=now),
                    "bootstrap": lease.bootstrap,
                    "in_use": any(
                        one.route_id == route_id for one in node.reach.last.values() if one.kind == "leased"
                    ),
                }
            )
    return rows


def _relay(node: Node) -> dict[str, Any]:
    rows, left_out = _busiest(
        "relay", sorted(node.endpoint.relaying.accounts.items()), _relayed, limits.STATUS_RELAYED
    )
    relay = [
        {
            "class": traffic_class.name.lower(),
            "route_id": route_id,
            "organization_id": organization_id,
            **_account(account),
        }
        for (traffic_class, route_id, organization_id), account in rows
    ]
    return {"relay": relay, **left_out}


def _relayed(row: tuple[AccountKey, Account]) -> int:
    return row[1].bytes_forward + row[1].bytes_back


def _account(account: Account) -> dict[str, int]:
    return {
        "streams": account.streams,
        "records": account.records,
        "bytes_forward": account.bytes_forward,
        "bytes_back": account.bytes_back,
    }


def _relaying(node: Node) -> dict[str, Any]:
    machine = node.endpoint.relaying.machine
    if machine is None:
        return {"streams": 0, "held_bytes": 0, "by_class": {}, "counters": {}}
    sums = machine.by_class()
    return {
        "streams": machine.streams(),
        "held_bytes": machine.held,
        "by_class": {one.name.lower(): _account(sums[one]) for one in sorted(sums)},
        "counters": dict(sorted(machine.counters.items())),
    }


def _gossip(node: Node) -> dict[str, Any]:
    found = node.gossip.machine.snapshot()
    return {
        "items": found.items,
        "bytes": found.bytes,
        "spreading": found.spreading,
        "wanted": found.wanted,
        "counters": dict(sorted(found.counters.items())),
    }


def _probes(node: Node) -> dict[str, Any]:
    found = node.promoter.snapshot()
    return {
        "waiting": found.waiting,
        "under_way": found.probing,
        "counters": dict(sorted(found.counters.items())),
    }


def _peering(node: Node) -> dict[str, Any]:
    found = node.peers.machine.snapshot()
    return {
        "known": found.known,
        "connected": list(found.connected),
        "dialing": list(found.dialing),
        "failing": dict(sorted(found.failing.items())),
        "reach": dict(node.reach.counters),
        "counters": dict(sorted(found.counters.items())),
    }
