"""Projections of services, relays, directories, releases, shards, seeds, snapshots and recovery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COLUMNS = {"text": sa.Text, "json": sa.Text, "integer": sa.BigInteger, "boolean": sa.Boolean}
_HEADER = {
    "epoch": "integer",
    "record_id": "text",
    "issued_at": "integer",
    "expires_at": "integer",
    "log": "text",
    "log_index": "integer",
    "bootstrap": "boolean",
}
# table -> (columns of its key, its own columns)
_TABLES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "service_lease": (
        ("service",),
        {"service": "text", "mode": "text", "leader": "text", "replicas": "json"},
    ),
    "relay_assignment": (
        ("partition",),
        {"partition": "text", "relays": "json", "rendezvous": "json"},
    ),
    "peer_directory": (
        ("partition",),
        {"partition": "text", "node_count": "integer", "directory_root": "text"},
    ),
    "update_release": (
        ("product", "channel"),
        {
            "product": "text",
            "channel": "text",
            "version": "text",
            "artifacts": "json",
            "compatibility": "json",
            "rollback": "json",
            "rollout": "json",
        },
    ),
    "shard_manifest": (
        ("shard_set_id",),
        {
            "shard_set_id": "text",
            "object": "json",
            "cipher": "text",
            "code": "json",
            "replication_factor": "integer",
            "shards": "json",
            "retention_until": "integer",
            "recovery_epoch": "integer",
        },
    ),
    "seed_set": (
        ("platform", "site"),
        {"platform": "text", "site": "text", "anchor": "text", "endpoints": "json"},
    ),
    "log_snapshot": (
        ("log",),
        {"log": "text", "size": "integer", "root": "text", "state_root": "text", "projections": "json"},
    ),
}
_RECOVERY = {
    "cluster_id": "text",
    "sets": "json",
    "intent": "text",
    "descriptor": "text",
    "shown": "json",
    "due_at": "integer",
    "record_id": "text",
    "log_index": "integer",
    "bootstrap": "boolean",
}


def upgrade() -> None:
    for name, (key, own) in _TABLES.items():
        _create(name, key, {**own, **_HEADER})
    _create("recovery", ("cluster_id",), _RECOVERY)


def downgrade() -> None:
    for name in ("recovery", *reversed(_TABLES)):
        op.drop_table(name)


def _create(name: str, key: tuple[str, ...], columns: dict[str, str]) -> None:
    op.create_table(
        name,
        *(sa.Column(column, _COLUMNS[kind], nullable=False) for column, kind in columns.items()),
        sa.PrimaryKeyConstraint(*key, name=f"pk_{name}"),
    )
