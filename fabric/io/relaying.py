"""The shell around `fabric.relay`: joins the sessions of one endpoint where a lease says so.

It finds the neighbour's session, flushes what the relay machine touched, wakes it when leases expire, and for
streams that end here says which node must have opened them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from fabric.errors import StreamError
from fabric.events import SessionClosed, SessionEvent, StreamOpened
from fabric.relay import Account, AccountKey, Lease, Relay, check_lease
from fabric.session import Session
from fabric.wire import OpenStream

if TYPE_CHECKING:
    from fabric.io.connection import Connection
    from fabric.io.endpoint import Endpoint

LookupLease = Callable[[str], Lease | None]
"""`lookup_lease(route_id)`: the lease as this node's log says now."""


class RelayShell:
    """Relaying for one endpoint. Without `lookup_lease` nothing leased passes or ends here."""

    def __init__(self, endpoint: Endpoint, lookup_lease: LookupLease | None) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._lookup = lookup_lease
        self._connections: dict[Session, Connection] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self.on_missing: Callable[[str], None] | None = None
        """Told the next hop that a stream was refused for, because there is no session with it."""
        self.machine: Relay | None = None
        if lookup_lease is not None:
            self.machine = Relay(
                endpoint.identity.node_id, lookup_lease, self._next_session, endpoint.unix_time
            )

    def ready(self, connection: Connection) -> None:
        """A session may carry relayed streams from now on."""
        self._connections[connection.session] = connection

    def handle(self, connection: Connection, now: float, event: SessionEvent) -> bool:
        """Offer an event to the relay machine; whether it was about a relayed stream."""
        if self.machine is None:
            return False
        if isinstance(event, StreamOpened) and not self.machine.wants(event.open):
            return False
        taken = self.machine.handle(now, connection.session, event)
        if isinstance(event, SessionClosed):
            self._connections.pop(connection.session, None)
        self._follow_up()
        return taken

    def initiator(self, connection: Connection, body: OpenStream) -> str:
        """The node that must have signed an OPEN that ends here: the peer, or the lease's first hop.

        Raises `StreamError` with the lease's fault, as every hop on the way would.
        """
        if body.route is None:
            return connection.peer_node_id
        endpoint = self._endpoint
        lease = None if self._lookup is None else self._lookup(body.route.route_id)
        refusal = check_lease(
            lease,
            endpoint.identity.node_id,
            connection.peer_node_id,
            body,
            endpoint.unix_time(endpoint.now()),
        )
        if refusal is not None:
            raise StreamError(refusal.reason, refusal.sentence)
        if lease is None or lease.hops[-1] != endpoint.identity.node_id:
            raise StreamError("wrong_hop", "the stream ends before its lease does")
        return lease.hops[0]

    def recheck(self) -> None:
        """Leases or fences changed: judge every relayed stream again."""
        if self.machine is not None:
            self.machine.recheck(self._endpoint.now())
            self._follow_up()

    @property
    def accounts(self) -> Mapping[AccountKey, Account]:
        """What was relayed since the node began, by (class, route, organization)."""
        return {} if self.machine is None else self.machine.accounts

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next_session(self, node_id: str) -> Session | None:
        connection = self._endpoint.connection_to(node_id)
        if connection is None and self.on_missing is not None:
            self.on_missing(node_id)
        return None if connection is None else connection.session

    def _follow_up(self) -> None:
        if self.machine is None:
            return
        for session in self.machine.take_touched():
            connection = self._connections.get(session)
            if connection is not None:
                self._endpoint.connection_dirty(connection)
        at = self.machine.timer()
        if at == self._timer_at:
            return
        self.close()
        self._timer_at = at
        if at is not None:
            self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        self.recheck()
