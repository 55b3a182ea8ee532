"""Where new nodes find their first peers (docs/records/bootstrap.seed_set.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table

TABLE = latest_table(
    "seed_set",
    ("platform", "site"),
    {
        "platform": "text",
        "site": "text",
        "anchor": "text",
        "endpoints": "json",
    },
)


class SeedsProjection(LatestProjection):
    """The newest seed set of each platform and site."""

    name = "seeds"
    table = TABLE
    schemas = ("rap.fabric.bootstrap.seed_set.v1",)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        return {
            "platform": record["platform"],
            "site": record["site"],
            "anchor": record["anchor"],
            "endpoints": record["endpoints"],
        }
