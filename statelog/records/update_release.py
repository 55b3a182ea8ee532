"""``update.release``: a version of a product for a channel: its artifacts by hash, for whom, since when.

Signed by the update quorum.  A node takes no artifact whose hash no release names.  The version in force
keeps its artifacts, and the way back is only to versions that the release in force names, while its window is
open: nobody brings an old hole back by an old version.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from statelog.changes import PublishRelease
from statelog.errors import Refused
from statelog.limits import (
    MAX_ARTIFACTS,
    MAX_INTEGER,
    MAX_ROLLBACK_TARGETS,
    MAX_ROLLBACK_WINDOW_S,
    MAX_ROLLOUT_STEPS,
    MAX_SESSION_VERSION,
    MAX_SESSION_VERSIONS,
    RELEASE_MAX_VALIDITY_S,
)
from statelog.precedents import Release, version_order
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import Fault, fault, fields, integer, list_of, name, sha256_hex, time
from statelog.state import UPDATE, AuthorityState, Edit

_VERSION: Final = re.compile(r"(?:0|[1-9][0-9]{0,8})(?:\.(?:0|[1-9][0-9]{0,8})){0,3}").fullmatch
_PERCENT: Final = 100


class UpdateRelease(Kind):
    """``rap.fabric.update.release.v1``."""

    max_validity_s = RELEASE_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.update.release.v1",
        {
            "product": name,
            "channel": name,
            "version": name,
            "artifacts": list_of(
                fields(
                    {
                        "name": name,
                        "platform": name,
                        "length": integer(1, MAX_INTEGER),
                        "sha256": sha256_hex,
                    }
                ),
                1,
                MAX_ARTIFACTS,
            ),
            "compatibility": fields(
                {
                    "min_version": name,
                    "session_versions": list_of(
                        integer(0, MAX_SESSION_VERSION), 1, MAX_SESSION_VERSIONS, distinct=True
                    ),
                }
            ),
            "rollback": fields(
                {
                    "to": list_of(name, 0, MAX_ROLLBACK_TARGETS, distinct=True),
                    "window_s": integer(0, MAX_ROLLBACK_WINDOW_S),
                }
            ),
            "rollout": list_of(
                fields({"cohort_percent": integer(1, _PERCENT), "not_before": time}), 1, MAX_ROLLOUT_STEPS
            ),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        return _versions(record) or _artifacts(record) or _rollout(record)

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["product"], record["channel"])

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return UPDATE, None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        subject = (record["product"], record["channel"])
        release = Release(
            record_id=ctx.record_id,
            version=record["version"],
            artifacts={(one["platform"], one["name"]): one["sha256"] for one in record["artifacts"]},
            rollback_to=frozenset(record["rollback"]["to"]),
            rollback_until=ctx.issued_at + record["rollback"]["window_s"],
        )
        last = state.releases.get(subject)
        fault = None if last is None else release.fault_after(last, ctx.now)
        if fault is not None:
            raise Refused(fault)
        return (PublishRelease(subject, release),)


def _versions(record: Record) -> Fault | None:
    wanted = "1 to 4 numbers with dots between"
    for where, version in (
        ("version", record["version"]),
        ("compatibility.min_version", record["compatibility"]["min_version"]),
        *((f"rollback.to[{position}]", one) for position, one in enumerate(record["rollback"]["to"])),
    ):
        if _VERSION(version) is None:
            return fault(wanted, version).under(where)
    own = version_order(record["version"])
    if version_order(record["compatibility"]["min_version"]) > own:
        return fault("at most the version itself", record["compatibility"]["min_version"]).under(
            "compatibility.min_version"
        )
    for position, one in enumerate(record["rollback"]["to"]):
        if version_order(one) >= own:
            return fault("an older version", one).under(f"rollback.to[{position}]")
    return None


def _artifacts(record: Record) -> Fault | None:
    """Each artifact once; its name is one component of a path, since it becomes a file."""
    seen = set()
    for position, one in enumerate(record["artifacts"]):
        if "/" in one["name"]:
            return fault("a file name without folders", one["name"]).under(f"artifacts[{position}].name")
        seen.add((one["platform"], one["name"]))
    return fault("distinct artifacts", sorted(seen)).under("artifacts") if len(seen) <= position else None


def _rollout(record: Record) -> Fault | None:
    """Ever more nodes, ever later.  Times of the fixed form sort as text."""
    steps = [(step["cohort_percent"], step["not_before"]) for step in record["rollout"]]
    for position, (before, after) in enumerate(pairwise(steps), 1):
        if before[0] >= after[0] or before[1] >= after[1]:
            return fault("more nodes and later than the step before", after).under(f"rollout[{position}]")
    return None
