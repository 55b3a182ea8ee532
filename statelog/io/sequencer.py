"""The writer of a log: admits records, gives them their place, signs the checkpoint, all in one transaction.

Several processes may hold the same key and the same store. Each batch locks the head row, catches up with
what another process has appended, checks that its key may write in the term in force, and only then appends;
so the store never forks, and a sequencer whose term has ended writes nothing more. Who may write the log of a
partition stands in the authority log beside it, which the same transaction locks and reads.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from statelog import canonical, signing
from statelog.checkpoint import sign_checkpoint
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.findings import Finding
from statelog.io import equivocation
from statelog.io.database import CommitUnknownError
from statelog.io.loading import StoredAuthority, begin_replay, follow, new_replay
from statelog.io.lookout import UNSEEN, Seen
from statelog.io.store import Store
from statelog.leaf import frame_leaf
from statelog.limits import MAX_BATCH_RECORDS, MAX_RECORD_BYTES
from statelog.replay import Entry, Replay
from statelog.state import AUTHORITY_LOG, AuthorityState
from statelog.times import parse_time


@dataclass(frozen=True, slots=True)
class Submitted:
    """A record that is in `log` at `log_index`; `duplicate` when it was there before."""

    record_id: str
    log_index: int
    duplicate: bool
    log: str = AUTHORITY_LOG


def is_elsewhere(finding: Finding) -> bool:
    """Whether a refusal only says that somebody else has the pen: nothing is said about the record."""
    return finding.code == "SL-TERM" and finding.path == "sequencers"


class ClockWrongError(SourceUnreadable):
    """The log's newest entry lies in this writer's future: no witness cosigns what would come after it."""

    def __init__(self, log: str, ahead_s: int) -> None:
        super().__init__(
            f"SL-FUTURE: the newest entry of the {log} log lies {ahead_s} s in the future; this clock is"
            " slow, or was fast when it wrote. Nothing is appended before then (runbook sequencer-failover)"
        )


class Sequencer:
    """Sequences records into `store`'s log under `anchor`; safe to call from several threads.

    `signer` holds the sequencer key. Times are Unix seconds; an entry's time is the caller's `now`, or the
    time of the entry before it if that is later, within the cluster's clock skew: beyond it nothing is
    appended (`ClockWrongError`).
    """

    def __init__(self, store: Store, anchor: str, signer: signing.Signer) -> None:
        self.store = store
        self.anchor = anchor
        self._signer = signer
        self._replay: Replay | None = None
        self._authority = StoredAuthority(store)
        self._lock = threading.Lock()  # over _replay and the order of transactions

    @classmethod
    def create(
        cls, engine: sa.Engine, genesis: bytes, term: bytes, signer: signing.Signer, *, now: int
    ) -> Sequencer:
        """Begin a log: entry 0 is the first descriptor, entry 1 the record of term 1, and a checkpoint of
        size 2.

        Raises Refused when either record does not pass, UsageError when the store has a log already or
        `signer` is no sequencer of the term. All or nothing.
        """
        record = canonical.decode(genesis)
        anchor = signing.record_id_of(record)
        store = Store(engine)
        replay = Replay(anchor)
        issued_at = record.get("issued_at")
        first = frame_leaf(genesis, parse_time(issued_at if isinstance(issued_at, str) else ""), 0)
        entries = [replay.append(first)]
        entries.append(replay.append(replay.next_leaf(term, now)))
        if signer.public not in {key.public for key in replay.sequencer_keys()}:
            raise UsageError("the sequencer's key is not among the sequencers of the first term")
        with store.writing() as connection:
            if store.head(connection, lock=True) is not None:
                raise UsageError("the store holds a log already")
            store.append_entries(entries, replay, sign_checkpoint(replay.checkpoint(), signer), connection)
        sequencer = cls(store, anchor, signer)
        sequencer._replay = replay
        return sequencer

    def submit(self, data: bytes, now: int) -> Submitted:
        """Sequence one record.

        Raises Refused with the record's finding; SourceUnreadable when the store fails: ClockWrongError, one
        of it, before the log's newest time, and CommitUnknownError, one of it, when even a second look cannot
        tell whether the record is in the log.
        """
        (outcome,) = self.submit_many([data], now)
        if isinstance(outcome, Finding):
            raise Refused(outcome)
        return outcome

    def submit_many(
        self, batch: Sequence[bytes], now: int, seen: Sequence[Seen] | None = None
    ) -> list[Submitted | Finding]:
        """Sequence records in order, up to `MAX_BATCH_RECORDS` a commit; one answer for each.

        `seen`: what a `Lookout` found out about each. A Finding says why that record is not in the log; it
        never keeps others out. Raises as `submit` when the store fails; records of earlier commits of the
        same call are then in the log.
        """
        outcomes: list[Submitted | Finding] = []
        for start in range(0, len(batch), MAX_BATCH_RECORDS):
            end = min(start + MAX_BATCH_RECORDS, len(batch))
            known = [UNSEEN] * (end - start) if seen is None else seen[start:end]
            with self._lock:
                outcomes += self._commit(batch[start:end], known, now)
        return outcomes

    def replay(self) -> Replay:
        """A copy of the replay at the stored head, entries of other processes included."""
        with self._lock:
            return self._loaded().copy()

    def catch_up(self) -> None:
        """Take in what other processes have appended."""
        with self._lock:
            self._loaded()

    def glance(self) -> AuthorityState | None:
        """The state as this process last saw the log, None before it looked. A hint without waiting: other
        threads go on changing it.
        """
        replay = self._replay
        return replay.state if replay is not None and replay.started else None

    def _loaded(self) -> Replay:
        """The replay at some stored head. The first time this reads the whole log, before any lock is
        held.
        """
        if self._replay is None:
            self._replay = begin_replay(self.store, self.anchor, self._authority)
        try:
            self._replay = self._followed(self._replay)
        except BaseException:
            self._replay = None
            raise
        return self._replay

    def _followed(self, replay: Replay, connection: sa.Connection | None = None) -> Replay:
        """The replay at the stored head; a new one when another term's log has replaced what this one saw, or
        was written at an earlier authority head than this one looked at meanwhile.
        """
        try:
            follow(self.store, replay, connection)
        except (SourceUnreadable, Refused):
            if not replay.size and not replay.started:
                raise
            replay = new_replay(self.store, self.anchor, self._authority)
            follow(self.store, replay, connection)
        return replay

    def _commit(self, batch: Sequence[bytes], seen: Sequence[Seen], now: int) -> list[Submitted | Finding]:
        """One transaction. On any failure the replay is thrown away: the store alone knows what happened."""
        outcomes: list[Submitted | Finding] = []
        try:
            replay = self._replay or self._loaded()
            while not self._append(batch, seen, now, replay, outcomes):
                follow(self.store, replay)  # without the lock, as others have written much
        except CommitUnknownError:
            self._replay = None
            if not self._committed(outcomes):
                raise
        except ClockWrongError:
            if any(isinstance(one, Submitted) and not one.duplicate for one in outcomes):
                self._replay = None  # they were appended here, and are not there
            raise
        except BaseException:
            self._replay = None
            raise
        return outcomes

    def _append(
        self,
        batch: Sequence[bytes],
        seen: Sequence[Seen],
        now: int,
        replay: Replay,
        outcomes: list[Submitted | Finding],
    ) -> bool:
        """The transaction; False, and nothing done, when the replay is too far behind the store."""
        with self.store.writing() as connection, self._authority.within(connection):
            authority = self._authority.store.head(connection, lock=True)
            if authority is None:
                raise UsageError("the store holds no log; `statelog init` begins one")
            own = self.store is self._authority.store
            head = authority if own else self.store.head(connection, lock=True)
            if head is not None and head.size > replay.size + MAX_BATCH_RECORDS:
                return False
            if head is None or (head.anchor, head.size, head.root) != (
                replay.anchor,
                replay.size,
                replay.root(),
            ):
                replay = self._replay = self._followed(replay, connection)
            replay.advance()
            entries: list[Entry] = []
            placed: dict[str, int] = {}
            for data, known in zip(batch, seen, strict=True):
                outcomes += [self._place(data, known, now, replay, entries, placed, connection)]
            if entries:
                note = sign_checkpoint(replay.checkpoint(), self._signer)
                self.store.append_entries(entries, replay, note, connection, locked=head)
        return True

    def _place(
        self,
        data: bytes,
        seen: Seen,
        now: int,
        replay: Replay,
        entries: list[Entry],
        placed: dict[str, int],
        connection: sa.Connection,
    ) -> Submitted | Finding:
        """Append one record to the replay, or say why not.

        What the log carries already is never accepted again, so it is sought only where a record is refused.
        """
        try:
            if len(data) > MAX_RECORD_BYTES:
                canonical.decode(data)  # says so; a leaf around it would have a complaint of its own
            self._check_may_write(data, replay)
            self._check_clock(data, replay, now, placed, connection)
            leaf = replay.next_leaf(data, now)
            entry = replay.append(leaf, verify_signatures=not seen.verified, reading=seen.reading)
        except Refused as error:
            found = self._found(data, placed, connection)
            if found is None and error.code == equivocation.CODE:
                unstored = {one.record_id: canonical.encode(one.record) for one in entries}
                equivocation.keep_equivocation(
                    self.store, replay.state, data, now, connection, unstored=unstored
                )
            # Without an index: the record has no place in the log.
            return replace(error.finding, log_index=None) if found is None else found
        entries.append(entry)
        placed[entry.record_id] = entry.index
        return Submitted(entry.record_id, entry.index, duplicate=False, log=replay.log)

    def _check_clock(
        self, data: bytes, replay: Replay, now: int, placed: dict[str, int], connection: sa.Connection
    ) -> None:
        """One entry of a clock that was fast is enough: witnesses refuse heads over it until its time."""
        ahead_s = replay.next_time(now) - now
        if ahead_s > replay.state.descriptor.clock_skew_s and self._found(data, placed, connection) is None:
            raise ClockWrongError(replay.log, ahead_s)

    def _found(self, data: bytes, placed: dict[str, int], connection: sa.Connection) -> Submitted | None:
        """The place of a record that the log, or this batch, carries already."""
        try:
            record_id = signing.record_id_of(canonical.decode(data))
        except Refused:
            return None
        known = placed.get(record_id)
        known = self.store.find(record_id, connection) if known is None else known
        return None if known is None else Submitted(record_id, known, duplicate=True, log=self.store.log)

    def _check_may_write(self, data: bytes, replay: Replay) -> None:
        """The key must be of the term in force, or of the term that this very record opens."""
        opened = replay.opened_by(data)
        if opened is not None:
            allowed = signing.encode_base64(self._signer.public) in opened.sequencers
            sentence = "the record opens a term of another sequencer, which has to append it itself"
        else:
            term = replay.current_term()
            allowed = term is not None and any(one.public == self._signer.public for one in term.sequencers)
            sentence = f"this sequencer may not write in term {replay.term}"
        if not allowed:
            raise Refused(Finding("SL-TERM", sentence, path="sequencers"))

    def _committed(self, outcomes: Sequence[Submitted | Finding]) -> bool:
        """Whether a batch whose commit went unanswered is in the store after all."""
        fresh = [one for one in outcomes if isinstance(one, Submitted) and not one.duplicate]
        with self.store.reading() as connection:
            return all(self.store.find(one.record_id, connection) == one.log_index for one in fresh)
