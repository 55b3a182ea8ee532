"""The projections: read models folded from the log, their cursor, and what a node found out itself."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _services()
    _authority()
    op.create_table(
        "registry_local",
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("verified_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("record_id", name="pk_registry_local"),
    )
    op.create_table(
        "projection_cursor",
        sa.Column("log", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("fold_version", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("log", name="pk_projection_cursor"),
    )


def _services() -> None:
    op.create_table(
        "registry_record",
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("generation", sa.Text, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("issuer_node_id", sa.Text, nullable=False),
        sa.Column("issuer_role", sa.Text, nullable=False),
        sa.Column("endpoints", sa.Text, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("record_id", name="pk_registry_record"),
    )
    op.create_index(
        "ix_registry_record_service_scope_organization_id",
        "registry_record",
        ["service", "scope", "organization_id"],
    )
    op.create_table(
        "route_lease",
        sa.Column("route_id", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("organization_id", sa.Text, nullable=False),
        sa.Column("service", sa.Text, nullable=False),
        sa.Column("hops", sa.Text, nullable=False),
        sa.Column("next_hop_policy", sa.Text, nullable=False),
        sa.Column("allowed_channels", sa.Text, nullable=False),
        sa.Column("allowed_classes", sa.Text, nullable=False),
        sa.Column("allowed_services", sa.Text, nullable=False),
        sa.Column("alternates", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("route_id", name="pk_route_lease"),
    )
    op.create_index("ix_route_lease_partition", "route_lease", ["partition"])


def _authority() -> None:
    op.create_table(
        "node",
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("public", sa.Text, nullable=False),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("trust_tier", sa.Text, nullable=False),
        sa.Column("organizations", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_node"),
    )
    op.create_table(
        "role_certificate",
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("node_id", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("parent", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("delegation_depth", sa.BigInteger, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("ended_by", sa.Text, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("record_id", name="pk_role_certificate"),
    )
    op.create_index("ix_role_certificate_node_id", "role_certificate", ["node_id"])
    op.create_index("ix_role_certificate_parent", "role_certificate", ["parent"])
    op.create_table(
        "policy",
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("policy", name="pk_policy"),
    )
    op.create_table(
        "members",
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("partition", sa.Text, nullable=False),
        sa.Column("threshold", sa.BigInteger, nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("bootstrap", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("role", "partition", name="pk_members"),
    )
    op.create_table(
        "cluster",
        sa.Column("cluster_id", sa.Text, nullable=False),
        sa.Column("mode", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("record_id", sa.Text, nullable=False),
        sa.Column("clock_skew_s", sa.BigInteger, nullable=False),
        sa.Column("max_checkpoint_age_s", sa.BigInteger, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("log_index", sa.BigInteger, nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        sa.Column("root", sa.Text, nullable=False),
        sa.Column("control", sa.Text, nullable=False),
        sa.Column("witnesses", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("cluster_id", name="pk_cluster"),
    )


def downgrade() -> None:
    for name in (
        "cluster",
        "members",
        "policy",
        "role_certificate",
        "node",
        "route_lease",
        "registry_record",
        "registry_local",
        "projection_cursor",
    ):
        op.drop_table(name)
