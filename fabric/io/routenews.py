"""What neighbours tell each other of routes (ROUTE_UPDATE): hints to look for records, never more.

A node whose log or fences change a lease through it tells the hops before and after it. Who hears of news
that its own log lacks compares records with the teller at once, instead of waiting for a rumour to come by.
Source: docs/wire.md, "Route updates".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping

from fabric import limits
from fabric.io.connection import Connection
from fabric.wire import RouteUpdate
from projections.model import Lease
from projections.snapshot import Snapshot

RENEWED = "renewed"
FENCED = "fenced"


class RouteNews:
    """`sessions()` are those with the node's neighbours, `compare(node_id)` asks one for what it lacks."""

    def __init__(
        self, node_id: str, sessions: Callable[[], Mapping[str, Connection]], compare: Callable[[str], None]
    ) -> None:
        self.counters: Counter[str] = Counter()
        """`told` and `heard`, and `compared` of what was heard."""
        self._node_id = node_id
        self._sessions = sessions
        self._compare = compare
        self._snapshot = Snapshot()
        self._compared_at: dict[str, float] = {}

    def changed(self, before: Snapshot, after: Snapshot) -> None:
        """The log, or what acts ahead of it, moved: tell the neighbours on routes that changed."""
        self._snapshot = after
        same = before.leases is after.leases and before.fences is after.fences
        if same and before.ahead is after.ahead:
            return
        sessions = self._sessions()
        for lease in after.leases.values():
            old, stands = before.leases.get(lease.route_id), after.stands(lease)
            if old is not None and (old.epoch, before.stands(old)) == (lease.epoch, stands):
                continue
            for neighbour in _beside(self._node_id, lease.hops):
                if neighbour in sessions:
                    self.counters["told"] += 1
                    sessions[neighbour].tell_route(_update(lease, stands=stands))

    def heard(self, connection: Connection, update: RouteUpdate) -> None:
        """A neighbour says that a route changed. At most every `limits.ROUTE_TOLD_S` it is compared with."""
        self.counters["heard"] += 1
        lease = self._snapshot.leases.get(update.route_id)
        stands = lease is not None and self._snapshot.stands(lease)
        known = lease is not None and lease.epoch >= update.epoch and stands == (update.reason != FENCED)
        peer, now = connection.peer_node_id, connection.now()
        if known or now < self._compared_at.get(peer, -math.inf) + limits.ROUTE_TOLD_S:
            return
        if len(self._compared_at) >= limits.PEERS_KNOWN:
            self._compared_at.clear()
        self._compared_at[peer] = now
        self.counters["compared"] += 1
        self._compare(peer)


def _beside(node_id: str, hops: tuple[str, ...]) -> tuple[str, ...]:
    if node_id not in hops:
        return ()
    at = hops.index(node_id)
    return hops[max(0, at - 1) : at] + hops[at + 1 : at + 2]


def _update(lease: Lease, *, stands: bool) -> RouteUpdate:
    return RouteUpdate(
        route_id=lease.route_id,
        epoch=lease.epoch,
        record_id=lease.record_id,
        alternates=list(lease.alternates[: limits.ROUTE_ALTERNATES]),
        reason=RENEWED if stands else FENCED,
    )
