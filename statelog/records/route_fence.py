"""``route.fence``: every lease of a route, a node or a partition ends now.

It kills every lease that the log carries before it, and every copy issued at or before its ``issued_at``.
Leases last a day so that a day without a quorum is survived; fences do the revoking, ahead of the log too.
"""

from __future__ import annotations

from typing import ClassVar

from statelog.changes import Fence
from statelog.limits import FENCE_MAX_VALIDITY_S, MAX_TEXT_CHARS
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import name, one_field_of, partition, sha256_hex, text
from statelog.state import CONTROL, ROUTE, AuthorityState, Edit, Mark, Target


class RouteFence(Kind):
    """``rap.fabric.route.fence.v1``."""

    max_validity_s = FENCE_MAX_VALIDITY_S
    acts_unlogged: ClassVar[bool] = True
    form = Form(
        "rap.fabric.route.fence.v1",
        {
            "target": one_field_of(route_id=name, node_id=sha256_hex, partition=partition),
            "reason": text(MAX_TEXT_CHARS),
        },
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        ((kind, target),) = record["target"].items()
        return (kind, target)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        if "node_id" in record["target"]:
            return CONTROL, None
        return ROUTE, self.home_partition(record, state)

    def home_partition(self, record: Record, state: AuthorityState) -> str | None:
        """The fenced route's partition; None for a node, and for a route that is nobody's yet."""
        target = record["target"]
        named: str | None = target.get("partition")
        return named if named is not None else state.partition_of_route(target.get("route_id", ""))

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        return (Fence(Target(*self.subject(record)), Mark(ctx.record_id, ctx.issued_at, None)),)
