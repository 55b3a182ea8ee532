"""``log.snapshot``: what all read models of a log come to at a size of it.

It stands in the very log that it describes, so that admission can compare its size and root with that log.
``state_root`` is the RFC 6962 root over the canonical ``{name, root, rows}`` of each projection, by name; a
projection's own ``root`` is the root over its canonical rows, by key, which an auditor folds anew.  With a
final head a phone can then be shown one row, or that there is none, without the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from statelog.canonical import encode
from statelog.errors import Refused, UsageError, refuse
from statelog.limits import (
    MAX_INTEGER,
    MAX_SNAPSHOT_PROJECTIONS,
    ROOT_WINDOW_ENTRIES,
    SNAPSHOT_MAX_VALIDITY_S,
)
from statelog.merkle import leaf_hash, root_of
from statelog.records import keys
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import Fault, fields, integer, list_of, log_label, name, sha256_base64
from statelog.records.term import log_name
from statelog.state import CONTROL, PARTITION_LOG_PREFIX, AuthorityState, Edit


class LogSnapshot(Kind):
    """``rap.fabric.log.snapshot.v1``."""

    max_validity_s = SNAPSHOT_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.log.snapshot.v1",
        {
            "log": log_label,
            "size": integer(1, MAX_INTEGER),
            "root": sha256_base64,
            "state_root": sha256_base64,
            "projections": list_of(
                fields({"name": name, "rows": integer(0, MAX_INTEGER), "root": sha256_base64}),
                1,
                MAX_SNAPSHOT_PROJECTIONS,
                ascending="name",
            ),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        found = log_name(record["log"])
        return None if found is None else found.under("log")

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["log"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def home_partition(self, record: Record, state: AuthorityState) -> str | None:
        log: str = record["log"]
        return log.removeprefix(PARTITION_LOG_PREFIX) if log.startswith(PARTITION_LOG_PREFIX) else None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        if ctx.log is None:
            raise UsageError("a log.snapshot record is judged against its log: pass log=")
        if record["log"] != ctx.log.name:
            raise _refuse("a snapshot stands in its own log", "log", ctx.log.name, record["log"])
        # Every replay remembers at least this much of its past, so all of them judge alike.
        oldest = max(1, ctx.log.size - ROOT_WINDOW_ENTRIES)
        if not oldest <= record["size"] <= ctx.log.size:
            raise _refuse("not a recent size", "size", f"{oldest} … {ctx.log.size}", record["size"])
        root = ctx.log.root_at(record["size"])
        if root is None or root != keys.bytes_of(record["root"]):
            expected = root.hex() if root is not None else "a root that is known here"
            raise _refuse("not the root at that size", "root", expected, keys.bytes_of(record["root"]).hex())
        state_root, found = state_root_of(record["projections"]), keys.bytes_of(record["state_root"])
        if state_root != found:
            raise _refuse("not the root over the projections", "state_root", state_root.hex(), found.hex())
        return ()


def state_root_of(projections: Iterable[Mapping[str, Any]]) -> bytes:
    """The root over ``{name, root, rows}`` objects as a snapshot lists them: sorted by name, roots in
    base64.
    """
    return root_of(leaf_hash(encode(one)) for one in projections)


def _refuse(sentence: str, path: str, expected: object, found: object) -> Refused:
    return refuse("SL-SNAPSHOT", sentence, path=path, expected=expected, found=found)
