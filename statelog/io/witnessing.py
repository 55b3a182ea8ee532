"""Running a witness: drives `statelog.witness.Witness` with a source of entries and a durable memory.

One request at a time, a bounded number waits. Replay, SQL and signing are done on a thread, so that the
loop goes on reading other requests meanwhile. The log of a partition rests on the authority log, which is
followed in the same source for it (`statelog.io.following`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from statelog import witness as protocol
from statelog.errors import Refused, SourceUnreadable
from statelog.io.entries import EntrySource, leaves_of
from statelog.io.following import FollowedAuthority
from statelog.io.store import Store
from statelog.limits import MAX_WITNESS_QUEUE, STORE_BATCH_ENTRIES
from statelog.partition import PartitionReplay
from statelog.replay import Replay
from statelog.signing import Signer
from statelog.state import AUTHORITY_LOG, PARTITION_LOG_PREFIX
from statelog.witness import Fetch, Fetched, Persist, Persisted, Reply, Request, Witness, WitnessState

_log = logging.getLogger(__name__)


class WitnessHost:
    """One witness key, for the logs of one anchor. `memory` is this witness's own store; `name` its key name;
    `source` the authority log, and through `of` those of partitions.

    `clock` gives Unix seconds. All methods belong to one event loop.
    """

    def __init__(
        self,
        anchor: str,
        name: str,
        signer: Signer,
        memory: Store,
        source: EntrySource,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.counters: Counter[str] = Counter()
        self._anchor = anchor
        self._signer = signer
        self._memory = memory
        self._source = source
        self._clock = clock
        self._machines: dict[str, Witness] = {}  # by log
        self._authority = FollowedAuthority(anchor, source)
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._requests = 0

    async def answer(self, body: bytes) -> Reply:
        """The answer to an add-checkpoint request, after everything that must be durable is."""
        if self._waiting > MAX_WITNESS_QUEUE:
            return self._told(_unavailable("too many requests wait for this witness"))
        self._waiting += 1
        try:
            async with self._lock:
                return self._told(await self._answer(body))
        finally:
            self._waiting -= 1

    async def load(self) -> WitnessState:
        """Replay the authority log up to what was cosigned before; what this witness stands at.

        Raises SourceUnreadable when the source is away or holds another history.
        """
        async with self._lock:
            return (await self._loaded(AUTHORITY_LOG)).state

    def _told(self, reply: Reply) -> Reply:
        self.counters[f"answered_{reply.status}"] += 1
        if reply.status != protocol.OK:
            _log.info("witness %s answers %d: %s", self.name, reply.status, reply.body[:300])
        return reply

    async def _answer(self, body: bytes) -> Reply:
        try:
            log = await self._log_of(body)
            machine = await self._loaded(log)
        except SourceUnreadable as error:
            return _unavailable(str(error))
        self._requests += 1
        event: protocol.Event = Request(self._requests, body)
        try:
            while True:
                (effect,) = await asyncio.to_thread(machine.handle, self._clock(), event)
                if isinstance(effect, Reply):
                    return effect
                event = await self._perform(effect, log)
        except SourceUnreadable as error:  # the memory fails: nothing was answered, and nothing is known
            self._machines.pop(log, None)
            return _unavailable(str(error))
        except BaseException:
            self._machines.pop(log, None)  # in the middle of a request: begin again from what is stored
            raise

    async def _log_of(self, body: bytes) -> str:
        """The log that a request is about: a partition's that a final term has opened, or the authority log,
        whose machine says what is wrong with any other. What is final is followed first: it says who may
        write, and what the entries rest on.
        """
        try:
            origin = protocol.parse_add_checkpoint(body).checkpoint.origin
        except Refused:
            return AUTHORITY_LOG
        cluster, _, log = origin.rpartition("/")
        if not log.startswith(PARTITION_LOG_PREFIX):
            return AUTHORITY_LOG
        state = (await self._loaded(AUTHORITY_LOG)).state
        if cluster != state.origin.rpartition("/")[0]:
            return AUTHORITY_LOG
        await asyncio.to_thread(self._authority.catch_up, (state.size, state.root))
        return log if log in self._authority.final.state.terms else AUTHORITY_LOG

    async def _perform(self, effect: Fetch | Persist, log: str) -> protocol.Event:
        if isinstance(effect, Persist):
            return Persisted(effect.request_id, await asyncio.to_thread(self._persist, effect))
        try:
            leaves = await asyncio.to_thread(self._source_of(log).read, effect.start, effect.end)
            return Fetched(effect.request_id, leaves)
        except SourceUnreadable as error:
            _log.warning("witness %s cannot read its source: %s", self.name, error)
            return Fetched(effect.request_id, None)

    def _persist(self, effect: Persist) -> WitnessState:
        if self._memory.witness_compare_and_set(effect.expected, effect.new):
            return effect.new
        return self._memory.witness_state(effect.new.origin) or effect.expected

    def _source_of(self, log: str) -> EntrySource:
        return self._source if log == AUTHORITY_LOG else self._source.of(log)

    async def _loaded(self, log: str) -> Witness:
        """The machine of a log as the memory has it."""
        if log not in self._machines:
            begin = self._authority_machine() if log == AUTHORITY_LOG else self._beside(log)
            self._machines[log] = await begin
        return self._machines[log]

    async def _authority_machine(self) -> Witness:
        begun = Replay(self._anchor)
        await self._follow(begun, 1, self._source)  # entry 0 tells the cluster's name
        return await self._resumed(begun.origin, begun, Replay(self._anchor), self._source)

    async def _beside(self, log: str) -> Witness:
        """The machine of a partition's log, which a final term has opened."""
        origin = f"{self._authority.final.state.cluster_id}/{log}"
        replay = PartitionReplay(self._anchor, log, self._authority)
        return await self._resumed(origin, replay, replay, self._source.of(log))

    async def _resumed(self, origin: str, begun: Replay, fresh: Replay, source: EntrySource) -> Witness:
        """The machine that goes on from the memory with `begun`, or begins with `fresh` where there is none.

        Signatures of entries under the head that this witness cosigned were verified before it did, and the
        root says that these are the same bytes; so they are not verified again.
        """
        state = await asyncio.to_thread(self._memory.witness_state, origin)
        if state is None:
            return Witness(origin, self.name, self._signer, fresh, None)
        await self._follow(begun, state.size, source)
        if begun.root() != state.root:
            raise SourceUnreadable("the source does not hold the entries that this witness has cosigned")
        return Witness(origin, self.name, self._signer, begun, state)

    async def _follow(self, replay: Replay, size: int, source: EntrySource) -> None:
        while replay.size < size:
            end = min(size, replay.size + STORE_BATCH_ENTRIES)  # no thread is at work long after a cancel
            await asyncio.to_thread(_append, replay, source, end)


def _append(replay: Replay, source: EntrySource, end: int) -> None:
    try:
        for leaf in leaves_of(source, replay.size, end):
            replay.append(leaf, verify_signatures=False)
    except Refused as error:
        raise SourceUnreadable(f"the source holds another log: {error.finding}") from error


def _unavailable(sentence: str) -> Reply:
    return Reply(0, protocol.UNAVAILABLE, protocol.TEXT_CONTENT_TYPE, f"SL-WITNESS: {sentence}\n".encode())
