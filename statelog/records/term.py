"""``log.term``: who may write a log from a given size on.

Terms fence the writer: the store refuses an older term in the transaction that locks the head, and witnesses
refuse its keys once they have seen the next.  The term that starts the authority log is entry 1 of it; a term
for another log opens that log.
"""

from __future__ import annotations

from hashlib import sha256
from typing import ClassVar, Final

from statelog.changes import BeginTerm
from statelog.errors import Refused, UsageError, refuse
from statelog.limits import MAX_INTEGER, MAX_LOGS, MAX_SEQUENCERS, SIGNATURE_BYTES, TERM_MAX_VALIDITY_S
from statelog.records import keys
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import (
    Fault,
    base64_bytes,
    fault,
    fields,
    integer,
    list_of,
    log_label,
    partition,
    public_key,
    sha256_base64,
    sha256_hex,
)
from statelog.signing import key_id_of
from statelog.state import (
    AUTHORITY_LOG,
    CONTROL,
    PARTITION_LOG_PREFIX,
    AuthorityState,
    Edit,
    Sequencer,
    Term,
)

_EMPTY_ROOT: Final = sha256(b"").digest()  # RFC 6962 section 2.1
_FIRST_START: Final = 1  # entry 0 is the genesis descriptor

SEQUENCER: Final = fields(
    {"public": public_key, "node_id": sha256_hex, "proof": base64_bytes(SIGNATURE_BYTES)}
)


class LogTerm(Kind):
    """``rap.fabric.log.term.v1``."""

    max_validity_s = TERM_MAX_VALIDITY_S
    opens_term: ClassVar[bool] = True
    form = Form(
        "rap.fabric.log.term.v1",
        {
            "log": log_label,
            "term": integer(1, MAX_INTEGER),
            "start_size": integer(0, MAX_INTEGER),
            "start_root": sha256_base64,
            "sequencers": list_of(SEQUENCER, 1, MAX_SEQUENCERS),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        found = log_name(record["log"])
        if found is not None:
            return found.under("log")
        if record["term"] != record["epoch"]:
            return fault(f"the epoch, {record['epoch']}", record["term"]).under("term")
        return None

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["log"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        previous = state.terms.get(record["log"])
        expected = previous.term + 1 if previous is not None else 1
        if record["term"] != expected:
            raise _refuse("terms follow one by one", "term", expected, record["term"])
        if previous is not None and record["start_size"] < previous.start_size:
            raise _refuse(
                "a term does not start before its predecessor",
                "start_size",
                f"at least {previous.start_size}",
                record["start_size"],
            )
        if record["log"] == AUTHORITY_LOG:
            _check_start(record, previous, ctx)
        elif previous is None:
            _check_opening(record, state)
        sequencers = sequencers_of(record, state, ctx)
        root = keys.bytes_of(record["start_root"])
        return (BeginTerm(Term(record["log"], record["term"], record["start_size"], root, sequencers)),)


def log_name(log: str) -> Fault | None:
    """The name of a log that there can be: the authority's, or a partition's."""
    named = log.removeprefix(PARTITION_LOG_PREFIX)
    if log != AUTHORITY_LOG and (named == log or partition(named) is not None):
        return fault(f"{AUTHORITY_LOG} or {PARTITION_LOG_PREFIX}<partition>", log)
    return None


def _refuse(sentence: str, path: str, expected: object, found: object) -> Refused:
    return refuse("SL-TERM", sentence, path=path, expected=expected, found=found)


def _check_start(record: Record, previous: Term | None, ctx: Context) -> None:
    """The authority log's own term: it starts at a size that this very log has passed, with its root."""
    if ctx.log is None:
        raise UsageError("a log.term record is judged against its log: pass log=")
    start = record["start_size"]
    if previous is None and start != _FIRST_START:
        raise _refuse("the first term starts after the genesis entry", "start_size", _FIRST_START, start)
    if start > ctx.log.size:
        raise _refuse("the term starts beyond its own entry", "start_size", f"at most {ctx.log.size}", start)
    root = ctx.log.root_at(start)
    if root != keys.bytes_of(record["start_root"]):
        expected = root.hex() if root is not None else "a root that is known here"
        found = keys.bytes_of(record["start_root"]).hex()
        raise _refuse("not the root at the start size", "start_root", expected, found)


def sequencers_of(record: Record, state: AuthorityState, ctx: Context) -> tuple[Sequencer, ...]:
    """The keys that may write, each once, each held by somebody and of no other use."""
    found: dict[str, Sequencer] = {}
    for position, entry in enumerate(record["sequencers"]):
        where, public = f"sequencers[{position}]", keys.bytes_of(entry["public"])
        key_id = key_id_of(public)
        if key_id in found:
            raise refuse("SL-KEY", "the public key is listed twice", path=where, found=key_id)
        keys.check_entry(state, public, entry["node_id"], entry["proof"], where, "sequencer", ctx)
        found[key_id] = Sequencer(key_id, public, entry["node_id"])
    return tuple(found.values())


def _check_opening(record: Record, state: AuthorityState) -> None:
    """The first term of another log: it starts empty, and there are not too many of them to audit."""
    others = len(state.terms) - 1
    if others >= MAX_LOGS:
        raise _refuse("as many partitions as can be have logs", "log", f"at most {MAX_LOGS}", record["log"])
    if record["start_size"] != 0:
        raise _refuse("a new log starts empty", "start_size", 0, record["start_size"])
    if keys.bytes_of(record["start_root"]) != _EMPTY_ROOT:
        raise _refuse("a new log starts empty", "start_root", _EMPTY_ROOT.hex(), record["start_root"])
