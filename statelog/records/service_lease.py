"""``service.lease``: which nodes serve a logical name now, and who leads them.

Signed by the control quorum, for a day at most.  A service fails over by the next lease; a replica whose node
is revoked serves nothing any more, whatever the lease says.
"""

from __future__ import annotations

from typing import ClassVar

from statelog.limits import LEASE_MAX_VALIDITY_S, MAX_REPLICAS
from statelog.records.base import Concerns, Context, Form, Kind, Record, require_node
from statelog.records.shapes import Fault, fault, list_of, name, one_of, sha256_hex
from statelog.state import CONTROL, AuthorityState, Edit, Target


class ServiceLease(Kind):
    """``rap.fabric.service.lease.v1``."""

    max_validity_s = LEASE_MAX_VALIDITY_S
    ends_with_its_time: ClassVar[bool] = True
    form = Form(
        "rap.fabric.service.lease.v1",
        {
            "service": name,
            "mode": one_of("active-active", "leader-follower"),
            "replicas": list_of(sha256_hex, 1, MAX_REPLICAS, distinct=True),
        },
        {"leader": sha256_hex},
    )

    def coherence(self, record: Record) -> Fault | None:
        leader = record.get("leader")
        if (leader is not None) != (record["mode"] == "leader-follower"):
            return fault("present exactly when mode is leader-follower", leader or "nothing").under("leader")
        if leader is not None and leader not in record["replicas"]:
            return fault("one of the replicas", leader).under("leader")
        return None

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["service"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def concerns(self, record: Record, record_id: str) -> Concerns:
        return _replicas(record)

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        for replica, path in _replicas(record):
            require_node(state, replica.id, ctx.now, path)
        return ()


def _replicas(record: Record) -> Concerns:
    return tuple(
        (Target("node_id", node_id), f"replicas[{position}]")
        for position, node_id in enumerate(record["replicas"])
    )
