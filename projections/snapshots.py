"""What a log came to at a size (docs/records/log.snapshot.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table

TABLE = latest_table(
    "log_snapshot",
    ("log",),
    {
        "log": "text",
        "size": "integer",
        "root": "text",
        "state_root": "text",
        "projections": "json",
    },
)


class SnapshotsProjection(LatestProjection):
    """The newest snapshot of each log. `log` is both what it describes and where it stands."""

    name = "snapshots"
    table = TABLE
    schemas = ("rap.fabric.log.snapshot.v1",)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        return {
            "log": record["log"],
            "size": record["size"],
            "root": record["root"],
            "state_root": record["state_root"],
            "projections": record["projections"],
        }
