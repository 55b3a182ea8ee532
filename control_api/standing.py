"""Where the log stands here: finality, freshness, alarms, and evidence against those who signed two things.

Plain values, read in one transaction, like everything in `control_api.reads`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from projections.base import Row
from statelog.alarms import alarms, is_stale, of_log
from statelog.findings import Finding
from statelog.io.store import Head, Store
from statelog.times import format_time, parse_time


def finality(
    connection: sa.Connection, store: Store, head: Head | None, cluster: Row | None, now: int
) -> dict[str, Any]:
    """Who cosigned the final head, since when it counts as fresh, and whether that is too long ago.

    The age counts from the (f+1)-th newest cosignature, so f witnesses that lie about the time cannot make
    an old head look fresh (docs/records/, "Freshness"). Cosignatures were verified before they were
    stored.
    """
    if head is None or cluster is None:
        nothing = dict.fromkeys(("root", "threshold", "fresh_at", "age_s"))
        return {"size": 0, "cosigned": [], "stale": True, **nothing}
    witnesses = cluster["witnesses"]
    names = {key["name"] for key in witnesses["keys"]}
    found = [one for one in store.cosignatures(head.final_size, connection) if one.name in names]
    newest = sorted((one.timestamp for one in found), reverse=True)
    fresh_at = newest[witnesses["faulty"]] if len(newest) > witnesses["faulty"] else None
    age_s = None if fresh_at is None else max(0, now - fresh_at)
    return {
        "size": head.final_size,
        "root": head.final_root.hex() if head.final_size else None,
        "threshold": witnesses["threshold"],
        "cosigned": [{"witness": one.name, "at": format_time(one.timestamp)} for one in found],
        "fresh_at": None if fresh_at is None else format_time(fresh_at),
        "age_s": age_s,
        "stale": is_stale(fresh_at, cluster["max_checkpoint_age_s"], now),
    }


def alarms_of(
    connection: sa.Connection, store: Store, cluster: Row | None, final: Mapping[str, Any], now: int
) -> list[dict[str, str]]:
    """The alarms of this replica about all logs that it holds, as its status shows them."""
    if cluster is None:
        return []
    found = _alarms(connection, store, cluster, final, now)
    for name in store.logs(connection):
        other = store.of(name)
        head = other.head(connection)
        if name == store.log or head is None or not head.final_size:  # an empty log has no head to grow old
            continue
        told = _alarms(connection, other, cluster, finality(connection, other, head, cluster, now), now)
        found += of_log(told, name)
    return [{"code": one.code, "sentence": one.said} for one in found]


def _alarms(
    connection: sa.Connection, store: Store, cluster: Row, final: Mapping[str, Any], now: int
) -> list[Finding]:
    fresh_at = final["fresh_at"]
    return alarms(
        final_size=final["size"],
        fresh_at=None if fresh_at is None else parse_time(fresh_at),
        max_age_s=cluster["max_checkpoint_age_s"],
        now=now,
        **store.evidence_counts(connection)._asdict(),
    )


def evidence(connection: sa.Connection, store: Store) -> dict[str, Any]:
    """Who signed two things, records of one subject and epoch or heads that no single history has; and which
    replicas went back; of all logs that this replica holds.
    """
    logs = [store.of(name) for name in store.logs(connection)]
    return {
        "equivocations": [one.document() for one in store.evidence(connection)],
        "split_views": [one.document(kept.log) for kept in logs for one in kept.split_views(connection)],
        "rollbacks": [one.document(kept.log) for kept in logs for one in kept.rollbacks(connection)],
    }
