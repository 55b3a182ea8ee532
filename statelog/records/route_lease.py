"""``route.lease``: a route through named hops, for a day at most.

Signed by the route authority of the partition.  A route never leaves its partition, so the authority of one
cannot take over the routes of another; a route that is new to a partition with a log of its own carries the
partition's name, ``<partition>/…``, because that log does not see what the others lease.  Every hop is an
approved node; fences and revocations end leases.
"""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar

from statelog.changes import GrantLease
from statelog.errors import refuse
from statelog.limits import LEASE_MAX_VALIDITY_S, MAX_ALTERNATES, MAX_HOPS, MIN_HOPS
from statelog.records.base import Concerns, Context, Form, Kind, Record, require_node
from statelog.records.shapes import (
    Fault,
    fault,
    fields,
    list_of,
    name,
    name_list,
    one_of,
    partition,
    sha256_hex,
)
from statelog.state import ROUTE, AuthorityState, Edit, Lease, Target

TRAFFIC_CLASSES = ("control", "dns", "interactive", "reliable", "bulk", "droppable")


class RouteLease(Kind):
    """``rap.fabric.route.lease.v1``."""

    max_validity_s = LEASE_MAX_VALIDITY_S
    ends_with_its_time: ClassVar[bool] = True
    form = Form(
        "rap.fabric.route.lease.v1",
        {
            "route_id": name,
            "partition": partition,
            "service": name,
            "allowed_channels": name_list(wildcard=True),
            "allowed_classes": list_of(one_of(*TRAFFIC_CLASSES), 0, len(TRAFFIC_CLASSES), distinct=True),
            "allowed_services": name_list(wildcard=True),
            "alternates": list_of(name, 0, MAX_ALTERNATES, distinct=True),
        },
        {
            "organization_id": name,
            "hops": list_of(sha256_hex, MIN_HOPS, MAX_HOPS, distinct=True),
            "next_hop": fields({"policy": name}),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        if ("hops" in record) == ("next_hop" in record):
            return fault("either hops or next_hop", "both" if "hops" in record else "neither").under("hops")
        if record["route_id"] in record["alternates"]:
            return fault("other routes", record["route_id"]).under("alternates")
        return None

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["route_id"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return ROUTE, record["partition"]

    def home_partition(self, record: Record, state: AuthorityState) -> str | None:
        partition: str = record["partition"]
        return partition

    def concerns(self, record: Record, record_id: str) -> Concerns:
        return _hops(record)

    def crosses(self, record: Record) -> Concerns:
        route = (Target("route_id", record["route_id"]), "route_id")
        return (route, (Target("partition", record["partition"]), "partition"), *_hops(record))

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        _check_partition(record, state)
        for hop, path in _hops(record):
            require_node(state, hop.id, ctx.now, path)
        lease = Lease(
            ctx.record_id,
            record["route_id"],
            record["partition"],
            tuple(record.get("hops", ())),
            ctx.issued_at,
            ctx.expires_at,
            ctx.bootstrap,
        )
        return (GrantLease(lease),)


def _check_partition(record: Record, state: AuthorityState) -> None:
    partition, home = record["partition"], state.partition_of_route(record["route_id"])
    if home is not None and home != partition:
        raise refuse(
            "SL-SCOPE", "a route stays in its partition", path="partition", expected=home, found=partition
        )
    if home is None and state.has_log(partition):
        raise refuse(
            "SL-SCOPE",
            "a route that is new to a partition's log carries the partition's name",
            path="route_id",
            expected=f"{partition}/…",
            found=record["route_id"],
        )


def _hops(record: Record) -> Concerns:
    return _targets(tuple(record.get("hops", ())))


@lru_cache(maxsize=1_024)  # routes run through the same few nodes, and admission asks three times
def _targets(hops: tuple[str, ...]) -> Concerns:
    return tuple((Target("node_id", hop), f"hops[{position}]") for position, hop in enumerate(hops))
