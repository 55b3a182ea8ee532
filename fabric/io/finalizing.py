"""One log on its way to finality: asks the witnesses to cosign its newest head, and again before it is stale.

Used on the sequencing thread only; questions to witnesses go over to the node's loop and back.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from fabric import limits
from statelog.finality import freshness
from statelog.io.cosign import Collected, HttpsWitnesses, collect
from statelog.io.sequencer import Sequencer

_log = logging.getLogger(__name__)

Ask = Callable[[str, bytes], Awaitable[tuple[int, bytes]]]


class Finalizing:
    """`ask(witness key id, body)` asks over the fabric; witnesses named in `remote` are asked over HTTPS.

    `changed()` is called when a head became final or its cosignatures are newer. `counters` are shared by all
    logs of the node.
    """

    def __init__(
        self,
        sequencer: Sequencer,
        ask: Ask,
        remote: HttpsWitnesses | None,
        changed: Callable[[], None],
        clock: Callable[[], float],
        counters: Counter[str],
    ) -> None:
        self.missing: dict[str, str] = {}
        self.fresh_at = 0  # Unix seconds; before the first collection nothing is known to be fresh
        self.max_age_s = 0
        self._sequencer = sequencer
        self._ask = ask
        self._remote = remote
        self._changed = changed
        self._clock = clock
        self._counters = counters
        self._finals = 0

    def until_refresh(self) -> float:
        """Fresh cosignatures are asked for every third of the age that the descriptor allows."""
        return self.fresh_at + self.max_age_s / 3 - self._clock()

    async def cosign(self, wake: asyncio.Event) -> bool:
        """Make the newest head final; whether nothing is left to do now."""
        store = self._sequencer.store
        head = store.head()
        stale = self.until_refresh() <= 0
        if head is None or (head.final_size >= head.size and not stale):
            return True
        replay = self._sequencer.replay()
        self.max_age_s = replay.state.descriptor.max_checkpoint_age_s
        names = {one.name: one.key_id for _, s in replay.state.witness_history for one in s.keys}

        async def over(name: str, body: bytes) -> tuple[int, bytes]:
            if self._remote is not None and name in self._remote:
                return await self._remote.ask(name, body)
            return await self._ask(names[name], body)

        self._counters["rounds"] += 1
        collecting = asyncio.ensure_future(
            collect(store, replay, over, refresh=stale, on_final=self._final, clock=self._clock)
        )
        try:
            if await self._interrupted(collecting, wake):
                wake.set()
                return True
            return self._collected(collecting.result(), replay.state.witnesses.faulty)
        finally:
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)

    async def _interrupted(self, collecting: asyncio.Future[Collected], wake: asyncio.Event) -> bool:
        """Wait for a collection; True when there is news and waiting longer would not pay.

        A collection that makes its head final is left alone until then: under a stream of new entries one
        that is begun anew for each would never end.
        """
        woken = asyncio.ensure_future(wake.wait())
        began, finals = self._clock(), self._finals
        try:
            while not collecting.done():
                patience = began + limits.SEQUENCING_PATIENCE_S - self._clock()
                waiting: set[asyncio.Future[Any]] = {collecting} if woken.done() else {collecting, woken}
                await asyncio.wait(
                    waiting,
                    timeout=max(0.0, patience) if woken.done() else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                spent = self._clock() >= began + limits.SEQUENCING_PATIENCE_S
                if woken.done() and not collecting.done() and (spent or self._finals > finals):
                    return True
            return False
        finally:
            woken.cancel()

    def _collected(self, collected: Collected, faulty: int) -> bool:
        self.missing = collected.failures
        fresh = freshness(collected.results[-1], faulty) if collected.results else None
        if fresh is not None and collected.final and fresh > self.fresh_at:
            self.fresh_at = fresh
            self._changed()
        if not collected.final:
            log = self._sequencer.store.log
            failures = "; ".join(f"{name}: {why}" for name, why in collected.failures.items())
            _log.info("the %s head of %d is not final yet: %s", log, collected.size, failures)
        return collected.final and self.until_refresh() > 0

    def _final(self, size: int) -> None:
        self._finals += 1
        self._counters["final"] += 1
        _log.info("the %s head of %d is final", self._sequencer.store.log, size)
        self._changed()
