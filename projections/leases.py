"""Which routes are leased (docs/records/, route.lease and route.fence)."""

from __future__ import annotations

from projections.base import AUTHORITY, Change, Fact, Row, Rows, Table, put
from projections.cluster import bootstrap
from projections.fences import TABLE as FENCES
from projections.nodes import TABLE as NODES
from projections.revocations import FENCE, REVOCATION, revoked_node, target

SCHEMA = "rap.fabric.route.lease.v1"

TABLE = Table(
    name="route_lease",
    key=("route_id",),
    columns={
        "route_id": "text",
        "partition": "text",
        "organization_id": "text",
        "service": "text",
        "hops": "json",
        "next_hop_policy": "text",
        "allowed_channels": "json",
        "allowed_classes": "json",
        "allowed_services": "json",
        "alternates": "json",
        "epoch": "integer",
        "record_id": "text",
        "issued_at": "integer",
        "expires_at": "integer",
        "log": "text",
        "log_index": "integer",
        "authority_size": "integer",
        "ended_by": "text",
        "bootstrap": "boolean",
    },
    indexes=(("partition",),),
)


class LeasesProjection:
    """The newest lease of each route.

    `ended_by` names the fence or the revocation of the same log that killed it. A fence kills every lease
    sequenced before it; one that is sequenced later stands, because admission refuses the copies that the
    fence covers. `authority_size` is the size of the authority log that the lease was judged by.
    """

    name = "leases"
    table = TABLE
    schemas = (SCHEMA, FENCE, REVOCATION)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What a lease, a fence or a revocation changes; nothing for any other kind."""
        if fact.schema == SCHEMA:
            return self._lease(rows, fact)
        killed: list[Row] = []
        if fact.schema == FENCE:
            kind, value = target(fact.record)
            killed = [row for row in _standing(rows, fact, kind, value) if _covers(row, kind, value)]
        else:
            node_id = revoked_node(fact)
            if node_id is not None:
                killed = [row for row in _standing(rows, fact, "node_id", node_id) if node_id in row["hops"]]
        return [put(TABLE, {**row, "ended_by": fact.record_id}) for row in killed]

    def _lease(self, rows: Rows, fact: Fact) -> list[Change]:
        record = fact.record
        hops = record.get("hops", [])
        nodes = [rows.get(NODES.name, (hop,)) for hop in hops] if fact.log == AUTHORITY else []
        row = {
            "route_id": record["route_id"],
            "partition": record["partition"],
            "organization_id": record.get("organization_id", ""),
            "service": record["service"],
            "hops": hops,
            "next_hop_policy": record.get("next_hop", {}).get("policy", ""),
            "allowed_channels": record["allowed_channels"],
            "allowed_classes": record["allowed_classes"],
            "allowed_services": record["allowed_services"],
            "alternates": record["alternates"],
            "epoch": record["epoch"],
            "record_id": fact.record_id,
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "log": fact.log,
            "log_index": fact.index,
            "authority_size": fact.judged_at,
            "ended_by": next(
                (node["ended_by"] for node in nodes if node is not None and node["ended_by"]), ""
            ),
            "bootstrap": bootstrap(rows, fact),
        }
        return [put(TABLE, row)]


def ended_elsewhere(lease_log: str, lease_authority_size: int, other_log: str, other_index: int) -> bool:
    """Whether a fence or a revocation that covers a lease's route, partition or hop, and stands at
    `other_index` of another log, comes after the lease.

    What the authority log says comes after a partition's lease unless the lease was judged by it. What a
    partition's log says comes after all leases that the authority log carried before that log was opened.
    """
    if lease_log == other_log:
        return False  # the row says so itself
    return other_log != AUTHORITY or other_index >= lease_authority_size


def ended_by_another(rows: Rows, lease: Row) -> str:
    """The record of another log than the lease's that ended it, if the rows know one, else nothing."""
    own = (("route_id", lease["route_id"]), ("partition", lease["partition"]))
    for key in (*own, *(("node_id", hop) for hop in lease["hops"])):
        fence = rows.get(FENCES.name, key)
        if fence is not None and ended_elsewhere(
            lease["log"], lease["authority_size"], fence["log"], fence["log_index"]
        ):
            return str(fence["record_id"])
    nodes = [rows.get(NODES.name, (hop,)) for hop in lease["hops"]] if lease["log"] != AUTHORITY else []
    return next((node["ended_by"] for node in nodes if node is not None and node["ended_by"]), "")


def _standing(rows: Rows, fact: Fact, kind: str, value: str) -> list[Row]:
    """Leases of the fact's log not yet ended that a target may cover; a node's are sought among all, as
    fences are rare.
    """
    if kind == "route_id":
        row = rows.get(TABLE.name, (value,))
        found = [] if row is None else [row]
    elif kind == "partition":
        found = list(rows.where(TABLE.name, partition=value))
    else:
        found = list(rows.where(TABLE.name))
    return [row for row in found if not row["ended_by"] and row["log"] == fact.log]


def _covers(row: Row, kind: str, value: str) -> bool:
    return value in row["hops"] if kind == "node_id" else bool(row[kind] == value)
