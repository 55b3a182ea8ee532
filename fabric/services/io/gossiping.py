"""Shell of `fabric.gossip/1`: one stream to each neighbour, opened by whoever dialed the session.

Two nodes that dial each other at once have two streams for a while, and each end may write to another one of
them: so both are read until they end.

What the machine wants judged goes to the replica's thread and comes back as an event. A neighbour that reads
too slowly loses messages, not memory: repair finds what it missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Coroutine

from fabric import gossip, limits
from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.replica import Replica
from fabric.io.streams import Stream
from fabric.io.updates import Judgement
from fabric.io.worker import Worker
from fabric.services.gossip import SERVICE, Have, Reader, encode
from statelog.errors import SourceUnreadable

_log = logging.getLogger(__name__)

CAPABILITY = "gossip"


class _Link:
    """The stream to one neighbour and what waits to be written to it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._wake = asyncio.Event()

    def put(self, data: bytes) -> bool:
        """Queue a message; False when the neighbour is too slow for it."""
        if self._queued_bytes + len(data) > limits.GOSSIP_QUEUE_BYTES:
            return False
        self._queue.append(data)
        self._queued_bytes += len(data)
        self._wake.set()
        return True

    async def write(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                data = self._queue.popleft()
                self._queued_bytes -= len(data)
                self.stream.write(data)
                await self.stream.drain()


class GossipService:
    """Drives the gossip machine. `on_judged` sees every verdict on a record that gossip brought."""

    def __init__(
        self,
        me: str,
        rng: random.Random,
        replica: Replica,
        worker: Worker,
        clock: Callable[[], float],
        on_judged: Callable[[Judgement], None],
    ) -> None:
        self.machine = gossip.Gossip(me, rng)
        self._replica = replica
        self._worker = worker
        self._clock = clock
        self._on_judged = on_judged
        self._links: dict[str, list[_Link]] = {}  # every live stream with a neighbour; the last is written to
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # -- what happens around --

    def handle(self, event: gossip.Event) -> None:
        """Give the machine an event and perform what it answers."""
        for effect in self.machine.handle(self._clock(), event):
            if isinstance(effect, gossip.Send):
                link = self.link_to(effect.peer)
                if link is not None and not link.put(encode(effect.message)):
                    self.machine.counters["slow_peer"] += 1
            else:
                self._start(self._judge(effect))
        self._arm()

    def link_to(self, peer: str) -> _Link | None:
        """What carries this node's words to a neighbour."""
        links = self._links.get(peer)
        return links[-1] if links else None

    async def dialed(self, connection: Connection) -> None:
        """Keep the stream open over a session that this node dialed, until the session ends."""
        pause = limits.PEER_REDIAL_FIRST_S
        while connection.is_ready and not connection.draining:
            began = self._clock()
            try:
                async with await connection.open(SERVICE, TrafficClass.CONTROL, resume=False) as stream:
                    await self._talk(stream)
            except FabricError as error:
                _log.info("gossip with node %s ended: %s", connection.peer_node_id[:12], error)
            lasted = self._clock() - began > limits.PEER_REDIAL_MAX_S
            pause = limits.PEER_REDIAL_FIRST_S if lasted else min(2 * pause, limits.PEER_REDIAL_MAX_S)
            await asyncio.wait((connection.closed,), timeout=pause)

    async def serve(self, stream: Stream, connection: Connection) -> None:
        """The service handler: the neighbour opened the stream."""
        del connection
        await self._talk(stream)

    async def close(self) -> None:
        """Stop the timer and what is being judged."""
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- parts --

    async def _talk(self, stream: Stream) -> None:
        peer = stream.peer_node_id
        link = _Link(stream)
        link.put(encode(Have(())))  # the neighbour's service is called with the first bytes
        links = self._links.setdefault(peer, [])
        if links:
            self.handle(gossip.PeerDown(peer))
        links.append(link)
        self.handle(gossip.PeerUp(peer))
        writing = asyncio.ensure_future(link.write())
        reader = Reader()
        try:
            while data := await stream.read():
                for message in reader.feed(data):
                    self.handle(gossip.Received(peer, message))
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError, FabricError):
                await writing
            self._ended(peer, link)

    def _ended(self, peer: str, link: _Link) -> None:
        """The words on their way over `link` are lost: begin anew over another, if there is one."""
        links = self._links[peer]
        was_written_to = links[-1] is link
        links.remove(link)
        if was_written_to:
            self.handle(gossip.PeerDown(peer))
            if links:
                self.handle(gossip.PeerUp(peer))
        if not links:
            del self._links[peer]

    async def _judge(self, effect: gossip.Judge) -> None:
        try:
            judgement = await self._worker.run(self._replica.judge, effect.data, effect.record_id)
        except SourceUnreadable as error:
            _log.warning("record %s could not be judged: %s", effect.record_id, error)
            self.handle(gossip.Judged(effect.record_id, gossip.Refusal("GS-STORE", unjudged=True)))
            return
        if judgement.refusal is not None:
            _log.info("record %s refused: %s", effect.record_id[:12], judgement.sentence)
            self.handle(gossip.Judged(effect.record_id, judgement.refusal))
        else:
            self.handle(gossip.Judged(effect.record_id, judgement.item))
        self._on_judged(judgement)

    def _start(self, coroutine: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.machine.deadline()
        if at is not None:
            delay = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.handle, gossip.Timer())
