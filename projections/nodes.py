"""Which nodes are approved (docs/records/, node.approval and role.revocation)."""

from __future__ import annotations

from projections.base import Change, Fact, Rows, Table, put
from projections.cluster import bootstrap
from projections.revocations import REVOCATION, revoked_node

SCHEMA = "rap.fabric.node.approval.v1"

TABLE = Table(
    name="node",
    key=("node_id",),
    columns={
        "node_id": "text",
        "public": "text",
        "display_name": "text",
        "trust_tier": "text",
        "organizations": "json",
        "epoch": "integer",
        "record_id": "text",
        "issued_at": "integer",
        "expires_at": "integer",
        "log_index": "integer",
        "ended_by": "text",
        "bootstrap": "boolean",
    },
)


class NodesProjection:
    """One row per node ever approved; `ended_by` names the record that revoked it, for good."""

    name = "nodes"
    table = TABLE
    schemas = (SCHEMA, REVOCATION)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What an approval or a revocation changes; nothing for any other kind."""
        revoked = revoked_node(fact)
        if revoked is not None:
            row = rows.get(TABLE.name, (revoked,))
            return [] if row is None or row["ended_by"] else [put(TABLE, {**row, "ended_by": fact.record_id})]
        if fact.schema != SCHEMA:
            return []
        record = fact.record
        before = rows.get(TABLE.name, (record["node_id"],))
        row = {
            "node_id": record["node_id"],
            "public": record["public"],
            "display_name": record["display_name"],
            "trust_tier": record["trust_tier"],
            "organizations": record["organizations"],
            "epoch": record["epoch"],
            "record_id": fact.record_id,
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "log_index": fact.index,
            "ended_by": before["ended_by"] if before is not None else "",
            "bootstrap": bootstrap(rows, fact),
        }
        return [put(TABLE, row)]
