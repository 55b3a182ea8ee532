"""Which peer directory of a partition is true (docs/records/peer_directory.epoch.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table

TABLE = latest_table(
    "peer_directory",
    ("partition",),
    {
        "partition": "text",
        "node_count": "integer",
        "directory_root": "text",
    },
)


class DirectoryProjection(LatestProjection):
    """The newest directory of each partition."""

    name = "directory"
    table = TABLE
    schemas = ("rap.fabric.peer_directory.epoch.v1",)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        return {
            "partition": record["partition"],
            "node_count": record["node_count"],
            "directory_root": record["directory_root"],
        }
