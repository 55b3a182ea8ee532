"""``relay.assignment``: which nodes relay in a partition, what and how much, and where nodes meet.

Signed by the route authority of the partition, for a day at most.  A relay also holds a relay certificate for
the partition, which only the control quorum gives: route authority picks among relays, it makes none.
"""

from __future__ import annotations

from typing import ClassVar

from statelog.limits import LEASE_MAX_VALIDITY_S, MAX_MBIT_PER_S, MAX_RELAYS
from statelog.records.base import Concerns, Context, Form, Kind, Record, require_node, require_role
from statelog.records.route_lease import TRAFFIC_CLASSES
from statelog.records.shapes import Fault, fault, fields, integer, list_of, one_of, partition, sha256_hex
from statelog.state import ROUTE, AuthorityState, Edit, Target


class RelayAssignment(Kind):
    """``rap.fabric.relay.assignment.v1``."""

    max_validity_s = LEASE_MAX_VALIDITY_S
    ends_with_its_time: ClassVar[bool] = True
    form = Form(
        "rap.fabric.relay.assignment.v1",
        {
            "partition": partition,
            "relays": list_of(
                fields(
                    {
                        "node_id": sha256_hex,
                        "classes": list_of(one_of(*TRAFFIC_CLASSES), 1, len(TRAFFIC_CLASSES), distinct=True),
                        "max_mbit_per_s": integer(1, MAX_MBIT_PER_S),
                    }
                ),
                0,
                MAX_RELAYS,
            ),
            "rendezvous": list_of(sha256_hex, 0, MAX_RELAYS, distinct=True),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        ids = [relay["node_id"] for relay in record["relays"]]
        return fault("distinct nodes", ids).under("relays") if len(set(ids)) != len(ids) else None

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["partition"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return ROUTE, record["partition"]

    def home_partition(self, record: Record, state: AuthorityState) -> str | None:
        partition: str = record["partition"]
        return partition

    def concerns(self, record: Record, record_id: str) -> Concerns:
        return (*_relays(record), *_rendezvous(record))

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        for relay, path in _relays(record):
            require_role(state, relay.id, "relay", ctx.now, path, partition=record["partition"])
        for meeting, path in _rendezvous(record):
            require_node(state, meeting.id, ctx.now, path)
        return ()


def _relays(record: Record) -> Concerns:
    return tuple(
        (Target("node_id", relay["node_id"]), f"relays[{position}].node_id")
        for position, relay in enumerate(record["relays"])
    )


def _rendezvous(record: Record) -> Concerns:
    return tuple(
        (Target("node_id", node_id), f"rendezvous[{position}]")
        for position, node_id in enumerate(record["rendezvous"])
    )
