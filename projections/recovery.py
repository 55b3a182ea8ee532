"""Who may replace a lost root, and what of it is under way (docs/records/authority.recovery_intent.md)."""

from __future__ import annotations

from typing import Any

from projections.base import Change, Fact, Row, Rows, Table, put
from projections.cluster import SCHEMA as DESCRIPTOR
from projections.cluster import bootstrap, public_keys
from statelog.changes import recovery_sets_after
from statelog.state import Recovery

INTENT = "rap.fabric.authority.recovery_intent.v1"
VETO = "rap.fabric.authority.veto.v1"

TABLE = Table(
    name="recovery",
    key=("cluster_id",),
    columns={
        "cluster_id": "text",
        "sets": "json",
        "intent": "text",
        "descriptor": "text",
        "shown": "json",
        "due_at": "integer",
        "record_id": "text",
        "log_index": "integer",
        "bootstrap": "boolean",
    },
)

_NOTHING_UNDER_WAY = {"intent": "", "descriptor": "", "shown": [], "due_at": 0}


class RecoveryProjection:
    """One row. `sets` are the recovery set in force and the one to come, each with the Unix second from which
    it holds. `intent` is the record that began a recovery, empty when none is under way; from `due_at` on the
    `descriptor` that it names may be installed by the keys that were `shown`.
    """

    name = "recovery"
    table = TABLE
    schemas = (DESCRIPTOR, INTENT, VETO)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What a descriptor, an intent or a veto changes; nothing for any other kind."""
        if fact.schema not in self.schemas:
            return []
        before = rows.get(TABLE.name, (fact.record["cluster_id"],))
        sets = () if before is None else _sets(before)
        changes: dict[str, Any] = dict(_NOTHING_UNDER_WAY)
        if fact.schema == DESCRIPTOR:
            new = fact.record["recovery"]
            coming = Recovery(new["threshold"], tuple(new["key_sha256"]), new["delay_s"])
            sets = recovery_sets_after(sets, coming, fact.sequenced_at)
        elif fact.schema == INTENT:
            in_force = [one for since, one in sets if since <= fact.sequenced_at]
            changes = {
                "intent": fact.record_id,
                "descriptor": fact.record["descriptor"],
                "shown": public_keys(fact.record["keys"]),
                "due_at": fact.sequenced_at + (in_force[-1].delay_s if in_force else 0),
            }
        row = {
            "cluster_id": fact.record["cluster_id"],
            "sets": [_json(since, one) for since, one in sets],
            **changes,
            "record_id": fact.record_id,
            "log_index": fact.index,
            "bootstrap": bootstrap(rows, fact),
        }
        return [put(TABLE, row)]


def _json(since: int, one: Recovery) -> dict[str, Any]:
    return {
        "since": since,
        "threshold": one.threshold,
        "key_sha256": list(one.key_sha256),
        "delay_s": one.delay_s,
    }


def _sets(row: Row) -> tuple[tuple[int, Recovery], ...]:
    return tuple(
        (one["since"], Recovery(one["threshold"], tuple(one["key_sha256"]), one["delay_s"]))
        for one in row["sets"]
    )
