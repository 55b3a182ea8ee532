"""The routes of one endpoint's streams, watched: the shell around `fabric.failover`.

Streams that this end opened and that may be resumed are watched, together by session and route. Only their
initiator can move them, so nobody else looks.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fabric.errors import FabricError
from fabric.failover import RouteWatch, reason_of

if TYPE_CHECKING:
    from fabric.io.connection import Connection
    from fabric.io.endpoint import Endpoint
    from fabric.io.streams import Stream


class Route:
    """One way out of one session, and the streams that take it."""

    __slots__ = ("connection", "due", "key", "streams", "timer", "watch")

    def __init__(self, connection: Connection, key: str, now: float) -> None:
        self.connection = connection
        self.key = key
        self.watch = RouteWatch(now)
        self.streams: dict[Stream, None] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.due = 0.0


class Watching:
    """All watched routes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._routes: dict[tuple[Connection, str], Route] = {}

    def join(self, stream: Stream) -> Route | None:
        """The route that a stream takes from now on; None for a stream that this end could not move."""
        if not (stream.is_initiator and stream.machine.hold_s):
            return None
        key = "" if stream.route is None else stream.route.route_id
        route = self._routes.get((stream.connection, key))
        if route is None:
            route = Route(stream.connection, key, self._endpoint.now())
            self._routes[stream.connection, key] = route
            self.arm(route)
        route.streams[stream] = None
        return route

    def leave(self, stream: Stream, route: Route) -> None:
        """The stream takes the route no more."""
        route.streams.pop(stream, None)
        if not route.streams and self._routes.get((route.connection, route.key)) is route:
            del self._routes[route.connection, route.key]
            if route.timer is not None:
                route.timer.cancel()

    def alarm(self, connection: Connection) -> None:
        """The network says that the neighbour is out of reach."""
        for route in [one for one in self._routes.values() if one.connection is connection]:
            route.watch.alarm(self._endpoint.now())
            self.arm(route)

    def arm(self, route: Route) -> None:
        """Set the route's timer, unless one that is set comes first: that will find nothing and set it."""
        due = route.watch.timer()
        if route.timer is not None:
            if route.due <= due:
                return
            route.timer.cancel()
        route.due = due
        route.timer = self._loop.call_at(due, self._on_timer, route)

    def close(self) -> None:
        """Watch nothing any more."""
        for route in self._routes.values():
            if route.timer is not None:
                route.timer.cancel()
        self._routes.clear()

    def _on_timer(self, route: Route) -> None:
        now, route.timer = self._endpoint.now(), None
        connection, watch = route.connection, route.watch
        if not route.key and watch.asked_at is not None and connection.heard_at > watch.asked_at:
            watch.heard()  # on the way to the neighbour itself every packet is an answer
        for act in watch.handle(now, route.due):
            if act == "ping":
                self._ping(route, now)
            else:
                self._switch(route, now)
        if route.streams:
            self.arm(route)

    def _ping(self, route: Route, now: float) -> None:
        session = route.connection.session
        # Who has ended its stream does not listen to it any more.
        alive = (one for one in route.streams if not one.over and session.lives(one.stream_id))
        stream = next(alive, None)
        if stream is None:
            route.watch.not_pinged(now)
            return
        try:
            route.watch.pinged(now, session.ping(now, stream.stream_id))
            if route.watch.suspect and route.key:
                session.ping(now)  # whether it is the relay or what lies behind it
        except FabricError:
            return  # the session has just ended, which its streams are being told
        self._endpoint.connection_dirty(route.connection)

    def _switch(self, route: Route, now: float) -> None:
        connection, since = route.connection, route.watch.asked_at or now
        if connection.heard_at <= since:
            connection.given_up = True
        reason = reason_of("idle_timeout", connection.suspected)
        for stream in list(route.streams):
            self._endpoint.resuming.leave(stream, reason, since)
