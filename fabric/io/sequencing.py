"""The writer of logs on this node: drains the outbox, collects cosignatures, marks heads final.

Runs on a thread and a loop of its own, because every step is SQL or admission. Questions to witnesses go over
to the node's loop and back. Other processes with the same store append too; the doorbell tells.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from fabric import limits
from fabric.io.finalizing import Ask, Finalizing
from fabric.services.io.submitting import Host
from fabric.services.submit import ELSEWHERE, Result
from statelog.errors import StatelogError
from statelog.findings import Finding
from statelog.io.cosign import HttpsWitnesses
from statelog.io.desk import Desk
from statelog.io.doorbell import ring
from statelog.io.sequencer import ClockWrongError, Submitted, is_elsewhere
from statelog.io.sequencers import Sequencers, Writing
from statelog.io.working import Waiting
from statelog.limits import MAX_BATCH_RECORDS
from statelog.state import AUTHORITY_LOG

_log = logging.getLogger(__name__)


class Sequencing(Host):
    """`ask(witness key id, body)` runs on the node's loop; `on_final()` is called there for a final head.

    Witnesses named in `remote` are asked over HTTPS instead, from this thread's own loop, which closes it.
    """

    def __init__(
        self,
        url: str,
        sequencers: Sequencers,
        ask: Ask,
        on_final: Callable[[], None],
        clock: Callable[[], float],
        remote: HttpsWitnesses | None = None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.sequencers = sequencers
        self._url = url
        self._ask = ask
        self._on_final = on_final
        self._clock = clock
        self._remote = remote
        self._home = asyncio.get_running_loop()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._stopping = False
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sequencing", daemon=True)
        self._desk: Desk[Submitted] = Desk(
            Writing(sequencers), clock, self._wrote, waiting=limits.SUBMIT_PENDING, name="writing"
        )
        self._logs: dict[str, Finalizing] = {}
        self._written: list[str] = []
        self._final_sizes: Counter[str] = Counter()
        self._final_changed = asyncio.Event()
        self.law = self._of(AUTHORITY_LOG)
        self._desk.start()
        self._thread.start()

    # -- on the node's loop --

    def wake(self) -> None:
        """There may be something to do: a ring, a new session with a witness, a record in the outbox."""
        self._started.wait()
        if self._loop is not None and self._wake is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    async def submit(self, data: bytes) -> Result:
        """Sequence one record; callers that come together share a commit."""
        try:
            outcome = await self._desk.submit(data)
        except (StatelogError, OSError) as error:
            return Result("unavailable", code="store", sentence=str(error))
        if isinstance(outcome, Submitted):
            return Result("pending", outcome.record_id, outcome.log_index, log=outcome.log)
        if is_elsewhere(outcome):
            return Result("unavailable", code=ELSEWHERE, sentence=str(outcome))
        self.counters["refused"] += 1
        return Result("refused", outcome.record_id or "", None, outcome.code, str(outcome))

    @property
    def missing(self) -> dict[str, str]:
        """Which witnesses did not cosign a newest head, and why; with the log's name where it is not the
        authority log.
        """
        found = dict(self.law.missing)
        for log, one in list(self._logs.items()):
            if one is not self.law:
                found |= {f"{log}: {name}": why for name, why in one.missing.items()}
        return found

    def advanced(self, final_size: int, log: str = AUTHORITY_LOG) -> None:
        """This node's final log reaches so far; wakes `wait_final`."""
        if final_size > self._final_sizes[log]:
            self._final_sizes[log] = final_size
            self._final_changed.set()
            self._final_changed = asyncio.Event()

    async def wait_final(self, log_index: int, log: str = AUTHORITY_LOG) -> None:
        while self._final_sizes[log] <= log_index:
            await self._final_changed.wait()

    async def close(self) -> None:
        self._stopping = True
        self.wake()
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._desk.close)

    # -- on threads of their own --

    def _wrote(self, outcomes: Sequence[Submitted | Finding | StatelogError]) -> None:
        if any(isinstance(one, Submitted) for one in outcomes):
            with contextlib.suppress(RuntimeError):  # the node's loop has ended
                self._home.call_soon_threadsafe(self.wake)

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake = wake = asyncio.Event()
        wake.set()  # what was left over from before
        self._started.set()
        pause = limits.SEQUENCING_RETRY_FIRST_S
        while not self._stopping:
            wake.clear()
            self.counters["looks"] += 1
            done = await self._work(wake)
            pause = limits.SEQUENCING_RETRY_FIRST_S if done else min(pause * 2, limits.SEQUENCING_RETRY_MAX_S)
            # An empty store has nothing to refresh; whoever begins the log rings.
            rest = self._until_refresh()
            try:
                async with asyncio.timeout(rest if done else pause):
                    await wake.wait()
            except TimeoutError:
                continue
        if self._remote is not None:
            await self._remote.aclose()

    async def _work(self, wake: asyncio.Event) -> bool:
        """Drain, collect; whether nothing is left to do now.

        What is written is made final also while nothing may be appended.
        """
        drained = cosigned = False
        with self._waits_where_it_fails():
            await self._drain()
            drained = True
        with self._waits_where_it_fails():
            cosigned = await self._cosign(wake)
        return drained and cosigned

    @contextlib.contextmanager
    def _waits_where_it_fails(self) -> Iterator[None]:
        try:
            yield
        except (StatelogError, OSError) as error:
            self.counters["errors"] += 1
            _log.warning("sequencing waits: %s", error)

    async def _drain(self) -> None:
        """Sequence what waits in the outbox. What belongs to another writer waits for `Forwarder`.

        Raises ClockWrongError, once all else is done, for a log whose newest entry is dated too far ahead.
        """
        store = self.sequencers.authority.store
        moved, page = False, store.outbox_pending(MAX_BATCH_RECORDS)
        early: ClockWrongError | None = None
        while page:
            asked = (self._desk.submit(row.data) for row in page)
            outcomes, drained = await asyncio.gather(*asked, return_exceptions=True), 0
            with store.writing() as connection:
                for row, outcome in zip(page, outcomes, strict=True):
                    if isinstance(outcome, ClockWrongError):
                        early = outcome  # the records of other logs do not wait for that one's time
                        continue
                    if isinstance(outcome, BaseException):
                        raise outcome
                    if not isinstance(outcome, Finding):
                        place = store.of(outcome.log)
                        place.outbox_sequenced(row.record_id, outcome.log_index, connection)
                    elif is_elsewhere(outcome):
                        continue  # waits for whoever may write that log; `Forwarder` sees to it
                    else:
                        self.counters["outbox_refused"] += 1
                        _log.warning("the outbox held record %s, refused: %s", row.record_id[:12], outcome)
                        store.outbox_refused(row.record_id, outcome, connection)
                    drained, moved = drained + 1, True
            self.counters["outbox_drained"] += drained
            # Past what waits for others, however much of it there is.
            page = store.outbox_pending(
                MAX_BATCH_RECORDS, after=Waiting(page[-1].received_at, page[-1].record_id)
            )
        if moved:
            ring(self._url)
        if early is not None:
            raise early

    async def _cosign(self, wake: asyncio.Event) -> bool:
        """Make the newest head of each log that this key writes final; whether nothing is left to do now."""
        self._written = self.sequencers.mine()
        logs = [self._of(log) for log in self._written]
        return all(await asyncio.gather(*(one.cosign(wake) for one in logs)))

    def _of(self, log: str) -> Finalizing:
        if log not in self._logs:
            sequencer = self.sequencers.of(log)
            self._logs[log] = Finalizing(
                sequencer, self._over, self._remote, self._changed, self._clock, self.counters
            )
        return self._logs[log]

    async def _over(self, key_id: str, body: bytes) -> tuple[int, bytes]:
        """Ask a witness on the node's loop."""
        asked = asyncio.run_coroutine_threadsafe(self._asked(key_id, body), self._home)
        return await asyncio.wrap_future(asked)

    async def _asked(self, key_id: str, body: bytes) -> tuple[int, bytes]:
        return await self._ask(key_id, body)

    def _changed(self) -> None:
        """A head became final, or its cosignatures are newer: tell this node and the other processes."""
        ring(self._url)
        self._home.call_soon_threadsafe(self._on_final)

    def _until_refresh(self) -> float | None:
        """Seconds until cosignatures of a log that this key writes grow old, None when there is none yet."""
        written = (self._logs[log] for log in self._written)
        return min((one.until_refresh() for one in written if one.max_age_s), default=None)
