"""Where submitted records go: one writer thread, and as many records in one commit as are waiting.

A commit with `synchronous=FULL` costs the same for one record and for a hundred, so concurrent submitters
share it. While one batch is committed the next one is looked at (`begin`), so that verification and the
database keep different cores busy. The event loops only wait for answers: each hears of a batch at once.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from statelog.errors import StatelogError
from statelog.findings import Finding
from statelog.limits import MAX_BATCH_RECORDS

_log = logging.getLogger(__name__)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
B = TypeVar("B")


class Backend(Protocol[B, T_co]):
    """Takes batches, in two steps: both are called in the desk's thread, for batches in order."""

    def begin(self, batch: Sequence[bytes]) -> B:
        """A batch is next but one: begin what needs no turn."""
        ...

    def accept(self, begun: B, now: int) -> Sequence[T_co | Finding | StatelogError]:
        """Take a batch in one commit; one answer for each record, in order: an error is raised to whoever
        submitted that record. Raises when the store fails.
        """
        ...

    def close(self) -> None:
        """No more batches."""
        ...


class DeskFullError(StatelogError):
    """Too many records wait."""


class DeskClosedError(StatelogError):
    """The desk takes no more records."""


@dataclass(slots=True)
class _Ticket(Generic[T]):
    data: bytes
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[T | Finding]


class Desk(Generic[T]):
    """The queue and its thread. `written(outcomes)` is called in the thread after each commit; `clock` gives
    Unix seconds. At most `waiting` records wait.
    """

    def __init__(
        self,
        backend: Backend[Any, T],
        clock: Callable[[], float],
        written: Callable[[Sequence[T | Finding | StatelogError]], None],
        *,
        waiting: int,
        name: str = "desk",
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._written = written
        self._queue: queue.Queue[_Ticket[T] | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._closed = False
        self._gate = threading.Lock()  # nothing comes in behind the end

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the records already taken in; waits for them."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    async def submit(self, data: bytes) -> T | Finding:
        """What became of a record, once that is durable.

        Raises DeskFullError, DeskClosedError, and what the backend raises or answers for it.
        """
        loop = asyncio.get_running_loop()
        ticket: _Ticket[T] = _Ticket(data, loop, loop.create_future())
        with self._gate:
            if self._closed:
                raise DeskClosedError("no more records are taken")
            try:
                self._queue.put_nowait(ticket)
            except queue.Full as error:
                raise DeskFullError(f"{self._queue.maxsize} records wait") from error
        return await ticket.answer

    # -- in the thread --

    def _run(self) -> None:
        begun: tuple[list[_Ticket[T]], Any] | None = None
        last = False
        while not last or begun is not None:
            batch: list[_Ticket[T]] = []
            if not last:
                batch, last = self._take(wait=begun is None)
            following = self._begin(batch) if batch else None
            if begun is not None:
                self._accept(*begun)
            begun = following
        self._backend.close()

    def _take(self, *, wait: bool) -> tuple[list[_Ticket[T]], bool]:
        """What waits already, up to a batch, with `wait` at least one; and whether the desk closes then."""
        batch: list[_Ticket[T]] = []
        while len(batch) < MAX_BATCH_RECORDS:
            try:
                ticket = self._queue.get(block=wait and not batch)
            except queue.Empty:
                break
            if ticket is None:
                return batch, True
            batch.append(ticket)
        return batch, False

    def _begin(self, batch: list[_Ticket[T]]) -> tuple[list[_Ticket[T]], Any] | None:
        try:
            return batch, self._backend.begin([ticket.data for ticket in batch])
        except Exception as error:  # every caller must hear of it, whatever it is; the thread goes on
            _tell(batch, error)
            return None

    def _accept(self, batch: list[_Ticket[T]], begun: Any) -> None:
        try:
            outcomes = self._backend.accept(begun, int(self._clock()))
        except Exception as error:  # as above
            _tell(batch, error)
            return
        try:
            self._written(outcomes)
        except Exception:
            _log.exception("records were written, and whoever should hear of it does not")
        _tell(batch, outcomes)


def _tell(batch: Sequence[_Ticket[Any]], outcomes: Sequence[object] | Exception) -> None:
    """Wake the callers, those of one loop together. A loop may be gone, or a caller: the records' fate does
    not depend on either.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Ticket[Any], object]]] = {}
    for at, ticket in enumerate(batch):
        outcome = outcomes if isinstance(outcomes, Exception) else outcomes[at]
        by_loop.setdefault(ticket.loop, []).append((ticket, outcome))
    for loop, told in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_set_all, told)


def _set_all(told: Sequence[tuple[_Ticket[Any], object]]) -> None:
    for ticket, outcome in told:
        if ticket.answer.done():
            continue
        if isinstance(outcome, Exception):
            ticket.answer.set_exception(outcome)
        else:
            ticket.answer.set_result(outcome)
