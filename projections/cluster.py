"""The descriptor in force: the cluster's mode and the limits that readers show (docs/records/)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from projections.base import Change, Fact, Rows, Table, put

SCHEMA = "rap.fabric.authority.descriptor.v1"

TABLE = Table(
    name="cluster",
    key=("cluster_id",),
    columns={
        "cluster_id": "text",
        "mode": "text",
        "epoch": "integer",
        "record_id": "text",
        "clock_skew_s": "integer",
        "max_checkpoint_age_s": "integer",
        "issued_at": "integer",
        "expires_at": "integer",
        "log_index": "integer",
        "production_from": "integer",  # index of the descriptor that left development mode; 0 before it
        "keys": "json",
        "root": "json",
        "control": "json",
        "witnesses": "json",
    },
)


class ClusterProjection:
    """One row: the newest descriptor."""

    name = "cluster"
    table = TABLE
    schemas = (SCHEMA,)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What the descriptor changes; nothing for any other kind."""
        if fact.schema != SCHEMA:
            return []
        record = fact.record
        before = rows.get(TABLE.name, (record["cluster_id"],))
        if before is not None and before["mode"] == "production":
            production_from = before["production_from"]
        else:
            production_from = fact.index if record["mode"] == "production" else 0
        witnesses = record["witnesses"]
        keys = witnesses["keys"]
        row = {
            "cluster_id": record["cluster_id"],
            "mode": record["mode"],
            "epoch": record["epoch"],
            "record_id": fact.record_id,
            "clock_skew_s": record["clock_skew_s"],
            "max_checkpoint_age_s": record["max_checkpoint_age_s"],
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "log_index": fact.index,
            "production_from": production_from,
            "keys": public_keys(record["keys"]),
            "root": record["root"],
            "control": record["control"],
            "witnesses": {
                "threshold": witnesses["threshold"],
                "faulty": witnesses["faulty"],
                "keys": [
                    {"name": key["name"], **public}
                    for key, public in zip(keys, public_keys(keys), strict=True)
                ],
            },
        }
        return [put(TABLE, row)]


def public_keys(keys: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """What readers need of KEY objects: who holds them and how, without points and proofs."""
    return [{name: key[name] for name in ("key_id", "issuer_id", "custody")} for key in keys]


def bootstrap(rows: Rows, fact: Fact) -> bool:
    """Whether the descriptor that `fact` was judged by is a development one: what it admits is marked so
    everywhere.
    """
    row = rows.get(TABLE.name, (fact.record["cluster_id"],))
    if row is None:
        return False
    return bool(row["mode"] == "development" or fact.judged_at <= row["production_from"] > 0)
