"""What can be found out about records before their turn to be judged: their form, and whose signatures hold.

None of it depends on the log: a key id is the hash of its key, so a signature that is right once is right for
ever. So the records of one batch are looked at while the batch before them is committed. The signatures of
many go to processes of their own, which the interpreter's lock does not hold up.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from typing import NamedTuple

from statelog import signing
from statelog.admission import Reading, read, signature_jobs
from statelog.errors import Refused, StatelogError
from statelog.io.verify_pool import Asked, VerifyPool
from statelog.limits import LOOKOUT_GROUP_RECORDS, LOOKOUT_POOL_RECORDS
from statelog.state import AuthorityState

_log = logging.getLogger(__name__)


class Seen(NamedTuple):
    """A record's form, and that all its signatures are right. Without either nothing is said against the
    record: admission looks again.
    """

    reading: Reading | None
    verified: bool


UNSEEN = Seen(None, verified=False)


class Look:
    """A batch that is being looked at."""

    def __init__(self, readings: list[Reading | None], jobs: list[list[signing.Job] | None]) -> None:
        self._readings = readings
        self._jobs = jobs
        self.asked: Asked | None = None
        """The groups of signatures that other processes verify; without it they are verified here."""

    def groups(self) -> list[list[signing.Job]]:
        """The signatures in groups of a few records: one that is wrong makes no more work than its group."""
        found, step = self._jobs, LOOKOUT_GROUP_RECORDS
        starts = range(0, len(found), step)
        return [[job for jobs in found[at : at + step] for job in jobs or ()] for at in starts]

    def seen(self) -> list[Seen]:
        """What was found out, in order. Call it once, and for batches in the order in which they began."""
        right = self._answers() if self.asked is not None else self._verified()
        found = zip(self._readings, self._jobs, right, strict=True)
        return [Seen(reading, verified=jobs is not None and good) for reading, jobs, good in found]

    def _answers(self) -> list[bool]:
        answers = [] if self.asked is None else self.asked.answers()
        return [answers[at // LOOKOUT_GROUP_RECORDS] for at in range(len(self._jobs))]

    def _verified(self) -> list[bool]:
        return [jobs is not None and signing.verify_all(jobs) for jobs in self._jobs]


class Lookout:
    """Looks at batches, for one thread. Processes are started with the first large batch, and end with this
    object or by `close`.
    """

    def __init__(self) -> None:
        self._pool: VerifyPool | None = None
        self._end: weakref.finalize[..., Lookout] | None = None
        self._failed = False

    def begin(self, batch: Sequence[bytes], state: AuthorityState | None) -> Look:
        """Begin to look at records, under the keys of `state`, the newest that is at hand, or of none."""
        readings: list[Reading | None] = []
        jobs: list[list[signing.Job] | None] = []
        for data in batch:
            try:
                reading = read(data)
            except Refused:  # admission will say why
                readings.append(None)
                jobs.append(None)
                continue
            readings.append(reading)
            jobs.append(None if state is None else signature_jobs(state, reading))
        look = Look(readings, jobs)
        if sum(one is not None for one in jobs) >= LOOKOUT_POOL_RECORDS and not self._failed:
            look.asked = self._ask(look)
        return look

    def finish(self, look: Look) -> list[Seen]:
        """`look.seen()`; where the processes fail, what can be said without them."""
        try:
            return look.seen()
        except StatelogError as error:
            self._give_up(error)
            look.asked = None
            return look.seen()

    def close(self) -> None:
        """End the processes."""
        if self._end is not None:
            self._end()
        self._pool = self._end = None

    def _ask(self, look: Look) -> Asked | None:
        try:
            if self._pool is None:
                self._pool = VerifyPool(os.cpu_count() or 1)  # whoever asks does not help
                self._end = weakref.finalize(self, self._pool.close)
            return self._pool.ask(look.groups())
        except (StatelogError, OSError) as error:
            self._give_up(error)
            return None

    def _give_up(self, error: Exception) -> None:
        """Without the processes everything works as before, and slower."""
        _log.error("signatures are verified in this process from now on: %s", error)
        self._failed = True
        self.close()
