"""Where services are: the fold of registry records, and what a node makes of them.

The fold keeps every unexpired signed record of the log. Which of them is *used* is the node's own finding:
a record is a candidate until a live probe proved it, then active, and fallback once a newer one is active.
That part is the `RegistryBook`, which also takes records that travel ahead of the log.

The status of every record is a function of what is known (the records, which were verified, which were
dropped, the time) and never of the order in which it was learned:

    unlogged, and the log has its subject at this epoch or a later one   gone: the log can only refuse it
    expired or dropped                                                   gone
    the newest verified                                                  active
    newer than the active, or there is no active                         candidate
    older than the active                                                fallback, until it expires

so a live active record is never replaced by an older one, dropping a record restores the one before it, and
any order of delivery ends in the same book. "Newer" is epoch, then issued_at, then generation as an
integer, then the lower record_id.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from projections.base import Change, Delete, Fact, Row, Rows, Table, put
from projections.cluster import bootstrap
from projections.model import Endpoint, RegistryRecord, RegistryView, Subject
from projections.pmap import PMap
from statelog.times import parse_time

SCHEMA = "rap.fabric.registry.gossip_record.v1"
Status = Literal["candidate", "active", "fallback"]

MAX_REMEMBERED_REFUSALS = 4096  # a refused record must not come back by gossip; each costs about 100 bytes

TABLE = Table(
    name="registry_record",
    key=("record_id",),
    columns={
        "record_id": "text",
        "service": "text",
        "scope": "text",
        "organization_id": "text",
        "epoch": "integer",
        "generation": "text",
        "issued_at": "integer",
        "expires_at": "integer",
        "issuer_node_id": "text",
        "issuer_role": "text",
        "endpoints": "json",
        "log_index": "integer",
        "bootstrap": "boolean",
    },
    indexes=(("service", "scope", "organization_id"),),
)


def subject_of(record: Mapping[str, Any]) -> Subject:
    """(service, scope, organization_id or "") of a registry record."""
    return (record["service"], record["scope"], record.get("organization_id", ""))


def generation_of(value: Any) -> int:
    """The generation as an integer: decimal digits count by value, anything else (it is a label) as 0."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() else 0


class RegistryProjection:
    """Every sequenced registry record that had not expired when its subject's next one was sequenced."""

    name = "registry"
    table = TABLE
    schemas = (SCHEMA,)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What a registry record changes; nothing for any other kind."""
        if fact.schema != SCHEMA:
            return []
        record = fact.record
        service, scope, organization_id = subject_of(record)
        subject = {"service": service, "scope": scope, "organization_id": organization_id}
        expired = rows.where_at_most(TABLE.name, "expires_at", fact.sequenced_at, **subject)
        changes: list[Change] = [Delete(TABLE.name, TABLE.key_of(row)) for row in expired]
        row = {
            "record_id": fact.record_id,
            "service": service,
            "scope": scope,
            "organization_id": organization_id,
            "epoch": record["epoch"],
            "generation": str(record.get("generation", "")),
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "issuer_node_id": record["issuer_node_id"],
            "issuer_role": record["issuer_role"],
            "endpoints": record["endpoints"],
            "log_index": fact.index,
            "bootstrap": bootstrap(rows, fact),
        }
        return [*changes, put(TABLE, row)]


def record_from_row(row: Row) -> RegistryRecord:
    """The record of a projected row."""
    return RegistryRecord(
        record_id=row["record_id"],
        subject=(row["service"], row["scope"], row["organization_id"]),
        epoch=row["epoch"],
        issued_at=row["issued_at"],
        expires_at=row["expires_at"],
        generation=generation_of(row["generation"]),
        endpoints=tuple(Endpoint.from_map(endpoint) for endpoint in row["endpoints"]),
        log_index=row["log_index"],
        bootstrap=row["bootstrap"],
    )


def record_from_signed(
    record: Mapping[str, Any], record_id: str, log_index: int | None, *, bootstrap: bool = False
) -> RegistryRecord:
    """An admitted registry record. The caller has admitted it: nothing is checked here."""
    return RegistryRecord(
        record_id=record_id,
        subject=subject_of(record),
        epoch=record["epoch"],
        issued_at=parse_time(record["issued_at"]),
        expires_at=parse_time(record["expires_at"]),
        generation=generation_of(record.get("generation", "")),
        endpoints=tuple(Endpoint.from_map(endpoint) for endpoint in record["endpoints"]),
        log_index=log_index,
        bootstrap=bootstrap,
    )


@dataclass(frozen=True, slots=True)
class StatusChange:
    """`record_id` went from one status to another; None means not known (before) or gone (after).

    `verified_at` is when a live probe first proved it, in Unix seconds.
    """

    record_id: str
    subject: Subject
    before: Status | None
    after: Status | None
    verified_at: int | None = None


class RegistryBook:
    """Candidate, active and fallback records of every subject, logged and unlogged. Not safe for threads.

    Every method answers with the status changes that it caused, for the store, the log line and the gossip.
    `views` is an immutable map of subject to `RegistryView`, safe to hand to other threads.
    """

    def __init__(self) -> None:
        self._records: dict[Subject, dict[str, RegistryRecord]] = {}
        self._subject_of: dict[str, Subject] = {}
        self._verified_at: dict[str, int] = {}
        self._refused: dict[str, None] = {}
        self._statuses: dict[str, Status] = {}
        self._logged_epoch: dict[Subject, int] = {}
        self._now = 0
        self.views: PMap[Subject, RegistryView] = PMap()

    def copy(self) -> RegistryBook:
        """An independent book with the same content."""
        other = RegistryBook()
        other._records = {subject: dict(records) for subject, records in self._records.items()}
        other._subject_of = dict(self._subject_of)
        other._verified_at = dict(self._verified_at)
        other._refused = dict(self._refused)
        other._statuses = dict(self._statuses)
        other._logged_epoch = dict(self._logged_epoch)
        other._now = self._now
        other.views = self.views
        return other

    def accepted(
        self,
        record: Mapping[str, Any] | RegistryRecord,
        record_id: str,
        log_index: int | None,
        *,
        bootstrap: bool = False,
    ) -> list[StatusChange]:
        """An admitted record: from the log with its index, or ahead of it with None.

        The log's word wins: a later call with an index lifts the mark "unlogged" and any refusal; a call
        without one takes neither away. A record already known is not an event. `bootstrap` marks a signed
        mapping that development mode admitted; a `RegistryRecord` carries its own mark.
        """
        new = (
            replace(record, log_index=log_index)
            if isinstance(record, RegistryRecord)
            else record_from_signed(record, record_id, log_index, bootstrap=bootstrap)
        )
        return self._derive(new.subject) if self._entered(new) else []

    def restored(self, records: Iterable[RegistryRecord]) -> None:
        """Records of the log as an earlier run of this node kept them: `accepted` for many at once."""
        entered = {record.subject for record in records if self._entered(record)}
        for subject in sorted(entered):
            self._derive(subject)

    def _entered(self, new: RegistryRecord) -> bool:
        """Whether a record is news; it is among the others then, unless it has expired."""
        subject, record_id, log_index = new.subject, new.record_id, new.log_index
        known = self._records.get(subject, {}).get(record_id)
        if known is not None and (known.log_index is not None or log_index is None):
            return False
        if log_index is None:
            if record_id in self._refused:
                return False
        else:
            self._refused.pop(record_id, None)
            self._logged_epoch[subject] = max(new.epoch, self._logged_epoch.get(subject, -1))
        if new.expires_at > self._now:
            self._records.setdefault(subject, {})[record_id] = new
            self._subject_of[record_id] = subject
        return True

    def verified(self, record_id: str, now: float) -> list[StatusChange]:
        """A live probe reached one endpoint of the record and proved its identity. The first proof counts."""
        subject = self._subject_of.get(record_id)
        if subject is None or record_id in self._verified_at:
            return []
        self._verified_at[record_id] = int(now)
        return self._derive(subject)

    def dropped(self, record_id: str) -> list[StatusChange]:
        """The log refused the record. It is forgotten and not accepted again unless the log itself brings
        it.
        """
        subject = self._subject_of.get(record_id)
        if subject is not None and self._records[subject][record_id].log_index is not None:
            return []
        self._refused[record_id] = None
        while len(self._refused) > MAX_REMEMBERED_REFUSALS:
            self._refused.pop(next(iter(self._refused)))
        if subject is None:
            return []
        self._forget(record_id)
        return self._derive(subject)

    def expired(self, now: float) -> list[StatusChange]:
        """Time moved to `now` (Unix seconds); time never moves back."""
        self._now = max(self._now, int(now))
        gone = [
            record
            for records in self._records.values()
            for record in records.values()
            if record.expires_at <= self._now
        ]
        for record in gone:
            self._forget(record.record_id)
        subjects = sorted({record.subject for record in gone})
        return [change for subject in subjects for change in self._derive(subject)]

    def status(self, record_id: str) -> Status | None:
        """The record's status, None for one that is gone or was never known."""
        return self._statuses.get(record_id)

    def verified_at(self, record_id: str) -> int | None:
        """When a probe first proved the record, in Unix seconds."""
        return self._verified_at.get(record_id)

    def view(self, subject: Subject) -> RegistryView:
        """Active, fallback and candidate records of a subject; empty when none is known."""
        return self.views.get(subject, RegistryView())

    def _forget(self, record_id: str) -> None:
        subject = self._subject_of.pop(record_id)
        del self._records[subject][record_id]
        if not self._records[subject]:
            del self._records[subject]
        self._verified_at.pop(record_id, None)

    def _derive(self, subject: Subject) -> list[StatusChange]:
        """Computes the subject's view anew and answers with the difference."""
        records = self._records.get(subject, {})
        logged = self._logged_epoch.get(subject, -1)
        usable = [r for r in records.values() if r.log_index is not None or r.epoch > logged]
        usable.sort(key=lambda r: r.order, reverse=True)
        active = next((r for r in usable if r.record_id in self._verified_at), None)
        cut = usable.index(active) if active is not None else len(usable)
        older = usable[cut + 1 :]
        fallbacks = sorted(older, key=lambda r: r.record_id not in self._verified_at)
        view = RegistryView(
            active=active,
            fallbacks=tuple(fallbacks),
            candidates=tuple(usable[:cut]),
            verified=frozenset(r.record_id for r in usable if r.record_id in self._verified_at),
        )
        before = self.views.get(subject, RegistryView())
        self.views = self.views.update([(subject, view if usable else None)])
        return self._differences(subject, before, view)

    def _differences(self, subject: Subject, before: RegistryView, after: RegistryView) -> list[StatusChange]:
        now = _statuses_of(after)
        changes: list[StatusChange] = []
        for record_id in sorted(now.keys() | _statuses_of(before).keys()):
            old, new = self._statuses.get(record_id), now.get(record_id)
            if old == new:
                continue
            if new is None:
                self._statuses.pop(record_id)
            else:
                self._statuses[record_id] = new
            changes.append(StatusChange(record_id, subject, old, new, self._verified_at.get(record_id)))
        return changes


def _statuses_of(view: RegistryView) -> dict[str, Status]:
    statuses: dict[str, Status] = {record.record_id: "candidate" for record in view.candidates}
    statuses.update({record.record_id: "fallback" for record in view.fallbacks})
    if view.active is not None:
        statuses[view.active.record_id] = "active"
    return statuses
