"""What all sessions of an endpoint have done so far, those that are over included."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fabric.classes import TrafficClass

if TYPE_CHECKING:
    from fabric.io.connection import Connection


@dataclass(slots=True)
class Totals:
    """Sums over sessions; all only ever grow."""

    sent_bytes: Counter[TrafficClass] = field(default_factory=Counter)
    received_bytes: Counter[TrafficClass] = field(default_factory=Counter)
    dropped_frames: Counter[TrafficClass] = field(default_factory=Counter)
    streams_opened: Counter[TrafficClass] = field(default_factory=Counter)
    resets_sent: Counter[str] = field(default_factory=Counter)
    resets_received: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    """The sessions' counters: wire errors by code, late frames, dropped datagrams."""
    closed: Counter[str] = field(default_factory=Counter)
    """Sessions that are over, by close code."""
    packets_lost: int = 0
    probe_timeouts: int = 0

    def add(self, connection: Connection) -> None:
        """Count what a session has done."""
        stats = connection.carrier.stats()
        self.packets_lost += stats.packets_lost or 0
        self.probe_timeouts += stats.probe_timeouts or 0
        if not connection.has_session:
            return
        session = connection.session
        self.sent_bytes.update(session.scheduler.sent_by_class)
        self.received_bytes.update(session.received_by_class)
        self.dropped_frames.update(session.scheduler.dropped_by_class)
        self.streams_opened.update(session.opened_by_class)
        self.resets_sent.update(session.resets_sent)
        self.resets_received.update(session.resets_received)
        self.counters.update(session.counters)

    def end(self, connection: Connection, code: str) -> None:
        """A session is over."""
        self.add(connection)
        self.closed[code] += 1

    def with_live(self, connections: Iterable[Connection]) -> Totals:
        """These sums with those of sessions that live."""
        found = copy.deepcopy(self)
        for connection in connections:
            found.add(connection)
        return found
