"""Streams of one endpoint that outlive their carriers: the shell around resumption.

Every stream is known here by its initiator and uid. One that may be resumed and lost its carrier waits: if
this end opened it, a task tries the ways there are, again and again until the stream's own time is over; if
not, it waits for the OPEN that goes on. Readers and writers notice nothing but the pause.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING

from fabric import limits
from fabric.errors import FabricError, StreamError
from fabric.events import StreamOpened
from fabric.failover import Reason, Switch, Switches
from fabric.io.dials import Dials
from fabric.stream import HopReset
from fabric.wire import RouteRef

if TYPE_CHECKING:
    from fabric.io.connection import Connection
    from fabric.io.endpoint import Endpoint
    from fabric.io.streams import Stream

_log = logging.getLogger(__name__)

Way = tuple["Connection", RouteRef | None]
Ways = Callable[["Stream"], AsyncGenerator[Way, None]]
"""`ways(stream)`: sessions that lead to the stream's other end, each with the route to take, best first. May
dial; what cannot be reached is left out."""


class Resuming:
    """The streams of one endpoint that may be resumed."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.counters: Counter[str] = Counter()
        """`suspended`, `left`, `resumed`, `given_up`, `attempts_failed`, `too_many_held`."""
        self.switches = Switches()
        """What became of streams that this end opened and that lost or left their route."""
        self.ways: Ways = self._same_hop
        """How ways are found: a node looks at its registry and leases; by itself, the same neighbour."""
        self._endpoint = endpoint
        self._streams: dict[str, dict[bytes, Stream]] = {}  # by initiator and uid
        self._held: dict[Stream, int] = {}
        self._held_bytes = 0
        self._held_by: Counter[str] = Counter()
        """How many with each node at the other end."""
        self._dials = Dials()
        self._causes: dict[Stream, tuple[Reason, float]] = {}
        """Why and since when a stream needs another way."""
        self._tasks: dict[Stream, asyncio.Task[None]] = {}
        self._news: set[asyncio.Future[None]] = set()
        self._closed = False

    def held(self) -> list[Stream]:
        """Streams that wait for another carrier."""
        return list(self._held)

    # -- for the endpoint and its connections --------------------------------------------------------------

    def keep(self, stream: Stream, initiator: str) -> None:
        """A stream lives from now on: its uid is taken."""
        self._streams.setdefault(initiator, {})[stream.stream_uid] = stream

    def check_new(self, initiator: str, uid: bytes) -> None:
        """Raise `StreamError` (`uid_in_use`) for the uid of a live stream: the OPEN is a copy."""
        if uid in self._streams.get(initiator, {}):
            raise StreamError("uid_in_use", "a stream of this uid is open")

    def forget(self, stream: Stream, initiator: str) -> None:
        """The stream is over, at both ends as far as this one can know."""
        self._let_go(stream)
        self._causes.pop(stream, None)
        known = self._streams.get(initiator, {})
        if known.get(stream.stream_uid) is stream:
            del known[stream.stream_uid]
            if not known:
                del self._streams[initiator]
        task = self._tasks.get(stream)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def suspended(self, stream: Stream, reason: Reason, since: float | None = None) -> None:
        """The stream has lost its carrier, or an attempt to get another failed. `since`: the first sign."""
        if stream in self._held:
            return
        self._causes.setdefault(stream, (reason, self._endpoint.now() if since is None else since))
        peer = stream.peer_node_id
        size = stream.held_bytes
        if (
            self._closed
            or len(self._held) >= limits.HELD_STREAMS
            or self._held_by[peer] >= limits.HELD_STREAMS_PEER
            or self._held_bytes + size > limits.HELD_BYTES
        ):
            self.counters["too_many_held"] += 1
            stream.hop_event(
                self._endpoint.now(), HopReset("route_failed", "too many streams wait for a carrier")
            )
            return
        self.counters["suspended"] += 1
        self._held[stream] = size
        self._held_bytes += size
        self._held_by[peer] += 1
        self._start(stream)

    def leave(self, stream: Stream, reason: Reason, since: float) -> None:
        """The stream should go on elsewhere, if there is an elsewhere; until then it stays where it is."""
        if self._closed or not stream.is_initiator or not stream.bound or not stream.machine.hold_s:
            return
        if stream not in self._tasks:
            self._causes[stream] = reason, since
            self._start(stream)

    def resumed(self, stream: Stream) -> None:
        """The stream goes on."""
        held = self._let_go(stream)
        cause = self._causes.pop(stream, None)
        if held:
            self.counters["resumed"] += 1
        if cause is not None and stream.is_initiator:
            if not held:
                self.counters["left"] += 1
            switch = Switch(cause[0], self._endpoint.now() - cause[1])
            self.switches.add(switch)
            stream.switched(switch)

    def opened(self, connection: Connection, now: float, event: StreamOpened, initiator: str) -> None:
        """An OPEN with `resume`: bind its stream to this hop stream. Raises `StreamError` to refuse it."""
        stream = self._streams.get(initiator, {}).get(event.open.uid)
        if stream is None:
            raise StreamError("gone", "no stream of this uid waits here")
        effects = stream.machine.resumed(now, event.open)
        stream.move(connection, event.stream_id)
        stream.happened(now, effects)

    def ready(self) -> None:
        """A session came up: whoever waits for a way looks again."""
        for waiter in self._news:
            if not waiter.done():
                waiter.set_result(None)

    async def aclose(self) -> None:
        """Give up what waits."""
        self._closed = True
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                await asyncio.wait(tasks)
            await self._dials.aclose()
        finally:
            for stream in [one for known in self._streams.values() for one in known.values()]:
                stream.hop_event(self._endpoint.now(), HopReset("route_failed", "the endpoint is closed"))
            self._streams.clear()
            for stream in self.held():
                self._let_go(stream)

    def _let_go(self, stream: Stream) -> bool:
        """The stream waits no more; whether it did."""
        size = self._held.pop(stream, None)
        if size is None:
            return False
        peer = stream.peer_node_id
        self._held_bytes -= size
        self._held_by[peer] -= 1
        if not self._held_by[peer]:
            del self._held_by[peer]
        return True

    # -- the initiator's attempts --------------------------------------------------------------------------

    def _start(self, stream: Stream) -> None:
        running = self._tasks.get(stream)
        if stream.is_initiator and (running is None or running.done()):
            task = asyncio.get_running_loop().create_task(
                self._resume(stream), name=f"resume {stream.service}"
            )
            self._tasks[stream] = task
            task.add_done_callback(lambda done: self._attempts_ended(stream, done))

    async def _resume(self, stream: Stream) -> None:
        """Try every way until one works, or the stream has waited too long: then it has failed by itself.

        A stream that has a carrier yet tries every other way once, and stays if none works.
        """
        pause = limits.RESUME_RETRY_FIRST_S
        while not stream.ended and not await self._try_all(stream):
            if stream.bound:
                self._causes.pop(stream, None)
                return
            if self._causes[stream][0] == "fenced":
                stream.no_way_left()
                return
            await self._news_or(pause)
            pause = min(2 * pause, limits.RESUME_RETRY_MAX_S)

    def _attempts_ended(self, stream: Stream, task: asyncio.Task[None]) -> None:
        if self._tasks.get(stream) is task:
            del self._tasks[stream]
        if not task.cancelled() and (error := task.exception()) is not None:
            self.counters["failed_tasks"] += 1
            _log.error("resuming a stream to %s failed", stream.service, exc_info=error)

    async def _try_all(self, stream: Stream) -> bool:
        here = (stream.connection, stream.route) if stream.bound else None
        async with contextlib.aclosing(self.ways(stream)) as ways:
            async for way in ways:
                if stream.ended or (stream.bound and here is None):
                    return True
                if way == here:
                    continue
                try:
                    await stream.resume(*way)
                except FabricError as error:
                    self.counters["attempts_failed"] += 1
                    _log.info("stream to %s does not go on: %s", stream.service, error)
                    if not stream.bound:
                        here = None
                    continue
                return True
        return False

    async def _news_or(self, seconds: float) -> None:
        """Until a session comes up, at most so long."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=seconds)
        finally:
            self._news.discard(waiter)

    async def _same_hop(self, stream: Stream) -> AsyncGenerator[Way, None]:
        """The neighbour that the stream went by, dialed again at the address it had if need be."""
        last = stream.connection
        connection = self._endpoint.connection_to(last.peer_node_id)
        if connection is None and last.dialed_at is not None:
            with contextlib.suppress(FabricError):  # tried again after a pause
                connection = await self._dials.dial(self._endpoint, last.dialed_at, node_id=last.peer_node_id)
        if connection is not None:
            yield connection, stream.route
