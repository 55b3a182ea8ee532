"""Which nodes relay in a partition, and where nodes meet (docs/records/relay.assignment.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Row
from projections.latest import LatestProjection, latest_table

TABLE = latest_table(
    "relay_assignment",
    ("partition",),
    {
        "partition": "text",
        "relays": "json",
        "rendezvous": "json",
    },
)


class RelaysProjection(LatestProjection):
    """The newest assignment of each partition."""

    name = "relays"
    table = TABLE
    schemas = ("rap.fabric.relay.assignment.v1",)

    def own(self, record: Mapping[str, Any]) -> Row:
        """The kind's own columns."""
        return {
            "partition": record["partition"],
            "relays": record["relays"],
            "rendezvous": record["rendezvous"],
        }
