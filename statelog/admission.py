"""Admission: the one way in for every record, whether from the API, gossip, a file or a replay.

Checks run in a fixed order, each with its code (docs/records/, "Admission"):

     1 size and canonical bytes      SL-SIZE SL-CANON
     2 known schema, right place     SL-SCHEMA SL-UNLOGGED
     3 shape and bounds              SL-SHAPE
     4 cluster                       SL-CLUSTER
     5 time                          SL-FUTURE SL-EXPIRED SL-VALIDITY
     6 duplicates and stale copies   SL-STALE
     7 signatures                    SL-SIG, SL-REVOKED for a removed key
     8 role, partition, scope        SL-ROLE SL-SCOPE, SL-EXPIRED for a role whose members record ended
     9 quorum                        SL-QUORUM, SL-RECOVERY while a recovery has to wait
    10 revoked or fenced             SL-REVOKED SL-FENCED
    11 monotonic                     SL-STALE SL-EQUIVOCATION SL-EPOCH
    12 the kind's own rules          see the kind's file

Cheap checks come first, so that a flood of garbage costs no signature verification.  A refusal is data
(`errors.Refused.finding`); nothing here changes the state.
"""

from __future__ import annotations

from binascii import a2b_base64
from collections.abc import Callable
from hashlib import sha256
from typing import Any, NamedTuple

from statelog.canonical import check_profile, decode_unwalked, encode
from statelog.errors import Refused, refuse
from statelog.records import DESCRIPTOR, KINDS
from statelog.records.base import Kind, LogView, Record
from statelog.records.descriptor import descriptor_of
from statelog.signing import Job, record_id_of, signed_bytes_of_decoded
from statelog.state import AUTHORITY_LOG, AuthorityState, Change, Descriptor
from statelog.steps import Candidate, home_of

__all__ = [
    "Admitted",
    "LogView",
    "Reading",
    "admit",
    "admit_genesis",
    "admit_node_signed",
    "home_log",
    "home_of",
    "read",
    "rehearse",
    "reread",
    "signature_jobs",
]


Admitted = Candidate  # one that passed


class Reading(NamedTuple):
    """Bytes that went through steps 1 to 3, which ask for no state: a record of known form for a log."""

    data: bytes
    record: dict[str, Any]
    kind: Kind


def read(data: bytes) -> Reading:
    """Steps 1 to 3 of `admit` for a log, by whoever has the time before it is judged.  Raises `Refused`."""
    return Reading(data, *_read(data, _logged))


def admit(
    state: AuthorityState,
    data: bytes,
    now: int,
    *,
    log: LogView | None = None,
    ahead_of_log: bool = False,
    verify_signatures: bool = True,
    reading: Reading | None = None,
) -> Admitted:
    """Judge the canonical bytes ``data`` of a record for a log (or, ``ahead_of_log``, for immediate effect).

    ``now`` is Unix seconds; on replay it is the entry's ``sequenced_at``.  ``log`` is the log that would
    carry the record, seen just before it: a ``log.term``, a ``log.snapshot`` and the
    descriptor of a recovery cannot be judged without one.  Without ``log`` the
    authority log is meant.  ``verify_signatures=False`` skips the cryptography of the signatures alone, for
    bytes that this process has verified before or verifies elsewhere; keys, roles, quorum and the proofs of
    new keys are still checked.  A ``reading`` of these very bytes
    saves doing that again.

    Changes nothing.  Raises `Refused`; `UsageError` for what needs a ``log`` without one.
    """
    if reading is not None and reading.data == data and not ahead_of_log:
        _, record, kind = reading
    else:
        record, kind = _read(data, _unlogged if ahead_of_log else _logged)
    candidate = Candidate(record, data, kind, state, now, log, ahead_of_log, verify_signatures)
    candidate.check_cluster_and_time()
    if candidate.settled_by_subject():
        return candidate
    if candidate.signed_by_one_quorum():
        candidate.check_place()
    else:
        candidate.check_signatures()
        candidate.check_place()
        candidate.check_authority()
    kind.check_due(record, state, candidate)
    candidate.check_revoked_and_fenced()
    candidate.check_monotonic()
    candidate.check_started()
    candidate.judge()
    return candidate


def signature_jobs(state: AuthorityState, reading: Reading) -> list[Job] | None:
    """The signatures of a record as jobs that anybody may verify, whatever becomes of the state meanwhile.

    A key id is the hash of its key, so a key found under it is the one that `admit` will find.  When all are
    right, `admit` may be told not to verify again.  None where a key is not known yet.
    """
    data, record, kind = reading
    message = kind.signed_bytes(record, data)
    jobs = []
    for one in record["signatures"]:
        known = state.keys.get(one["key_id"]) or state.nodes.get(one["key_id"])
        if known is None:
            return None
        jobs.append((known.public, a2b_base64(one["value"]), message))
    return jobs


def reread(data: bytes) -> tuple[dict[str, Any], str]:
    """A record that was admitted when it was stored, and its id: decoded again, and not judged.

    Raises `Refused` (SL-SIZE, SL-CANON, SL-SHAPE) for what can never have been a record.
    """
    record = decode_unwalked(data)
    schema = record.get("schema_version")
    kind = KINDS.get(schema) if type(schema) is str else None
    if kind is None or kind.free_form or not kind.form.accepts(record):
        check_profile(record)
        return record, record_id_of(record)
    return record, sha256(kind.signed_bytes(record, data)).hexdigest()


def home_log(state: AuthorityState, data: bytes) -> str:
    """The name of the one log that may carry the record in ``data``.

    The authority log for bytes that are no record: whoever judges them there says what is wrong with them.
    """
    if len(state.terms) <= 1:  # no log is open but that one
        return AUTHORITY_LOG
    try:
        record, kind = _read(data, _anywhere)
    except Refused:
        return AUTHORITY_LOG
    return home_of(kind, record, state)


def admit_genesis(data: bytes, anchor: str | None) -> tuple[AuthorityState, Admitted]:
    """Judge entry 0 of an authority log, the first descriptor, at its own ``issued_at``.

    ``anchor`` is the pinned ``record_id``, None only where the anchor is being made.  The answer's state
    already carries the descriptor (log index 0).  Raises `Refused`: SL-ANCHOR, SL-GENESIS and all of `admit`.
    """
    record, kind = _read(data, _first)
    own = _own_descriptor(record)
    if anchor is not None and own.record_id != anchor:
        raise refuse("SL-ANCHOR", "this log starts elsewhere", expected=anchor, found=own.record_id)
    state = _state_of(record, own)
    candidate = Candidate(record, data, kind, state, own.issued_at, None, ahead_of_log=False, verify=True)
    candidate.check_cluster_and_time()
    candidate.check_signatures()
    candidate.check_authority()
    candidate.check_monotonic()
    state.apply(candidate.judge(), 0)
    return state, candidate


def admit_node_signed(
    state: AuthorityState, data: bytes, now: int, *, verify_signatures: bool = True
) -> Admitted:
    """Judge a record that one approved node signs for itself and no log carries (``endpoint.candidates``).

    Nothing is remembered of such records here: the caller keeps the latest per subject.  Raises `Refused`.
    """
    record, kind = _read(data, _node_signed)
    candidate = Candidate(record, data, kind, state, now, None, ahead_of_log=True, verify=verify_signatures)
    candidate.check_cluster_and_time()
    candidate.check_signatures()
    candidate.check_authority()
    candidate.check_revoked_and_fenced()
    candidate.judge()
    return candidate


def rehearse(state: AuthorityState | None, record: Record, now: int, *, log: LogView | None = None) -> Change:
    """What ``record`` would change once enough people sign it: every step of `admit` but 7 and 9.

    For drafts, so that nobody is asked to sign what cannot pass.  Without a ``state`` the record is a first
    descriptor, judged at its own ``issued_at``.  Raises `Refused`; SL-DUPLICATE for a record that is in force
    already.
    """
    data = encode({**record, "signatures": []})
    checked, kind = _read(data, _first if state is None else _anywhere)
    if state is None:
        own = _own_descriptor(checked)
        now, state = own.issued_at, _state_of(checked, own)
    candidate = Candidate(checked, data, kind, state, now, log, ahead_of_log=not kind.logged, verify=True)
    candidate.check_cluster_and_time()
    if candidate.settled_by_subject():
        raise refuse("SL-DUPLICATE", "this very record is in force", found=candidate.record_id)
    candidate.check_place()
    candidate.check_role()
    candidate.check_revoked_and_fenced()
    if kind.logged:
        candidate.check_monotonic()
        candidate.check_started()
    return candidate.judge()


def _own_descriptor(record: Record) -> Descriptor:
    """What a first descriptor states, not yet judged."""
    return descriptor_of(record, sha256(signed_bytes_of_decoded(record)).hexdigest())


def _state_of(record: Record, own: Descriptor) -> AuthorityState:
    """The state in which a first descriptor is judged: as if it were in force already.

    So its own root quorum must have signed it, and every rule that compares a descriptor with its predecessor
    compares this one with itself.
    """
    return AuthorityState(cluster_id=record["cluster_id"], anchor=own.record_id, descriptor=own)


# --- steps 1 to 3 ---


def _read(data: bytes, belongs: Callable[[Kind], None]) -> tuple[dict[str, Any], Kind]:
    """The record in ``data``, of a known kind that ``belongs`` here, and of that kind's form."""
    record = decode_unwalked(data)
    try:
        schema = record.get("schema_version")
        kind = KINDS.get(schema) if type(schema) is str else None
        if kind is None:
            raise refuse(
                "SL-SCHEMA", "an unknown kind of record", path="schema_version", found=repr(schema)[:80]
            )
        belongs(kind)
        if kind.free_form:
            check_profile(record)
        kind.shape(record)
    except Refused:
        # The form of a kind admits no value outside the canonical profile, so the walk of the types is needed
        # only here: such bytes are refused as such, whatever else is wrong with them.
        check_profile(record)
        raise
    return record, kind


def _logged(kind: Kind) -> None:
    if not kind.logged:
        raise refuse("SL-SCHEMA", f"{kind.name} is never in a log", path="schema_version", found=kind.schema)


def _unlogged(kind: Kind) -> None:
    _logged(kind)
    if not kind.acts_unlogged:
        raise refuse("SL-UNLOGGED", f"{kind.name} acts only from the log", path="schema_version")


def _node_signed(kind: Kind) -> None:
    if kind.logged:
        raise refuse("SL-SCHEMA", f"{kind.name} needs a quorum", path="schema_version", found=kind.schema)


def _first(kind: Kind) -> None:
    if kind is not DESCRIPTOR:
        raise refuse("SL-GENESIS", "a log begins with a descriptor", path="schema_version", found=kind.schema)


def _anywhere(kind: Kind) -> None:
    """A draft may be of any kind; `rehearse` judges it where its kind belongs."""
    return
