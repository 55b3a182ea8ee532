"""Which nodes serve a name (docs/records/service.lease.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table

TABLE = latest_table(
    "service_lease",
    ("service",),
    {
        "service": "text",
        "mode": "text",
        "leader": "text",
        "replicas": "json",
    },
)


class ServicesProjection(LatestProjection):
    """The newest lease of each service; `leader` is empty where all replicas are equal."""

    name = "services"
    table = TABLE
    schemas = ("rap.fabric.service.lease.v1",)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        return {
            "service": record["service"],
            "mode": record["mode"],
            "leader": record.get("leader", ""),
            "replicas": record["replicas"],
        }
