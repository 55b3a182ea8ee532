"""Running a witness: drives `statelog.witness.Witness` with a source of entries and a durable memory.

One request at a time, a bounded number waits. Replay, SQL and signing are done on a thread, so that the
loop goes on reading other requests meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from statelog import witness as protocol
from statelog.errors import Refused, SourceUnreadable
from statelog.io.entries import EntrySource
from statelog.io.store import Store
from statelog.limits import MAX_WITNESS_QUEUE, STORE_BATCH_ENTRIES
from statelog.replay import Replay
from statelog.signing import Signer
from statelog.witness import Fetch, Fetched, Persist, Persisted, Reply, Request, Witness, WitnessState

_log = logging.getLogger(__name__)


class WitnessHost:
    """One witness key, for the log of one anchor. `memory` is this witness's own store; `name` its key name.

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
        self._machine: Witness | None = None
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
        """Replay up to what was cosigned before; what this witness stands at.

        Raises SourceUnreadable when the source is away or holds another history.
        """
        async with self._lock:
            return (await self._loaded()).state

    def _told(self, reply: Reply) -> Reply:
        self.counters[f"answered_{reply.status}"] += 1
        if reply.status != protocol.OK:
            _log.info("witness %s answers %d: %s", self.name, reply.status, reply.body[:300])
        return reply

    async def _answer(self, body: bytes) -> Reply:
        try:
            machine = await self._loaded()
        except SourceUnreadable as error:
            return _unavailable(str(error))
        self._requests += 1
        event: protocol.Event = Request(self._requests, body)
        try:
            while True:
                (effect,) = await asyncio.to_thread(machine.handle, self._clock(), event)
                if isinstance(effect, Reply):
                    return effect
                event = await self._perform(effect)
        except SourceUnreadable as error:  # the memory fails: nothing was answered, and nothing is known
            self._machine = None
            return _unavailable(str(error))
        except BaseException:
            self._machine = None  # in the middle of a request: begin again from what is stored
            raise

    async def _perform(self, effect: Fetch | Persist) -> protocol.Event:
        if isinstance(effect, Persist):
            return Persisted(effect.request_id, await asyncio.to_thread(self._persist, effect))
        try:
            return Fetched(effect.request_id, await self._source.leaves(effect.start, effect.end))
        except SourceUnreadable as error:
            _log.warning("witness %s cannot read its source: %s", self.name, error)
            return Fetched(effect.request_id, None)

    def _persist(self, effect: Persist) -> WitnessState:
        if self._memory.witness_compare_and_set(effect.expected, effect.new):
            return effect.new
        return self._memory.witness_state(effect.new.origin) or effect.expected

    async def _loaded(self) -> Witness:
        """The machine as the memory has it.

        Signatures of entries under the head that this witness cosigned were verified before it did, and the
        root says that these are the same bytes; so they are not verified again.
        """
        if self._machine is None:
            replay = Replay(self._anchor)
            await self._follow(replay, 1)
            origin = replay.origin
            state = await asyncio.to_thread(self._memory.witness_state, origin)
            if state is None:
                replay = Replay(self._anchor)
            else:
                await self._follow(replay, state.size)
                if replay.root() != state.root:
                    raise SourceUnreadable(
                        "the source does not hold the entries that this witness has cosigned"
                    )
            self._machine = Witness(origin, self.name, self._signer, replay, state)
        return self._machine

    async def _follow(self, replay: Replay, size: int) -> None:
        while replay.size < size:
            end = min(size, replay.size + STORE_BATCH_ENTRIES)
            leaves = await self._source.leaves(replay.size, end)
            if not leaves:
                raise SourceUnreadable(f"the source ends at {replay.size}, before entry {size - 1}")
            try:
                await asyncio.to_thread(_append, replay, leaves)
            except Refused as error:
                raise SourceUnreadable(f"the source holds another log: {error.finding}") from error


def _append(replay: Replay, leaves: list[bytes]) -> None:
    for leaf in leaves:
        replay.append(leaf, verify_signatures=False)


def _unavailable(sentence: str) -> Reply:
    return Reply(0, protocol.UNAVAILABLE, protocol.TEXT_CONTENT_TYPE, f"SL-WITNESS: {sentence}\n".encode())
