"""``traffic.account``: what a relay carried in a period, by route and class, signed by the relay.

Never in a log, and no payload in it: how much, of which class, on whose route.  Who pays for relays, limits
them or suspects one keeps these records; two relays of one route that disagree have both signed.
"""

from __future__ import annotations

from statelog.limits import ACCOUNT_MAX_VALIDITY_S, MAX_ACCOUNT_LINES, MAX_INTEGER
from statelog.records.base import Context, Form, NodeSigned, Record, require_role
from statelog.records.route_lease import TRAFFIC_CLASSES
from statelog.records.shapes import Fault, fault, fields, integer, list_of, name, one_of, sha256_hex, time
from statelog.state import AuthorityState, Edit


class TrafficAccount(NodeSigned):
    """``rap.fabric.traffic.account.v1``."""

    max_validity_s = ACCOUNT_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.traffic.account.v1",
        {
            "node_id": sha256_hex,
            "since": time,
            "until": time,
            "carried": list_of(
                fields(
                    {
                        "route_id": name,
                        "class": one_of(*TRAFFIC_CLASSES),
                        "frames": integer(0, MAX_INTEGER),
                        "bytes": integer(0, MAX_INTEGER),
                    },
                    {"organization_id": name},
                ),
                0,
                MAX_ACCOUNT_LINES,
            ),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        # Times of the fixed form sort as text.
        if not record["since"] < record["until"] <= record["issued_at"]:
            return fault("after since, and not after issued_at", record["until"]).under("until")
        lines = {(one["route_id"], one["class"]) for one in record["carried"]}
        if len(lines) != len(record["carried"]):
            return fault("each class of a route once", len(record["carried"])).under("carried")
        return None

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["node_id"], record["since"])

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        require_role(state, record["node_id"], "relay", ctx.now, "node_id")
        return ()
