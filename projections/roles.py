"""Which node holds which role (docs/records/, role.certificate and role.revocation)."""

from __future__ import annotations

from projections.base import Change, Delete, Fact, Row, Rows, Table, put
from projections.cluster import bootstrap
from projections.revocations import REVOCATION, revoked_certificate, revoked_node

SCHEMA = "rap.fabric.role.certificate.v1"

TABLE = Table(
    name="role_certificate",
    key=("record_id",),
    columns={
        "record_id": "text",
        "node_id": "text",
        "role": "text",
        "parent": "text",
        "scope": "json",
        "delegation_depth": "integer",
        "epoch": "integer",
        "issued_at": "integer",
        "expires_at": "integer",
        "log_index": "integer",
        "ended_by": "text",
        "bootstrap": "boolean",
    },
    indexes=(("node_id",), ("parent",)),
)


class RolesProjection:
    """The newest certificate of each (node, role, parent).

    `ended_by` names what ended it: a revocation of it, of its node or of one above it, or the renewal of
    one above it, since a delegation descends from one certificate and not from its successor.
    """

    name = "roles"
    table = TABLE
    schemas = (SCHEMA, REVOCATION)

    def fold(self, rows: Rows, fact: Fact) -> list[Change]:
        """What a certificate or a revocation changes; nothing for any other kind."""
        node_id, certificate = revoked_node(fact), revoked_certificate(fact)
        if node_id is not None:
            return _end(rows, list(rows.where(TABLE.name, node_id=node_id)), fact.record_id)
        if certificate is not None:
            row = rows.get(TABLE.name, (certificate,))
            return [] if row is None else _end(rows, [row], fact.record_id)
        return self._certificate(rows, fact) if fact.schema == SCHEMA else []

    def _certificate(self, rows: Rows, fact: Fact) -> list[Change]:
        record = fact.record
        parent = record["parent"] or ""
        changes: list[Change] = []
        for old in rows.where(TABLE.name, node_id=record["node_id"], role=record["role"], parent=parent):
            changes.append(Delete(TABLE.name, TABLE.key_of(old)))
            changes += _end(rows, list(rows.where(TABLE.name, parent=old["record_id"])), fact.record_id)
        row = {
            "record_id": fact.record_id,
            "node_id": record["node_id"],
            "role": record["role"],
            "parent": parent,
            "scope": record["scope"],
            "delegation_depth": record["delegation_depth"],
            "epoch": record["epoch"],
            "issued_at": fact.issued_at,
            "expires_at": fact.expires_at,
            "log_index": fact.index,
            "ended_by": "",
            "bootstrap": bootstrap(rows, fact),
        }
        return [*changes, put(TABLE, row)]


def _end(rows: Rows, ended: list[Row], by: str) -> list[Change]:
    """Ends certificates and, down the delegation chains, all that hangs from them."""
    changes: list[Change] = []
    seen: set[str] = set()
    while ended:
        row = ended.pop()
        if row["record_id"] in seen:
            continue
        seen.add(row["record_id"])
        if not row["ended_by"]:
            changes.append(put(TABLE, {**row, "ended_by": by}))
        ended.extend(rows.where(TABLE.name, parent=row["record_id"]))
    return sorted(changes, key=lambda change: change.key)
