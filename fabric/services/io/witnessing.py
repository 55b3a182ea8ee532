"""Shells of `statelog.witness/1`: this node's witness, and asking the witnesses of others.

A witness replays and persists on the replica's thread; the entries it lacks it takes from this node's own
log as far as that goes, and beyond it from the node that asks.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from fabric import limits
from fabric.classes import TrafficClass
from fabric.io.connection import Connection
from fabric.io.replica import Replica
from fabric.io.streams import Stream
from fabric.io.worker import Worker
from fabric.services.io.channel import Channel
from fabric.services.messages import MessageError
from fabric.services.witness import CODEC, SERVICE, AddCheckpoint, Answer, Entries, Message, Need
from fabric.sync import AUTHORITY, batches
from statelog import witness as protocol
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.signing import Signer
from statelog.witness import Fetch, Fetched, Persist, Persisted, Reply, Request, Witness

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Asker:
    """A request under way: who asks, and the entries that came with the question."""

    channel: Channel[Message]
    log: str
    start: int
    leaves: list[bytes]
    answered: asyncio.Future[Reply]


class WitnessService:
    """Serves one witness key. `serve` is the service handler."""

    def __init__(
        self,
        replica: Replica,
        worker: Worker,
        name: str,
        signer: Signer,
        clock: Callable[[], float],
        is_sequencer: Callable[[str], bool],
    ) -> None:
        """`is_sequencer(node_id)`: a strange asker is waited for only shortly, for others wait behind it."""
        self.name = name
        self._is_sequencer = is_sequencer
        self.counters: Counter[str] = Counter()
        self._replica = replica
        self._worker = worker
        self._signer = signer
        self._clock = clock
        self._machines: dict[str, Witness] = {}  # by log
        self._ids = itertools.count(1)
        self._lock = asyncio.Lock()

    async def serve(self, stream: Stream, connection: Connection) -> None:
        """One request, one answer."""
        del connection
        known = self._is_sequencer(stream.peer_node_id)
        timeout_s = limits.WITNESS_TIMEOUT_S if known else limits.WITNESS_STRANGER_TIMEOUT_S
        channel: Channel[Message] = Channel(stream, CODEC)
        request = await channel.receive()
        if not isinstance(request, AddCheckpoint):
            raise MessageError("message_unexpected", "a witness is asked with add-checkpoint")
        # One at a time: the machine would queue it, but its questions go to the asker whose turn it is.
        try:
            async with asyncio.timeout(timeout_s), self._lock:
                reply = await self._answer(channel, request)
        except TimeoutError:
            reply = Reply(0, protocol.UNAVAILABLE, protocol.TEXT_CONTENT_TYPE, b"SL-WITNESS: out of time\n")
        self.counters[f"answered_{reply.status}"] += 1
        if reply.status != protocol.OK:
            _log.info("witness %s answers %d: %s", self.name, reply.status, reply.body[:300])
        await channel.send(Answer(reply.status, reply.content_type, reply.body))

    async def _answer(self, channel: Channel[Message], request: AddCheckpoint) -> Reply:
        log = await self._worker.run(self._log_of, request.body)
        if log not in self._machines:
            self._machines[log] = await self._worker.run(self._load, log)
        machine = self._machines[log]
        request_id = next(self._ids)
        event: protocol.Event = Request(request_id, request.body)
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        asker = _Asker(channel, log, request.start, request.leaves, answered)
        while True:
            try:
                effects = await self._worker.run(machine.handle, self._clock(), event)
            except BaseException:
                self._machines.pop(log, None)  # in the middle of a request: begin again from what is stored
                raise
            (effect,) = effects
            if isinstance(effect, Reply):
                return effect
            try:
                event = await self._perform(asker, effect)
            except BaseException:
                if isinstance(effect, Fetch):
                    # Nothing hangs on this one asker: the request ends, and what was read and judged is kept.
                    machine.handle(self._clock(), Fetched(request_id, None))
                else:
                    self._machines.pop(log, None)
                raise

    async def _perform(self, asker: _Asker, effect: Fetch | Persist) -> protocol.Event:
        if isinstance(effect, Persist):
            stored = await self._worker.run(self._persist, effect)
            return Persisted(effect.request_id, stored)
        return Fetched(effect.request_id, await self._leaves(asker, effect.start, effect.end))

    async def _leaves(self, asker: _Asker, start: int, end: int) -> list[bytes] | None:
        """Entries start … end - 1: what came with the question, this node's own, the asker's."""
        offset = start - asker.start
        if 0 <= offset < len(asker.leaves):
            return asker.leaves[offset : offset + end - start]
        own = await self._worker.run(self._replica.leaves, start, end, asker.log)
        if own:
            return own
        await asker.channel.send(Need(start, end))
        answer = await asker.channel.receive()
        if not isinstance(answer, Entries) or answer.start != start:
            return None
        return answer.leaves[: end - start]

    def _persist(self, effect: Persist) -> protocol.WitnessState:
        if self._replica.store.witness_compare_and_set(effect.expected, effect.new):
            return effect.new
        return self._replica.store.witness_state(effect.new.origin) or effect.expected

    def _log_of(self, body: bytes) -> str:
        """The log that a request is about; the authority log for what is no request, or of a log not held
        here: its machine says what is wrong.
        """
        try:
            origin = protocol.parse_add_checkpoint(body).checkpoint.origin
        except Refused:
            return AUTHORITY
        cluster, _, log = origin.rpartition("/")
        return log if cluster == self._replica.cluster and log in self._replica.logs() else AUTHORITY

    def _load(self, log: str) -> Witness:
        """The machine of a log as this node's store remembers it."""
        origin = f"{self._replica.cluster}/{log}"
        state = self._replica.store.witness_state(origin)
        size = 0 if state is None else state.size
        return Witness(origin, self.name, self._signer, self._replica.replay_to(size, log), state)


async def ask(
    connection: Connection,
    body: bytes,
    start: int,
    leaves: list[bytes],
    replica: Replica,
    worker: Worker,
    log: str = AUTHORITY,
) -> tuple[int, bytes]:
    """Carry an add-checkpoint body to the witness at the other end: (status, answer body).

    `leaves` of the log from index `start` on go along with it; others it may ask for come from this node's
    store.
    Raises FabricError when the stream breaks, TimeoutError.
    """
    async with (
        asyncio.timeout(limits.WITNESS_TIMEOUT_S),
        await connection.open(SERVICE, TrafficClass.CONTROL, resume=False) as stream,
    ):
        channel: Channel[Message] = Channel(stream, CODEC)
        await channel.send(AddCheckpoint(body, start, leaves))
        while True:
            message = await channel.receive()
            if isinstance(message, Answer):
                return message.status, message.body
            if not isinstance(message, Need):
                raise MessageError("message_unexpected", "neither an answer nor a question")
            found = await worker.run(replica.leaves, message.start, message.end, log)
            first = batches(message.start, found)[:1]
            await channel.send(Entries(message.start, first[0].leaves if first else []))


def leaves_for(replica: Replica, body: bytes) -> tuple[str, int, list[bytes]]:
    """The log that an add-checkpoint request is about, the index of the first new entry, and the entries, as
    many as go along with it.
    """
    try:
        request = protocol.parse_add_checkpoint(body)
        log = request.checkpoint.origin.rpartition("/")[2]
        found = replica.leaves(request.old_size, request.checkpoint.size, log)
    except (Refused, SourceUnreadable, UsageError):
        return AUTHORITY, 0, []
    first = batches(request.old_size, found)[:1]
    return log, request.old_size, first[0].leaves if first else []
