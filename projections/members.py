"""Who speaks for the delegated roles (docs/records/authority.members.md), for readers who show quorums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Change, Fact, Rows, Table, put
from projections.cluster import bootstrap, public_keys

SCHEMA = "rap.fabric.authority.members.v1"

TABLE = Table(
    name="members",
    key=("role", "partition"),
    columns={
        "role": "text",
        "partition": "text",
        "threshold": "integer",
        "keys": "json",
        "epoch": "integer",
        "record_id": "text",
        "issued_at": "integer",
        "expires_at": "integer",
        "log_index": "integer",
        "bootstrap": "boolean",
    },
)


class MembersProjection:
    """The newest key set of each (role, partition); the partition is empty for the whole cluster."""

    name = "members"
    table = TABLE
    schemas = (SCHEMA,)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What a key set changes; nothing for any other kind."""
        if fact.schema != SCHEMA:
            return []
        record: Mapping[str, Any] = fact.record
        row = {
            "role": record["role"],
            "partition": record.get("partition", ""),
            "threshold": record["threshold"],
            "keys": public_keys(record["keys"]),
            "epoch": record["epoch"],
            "record_id": fact.record_id,
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "log_index": fact.index,
            "bootstrap": bootstrap(rows, fact),
        }
        return [put(TABLE, row)]
