"""The answers of the API, for its OpenAPI document; tests hold every answer against these models."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

State = Literal["final", "pending", "candidate", "refused"]


class Model(BaseModel):
    """Nothing but what is listed: an undocumented field fails a test."""

    model_config = ConfigDict(extra="forbid")


class ProblemDetails(Model):
    """A refusal (RFC 9457). `code`, `path`, `expected` and `found` are the finding; `type` links to its
    explanation.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    path: str
    expected: str
    found: str
    record_id: str | None = None


class ClusterModel(Model):
    """The descriptor in force. `bootstrap`: a development cluster, whose signers are not authoritative."""

    cluster_id: str
    mode: Literal["development", "production"]
    bootstrap: bool
    descriptor: str
    epoch: int
    expires_at: str
    max_checkpoint_age_s: int


class LogModel(Model):
    """Where the log ends. `anchor` is the record id of entry 0, `root` hex."""

    origin: str
    anchor: str
    size: int
    root: str
    term: int
    sequenced_at: str


class CosignedModel(Model):
    """One witness's newest cosignature of the final head."""

    witness: str
    at: str


class FinalityModel(Model):
    """The final head and how fresh it is; `stale` when its age passes the descriptor's
    max_checkpoint_age_s.
    """

    size: int
    root: str | None
    threshold: int | None
    cosigned: list[CosignedModel]
    fresh_at: str | None
    age_s: int | None
    stale: bool


class WaitingModel(Model):
    """How many records wait in this replica's outbox, and how many act ahead of the log."""

    outbox: int
    unlogged: int


class AlarmModel(Model):
    """What must not be overlooked: a finding code (`/v1/errors/{code}`) and a sentence."""

    code: str
    sentence: str


class EquivocationModel(Model):
    """One of two rightly signed records of one subject and epoch."""

    subject: str
    epoch: int
    record_id: str
    record: dict[str, Any]
    seen_at: str


class SplitViewModel(Model):
    """Two signed heads that no single history has. `larger_root` is the root at `size` in the history of
    `larger_note`; `proof` (hex hashes) leads from there to it (RFC 6962).
    """

    log: str
    size: int
    root: str
    note: str
    larger_size: int
    larger_root: str
    larger_note: str
    proof: list[str]
    source: str
    seen_at: str


class RollbackModel(Model):
    """A replica that had shown `earlier_note`, and then the older `note`; `over_at` once it was back."""

    log: str
    source: str
    size: int
    note: str
    earlier_size: int
    earlier_note: str
    seen_at: str
    over_at: str | None


class EvidenceModel(Model):
    """Who signed two things, and who went back."""

    equivocations: list[EquivocationModel]
    split_views: list[SplitViewModel]
    rollbacks: list[RollbackModel]


class StatusModel(Model):
    """The replica's own account. `now` is its clock in Unix seconds; `sequences` whether it holds a
    sequencer key.
    """

    cluster: ClusterModel | None
    log: LogModel | None
    projected_size: int
    finality: FinalityModel
    alarms: list[AlarmModel]
    waiting: WaitingModel
    now: int
    sequences: bool


class SignerModel(Model):
    """One signature, without its value."""

    key_id: str
    issuer_id: str
    role: str


class QuorumModel(Model):
    """Who signed for which role; `threshold` is that of the role's set now in force, None when none is
    known.
    """

    role: str
    partition: str | None
    threshold: int | None
    signers: list[SignerModel]
    missing: int | None
    met: bool


class RefusalModel(Model):
    """Why a record was refused after it had been taken in."""

    code: str | None
    sentence: str | None


class LoggedRecordModel(Model):
    """A record as a list shows it: `record` is what was signed, signatures included."""

    record_id: str
    kind: str
    subject: list[str]
    epoch: int
    issued_at: str
    expires_at: str
    issuer_role: str
    record: dict[str, Any]
    state: State
    log: str | None
    log_index: int | None
    sequenced_at: str | None
    term: int | None
    received_at: str | None
    refusal: RefusalModel | None


class RecordModel(LoggedRecordModel):
    """A record with its quorum."""

    quorum: QuorumModel


class RecordsModel(Model):
    """A page of the log, newest first; `next_before` is the `before` of the next page."""

    records: list[LoggedRecordModel]
    size: int
    final_size: int
    next_before: int | None


class WaitingRecordsModel(Model):
    """Records that are not in the log."""

    records: list[RecordModel]


class ReceiptModel(Model):
    """What became of a submitted record: `final` only when K witnesses cosigned a head that covers it."""

    record_id: str
    state: State
    final: bool
    log: str | None
    log_index: int | None
    duplicate: bool
    status_url: str


class RowsModel(Model):
    """A page of a read model, by key; `size` is the log size it stands for."""

    size: int
    rows: list[dict[str, Any]]
    next_after: str | None


class AuthorityModel(Model):
    """Whose signatures count."""

    descriptor: dict[str, Any] | None
    members: list[dict[str, Any]]
    recovery: dict[str, Any] | None


class ErrorCodeModel(Model):
    """A code and what it means."""

    code: str
    status: int
    explanation: str


class HealthModel(Model):
    """Whether this process serves and its store answers."""

    status: Literal["ok"]
