"""Looking at an endpoint: its sessions, the machine under it, and what neighbours say of themselves."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.pressure import SLOW_FACTOR, SLOW_S, ClassFlow, Pressure, PressureGauge, PressureNews, Reading
from fabric.wire import NodePressure

_STATM = Path("/proc/self/statm")
_DESCRIPTORS = Path("/proc/self/fd")
_REFUSALS = (
    "too_many_streams",
    "connections_refused",
    "too_many_held",
    "no_room",
    "evicted",
    "memory_exceeded",
)
_DROPS = ("datagrams_dropped", "datagrams_too_large")


class PressureWatch:
    """Call `look` every `limits.PRESSURE_PERIOD_S`. `clock()` is Unix seconds."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._gauge = PressureGauge()
        self._news: dict[Connection, PressureNews] = {}
        self._looked_at = time.monotonic()
        self._cpu_at = time.process_time()
        self._packets = (0, 0)
        self._cpu = 0

    @property
    def current(self) -> Pressure:
        """The newest picture."""
        return self._gauge.current

    def look(self) -> Pressure:
        """Take a reading, tell the neighbours who should know, and return the picture."""
        connections = self._endpoint.connections()
        node = self._node(connections)
        picture = self._gauge.handle(self._clock(), self._reading(connections, node))
        now = self._endpoint.now()
        self._news = {one: self._news.get(one) or PressureNews() for one in connections}
        for connection, news in self._news.items():
            if news.due(now, node):
                connection.session.send_pressure(now, node)
                self._endpoint.connection_dirty(connection)
        return picture

    # -- the parts -----------------------------------------------------------------------------------------

    def _reading(self, connections: list[Connection], node: NodePressure) -> Reading:
        endpoint, now = self._endpoint, self._endpoint.now()
        totals = endpoint.totals.with_live(connections)
        relay = endpoint.relaying.machine
        counters = totals.counters + totals.resets_sent + endpoint.counters + endpoint.resuming.counters
        if relay is not None:
            counters += relay.counters
        shrunk = [
            one for one in connections if now - one.session.scheduler.shrunk_at < limits.PRESSURE_PERIOD_S
        ]
        return Reading(
            node=node,
            flows=flows(connections),
            peer=max((one.session.scheduler.peer_pressure(now) for one in connections), default=0),
            waiting=len(endpoint.resuming.held()),
            bulk_shrunk=bool(shrunk),
            slow_sessions=sum(map(_slow, connections)),
            total_dropped=sum(totals.dropped_frames.values()) + sum(counters[name] for name in _DROPS),
            total_refused=sum(counters[name] for name in _REFUSALS),
            total_resumed=endpoint.resuming.counters["resumed"],
        )

    def _node(self, connections: list[Connection]) -> NodePressure:
        endpoint = self._endpoint
        queued = max((one.session.scheduler.queued for one in connections), default=0)
        return NodePressure(
            queue=_percent(queued, limits.SESSION_QUEUE_BYTES),
            cpu=self._processor(),
            memory=_percent(_resident_bytes(), limits.PROCESS_MEMORY_BYTES),
            sockets=max(
                _percent(len(connections), endpoint.policy.total),
                _percent(len(connections) + endpoint.half_open, limits.ENDPOINT_CONNECTIONS),
                _descriptors(),
            ),
            network=self._lossy(connections),
        )

    def _processor(self) -> int:
        """The share of one core that this process used since the last look; a loop has no more than one."""
        now, used = time.monotonic(), time.process_time()
        elapsed = now - self._looked_at
        if elapsed >= limits.PRESSURE_PERIOD_S / 2:
            self._cpu = _percent(used - self._cpu_at, elapsed)
            self._looked_at, self._cpu_at = now, used
        return self._cpu

    def _lossy(self, connections: list[Connection]) -> int:
        """Ten times the share of packets that were lost since the last look, where the engines tell: as if a
        tenth were the end of the world. Packets are counted as full ones.
        """
        lost = sum(one.carrier.stats().packets_lost or 0 for one in connections)
        sent = sum(sum(one.session.scheduler.sent_by_class.values()) for one in connections)
        sent //= limits.CARRIER_DATAGRAM_BYTES
        before_lost, before_sent = self._packets
        self._packets = (lost, sent)
        if sent - before_sent < limits.PRESSURE_PACKETS:
            return 0
        return _percent(10 * max(0, lost - before_lost), sent - before_sent)


def flows(connections: list[Connection]) -> dict[TrafficClass, ClassFlow]:
    """What waits and what may go, by class, over these sessions."""
    windows = [connection.session.windows() for connection in connections]
    schedulers = [connection.session.scheduler for connection in connections]
    return {
        one: ClassFlow(
            sum(each[one][0] for each in windows),
            sum(each.queued_by_class[one] for each in schedulers),
            sum(each[one][1] for each in windows),
            sum(each.dropped_by_class[one] for each in schedulers),
        )
        for one in TrafficClass
    }


def _slow(connection: Connection) -> bool:
    session = connection.session
    if session.rtt_s is None or session.rtt_best_s is None:
        return False
    return session.rtt_s > max(SLOW_FACTOR * session.rtt_best_s, session.rtt_best_s + SLOW_S)


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0  # not Linux: memory is not told


def _descriptors() -> int:
    """How much of the process's file descriptors is in use, in percent; TCP targets of services take some."""
    try:
        return _percent(sum(1 for _ in _DESCRIPTORS.iterdir()), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    except OSError:
        return 0  # not Linux: what sessions take says most


def _percent(part: float, whole: float) -> int:
    return max(0, min(100, round(100 * part / whole)))
