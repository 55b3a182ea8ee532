"""Records from outside, judged by the last final head; the part of the replica that is not the log itself.

Registry records, revocations and fences act ahead of the log and are kept in the store until a log carries
them; with every new head they are judged again, because the log's word wins. Candidate sets of nodes are
judged here too and never kept. Whatever else passes waits in the outbox for the log.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from fabric import gossip
from fabric.io.outbox_reader import OutboxReader, ToForward
from fabric.io.updates import NO_NEWS, Judgement, Logged, News, Update
from projections.io.writer import Writer
from projections.live import LiveView
from projections.registry import generation_of
from statelog import admission, canonical
from statelog.audit_store import StoredAhead
from statelog.errors import Refused, refuse
from statelog.findings import Finding
from statelog.io import equivocation
from statelog.io.store import Store
from statelog.records import KINDS
from statelog.replay import Entry, Replay
from statelog.signing import record_id_of
from statelog.times import parse_time

_log = logging.getLogger(__name__)

REGISTRY = "registry.gossip_record"
URGENT = frozenset({"role.revocation", "route.fence"})
REGISTRY_KEPT = 2  # records of one service in gossip: the newest, and the one it may have to fall back to
CANDIDATES = "endpoint.candidates"

# Refusals that speak of this copy of the bytes: another copy of the same record may pass.
COPY_CODES = frozenset(
    {"SL-SIZE", "SL-CANON", "SL-SCHEMA", "SL-SHAPE", "SL-SIG", "SL-ROLE", "SL-SCOPE", "SL-QUORUM", "GS-ID"}
)


@dataclass(slots=True)
class Held:
    item: gossip.Item
    kind: str
    epoch: int


def _order(record: Mapping[str, Any], record_id: str) -> gossip.Order:
    """docs/records/: epoch, then issued_at, then generation as an integer, then the lower record id."""
    generation = generation_of(record.get("generation", ""))
    return (record["epoch"], parse_time(record["issued_at"]), generation, -int(record_id, 16))


def _record_id(data: bytes) -> str:
    """Of which record these bytes are a copy, whatever they are worth. Raises Refused when of none."""
    record = canonical.decode(data)
    if not isinstance(record.get("schema_version"), str):
        raise refuse("SL-SCHEMA", "the record names no schema", path="schema_version")
    return record_id_of(record)


def _item(admitted: admission.Admitted, data: bytes) -> gossip.Item:
    name = admitted.kind.name
    return gossip.Item(
        record_id=admitted.record_id,
        data=data,
        subject=(name, *admitted.subject),
        order=_order(admitted.record, admitted.record_id),
        expires_at=parse_time(admitted.record["expires_at"]),
        keep=REGISTRY_KEPT if name == REGISTRY else 1,
        urgent=name in URGENT,
    )


def logged(entry: Entry) -> Logged | None:
    """What gossip must know of a final entry: None for kinds that it does not carry."""
    if not entry.kind.acts_unlogged:
        return None
    subject = (entry.kind.name, *entry.subject)
    return Logged(entry.record_id, subject, _order(entry.record, entry.record_id))


class RecordsAhead(ABC):
    """What the replica knows beside the log. Used on the replica's thread only."""

    store: Store
    writer: Writer
    live: LiveView
    _clock: Callable[[], float]
    _publish: Callable[[Update], None]
    _ahead: dict[str, Held]
    _outbox: OutboxReader

    @property
    @abstractmethod
    def final(self) -> Replay:
        """The authority log's replay at its last final head."""

    @abstractmethod
    def judging(self, data: bytes) -> Replay:
        """The replay that judges a record from outside."""

    @abstractmethod
    def writers_of(self, data: bytes) -> tuple[str, ...]:
        """The nodes that may sequence a record."""

    @abstractmethod
    def _update(self, news: News) -> Update:
        """What changed, for the node's loop."""

    @abstractmethod
    def _reload(self) -> None:
        """Go back to what is stored."""

    def _restore_ahead(self, row: StoredAhead) -> None:
        try:
            admitted = admission.admit(
                self.judging(row.data).state,
                row.data,
                int(self._clock()),
                ahead_of_log=True,  # signatures too: a restored backup may hold what nobody has judged
            )
        except Refused as error:
            _log.info("record %s ahead of the log ends: %s", row.record_id, error.finding)
            self.live.refused(row.record_id)
            self.store.ahead_drop(row.record_id)
            return
        if not admitted.duplicate:
            self._ahead[row.record_id] = Held(_item(admitted, row.data), admitted.kind.name, row.epoch)

    # -- records from outside --

    def judge(self, data: bytes, claimed: str | None = None) -> Judgement:
        """A record that gossip brought (`claimed` is the id it came under), or that was delivered here."""
        now = self._clock()
        if not self.final.size:
            return self._refused(claimed or "", "GS-NOLOG", "this node has no log yet to judge by")
        if claimed is not None:
            # First of all, so that no bytes but a record's own can speak against it.
            try:
                found = _record_id(data)
            except Refused as error:
                return self._refused(claimed, error.code, str(error.finding), copy_only=True)
            if found != claimed:
                return self._refused(claimed, "GS-ID", f"the bytes are of record {found}")
        try:
            return self._judge(data, int(now))
        except Refused as error:
            record_id = error.finding.record_id or claimed or ""
            if self._keep_evidence(error.code, data, int(now)):
                self._publish(self._update(NO_NEWS))
            of_copy = error.finding.path.startswith("signatures")
            return self._refused(record_id, error.code, str(error.finding), copy_only=of_copy)

    def _judge(self, data: bytes, now: int) -> Judgement:
        admitted = self._admit(data, now)
        record_id, name = admitted.record_id, admitted.kind.name
        if name == CANDIDATES:
            return self._candidates(admitted, data)
        if admitted.duplicate:
            return Judgement(record_id, state="final", kind=name)
        if not admitted.kind.acts_unlogged:
            return Judgement(record_id, state="pending", kind=name)
        if record_id in self._ahead:
            return Judgement(record_id, self._ahead[record_id].item, state="known", kind=name)
        self._watch_for_equivocation(admitted, data, now)
        held = Held(_item(admitted, data), name, admitted.record["epoch"])
        row = StoredAhead(
            record_id,
            admitted.kind.schema,
            "/".join((name, *admitted.subject)),
            held.epoch,
            held.item.expires_at,
            now,
            data,
        )
        try:
            with self.store.writing() as connection:
                self.store.ahead_put(row, connection)
                told = self.live.unlogged(admitted.record, record_id)
                self.writer.save_statuses(told, connection)
        except BaseException:
            self._reload()
            raise
        self._ahead[record_id] = held
        self._publish(self._update(News(tuple(told))))
        return Judgement(record_id, held.item, state="candidate", kind=name)

    def _admit(self, data: bytes, now: int) -> admission.Admitted:
        replay = self.judging(data)
        state = replay.state
        kind = KINDS.get(str(canonical.decode(data).get("schema_version")))
        if kind is not None and not kind.logged:
            if kind.name != CANDIDATES:
                raise refuse("SL-SCHEMA", f"gossip carries no {kind.name}", path="schema_version")
            admitted = admission.admit_node_signed(state, data, now)
            if self.live.snapshot.revoked(admitted.record["node_id"]):
                raise refuse("SL-REVOKED", "the node is revoked", path="node_id")
            return admitted
        ahead = kind is None or kind.acts_unlogged
        return admission.admit(state, data, now, ahead_of_log=ahead, log=None if ahead else replay)

    def _candidates(self, admitted: admission.Admitted, data: bytes) -> Judgement:
        record = admitted.record
        return Judgement(
            admitted.record_id,
            _item(admitted, data),
            state="candidate",
            kind=CANDIDATES,
            candidates=tuple(record["candidates"]),
            node_id=record["node_id"],
        )

    def _refused(self, record_id: str, code: str, sentence: str, *, copy_only: bool = False) -> Judgement:
        refusal = gossip.Refusal(code, copy_only=copy_only or code in COPY_CODES)
        return Judgement(record_id, refusal=refusal, sentence=sentence, state="refused")

    def _watch_for_equivocation(self, admitted: admission.Admitted, data: bytes, now: int) -> None:
        """Two validly signed records of one subject and epoch prove that a quorum said two things."""
        subject = (admitted.kind.name, *admitted.subject)
        for record_id, held in self._ahead.items():
            if held.item.subject == subject and held.epoch == admitted.record["epoch"]:
                pair = {record_id: held.item.data, admitted.record_id: data}
                equivocation.keep_pair(self.store, subject, held.epoch, pair, now)

    def _keep_evidence(
        self, code: str, data: bytes, now: int, connection: sa.Connection | None = None
    ) -> bool:
        """Keep a record that the log contradicts, and the logged one; whether that is new."""
        if code != equivocation.CODE:
            return False
        return equivocation.keep_equivocation(self.store, self.judging(data).state, data, now, connection)

    def queue(self, record_id: str, data: bytes) -> None:
        """Put an admitted record into the durable outbox, from which it is forwarded or sequenced."""
        self.store.outbox_put(record_id, data, int(self._clock()))

    def outbox(self, known: Mapping[str, str], own: str = "") -> list[ToForward]:
        """What of the outbox is to be forwarded beside the `known` (record id -> log), a share for each log;
        without what node `own` may sequence.
        """
        return self._outbox.read(known, lambda data: own in self.writers_of(data))

    def submission_refused(self, record_id: str, code: str, sentence: str) -> bool:
        """The sequencer refused a forwarded record; whether it acts here ahead of the log.

        Then it is tried again: only the log itself ends it, because one dishonest host must not be able to.
        """
        if record_id in self._ahead:
            return True
        self.store.outbox_refused(record_id, Finding(code, sentence))
        return False

    def unlogged(self) -> list[gossip.Item]:
        """The records that act ahead of the log, for gossip after a start."""
        return [held.item for held in self._ahead.values()]

    def _judge_again(self, connection: sa.Connection) -> list[tuple[str, str]]:
        """What acts ahead of the log and does not pass any more under the new head ends."""
        dropped: list[tuple[str, str]] = []
        for record_id, held in list(self._ahead.items()):
            code = self._refusal_now(held.item.data)
            if code is not None:
                del self._ahead[record_id]
                self.store.ahead_drop(record_id, connection)
                refusal = Finding(code, "the log's final head does not admit the record any more")
                self.store.outbox_refused(record_id, refusal, connection)
                self._keep_evidence(code, held.item.data, int(self._clock()), connection)
                dropped.append((record_id, code))
        return dropped

    def _refusal_now(self, data: bytes) -> str | None:
        try:
            admission.admit(
                self.judging(data).state, data, int(self._clock()), ahead_of_log=True, verify_signatures=False
            )
        except Refused as error:
            return error.code
        return None
