"""``telemetry.observation``: what a node measured, signed by the node, for minutes.

Never in a log.  A node may speak as an observer when a members record of observer authority in force lists a
key whose issuer is that node: the observer authority decides who observes, each observer signs for itself,
and no observation changes routes, roles, updates or secrets.
"""

from __future__ import annotations

from statelog.errors import refuse
from statelog.limits import MAX_ENDPOINT_ID_CHARS, MAX_INTEGER, MAX_OBSERVATIONS, OBSERVATION_MAX_VALIDITY_S
from statelog.quorum import KeySet
from statelog.records.base import Context, Form, NodeSigned, Record
from statelog.records.shapes import (
    Fault,
    fault,
    fields,
    integer,
    list_of,
    name,
    one_field_of,
    sha256_hex,
    text,
    time,
)
from statelog.state import OBSERVER, AuthorityState


class TelemetryObservation(NodeSigned):
    """``rap.fabric.telemetry.observation.v1``.  A metric's name ends in its unit: ``rtt_us``."""

    max_validity_s = OBSERVATION_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.telemetry.observation.v1",
        {
            "node_id": sha256_hex,
            "observed": list_of(
                fields(
                    {
                        "target": one_field_of(
                            node_id=sha256_hex,
                            endpoint_id=text(MAX_ENDPOINT_ID_CHARS),
                            route_id=name,
                            service=name,
                        ),
                        "metric": name,
                        "value": integer(0, MAX_INTEGER),
                        "observed_at": time,
                    }
                ),
                0,
                MAX_OBSERVATIONS,
            ),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        seen = {(*one["target"].items(), one["metric"]) for one in record["observed"]}
        if len(seen) != len(record["observed"]):
            return fault("each metric of a target once", len(record["observed"])).under("observed")
        for position, one in enumerate(record["observed"]):
            if one["observed_at"] > record["issued_at"]:  # times of the fixed form sort as text
                found = fault("not after issued_at", one["observed_at"])
                return found.under(f"observed[{position}].observed_at")
        return None

    def quorums(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[KeySet, ...]:
        own = super().quorums(record, state, ctx)
        if not _observes(state, record["node_id"], ctx.now):
            raise refuse(
                "SL-ROLE",
                "no members record of observer authority lists a key of this node",
                path="node_id",
                found=record["node_id"],
            )
        return own


def _observes(state: AuthorityState, node_id: str, now: int) -> bool:
    """Whether an observer set in force, of the cluster or of any partition, lists the node as an issuer."""
    return any(
        role == OBSERVER
        and node_id in found.issuers
        and not (found.bootstrap and state.mode == "production")
        and (found.expires_at is None or now < found.expires_at)
        for (role, _), found in state.key_sets.items()
    )
