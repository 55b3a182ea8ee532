"""Submitted records, and what the API answers: appended to the logs that this replica may write, or queued in
its outbox for the node daemon to forward. What was answered with a `Receipt` is durable in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from control_api.limits import MAX_WAITING_RECORDS
from control_api.problems import API_CODES, problem
from statelog import canonical
from statelog.admission import admit, home_log
from statelog.errors import Refused, UsageError
from statelog.findings import Finding
from statelog.io import desk, equivocation
from statelog.io.database import CommitUnknownError
from statelog.io.loading import begin_replay, follow
from statelog.io.lookout import Look
from statelog.io.sequencer import ClockWrongError, Submitted, is_elsewhere
from statelog.io.sequencers import Outcome, Sequencers, Writing
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


class SequencingBackend:
    """Appends to the logs that this replica's key may write; what belongs in another goes to the outbox."""

    def __init__(self, sequencers: Sequencers) -> None:
        self._writing = Writing(sequencers)
        self._outbox = OutboxBackend(sequencers.authority.store, sequencers.anchor)

    def begin(self, batch: Sequence[bytes]) -> tuple[Sequence[bytes], Look]:
        """Look at records while others are committed."""
        return self._writing.begin(batch)

    def accept(
        self, begun: tuple[Sequence[bytes], Look], now: int
    ) -> list[Receipt | Finding | ClockWrongError]:
        """One commit of each sequencer concerned."""
        outcomes = self._writing.accept(begun, now)
        return [self._receipt(data, one, now) for data, one in zip(begun[0], outcomes, strict=True)]

    def close(self) -> None:
        """End what was started to look."""
        self._writing.close()

    def _receipt(self, data: bytes, outcome: Outcome, now: int) -> Receipt | Finding | ClockWrongError:
        if isinstance(outcome, Submitted):
            return Receipt(outcome.record_id, outcome.log_index, outcome.duplicate, outcome.log)
        if isinstance(outcome, ClockWrongError) or not is_elsewhere(outcome):
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

    def begin(self, batch: Sequence[bytes]) -> Sequence[bytes]:
        """Nothing is to be done before."""
        return batch

    def close(self) -> None:
        """Forget what was replayed."""
        self._replays.clear()

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
            if error.code == equivocation.CODE:
                equivocation.keep_equivocation(self._store, replay.state, data, now, connection)
            return error.finding
        known = self._store.outbox_row(admitted.record_id, connection)
        self._store.outbox_put(admitted.record_id, data, now, connection)
        return Receipt(admitted.record_id, None, duplicate=known is not None and known.state == "pending")

    def _caught_up(self, log: str) -> Replay:
        """The replay that judges what a log may carry next; one that failed half-way is made anew."""
        store = self._store.of(log)
        replay = self._replays.pop(log, None) or begin_replay(store, self._anchor)
        follow(store, replay)
        self._replays[log] = replay
        if log == AUTHORITY_LOG:
            return replay
        ahead = replay.copy()  # entries to come may rest on less of the authority log than is final by now
        ahead.advance()
        return ahead


class Desk(desk.Desk[Receipt]):
    """`statelog.io.desk`, in the API's own words. `written()` is called in the thread after each commit that
    wrote something.
    """

    def __init__(
        self,
        backend: desk.Backend[Any, Receipt],
        clock: Callable[[], float],
        written: Callable[[], None],
        *,
        name: str = "desk",
    ) -> None:
        def heard(outcomes: Sequence[object]) -> None:
            if any(isinstance(one, Receipt) and not one.duplicate for one in outcomes):
                written()

        super().__init__(backend, clock, heard, waiting=MAX_WAITING_RECORDS, name=name)

    async def receipt(self, data: bytes) -> Receipt:
        """The receipt of a record once it is durable.

        Raises Refused with its finding; Problem API-BUSY when too many wait, and what `translate` makes of
        a failing store.
        """
        try:
            outcome = await self.submit(data)
        except desk.DeskFullError as error:
            raise problem(
                "API-BUSY", API_CODES["API-BUSY"], expected=f"at most {MAX_WAITING_RECORDS}"
            ) from error
        except Exception as error:
            raise translate(error) from error
        if isinstance(outcome, Finding):
            raise Refused(outcome)
        return outcome


def translate(error: Exception) -> Exception:
    """A failing store in the API's own words; anything else is a defect and stays what it is."""
    if isinstance(error, CommitUnknownError):
        return problem("API-UNKNOWN", API_CODES["API-UNKNOWN"])
    if isinstance(error, UsageError):
        return problem("API-NOT-READY", str(error))
    return error
