"""The policy documents in force (docs/records/policy.epoch.md)."""

from __future__ import annotations

from projections.base import Change, Fact, Rows, Table, put
from projections.cluster import bootstrap

SCHEMA = "rap.fabric.policy.epoch.v1"

TABLE = Table(
    name="policy",
    key=("policy",),
    columns={
        "policy": "text",
        "document": "json",
        "epoch": "integer",
        "record_id": "text",
        "issued_at": "integer",
        "expires_at": "integer",
        "log_index": "integer",
        "bootstrap": "boolean",
    },
)


class PoliciesProjection:
    """The newest document of each policy."""

    name = "policies"
    table = TABLE
    schemas = (SCHEMA,)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What a policy document changes; nothing for any other kind."""
        if fact.schema != SCHEMA:
            return []
        record = fact.record
        row = {
            "policy": record["policy"],
            "document": record["document"],
            "epoch": record["epoch"],
            "record_id": fact.record_id,
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "log_index": fact.index,
            "bootstrap": bootstrap(rows, fact),
        }
        return [put(TABLE, row)]
