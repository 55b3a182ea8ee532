"""A node's measurements as Prometheus text: base units, bounded labels, read when somebody asks.

Nothing is counted twice: each scrape reads what the machines and `Endpoint.totals` count anyway. Labels are
classes, directions, reasons and codes out of fixed sets or of tables of at most `limits.COUNTED_CODES` names,
and at most `limits.METRICS_PEERS` neighbours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.node import Node
from fabric.io.totals import Totals
from fabric.lanes import LaneKey
from fabric.pressure import REASONS
from fabric.relay import Account

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LEVELS = ("nominal", "warning", "critical")
PEER_CHARS = 16


def metrics_text(node: Node) -> str:
    """All metrics of the node now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(node))
    return generate_latest(registry).decode()


class NodeCollector(Collector):
    """Reads one node."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """The families, in a fixed order."""
        endpoint = self._node.endpoint
        connections = endpoint.connections()
        totals = endpoint.totals.with_live(connections)
        yield _gauge("fabric_sessions", "Sessions that are ready.", len(connections))
        yield _gauge("fabric_sessions_half_open", "Connections not proved yet.", endpoint.half_open)
        yield from _traffic(totals)
        yield from self._flows()
        yield from self._sessions()
        yield from self._lanes()
        yield from self._pressure()
        yield from self._resumption()
        yield from self._relay()
        yield from self._reach()
        yield from self._log()

    def _flows(self) -> Iterator[Metric]:
        flows = self._node.pressure.current.reading.flows
        for name, text, field in (
            ("fabric_streams", "Hop streams that are open.", "channels"),
            ("fabric_queued_bytes", "Frames that wait in sessions.", "queued_bytes"),
            ("fabric_window_bytes", "Hop credit that peers allow now.", "window_bytes"),
        ):
            family = GaugeMetricFamily(name, text, labels=["class"])
            for one in TrafficClass:
                family.add_metric([_name(one)], getattr(flows[one], field) if one in flows else 0)
            yield family

    def _sessions(self) -> Iterator[Metric]:
        rtt = GaugeMetricFamily("fabric_session_rtt_seconds", "Smoothed round trip.", labels=["peer"])
        jitter = GaugeMetricFamily("fabric_session_jitter_seconds", "Its mean deviation.", labels=["peer"])
        queued = GaugeMetricFamily("fabric_session_queued_bytes", "Frames that wait.", labels=["peer"])
        lost = CounterMetricFamily("fabric_session_packets_lost", "As the engine tells.", labels=["peer"])
        resent = CounterMetricFamily(
            "fabric_session_packets_resent", "Likewise, probes included.", labels=["peer"]
        )
        window = GaugeMetricFamily("fabric_session_congestion_window_bytes", "Of QUIC.", labels=["peer"])
        size = GaugeMetricFamily("fabric_session_datagram_bytes", "Largest UDP payload.", labels=["peer"])
        for node_id, connection in sorted(self._node.peers.sessions().items())[: limits.METRICS_PEERS]:
            peer, session, stats = [node_id[:PEER_CHARS]], connection.session, connection.carrier.stats()
            if session.rtt_s is not None and session.rtt_var_s is not None:
                rtt.add_metric(peer, session.rtt_s)
                jitter.add_metric(peer, session.rtt_var_s)
            queued.add_metric(peer, session.scheduler.queued)
            window.add_metric(peer, stats.congestion_window_bytes)
            size.add_metric(peer, connection.carrier.datagram_bytes())
            for family, count in ((lost, stats.packets_lost), (resent, stats.packets_resent)):
                if count is not None:
                    family.add_metric(peer, count)
        yield from (rtt, jitter, queued, lost, resent, window, size)

    def _lanes(self) -> Iterator[Metric]:
        """Over all sessions; how many lanes there are has a bound for a session."""
        unsent: Counter[LaneKey] = Counter()
        queued: Counter[LaneKey] = Counter()
        for connection in self._node.endpoint.connections():
            unsent.update({key: waits for key, (_, waits) in connection.lanes_sent().items()})
            queued.update(
                {
                    key: waits
                    for key, (_, waits) in connection.session.queued_by_lane().items()
                    if key.shard >= 0
                }
            )
        for name, text, counts in (
            ("fabric_lane_unsent_bytes", "Given to the engine and not sent yet.", unsent),
            ("fabric_lane_queued_bytes", "Frames that wait for their lane.", queued),
        ):
            family = GaugeMetricFamily(name, text, labels=["class", "shard"])
            for key, count in sorted((key, counts[key]) for key in {*unsent, *queued}):
                family.add_metric([_name(key.traffic_class), str(key.shard)], count)
            yield family

    def _reach(self) -> Iterator[Metric]:
        """How this node finds others, what it refuses, and how its own addresses change."""
        node = self._node
        for name, text, counts in (
            ("fabric_endpoint_events", "Of sockets and of connections not proved.", node.endpoint.counters),
            ("fabric_reach_events", "Streams opened or not, by route or reason.", node.reach.counters),
            ("fabric_probe_events", "Probes of services, by result.", node.promoter.snapshot().counters),
            (
                "fabric_peering_events",
                "Dials and sessions, by result.",
                node.peers.machine.snapshot().counters,
            ),
            (
                "fabric_address_events",
                "Addresses of this machine that came and went.",
                node.follower.counters,
            ),
        ):
            yield _counters(name, text, "event", counts)

    def _pressure(self) -> Iterator[Metric]:
        found = self._node.pressure.current
        yield _gauge("fabric_pressure_score", "How loaded the node is, 0 to 100.", found.score)
        yield _states("fabric_pressure_level", "Level of pressure.", "level", LEVELS, {found.level})
        yield _states("fabric_pressure_reason", "Reasons of it.", "reason", REASONS, set(found.reasons))
        load = GaugeMetricFamily("fabric_load_ratio", "What the node reports to peers.", labels=["resource"])
        node = found.reading.node
        for name in node.__struct_fields__:
            load.add_metric([name], getattr(node, name) / 100)
        yield load
        yield _gauge("fabric_bulk_shrunk", "Whether bulk gives way now.", found.reading.bulk_shrunk)

    def _resumption(self) -> Iterator[Metric]:
        resuming = self._node.endpoint.resuming
        yield _gauge("fabric_streams_held", "Streams without a carrier.", len(resuming.held()))
        yield _counters("fabric_resumptions", "Streams, by what became of them.", "event", resuming.counters)
        switches = resuming.switches
        yield _counters(
            "fabric_route_switches",
            "Streams that went on by another way.",
            "reason",
            {str(reason): count for reason, count in switches.by_reason.items()},
        )
        yield HistogramMetricFamily(
            "fabric_route_switch_seconds",
            "From the first sign of need until the stream goes on.",
            buckets=[(_bound(bound), count) for bound, count in switches.cumulative()],
            sum_value=switches.total_s,
        )

    def _relay(self) -> Iterator[Metric]:
        machine = self._node.endpoint.relaying.machine
        sums = {} if machine is None else machine.by_class()
        family = CounterMetricFamily("fabric_relayed_bytes", "Passed on.", labels=["class", "direction"])
        for one in TrafficClass:
            account = sums.get(one, Account())
            family.add_metric([_name(one), "forward"], account.bytes_forward)
            family.add_metric([_name(one), "back"], account.bytes_back)
        yield family
        yield _gauge("fabric_relay_streams", "That pass now.", 0 if machine is None else machine.streams())
        yield _gauge("fabric_relay_held_bytes", "That wait here.", 0 if machine is None else machine.held)
        yield _counters(
            "fabric_relay_events", "Refusals and ends.", "event", {} if machine is None else machine.counters
        )

    def _log(self) -> Iterator[Metric]:
        log = self._node.update.log
        if log is not None:
            yield _gauge("fabric_log_final_entries", "Entries under the final head.", log.final_size)
            if log.fresh_at is not None:
                age = max(0.0, self._node.clock() - log.fresh_at)
                yield _gauge("fabric_log_head_age_seconds", "Age of the final head.", age)


def _traffic(totals: Totals) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "fabric_session_bytes", "Frames of streams, over all sessions.", labels=["direction", "class"]
    )
    for direction, counts in (("sent", totals.sent_bytes), ("received", totals.received_bytes)):
        for one in TrafficClass:
            family.add_metric([direction, _name(one)], counts[one])
    yield family
    for name, text, by_class in (
        ("fabric_streams_opened", "Hop streams that either end opened.", totals.streams_opened),
        ("fabric_dropped_frames", "Datagrams that waited too long.", totals.dropped_frames),
    ):
        family = CounterMetricFamily(name, text, labels=["class"])
        for one in TrafficClass:
            family.add_metric([_name(one)], by_class[one])
        yield family
    resets = CounterMetricFamily("fabric_stream_resets", "Resets.", labels=["direction", "reason"])
    for direction, reasons in (("sent", totals.resets_sent), ("received", totals.resets_received)):
        for reason, count in sorted(reasons.items()):
            resets.add_metric([direction, reason], count)
    yield resets
    yield _counters("fabric_sessions_closed", "Sessions that ended, by code.", "code", totals.closed)
    yield _counters("fabric_session_events", "Errors and oddities, by name.", "event", totals.counters)
    lost = CounterMetricFamily("fabric_packets_lost", "Over all sessions, where the engine tells.")
    lost.add_metric([], totals.packets_lost)
    yield lost
    timeouts = CounterMetricFamily("fabric_probe_timeouts", "Of QUIC, where the engine tells.")
    timeouts.add_metric([], totals.probe_timeouts)
    yield timeouts


def _bound(seconds: float) -> str:
    return "+Inf" if math.isinf(seconds) else str(seconds)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _counters(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([key], count)
    return family


def _states(name: str, text: str, label: str, states: tuple[str, ...], on: set[str]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for state in states:
        family.add_metric([state], state in on)
    return family


def _name(traffic_class: TrafficClass) -> str:
    return traffic_class.name.lower()
