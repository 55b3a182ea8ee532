"""What is released (docs/records/update.release.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table

TABLE = latest_table(
    "update_release",
    ("product", "channel"),
    {
        "product": "text",
        "channel": "text",
        "version": "text",
        "artifacts": "json",
        "compatibility": "json",
        "rollback": "json",
        "rollout": "json",
    },
)


class ReleasesProjection(LatestProjection):
    """The release in force of each channel of each product."""

    name = "releases"
    table = TABLE
    schemas = ("rap.fabric.update.release.v1",)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        return {
            "product": record["product"],
            "channel": record["channel"],
            "version": record["version"],
            "artifacts": record["artifacts"],
            "compatibility": record["compatibility"],
            "rollback": record["rollback"],
            "rollout": record["rollout"],
        }
