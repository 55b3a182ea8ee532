"""Where the shards of stored objects are (docs/records/storage.shard_manifest.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table
from statelog.times import parse_time

TABLE = latest_table(
    "shard_manifest",
    ("shard_set_id",),
    {
        "shard_set_id": "text",
        "object": "json",
        "cipher": "text",
        "code": "json",
        "replication_factor": "integer",
        "shards": "json",
        "retention_until": "integer",
        "recovery_epoch": "integer",
    },
)


class ShardsProjection(LatestProjection):
    """The newest manifest of each shard set; `retention_until` is Unix seconds."""

    name = "shards"
    table = TABLE
    schemas = ("rap.fabric.storage.shard_manifest.v1",)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        return {
            "shard_set_id": record["shard_set_id"],
            "object": record["object"],
            "cipher": record["cipher"],
            "code": record["code"],
            "replication_factor": record["replication_factor"],
            "shards": record["shards"],
            "retention_until": parse_time(record["retention_until"]),
            "recovery_epoch": record["recovery_epoch"],
        }
