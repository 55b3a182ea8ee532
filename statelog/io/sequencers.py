"""The writers of all logs of one store that one key may write, and the way of a record to its own log."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import sqlalchemy as sa

from statelog import signing
from statelog.admission import home_log
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.io.lookout import UNSEEN, Look, Lookout, Seen
from statelog.io.sequencer import ClockWrongError, Sequencer, Submitted
from statelog.io.store import Store
from statelog.state import AUTHORITY_LOG

Outcome = Submitted | Finding | ClockWrongError


class Sequencers:
    """One `Sequencer` for each log, made when it is first needed; safe to call from several threads.

    A record goes to its home log as this process last saw the authority log. That is a hint that costs
    nothing: a log refuses what belongs elsewhere, has caught up by then, and the record goes to its home.
    """

    def __init__(self, engine: sa.Engine, anchor: str, signer: signing.Signer) -> None:
        self.anchor = anchor
        self.signer = signer
        self.authority = Sequencer(Store(engine), anchor, signer)
        self._others: dict[str, Sequencer] = {}
        self._lock = threading.Lock()

    def of(self, log: str) -> Sequencer:
        """The writer of a log, whether or not its term lets this key write."""
        if log == AUTHORITY_LOG:
            return self.authority
        with self._lock:
            if log not in self._others:
                self._others[log] = Sequencer(self.authority.store.of(log), self.anchor, self.signer)
            return self._others[log]

    def mine(self) -> list[str]:
        """The logs whose newest stored term names this key, the authority log first; some may be empty."""
        self.authority.catch_up()
        state, public = self.authority.glance(), self.signer.public
        terms = [] if state is None else list(state.terms.items())
        found = [log for log, term in terms if any(one.public == public for one in term.sequencers)]
        return sorted(found, key=lambda log: (log != AUTHORITY_LOG, log))

    def home(self, data: bytes) -> str:
        """The name of the record's home log, as far as this process knows."""
        state = self.authority.glance()
        return AUTHORITY_LOG if state is None else home_log(state, data)

    def submit(self, data: bytes, now: int) -> Submitted:
        """Sequence one record in its log. Raises as `Sequencer.submit`."""
        home = self.home(data)
        try:
            return self.of(home).submit(data, now)
        except Refused:
            better = self.home(data)
            if better == home:
                raise
            return self.of(better).submit(data, now)

    def submit_many(
        self, batch: Sequence[bytes], now: int, seen: Sequence[Seen] | None = None
    ) -> list[Outcome]:
        """Sequence records, those of one log in order; one answer for each.

        `seen` and what is raised are as for `Sequencer.submit_many`, but that a log whose newest time lies
        ahead holds up no other: ClockWrongError is then the answer for each of its records.
        """
        known = [UNSEEN] * len(batch) if seen is None else seen
        homes = [self.home(data) for data in batch]
        found = self._submit(batch, known, dict(enumerate(homes)), now)
        moved = {
            position: better
            for position, outcome in found.items()
            if isinstance(outcome, Finding) and (better := self.home(batch[position])) != homes[position]
        }
        found |= self._submit(batch, known, moved, now)
        return [found[position] for position in range(len(batch))]

    def _submit(
        self, batch: Sequence[bytes], seen: Sequence[Seen], homes: dict[int, str], now: int
    ) -> dict[int, Outcome]:
        """The records at the positions of `homes`, each in the log that it names there."""
        found: dict[int, Outcome] = {}
        for log in dict.fromkeys(homes.values()):
            chosen = [position for position, home in homes.items() if home == log]
            data, known = [batch[at] for at in chosen], [seen[at] for at in chosen]
            answers: Sequence[Outcome]
            try:
                answers = self.of(log).submit_many(data, now, known)
            except ClockWrongError as error:
                answers = [error] * len(data)
            found.update(zip(chosen, answers, strict=True))
        return found


class Writing:
    """Batches of records on their way into the logs (`statelog.io.desk.Backend`)."""

    def __init__(self, sequencers: Sequencers) -> None:
        self.sequencers = sequencers
        self._lookout = Lookout()

    def begin(self, batch: Sequence[bytes]) -> tuple[Sequence[bytes], Look]:
        """Look at records while others are committed."""
        return batch, self._lookout.begin(batch, self.sequencers.authority.glance())

    def accept(self, begun: tuple[Sequence[bytes], Look], now: int) -> list[Outcome]:
        """One commit of each sequencer concerned. Raises as `Sequencers.submit_many`."""
        batch, look = begun
        return self.sequencers.submit_many(batch, now, self._lookout.finish(look))

    def close(self) -> None:
        """End what was started to look."""
        self._lookout.close()
