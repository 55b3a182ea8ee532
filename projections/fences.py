"""The newest fence of each route, partition and node (docs/records/route.fence.md).

What a fence ends in its own log is written on the leases there; for leases of other logs readers ask this
table (`projections.leases.ended_elsewhere`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table
from projections.revocations import FENCE, target

TABLE = latest_table(
    "route_fence",
    ("target_kind", "target"),
    {"target_kind": "text", "target": "text", "reason": "text"},
)


class FencesProjection(LatestProjection):
    """One row for each target; its epochs only grow, in whichever log they stand."""

    name = "fences"
    table = TABLE
    schemas = (FENCE,)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        kind, value = target(record)
        return {"target_kind": kind, "target": value, "reason": record["reason"]}
