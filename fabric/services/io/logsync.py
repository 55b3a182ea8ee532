"""Shells of `statelog.sync/1`: serving this node's log to followers, and following a peer's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Protocol

from fabric import limits, sync
from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.replica import Replica
from fabric.io.streams import Stream
from fabric.io.worker import Worker
from fabric.services.io.channel import Channel
from fabric.services.messages import MessageError
from fabric.sync import CODEC, SERVICE, Compare, Entries, Fetch, Follow, Head, Message, Refuse, batches
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable

_log = logging.getLogger(__name__)

CAPABILITY = "sync"


class Changed:
    """Wakes everybody who waits for more to serve. `version` only grows."""

    def __init__(self) -> None:
        self.version = 0
        self._event = asyncio.Event()

    def set(self, version: int) -> None:
        if version > self.version:
            self.version = version
            self._event.set()
            self._event = asyncio.Event()

    async def beyond(self, version: int) -> int:
        """Wait until there is a version later than `version`."""
        while self.version <= version:
            await self._event.wait()
        return self.version


class SyncServer:
    """Streams final entries and heads to whoever follows; nothing is polled.

    `doubted` hears of a peer that shows less than it did and should be asked (`fabric.io.heads`).
    """

    def __init__(
        self, replica: Replica, worker: Worker, changed: Changed, doubted: Callable[[str], None]
    ) -> None:
        self._replica = replica
        self._worker = worker
        self._changed = changed
        self._doubted = doubted
        self.followers: list[str] = []  # node ids, one for each stream that follows

    async def serve(self, stream: Stream, connection: Connection) -> None:
        """The service handler."""
        channel: Channel[Message] = Channel(stream, CODEC)
        while (request := await channel.receive()) is not None:
            if isinstance(request, Fetch | Follow | Compare) and not await self._holds(request.log):
                await channel.send(Refuse("unknown_log", request.log[:64]))
            elif isinstance(request, Fetch):
                await self._fetch(channel, request)
            elif isinstance(request, Compare):
                await self._compare(channel, request, connection.peer_node_id)
            elif isinstance(request, Follow):
                await self._follow(channel, request, connection.peer_node_id)
                return
            else:
                await channel.send(Refuse("unavailable", "that is no question"))

    async def _holds(self, log: str) -> bool:
        return log in await self._worker.run(self._replica.logs)

    async def _fetch(self, channel: Channel[Message], request: Fetch) -> None:
        leaves = await self._worker.run(self._replica.leaves, request.start, request.end, request.log)
        if not leaves:
            await channel.send(Refuse("unavailable", "no such entries"))
        for message in batches(request.start, leaves):
            await channel.send(message)

    async def _compare(self, channel: Channel[Message], request: Compare, peer: str) -> None:
        compared = await self._worker.run(self._replica.compare_head, request.note, peer, request.log)
        if compared.doubted:
            self._doubted(peer)
        note = await self._worker.run(self._replica.head_note, request.log)
        await channel.send(Refuse("unavailable", "no final head yet") if note is None else Head(note))

    async def _follow(self, channel: Channel[Message], request: Follow, peer: str) -> None:
        if request.anchor != self._replica.anchor:
            await channel.send(Refuse("other_anchor", f"this log starts at {self._replica.anchor}"))
            return
        self.followers.append(peer)
        # The follower says nothing more; what comes is its end, and only then does this reader return.
        gone = asyncio.ensure_future(channel.receive())
        try:
            await self._stream(channel, request, gone)
        finally:
            self.followers.remove(peer)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError, FabricError):
                await gone

    async def _stream(
        self, channel: Channel[Message], request: Follow, gone: asyncio.Future[Message | None]
    ) -> None:
        position, sent = request.size, b""
        while not gone.done():
            version = self._changed.version
            batch = None
            if request.entries:
                batch = await self._worker.run(self._replica.batch_from, position, request.log)
            if batch is not None:
                leaves, sent = batch
                for message in batches(position, leaves):
                    await channel.send(message)
                await channel.send(Head(sent))
                position += len(leaves)
                continue
            note = await self._worker.run(self._replica.head_note, request.log)
            if note is not None and note != sent and (not request.entries or _size_of(note) <= position):
                sent = note
                await channel.send(Head(note))
            waiting = asyncio.ensure_future(self._changed.beyond(version))
            try:
                await asyncio.wait((waiting, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()


def _size_of(note: bytes) -> int:
    """The size of a head; one that became final between two looks comes with its entries in the next."""
    return parse_signed_checkpoint(note)[0].size


class Clock(Protocol):
    """Unix seconds, as `time.time`."""

    def __call__(self) -> float: ...


class SyncClient:
    """Follows one log at peers as `sync.Sources` says, and gives what they send to the replica.

    `changed` tells that this node knows more: a partition's entries may have to wait for the authority log.
    `doubted` is as for `SyncServer`.
    """

    def __init__(
        self,
        replica: Replica,
        worker: Worker,
        sources: sync.Sources,
        connect: Callable[[str], Awaitable[Connection | None]],
        clock: Clock,
        changed: Changed,
        doubted: Callable[[str], None],
        log: str = sync.AUTHORITY,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.sources = sources
        self.log = log
        self._changed = changed
        self._doubted = doubted
        self._replica = replica
        self._worker = worker
        self._connect = connect
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def peer_up(self, peer: str, *, preferred: bool, shown: int = 0) -> None:
        self._perform(self.sources.up(self._clock(), peer, preferred=preferred, shown=shown))

    def peer_down(self, peer: str) -> None:
        self._stop(peer)
        self._perform(self.sources.down(self._clock(), peer))

    def advanced(self, size: int) -> None:
        """This node is final up to `size`, wherever the entries came from."""
        self.sources.advanced(size)
        self._arm()

    async def compare(self, connection: Connection) -> None:
        """Show a peer this node's final head and look at the peer's: what contradicts is kept there and here,
        and so is a head older than one that the peer showed before it was asked.

        Raises FabricError when the stream breaks, MessageError for an answer that is none.
        """
        peer = connection.peer_node_id
        note, asked = await self._worker.run(self._replica.asking, peer, self.log)
        if note is None:
            return
        async with (
            asyncio.timeout(limits.HEADS_TIMEOUT_S),
            await connection.open(SERVICE, TrafficClass.CONTROL) as stream,
        ):
            channel: Channel[Message] = Channel(stream, CODEC)
            await channel.send(Compare(self.log, note))
            answer = await channel.receive()
        if isinstance(answer, Head):
            self.counters["compared"] += 1
            await self._worker.run(self._replica.compare_head, answer.note, peer, self.log, asked=asked)

    async def close(self) -> None:
        """Stop following."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _perform(self, effects: list[sync.Start | sync.Stop]) -> None:
        for effect in effects:
            self._stop(effect.peer)
            if isinstance(effect, sync.Start):
                task = asyncio.ensure_future(self._run(effect.peer, entries=effect.entries))
                self._tasks[effect.peer] = task
        self._arm()

    def _stop(self, peer: str) -> None:
        task = self._tasks.pop(peer, None)
        if task is not None:
            task.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.sources.deadline()
        if at is not None:
            delay = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._perform(self.sources.timer(self._clock()))

    async def _run(self, peer: str, *, entries: bool) -> None:
        barred = False
        try:
            await self._follow(peer, entries=entries)
        except (Refused, MessageError) as error:
            barred = True
            self.counters[f"refused_{error.code}"] += 1
            _log.warning("node %s sent what no honest source sends: %s", peer[:12], error)
        except (FabricError, SourceUnreadable) as error:
            self.counters["ended"] += 1
            _log.info("following node %s ended: %s", peer[:12], error)
        if self._tasks.get(peer) is asyncio.current_task():
            del self._tasks[peer]
            self._perform(self.sources.failed(self._clock(), peer, barred=barred))

    async def _follow(self, peer: str, *, entries: bool) -> None:
        connection = await self._connect(peer)
        if connection is None:
            return
        intake = await self._worker.run(self._replica.intake, self.log)
        async with await connection.open(SERVICE, TrafficClass.RELIABLE, resume=False) as stream:
            channel: Channel[Message] = Channel(stream, CODEC)
            await channel.send(Follow(self.log, intake.size, self._replica.anchor, entries))
            self.counters["follows"] += 1
            while (message := await channel.receive()) is not None:
                if isinstance(message, Refuse):
                    _log.warning(
                        "node %s does not serve the log: %s %s", peer[:12], message.code, message.sentence
                    )
                    return
                if isinstance(message, Head):
                    compared = await self._worker.run(
                        self._replica.compare_head, message.note, peer, self.log
                    )
                    if compared.doubted:
                        self._doubted(peer)
                if not entries:
                    await self._watch(peer, message)
                elif isinstance(message, Entries | Head):
                    await self._take(intake, message)

    async def _take(self, intake: sync.Intake, message: Message) -> None:
        """A partition's entries wait until the authority log is as final here as they say that it is."""
        while True:
            version = self._changed.version
            if await self._worker.run(self._replica.take, intake, message):
                return
            self.counters["waited_for_authority"] += 1
            await self._changed.beyond(version)

    async def _watch(self, peer: str, message: Message) -> None:
        if isinstance(message, Head):
            size = await self._worker.run(self._replica.seen_head, message.note, self.log)
            self._perform(self.sources.seen(self._clock(), peer, size))
