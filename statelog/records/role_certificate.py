"""``role.certificate``: a node holds a role, within a scope.

Signed by the control quorum, or, below a ``parent`` that may delegate, by the node that holds the parent.
Delegation only narrows: the same role for another node, a scope and a time within the parent's, a strictly
falling ``delegation_depth``, at most `limits.MAX_CHAIN` certificates in a chain.  A certificate ends with its
parent: when that expires, is revoked, or is replaced by a later one of the same subject.
"""

from __future__ import annotations

from typing import Final

from statelog.changes import GrantCertificate
from statelog.errors import refuse
from statelog.limits import CERTIFICATE_MAX_VALIDITY_S, MAX_CHAIN
from statelog.quorum import KeySet
from statelog.records.base import (
    Concerns,
    Context,
    Form,
    Kind,
    Record,
    key_set_in_force,
    node_key_set,
    require_node,
)
from statelog.records.shapes import fields, integer, name_list, nullable, one_of, sha256_hex
from statelog.state import CONTROL, NODE, AuthorityState, Certificate, Edit, Scope, Target

_DIMENSIONS: Final = ("actions", "organizations", "services", "partitions")
_ALL: Final = frozenset({"*"})

ROLES: Final = (
    "mobile-edge",
    "entry",
    "relay",
    "exit",
    "service-host",
    "control-plane",
    "route-coordinator",
    "storage",
    "observer",
    "update-cache",
)
UNDELEGABLE: Final = frozenset({"control-plane", "route-coordinator", "storage", "relay", "update-cache"})


class RoleCertificate(Kind):
    """``rap.fabric.role.certificate.v1``."""

    max_validity_s = CERTIFICATE_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.role.certificate.v1",
        {
            "node_id": sha256_hex,
            "role": one_of(*ROLES),
            "scope": fields({dimension: name_list(wildcard=True) for dimension in _DIMENSIONS}),
            "delegation_depth": integer(0, MAX_CHAIN),
            "parent": nullable(sha256_hex),
        },
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["node_id"], record["role"], record["parent"] or "")

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return (CONTROL if record["parent"] is None else NODE), None

    def quorums(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[KeySet, ...]:
        if record["parent"] is None:
            return (key_set_in_force(state, CONTROL, None, ctx.now),)
        return (node_key_set(require_node(state, _parent(record, state, ctx).node_id, ctx.now, "parent")),)

    def concerns(self, record: Record, record_id: str) -> Concerns:
        own = ((Target("node_id", record["node_id"]), "node_id"), (Target("certificate", record_id), ""))
        parent = record["parent"]
        return own if parent is None else (*own, (Target("certificate", parent), "parent"))

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        require_node(state, record["node_id"], ctx.now, "node_id")
        parent = None
        if record["parent"] is not None:
            parent = _parent(record, state, ctx)
            _check_narrower(record, parent, state, ctx)
        previous = state.subjects.get((self.name, *self.subject(record)))
        certificate = Certificate(
            record_id=ctx.record_id,
            node_id=record["node_id"],
            role=record["role"],
            scope=_resolved(record, parent),
            delegation_depth=record["delegation_depth"],
            parent=record["parent"],
            depth=1 if parent is None else parent.depth + 1,
            issued_at=ctx.issued_at,
            expires_at=ctx.expires_at,
            bootstrap=ctx.bootstrap,
        )
        return (GrantCertificate(certificate, previous.record_id if previous is not None else None),)


def _parent(record: Record, state: AuthorityState, ctx: Context) -> Certificate:
    target = Target("certificate", record["parent"])
    if target in state.revoked:
        raise refuse("SL-REVOKED", "the parent certificate was revoked", path="parent", found=target.id)
    parent = state.certificate_in_force(target.id, ctx.now)
    if parent is None:
        raise refuse("SL-DELEGATION", "the parent is no certificate in force", path="parent", found=target.id)
    return parent


def _check_narrower(record: Record, parent: Certificate, state: AuthorityState, ctx: Context) -> None:
    """Every dimension of a delegated certificate lies within its parent's."""
    if record["role"] != parent.role or record["role"] in UNDELEGABLE:
        raise refuse(
            "SL-ROLE",
            f"{record['role']} cannot be delegated here",
            path="role",
            expected=f"{parent.role}, and none of {', '.join(sorted(UNDELEGABLE))}",
            found=record["role"],
        )
    if record["node_id"] in _holders(parent, state):
        raise refuse("SL-ROLE", "nobody gets a role from their own signature", path="node_id")
    if record["delegation_depth"] >= parent.delegation_depth:
        raise refuse(
            "SL-DELEGATION",
            "the delegation depth must fall",
            path="delegation_depth",
            expected=f"less than {parent.delegation_depth}",
            found=record["delegation_depth"],
        )
    if parent.depth >= MAX_CHAIN:
        raise refuse("SL-DELEGATION", "the chain is too long", path="parent", expected=f"at most {MAX_CHAIN}")
    if ctx.issued_at < parent.issued_at or ctx.expires_at > parent.expires_at:
        raise refuse("SL-VALIDITY", "valid outside the time of its parent", path="expires_at")
    for dimension in _DIMENSIONS:
        asked, allowed = record["scope"][dimension], getattr(parent.scope, dimension)
        if asked != ["*"] and allowed != _ALL and not allowed.issuperset(asked):
            raise refuse(
                "SL-SCOPE",
                "claims more than its parent",
                path=f"scope.{dimension}",
                expected=", ".join(sorted(allowed)) or "nothing",
                found=", ".join(asked),
            )


def _holders(certificate: Certificate, state: AuthorityState) -> set[str]:
    """The nodes from ``certificate`` up to the quorum-signed one."""
    holders = {certificate.node_id}
    while certificate.parent is not None:
        certificate = state.certificates[certificate.parent]
        holders.add(certificate.node_id)
    return holders


def _resolved(record: Record, parent: Certificate | None) -> Scope:
    """The scope with ``["*"]`` replaced by what the parent allows."""

    def one(dimension: str) -> frozenset[str]:
        asked = frozenset(record["scope"][dimension])
        if parent is not None and asked == _ALL:
            inherited: frozenset[str] = getattr(parent.scope, dimension)
            return inherited
        return asked

    return Scope(*(one(dimension) for dimension in _DIMENSIONS))
