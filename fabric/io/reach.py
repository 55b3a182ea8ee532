"""Getting a stream to a service, by whatever route there is. Adapters ask here and know nothing of routes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import FabricError, StreamError, count_code
from fabric.io.connection import Connection
from fabric.io.peers import Peers
from fabric.io.streams import Stream
from fabric.peering import Address
from fabric.routing import Route, leased_route, plan
from fabric.wire import RouteRef
from projections.snapshot import Snapshot

_log = logging.getLogger(__name__)


class UnreachableError(FabricError):
    """Every route failed, or there is none: `no_route`, or the reason of the best route that was tried."""


class Reach:
    """Opens streams. `snapshot()` is the newest one; `now()` Unix seconds."""

    def __init__(
        self, me: str, peers: Peers, snapshot: Callable[[], Snapshot], now: Callable[[], float]
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.last: dict[str, Route] = {}
        """The route that the newest stream to each service took."""
        self._me = me
        self._peers = peers
        self._snapshot = snapshot
        self._now = now

    def routes(self, service: str) -> list[Route]:
        """All usable routes, best first."""
        held = self._peers.sessions()
        return plan(self._snapshot(), self._me, service, self._now(), held=held)

    async def open(self, service: str, traffic_class: TrafficClass = TrafficClass.RELIABLE) -> Stream:
        """A stream over the best route that works; all are tried. Raises UnreachableError."""
        routes = self.routes(service)
        if not routes:
            raise UnreachableError("no_route", f"no active record, fallback or lease for {service!r}")
        failures: list[tuple[Route, FabricError]] = []
        for route in routes:
            try:
                return await self._open(route, traffic_class)
            except FabricError as error:
                self._failed(route, error)
                failures.append((route, error))
        # A hop that lost its session with the next one is dialing it now: worth another moment's patience.
        dialing = [route for route, error in failures if error.code == "next_hop_unreachable"]
        for pause in limits.NEXT_HOP_RETRIES_S if dialing else ():
            await asyncio.sleep(pause)  # how long the hop's dial may take
            for route in dialing:
                try:
                    return await self._open(route, traffic_class)
                except FabricError as error:
                    self._failed(route, error)
        tried = "; ".join(f"{_name(route)}: {error}" for route, error in failures)
        raise UnreachableError(failures[0][1].code, f"{service!r} cannot be reached: {tried}")

    async def open_route(
        self,
        service: str,
        route_id: str,
        hops: tuple[str, ...] = (),
        traffic_class: TrafficClass = TrafficClass.RELIABLE,
    ) -> Stream:
        """A stream over this very route, for tests of a route. The hops are the lease's, or those given when
        no lease is known here: it is for the relays to judge. Raises FabricError with their reason.
        """
        lease = self._snapshot().leases.get(route_id)
        if lease is not None and not hops:
            route = leased_route(lease, service)
        elif len(hops) > 1:
            route = Route("leased", hops, service, route_id, 0 if lease is None else lease.epoch)
        else:
            raise UnreachableError(
                "no_lease", f"no lease {route_id!r} is known here; name its hops to try it"
            )
        if route.hops[0] != self._me:
            raise UnreachableError("wrong_hop", f"route {route_id!r} does not begin at this node")
        return await self._open(route, traffic_class)

    async def ways(self, stream: Stream) -> AsyncGenerator[tuple[Connection, RouteRef | None], None]:
        """Sessions by which a stream whose carrier is lost may go on to the same node, best first."""
        target = stream.peer_node_id
        routes = [route for route in self.routes(stream.service) if route.target == target]
        if stream.route is None and not any(route.kind == "direct" for route in routes):
            routes.append(Route("direct", (self._me, target), stream.service))
        last = stream.connection
        # What was just lost, or is about to end, is worth another try when there is nothing else.
        routes.sort(
            key=lambda route: (route.next_hop == last.peer_node_id and not last.usable, self.ending(route))
        )
        for route in routes:
            try:
                connection = await self._first_hop(route)
            except FabricError as error:
                self._failed(route, error)
                continue
            yield connection, _ref(route)

    def ending(self, route: Route | RouteRef) -> bool:
        """Whether the lease of a route is so near its end that nobody will renew it."""
        lease = None if route.route_id is None else self._snapshot().leases.get(route.route_id)
        return lease is not None and lease.expires_at < self._now() + limits.ROUTE_LEASE_END_S

    async def _open(self, route: Route, traffic_class: TrafficClass) -> Stream:
        connection = await self._first_hop(route)
        try:
            async with asyncio.timeout(limits.OPEN_TIMEOUT_S):
                stream = await connection.open(
                    route.service, traffic_class, target_node_id=route.target, route=_ref(route)
                )
        except TimeoutError:
            raise StreamError("accept_timeout", f"no answer in {limits.OPEN_TIMEOUT_S} s") from None
        self.counters[f"opened_{route.kind}"] += 1
        self.last[route.service] = route
        return stream

    async def _first_hop(self, route: Route) -> Connection:
        first: tuple[Address, ...] = ()
        if route.endpoint is not None:
            first = (Address(route.endpoint.address, route.endpoint.peer_cert_sha256),)
        return await self._peers.session(route.next_hop, first)

    def _failed(self, route: Route, error: FabricError) -> None:
        count_code(self.counters, "failed", error.code)
        _log.info("route to %s by %s failed: %s", route.service, _name(route), error)


def _ref(route: Route) -> RouteRef | None:
    if route.kind != "leased" or route.route_id is None:
        return None
    return RouteRef(route_id=route.route_id, epoch=route.epoch, position=1)


def _name(route: Route) -> str:
    if route.kind == "leased":
        return f"lease {route.route_id}"
    return f"node {route.target[:12]}" + (f" at {route.endpoint.address}" if route.endpoint else "")
