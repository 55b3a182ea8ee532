"""``node.approval``: a node is known to the cluster, with its key, its trust and its organizations.

``node_id`` is the SHA-256 of the node's 32 public bytes, so an approval can never be moved to another key.
"""

from __future__ import annotations

from statelog.changes import ApproveNode
from statelog.errors import refuse
from statelog.limits import APPROVAL_MAX_VALIDITY_S, MAX_TEXT_CHARS
from statelog.records import keys
from statelog.records.base import Concerns, Context, Form, Kind, Record
from statelog.records.shapes import name_list, one_of, public_key, sha256_hex, text
from statelog.signing import key_id_of
from statelog.state import CONTROL, AuthorityState, Edit, Node, Target


class NodeApproval(Kind):
    """``rap.fabric.node.approval.v1``."""

    max_validity_s = APPROVAL_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.node.approval.v1",
        {
            "node_id": sha256_hex,
            "public": public_key,
            "display_name": text(MAX_TEXT_CHARS),
            "trust_tier": one_of("candidate", "standard", "trusted"),
            "organizations": name_list(),
        },
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["node_id"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def concerns(self, record: Record, record_id: str) -> Concerns:
        return ((Target("node_id", record["node_id"]), "node_id"),)

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        public = keys.bytes_of(record["public"])
        if key_id_of(public) != record["node_id"]:
            raise refuse(
                "SL-KEY",
                "the node id is not the SHA-256 of the public bytes",
                path="node_id",
                expected=key_id_of(public),
                found=record["node_id"],
            )
        keys.check_public(public, "")
        keys.check_use(state, record["node_id"], "public", "node")
        node = Node(
            node_id=record["node_id"],
            public=public,
            display_name=record["display_name"],
            trust_tier=record["trust_tier"],
            organizations=tuple(record["organizations"]),
            record_id=ctx.record_id,
            expires_at=ctx.expires_at,
            bootstrap=ctx.bootstrap,
        )
        return (ApproveNode(node),)
