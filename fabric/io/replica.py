"""This node's copy of the logs and what they mean here. Runs on the replica's own thread and nowhere else.

The authority log is always held; of the logs of partitions, those that the node is told to follow, as soon as
the authority log has opened them (`fabric.io.heldlog`).

Entries come from a peer (`sync.Intake` has judged them) or, where another process shares the store, from the
store itself. Either way they are folded only up to a final head, in one transaction with the projections'
rows, and what the data plane needs leaves as an immutable `Update`.

Records ahead of the log (registry records, revocations, fences) are judged by the last final head, kept in
the store until a log carries them, and judged again with every new head: the log's word wins.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from fabric.io.ahead import RecordsAhead, logged
from fabric.io.heads import Asked, Compared, Heads
from fabric.io.heldlog import HeldLog
from fabric.io.outbox_reader import OutboxReader
from fabric.io.updates import NO_NEWS, LogStatus, News, ReplicaError, Update
from fabric.sync import Batch, Cosigned, Intake, Message
from fabric.sync import Entries as EntriesMessage
from fabric.sync import Head as HeadMessage
from projections.base import Fact, fact_of_entry
from projections.io.reader import read_live
from projections.registry import StatusChange
from statelog import admission, canonical
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.finality import final_cosignatures
from statelog.io.database import open_database
from statelog.io.store import Head, Store, StoredCosignature
from statelog.io.suffix import wait_again
from statelog.limits import SAVED_FOLD_ENTRIES
from statelog.records import KINDS_BY_NAME
from statelog.replay import Entry, Replay
from statelog.state import AUTHORITY_LOG, PARTITION_LOG_PREFIX

TERM = "log.term"
TERM_SCHEMA = KINDS_BY_NAME[TERM].schema

_log = logging.getLogger(__name__)


def _stored(one: Cosigned) -> StoredCosignature:
    return StoredCosignature(one.witness.key_id, one.witness.name, one.timestamp, one.line)


class Replica(RecordsAhead):
    """The logs, their store, their projections, and the records ahead of them. `clock` gives Unix seconds.

    `partitions` are the partitions whose logs are followed, None for all. `publish` gets every Update, in
    order, on the replica's thread. It is no return value, because whoever asked may have been cancelled
    meanwhile, and what happened has happened.
    """

    def __init__(
        self,
        url: str,
        anchor: str,
        cluster: str,
        clock: Callable[[], float],
        publish: Callable[[Update], None],
        partitions: Sequence[str] | None = None,
    ) -> None:
        self.url = url
        self.anchor = anchor
        self.cluster = cluster
        self._clock = clock
        self._publish = publish
        self._wanted = None if partitions is None else {PARTITION_LOG_PREFIX + one for one in partitions}
        self._logs: dict[str, HeldLog] = {}
        self._version = 0
        self.counters: dict[str, int] = {"batches": 0, "entries": 0, "reloads": 0}
        self._fresh_at: dict[str, int | None] = {}
        self._heads = Heads(clock, self.counters)

    # -- opening --

    def open(self) -> Update:
        """Open the store, replay what is final in it, restore the view. Raises ReplicaError."""
        try:
            self.engine = open_database(self.url, create=True, anchor=self.anchor)
            self.store = Store(self.engine)
            self._outbox = OutboxReader(self.store, self.home_of, self._clock)
            return self._load()
        except (Refused, SourceUnreadable, UsageError) as error:
            raise ReplicaError("bad_store", str(error)) from error

    def close(self) -> None:
        for held in self._logs.values():
            held.save(1)
        self.engine.dispose()

    def _load(self) -> Update:
        now = self._clock()
        self._logs = {AUTHORITY_LOG: HeldLog(self.store, self.anchor)}
        self.writer = self._logs[AUTHORITY_LOG].writer
        self._ahead = {}
        self._restore(AUTHORITY_LOG)
        for log in self.logs()[1:]:
            self._restore(log)
        self._heads.restore(map(self.held, self.logs()))
        self.live = read_live(self.engine, now)
        for row in self.store.ahead_records():
            self._restore_ahead(row)
        waiting = [
            StatusChange(record.record_id, record.subject, None, "candidate")
            for view in self.live.snapshot.registry.values()
            for record in view.candidates
        ]
        return self._update(News(tuple(waiting), advanced=True))

    def _restore(self, log: str) -> None:
        held = self.held(log)
        head = held.store.head()
        if head is not None and head.final_size:
            held.resume(head.final_size)
            held.replay_stored(held.final, head.final_size)
            if log == AUTHORITY_LOG:
                self._check_cluster(held.final)
            held.save(SAVED_FOLD_ENTRIES)
            held.writer.catch_up_from_store(head.final_size)

    @property
    def final(self) -> Replay:
        """The authority log's replay at its last final head."""
        return self._logs[AUTHORITY_LOG].final

    def logs(self) -> list[str]:
        """The logs that this node holds or is about to: the authority log, then those of its partitions."""
        opened = self.final.state.terms if self.final.started else {}
        wanted = [log for log in sorted(opened) if log != AUTHORITY_LOG]
        return [AUTHORITY_LOG, *(log for log in wanted if self._wanted is None or log in self._wanted)]

    def held(self, log: str) -> HeldLog:
        """One of `logs`. Raises UsageError for any other."""
        if log not in self._logs:
            if log not in self.logs():
                raise UsageError(f"this node does not hold the log {log}")
            self._logs[log] = HeldLog(self.store.of(log), self.anchor, self._logs[AUTHORITY_LOG])
        return self._logs[log]

    def judging(self, data: bytes) -> Replay:
        """The replay that judges a record from outside: of its home log, where this node holds that."""
        home = admission.home_log(self.final.state, data)
        return self.held(home).judging() if home in self.logs() else self.final

    def home_of(self, data: bytes) -> str:
        """The log that a record belongs in, as far as the authority log is final here.

        A term of the authority log names its own writer, so it stands apart, under its kind's name: it does
        not wait behind what the writer of the term before, who may be gone, never takes.
        """
        if TERM_SCHEMA.encode() in data and self._opens_authority(data):
            return TERM
        return admission.home_log(self.final.state, data) if self.final.started else AUTHORITY_LOG

    @staticmethod
    def _opens_authority(data: bytes) -> bool:
        try:
            record = canonical.decode(data)
        except Refused:
            return False
        return record.get("schema_version") == TERM_SCHEMA and record.get("log") == AUTHORITY_LOG

    def homes_of(self, records: list[bytes]) -> list[str]:
        """Likewise of several."""
        return [self.home_of(data) for data in records]

    def writers_of(self, data: bytes) -> tuple[str, ...]:
        """The nodes that may sequence a record: those whom the term of its home log names, or those whom it
        names itself, when it opens a term of the authority log. Nobody before the first term is final.
        """
        if not self.final.started:
            return ()
        state, record = self.final.state, canonical.decode(data)
        if self._opens_authority(data):
            return tuple(one["node_id"] for one in record["sequencers"])
        term = state.terms.get(admission.home_log(state, data))
        return () if term is None else tuple(one.node_id for one in term.sequencers)

    def _check_cluster(self, replay: Replay) -> None:
        if replay.state.cluster_id != self.cluster:
            raise ReplicaError(
                "bad_store", f"the log is of cluster {replay.state.cluster_id}, not of {self.cluster}"
            )

    # -- entries from a source --

    def intake(self, log: str = AUTHORITY_LOG) -> Intake:
        """Judges what one source will send of a log, from the last final head on."""
        return Intake(self.held(log).final)

    def take(self, intake: Intake, message: Message) -> bool:
        """A message of a source, which may make something final. False, and nothing is taken, when it rests
        on more of the authority log than is final here.

        Raises Refused or MessageError for what no honest source sends, SourceUnreadable for our own store.
        """
        if isinstance(message, EntriesMessage):
            if any(intake.final.waits_for_authority(leaf) for leaf in message.leaves):
                return False
            intake.entries(message)
        elif isinstance(message, HeadMessage):
            batch = intake.head(message.note)
            if batch is not None:
                self._take(intake, batch)
        return True

    def _take(self, intake: Intake, batch: Batch) -> None:
        held = self.held(intake.final.log)
        if batch.entries and batch.entries[0].index != held.final.size:
            raise SourceUnreadable("another source was faster")
        if not self.final.size:
            self._check_cluster(batch.after)
        self._store(held, batch)
        intake.accept(batch)

    def seen_head(self, note: bytes, log: str = AUTHORITY_LOG) -> int:
        """The size of a head that the witnesses known here have cosigned, 0 when they have not."""
        checkpoint, parsed = parse_signed_checkpoint(note)
        if not self.final.size or checkpoint.origin != f"{self.cluster}/{log}":
            return 0
        cosigned = final_cosignatures(parsed, self.final.state.witnesses)
        return checkpoint.size if cosigned.met else 0

    def asking(self, peer: str, log: str = AUTHORITY_LOG) -> tuple[bytes | None, Asked]:
        """The final head to show a peer that is asked for its own, and what it had shown by then."""
        return self.head_note(log), self._heads.asking(peer, log)

    def compare_head(
        self, note: bytes, peer: str, log: str = AUTHORITY_LOG, *, asked: Asked | None = None
    ) -> Compared:
        """Look whether a head that `peer` shows fits this node's log (`Heads.compare`)."""
        compared = self._heads.compare(self.held(log), note, peer, asked)
        if compared.changed:
            self._publish(self._update())
        return compared

    def _compare_newer(self) -> None:
        if self._heads.compare_newer(self.held):
            self._publish(self._update())

    def _store(self, held: HeldLog, batch: Batch) -> None:
        facts = [fact_of_entry(entry, held.name) for entry in batch.entries]
        lines = [_stored(one) for one in batch.cosigned]
        try:
            with self.store.writing() as connection:
                if batch.entries:
                    held.append(batch, connection)
                held.store.put_cosignatures(batch.size, lines, connection)
                if batch.entries:
                    held.store.set_final(batch.size, batch.after.root(), connection)
                news = self._fold(held, batch.entries, facts, batch.after, connection)
        except BaseException:
            self._reload()
            raise
        self._publish(self._update(news))
        self._compare_newer()
        held.save(SAVED_FOLD_ENTRIES)

    # -- entries from a store that another process shares --

    def refresh(self) -> None:
        """Fold what became final in the store since the last call.

        The store may be written by a process that is less careful or has been broken into: an entry counts
        only under a final head whose sequencer signature and cosignatures hold.
        """
        with self.store.reading() as connection:
            heads = {log: self.store.of(log).head(connection) for log in self.store.logs(connection)}
        self._refresh(AUTHORITY_LOG, heads.get(AUTHORITY_LOG))
        for log in self.logs()[1:]:  # what these rest on was final at that same moment
            self._refresh(log, heads.get(log))

    def _refresh(self, log: str, head: Head | None) -> None:
        held = self.held(log)
        if head is None or head.final_size == 0:
            return
        if head.final_size <= held.final.size:
            if held.freshness(self.final.state.witnesses) != self._fresh_at.get(log):
                self._publish(self._update())
            return
        following, entries = held.final.copy(), list[Entry]()
        try:
            held.replay_stored(following, head.final_size, entries)
            if not self.final.size:
                self._check_cluster(following)
        except (Refused, ReplicaError) as error:
            self.counters["store_refused"] = self.counters.get("store_refused", 0) + 1
            _log.error("the store holds what is not final: %s", error)
            return
        facts = [fact_of_entry(entry, log) for entry in entries]
        try:
            with self.store.writing() as connection:
                news = self._fold(held, entries, facts, following, connection)
        except BaseException:
            self._reload()
            raise
        self._publish(self._update(news))
        self._compare_newer()
        held.save(SAVED_FOLD_ENTRIES)

    # -- folding --

    def _fold(
        self,
        held: HeldLog,
        entries: tuple[Entry, ...] | list[Entry],
        facts: list[Fact],
        after: Replay,
        connection: sa.Connection,
    ) -> News:
        changes = held.writer.catch_up(facts, connection)
        if not entries:
            return NO_NEWS
        told = self.live.logged(facts, changes, after.size if held.name == AUTHORITY_LOG else None)
        held.final = after
        settled: list[str] = []
        for entry in entries:
            if self._ahead.pop(entry.record_id, None) is not None:
                self.store.ahead_drop(entry.record_id, connection)
            if self.store.outbox_row(entry.record_id, connection) is not None:
                held.store.outbox_sequenced(entry.record_id, entry.index, connection)
                settled.append(entry.record_id)
        for entry in entries:
            self._hand_over(entry, connection)
        dropped = self._judge_again(connection)
        for record_id, _ in dropped:
            told += self.live.refused(record_id)
        told += self.live.expired(self._clock())
        self.writer.save_statuses(told, connection)
        self.counters["batches"] += 1
        self.counters["entries"] += len(entries)
        gone = [one for one in map(logged, entries) if one is not None]
        return News(tuple(told), tuple(gone), tuple(settled), tuple(dropped), advanced=True)

    def _hand_over(self, entry: Entry, connection: sa.Connection) -> None:
        """A new term of a partition's log: what this node appended to it and nobody made final so far waits
        for the writer of that term, who may never have seen it.
        """
        log = entry.record["log"] if entry.kind.name == TERM else AUTHORITY_LOG
        if log != AUTHORITY_LOG and log in self.logs():
            held = self.held(log)
            wait_again(held.store, held.final.size, connection)

    def _reload(self) -> None:
        """Memory may be ahead of the store after a transaction that failed; what is stored is the truth."""
        self.counters["reloads"] += 1
        self._publish(self._load())

    # -- what probes and time say --

    def verified(self, record_id: str) -> None:
        """A live probe proved one endpoint of a registry record."""
        told = self.live.verified(record_id, self._clock())
        self.writer.save_statuses(told)
        self._publish(self._update(News(tuple(told))))

    def expired(self) -> None:
        """Time moved."""
        now = self._clock()
        told = self.live.expired(now)
        gone = [i for i, held in self._ahead.items() if held.item.expires_at <= now]
        for record_id in gone:
            del self._ahead[record_id]
            self.store.ahead_drop(record_id)
        self.writer.save_statuses(told)
        dropped = [(record_id, "SL-EXPIRED") for record_id in gone]
        if told or gone:
            self._publish(self._update(News(tuple(told), dropped=tuple(dropped))))

    # -- serving --

    def batch_from(self, start: int, log: str = AUTHORITY_LOG) -> tuple[list[bytes], bytes] | None:
        """What a follower at `start` gets next of a log (`HeldLog.batch_from`)."""
        return self.held(log).batch_from(start)

    def head_note(self, log: str = AUTHORITY_LOG) -> bytes | None:
        """A log's final head with its newest cosignatures."""
        return self.held(log).head_note()

    def leaves(self, start: int, end: int, log: str = AUTHORITY_LOG) -> list[bytes]:
        """Stored leaves of a log, not-final ones of a shared store too."""
        return self.held(log).leaves(start, end)

    def replay_to(self, size: int, log: str = AUTHORITY_LOG) -> Replay:
        """A replay of the first `size` final entries of a log."""
        return self.held(log).replay_to(size)

    # -- updates --

    def _update(self, news: News = NO_NEWS) -> Update:
        """What is stored and folded now; not inside a transaction, which others cannot see into."""
        self._version += 1
        if not self.final.size:
            return Update(self.live.snapshot, None, news, self._version)
        law, *others = (self._status(log) for log in self.logs())
        return Update(self.live.snapshot, law, news, self._version, tuple(others))

    def _status(self, log: str) -> LogStatus:
        """Who may write the log now stands in the authority log, however far its own last entry looked."""
        held, descriptor = self.held(log), self.final.state.descriptor
        head, term = held.store.head(), self.final.state.terms.get(log)
        self._fresh_at[log] = held.freshness(descriptor.witnesses)
        return LogStatus(
            origin=f"{self.cluster}/{log}",
            size=held.final.size if head is None else head.size,
            final_size=held.final.size,
            final_root=held.final.root(),
            term=0 if term is None else term.term,
            fresh_at=self._fresh_at[log],
            max_age_s=descriptor.max_checkpoint_age_s,
            sequencers=() if term is None else tuple(one.node_id for one in term.sequencers),
            evidence=held.store.evidence_counts(),
        )
