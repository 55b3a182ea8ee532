"""How loaded a node is, why, and what to do about it: one picture for people, controllers and neighbours.

    reason             seen when                                                  points   acts on
    route_failed       streams wait for another carrier                               70   rebuild_or_reroute
    memory_full        memory over MEMORY_CRITICAL of its budget                      70   shed_or_reroute
    queue_full         a session's queue over QUEUE_CRITICAL                          70   shed_or_reroute
    drops              datagrams or frames were dropped                               35   throttle_bulk
    cpu                the processor over LOAD_WARNING                                35   throttle_bulk
    backpressure       a session's queue over QUEUE_WARNING                           30   throttle_bulk
    bulk_pressure      bulk gives way to what a person waits for                      30   throttle_bulk
    peer_pressure      a neighbour says that it is pressed                            30   throttle_bulk
    network            packets are lost, over LOAD_WARNING                            30   prefer_faster_route
    slow_path          a session's round trip is far over its best                    30   prefer_faster_route
    capacity_limited   streams or sessions were refused for want of room              30   reduce_parallelism
    sockets            connections over LOAD_WARNING of what an endpoint takes        30   reduce_parallelism
    route_recovered    a stream went on over another carrier                          30   observe_recovery

The score is the sum of the points, at most 100; from 30 on the level is `warning`, from 70 on `critical`. Of
several reasons the first in this table decides the recommended action; what is critical only by the sum is
shed. A reason is held for a few seconds, so that a picture taken between two bursts is no other one. Capacity
is not failure: a node that refuses what it has no room for is loaded, not broken.
Source: docs/services.md, "Pressure".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from fabric import limits
from fabric.classes import TrafficClass
from fabric.wire import NodePressure

Level = Literal["nominal", "warning", "critical"]
Action = Literal[
    "observe",
    "throttle_bulk",
    "reduce_parallelism",
    "prefer_faster_route",
    "observe_recovery",
    "rebuild_or_reroute",
    "shed_or_reroute",
]

WARNING_SCORE: Final = 30
CRITICAL_SCORE: Final = 70
QUEUE_WARNING: Final = 50
QUEUE_CRITICAL: Final = 95
LOAD_WARNING: Final = 85
MEMORY_CRITICAL: Final = 90
SLOW_FACTOR: Final = 4.0
"""A round trip this many times its best, and `SLOW_S` longer, is a queue on the way, not the way."""
SLOW_S: Final = 0.1

_SHRINKING: Final = (TrafficClass.BULK, TrafficClass.DROPPABLE)
_WINDOW_SHARES: Final[Mapping[Level, int]] = {"nominal": 1, "warning": 2, "critical": 4}


@dataclass(frozen=True, slots=True)
class ClassFlow:
    """One class of a node or session: open streams, queued bytes, bytes that peers' credit allows, drops."""

    channels: int = 0
    queued_bytes: int = 0
    window_bytes: int = 0
    dropped: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is seen at one moment. Percentages are 0 to 100; `total_…` only ever grow."""

    node: NodePressure = field(default_factory=NodePressure)
    """This node: `queue` is the fullest session's, of what it takes before reliable traffic waits."""
    flows: Mapping[TrafficClass, ClassFlow] = field(default_factory=dict)
    peer: int = 0
    """The highest value of a neighbour's NODE_PRESSURE in force."""
    waiting: int = 0
    """Streams without a carrier."""
    bulk_shrunk: bool = False
    """Bulk has something to send and gives way to urgent traffic."""
    slow_sessions: int = 0
    total_dropped: int = 0
    total_refused: int = 0
    """Streams and sessions refused for want of room."""
    total_resumed: int = 0


class _Change(NamedTuple):
    """A reading, and by how much its totals grew."""

    now: Reading
    dropped: int
    refused: int
    resumed: int


class Rule(NamedTuple):
    """A row of the table above."""

    reason: str
    points: int
    action: Action
    seen: Callable[[_Change], bool]


RULES: Final[tuple[Rule, ...]] = (
    Rule("route_failed", 70, "rebuild_or_reroute", lambda c: c.now.waiting > 0),
    Rule("memory_full", 70, "shed_or_reroute", lambda c: c.now.node.memory >= MEMORY_CRITICAL),
    Rule("queue_full", 70, "shed_or_reroute", lambda c: c.now.node.queue >= QUEUE_CRITICAL),
    Rule("drops", 35, "throttle_bulk", lambda c: c.dropped > 0),
    Rule("cpu", 35, "throttle_bulk", lambda c: c.now.node.cpu >= LOAD_WARNING),
    Rule("backpressure", 30, "throttle_bulk", lambda c: QUEUE_WARNING <= c.now.node.queue < QUEUE_CRITICAL),
    Rule("bulk_pressure", 30, "throttle_bulk", lambda c: c.now.bulk_shrunk),
    Rule("peer_pressure", 30, "throttle_bulk", lambda c: c.now.peer >= limits.PEER_PRESSED_PERCENT),
    Rule("network", 30, "prefer_faster_route", lambda c: c.now.node.network >= LOAD_WARNING),
    Rule("slow_path", 30, "prefer_faster_route", lambda c: c.now.slow_sessions > 0),
    Rule("capacity_limited", 30, "reduce_parallelism", lambda c: c.refused > 0),
    Rule("sockets", 30, "reduce_parallelism", lambda c: c.now.node.sockets >= LOAD_WARNING),
    Rule("route_recovered", 30, "observe_recovery", lambda c: c.resumed > 0),
)
REASONS: Final = tuple(rule.reason for rule in RULES)
"""Every reason there is, in the order in which they decide."""


@dataclass(frozen=True, slots=True)
class Transition:
    """The picture changed at `at`, Unix seconds."""

    at: float
    level: Level
    score: int
    reasons: tuple[str, ...]
    action: Action


@dataclass(frozen=True, slots=True)
class Pressure:
    """The picture now."""

    level: Level = "nominal"
    score: int = 0
    reasons: tuple[str, ...] = ()
    action: Action = "observe"
    reading: Reading = field(default_factory=Reading)
    history: tuple[Transition, ...] = ()
    """The newest changes, oldest first; neighbours differ in more than the score."""

    def recommended_window_bytes(self, traffic_class: TrafficClass) -> int:
        """How large a stream's window of this class should be now."""
        if traffic_class not in _SHRINKING:
            return limits.STREAM_WINDOW_BYTES_MAX
        return limits.STREAM_WINDOW_BYTES_MAX // _WINDOW_SHARES[self.level]


class PressureGauge:
    """Readings in, pictures out. `now` is Unix seconds."""

    def __init__(self) -> None:
        self.current = Pressure()
        self._before: Reading | None = None
        self._until: dict[str, float] = {}
        self._history: deque[Transition] = deque(maxlen=limits.PRESSURE_HISTORY)

    def handle(self, now: float, reading: Reading) -> Pressure:
        """Take a reading; return the picture."""
        change = self._change(reading)
        self._before = reading
        for rule in RULES:
            if rule.seen(change):
                self._until[rule.reason] = now + limits.PRESSURE_HOLD_S
        standing = [rule for rule in RULES if self._until.get(rule.reason, 0.0) > now]
        score = min(100, sum(rule.points for rule in standing))
        level = _level(score)
        reasons = tuple(rule.reason for rule in standing)
        action = _action(level, standing)
        last = self._history[-1] if self._history else None
        known = ("nominal", (), "observe") if last is None else (last.level, last.reasons, last.action)
        if known != (level, reasons, action):
            self._history.append(Transition(now, level, score, reasons, action))
        self.current = Pressure(level, score, reasons, action, reading, tuple(self._history))
        return self.current

    def _change(self, reading: Reading) -> _Change:
        before = self._before
        if before is None:
            return _Change(reading, 0, 0, 0)
        # A counter that went back was counted anew; what it counts since is news.
        return _Change(
            reading,
            _grown(before.total_dropped, reading.total_dropped),
            _grown(before.total_refused, reading.total_refused),
            _grown(before.total_resumed, reading.total_resumed),
        )


class PressureNews:
    """When a neighbour hears of this node's pressure: at once when it crosses a bound, again and again while
    it is high, and never while all is calm.
    """

    def __init__(self) -> None:
        self._band = 0
        self._told_at = float("-inf")

    def due(self, now: float, pressure: NodePressure) -> bool:
        """Whether to send NODE_PRESSURE now; the caller then does."""
        band = _band(highest(pressure))
        if band == self._band and (not band or now - self._told_at < limits.PRESSURE_REPEAT_S):
            return False
        self._band, self._told_at = band, now
        return True


def highest(pressure: NodePressure) -> int:
    """The value that counts of a NODE_PRESSURE, 0 to 100."""
    return max(pressure.queue, pressure.cpu, pressure.memory, pressure.sockets, pressure.network)


def withheld(percent: int, window: int) -> int:
    """Bytes of a stream's hop window that bulk leaves unused towards a neighbour so pressed.

    Never more than half: credit comes back in quarters of the window, so a sender that kept more to itself
    could wait for ever for credit that the receiver never owes.
    """
    return (0, window // 4, window // 2)[_band(percent)]


def _band(percent: int) -> int:
    return (percent >= limits.PEER_PRESSED_PERCENT) + (percent >= limits.PEER_PRESSED_HARD_PERCENT)


def _level(score: int) -> Level:
    if score >= CRITICAL_SCORE:
        return "critical"
    return "warning" if score >= WARNING_SCORE else "nominal"


def _action(level: Level, standing: list[Rule]) -> Action:
    if not standing:
        return "observe"
    first = standing[0]
    if level == "critical" and first.points < CRITICAL_SCORE:
        return "shed_or_reroute"
    return first.action


def _grown(before: int, after: int) -> int:
    return after - before if after >= before else after
