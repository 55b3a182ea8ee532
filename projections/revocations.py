"""What revocations and fences say, in one place for the folds and for what acts ahead of the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from projections.base import Fact

REVOCATION = "rap.fabric.role.revocation.v1"
FENCE = "rap.fabric.route.fence.v1"


def target(record: Mapping[str, Any]) -> tuple[str, str]:
    """The kind and the value of a revocation's or fence's target: ("node_id", "ab…"), ("route_id", …) and
    so on.
    """
    ((kind, value),) = record["target"].items()
    return kind, value


def revoked_node(fact: Fact) -> str | None:
    """The node that this fact revokes, or None."""
    if fact.schema != REVOCATION:
        return None
    kind, value = target(fact.record)
    return value if kind == "node_id" else None


def revoked_certificate(fact: Fact) -> str | None:
    """The record id of the certificate that this fact revokes, or None."""
    if fact.schema != REVOCATION:
        return None
    kind, value = target(fact.record)
    return value if kind == "certificate" else None
