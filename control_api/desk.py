"""Where submitted records go: one writer thread, and as many records in one commit as are waiting.

A commit with `synchronous=FULL` costs the same for one record and for a hundred, so concurrent submitters
share it. Admission and SQL run in this thread; the event loop only waits for its answers. What the desk has
answered with a `Receipt` is durable in the store.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import sqlalchemy as sa

from control_api.limits import MAX_BATCH_RECORDS, MAX_WAITING_RECORDS
from control_api.problems import API_CODES, problem
from statelog import canonical
from statelog.admission import admit, home_log
from statelog.errors import Refused, UsageError
from statelog.findings import Finding
from statelog.io.database import CommitUnknownError
from statelog.io.loading import follow, new_replay
from statelog.io.sequencer import Submitted, is_elsewhere
from statelog.io.sequencers import Sequencers
from statelog.io.store import Store
from statelog.replay import Replay
from statelog.signing import record_id_of
from statelog.state import AUTHORITY_LOG


@dataclass(frozen=True, slots=True)
class Receipt:
    """A record that is durable in the store: in `log` at `log_index`, or with None in the outbox.

    `duplicate` when it was there before this submission.
    """

    record_id: str
    log_index: int | None
    duplicate: bool
    log: str | None = None


class Backend(Protocol):
    """Takes a batch in one commit; one answer for each record, in order. Raises when the store fails."""

    def accept(self, batch: Sequence[bytes], now: int) -> list[Receipt | Finding]: ...


class SequencingBackend:
    """Appends to the logs that this replica's key may write; what belongs in another goes to the outbox."""

    def __init__(self, sequencers: Sequencers) -> None:
        self._sequencers = sequencers
        self._outbox = OutboxBackend(sequencers.authority.store, sequencers.anchor)

    def accept(self, batch: Sequence[bytes], now: int) -> list[Receipt | Finding]:
        """One commit of each sequencer concerned."""
        outcomes = self._sequencers.submit_many(batch, now)
        return [self._receipt(data, one, now) for data, one in zip(batch, outcomes, strict=True)]

    def _receipt(self, data: bytes, outcome: Submitted | Finding, now: int) -> Receipt | Finding:
        if isinstance(outcome, Submitted):
            return Receipt(outcome.record_id, outcome.log_index, outcome.duplicate, outcome.log)
        if not is_elsewhere(outcome):
            return outcome
        (queued,) = self._outbox.accept([data], now)
        return queued


class OutboxBackend:
    """Queues for the node daemon to forward: judged here at the stored head of its log, judged again where it
    is sequenced.
    """

    def __init__(self, store: Store, anchor: str) -> None:
        self._store = store
        self._anchor = anchor
        self._replays: dict[str, Replay] = {}

    def accept(self, batch: Sequence[bytes], now: int) -> list[Receipt | Finding]:
        """One transaction on the outbox. Raises UsageError while there is no log to judge by."""
        authority = self._caught_up(AUTHORITY_LOG)
        if not authority.started:
            raise UsageError(API_CODES["API-NOT-READY"])
        homes = [home_log(authority.state, data) for data in batch]
        replays = {log: self._caught_up(log) for log in dict.fromkeys(homes)}
        with self._store.writing() as connection:
            found = zip(batch, homes, strict=True)
            return [self._put(data, now, replays[home], connection) for data, home in found]

    def _put(self, data: bytes, now: int, replay: Replay, connection: sa.Connection) -> Receipt | Finding:
        try:
            record = canonical.decode(data)
            if isinstance(record.get("schema_version"), str):  # else admission says what is wrong
                record_id = record_id_of(record)
                place = self._store.locate(record_id, connection)
                if place is not None:
                    return Receipt(record_id, place[1], duplicate=True, log=place[0].log)
            admitted = admit(replay.state, data, now, log=replay)
        except Refused as error:
            return error.finding
        known = self._store.outbox_row(admitted.record_id, connection)
        self._store.outbox_put(admitted.record_id, data, now, connection)
        return Receipt(admitted.record_id, None, duplicate=known is not None and known.state == "pending")

    def _caught_up(self, log: str) -> Replay:
        """The replay that judges what a log may carry next; one that failed half-way is made anew."""
        store = self._store.of(log)
        replay = self._replays.pop(log, None) or new_replay(store, self._anchor)
        follow(store, replay)
        self._replays[log] = replay
        if log == AUTHORITY_LOG:
            return replay
        ahead = replay.copy()  # entries to come may rest on less of the authority log than is final by now
        ahead.advance()
        return ahead


@dataclass(slots=True)
class _Ticket:
    data: bytes
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Receipt | Finding]

    def resolve(self, outcome: Receipt | Finding | Exception) -> None:
        """From the writer thread. The loop may be gone, or the caller: the record's fate does not depend on
        either.
        """
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._set, outcome)

    def _set(self, outcome: Receipt | Finding | Exception) -> None:
        if self.answer.done():
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class Desk:
    """The queue and its thread. `written` is called in the thread after each commit that wrote something."""

    def __init__(
        self, backend: Backend, clock: Callable[[], float], written: Callable[[], None], *, name: str = "desk"
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._written = written
        self._queue: queue.Queue[_Ticket | None] = queue.Queue(MAX_WAITING_RECORDS)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Ends after the records already taken in; waits for them."""
        self._queue.put(None)
        self._thread.join()

    async def submit(self, data: bytes) -> Receipt:
        """The receipt of a record once it is durable.

        Raises Refused with its finding; Problem API-BUSY when too many wait, and what `translate` makes of
        a failing store.
        """
        loop = asyncio.get_running_loop()
        ticket = _Ticket(data, loop, loop.create_future())
        try:
            self._queue.put_nowait(ticket)
        except queue.Full as error:
            raise problem(
                "API-BUSY", API_CODES["API-BUSY"], expected=f"at most {MAX_WAITING_RECORDS}"
            ) from error
        outcome = await ticket.answer
        if isinstance(outcome, Finding):
            raise Refused(outcome)
        return outcome

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = self._more(first)
            self._serve(batch)
            if last:
                return

    def _more(self, first: _Ticket) -> tuple[list[_Ticket], bool]:
        """What else waits already, up to a batch; and whether the desk is to close after it."""
        batch = [first]
        while len(batch) < MAX_BATCH_RECORDS:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return batch, True
            batch.append(following)
        return batch, False

    def _serve(self, batch: list[_Ticket]) -> None:
        try:
            outcomes = self._backend.accept([ticket.data for ticket in batch], int(self._clock()))
        except Exception as error:  # every caller must hear of it, whatever it is; the thread goes on
            for ticket in batch:
                ticket.resolve(translate(error))
            return
        if any(isinstance(one, Receipt) and not one.duplicate for one in outcomes):
            self._written()
        for ticket, outcome in zip(batch, outcomes, strict=True):
            ticket.resolve(outcome)


def translate(error: Exception) -> Exception:
    """A failing store in the API's own words; anything else is a defect and stays what it is."""
    if isinstance(error, CommitUnknownError):
        return problem("API-UNKNOWN", API_CODES["API-UNKNOWN"])
    if isinstance(error, UsageError):
        return problem("API-NOT-READY", str(error))
    return error
