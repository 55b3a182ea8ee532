"""``role.revocation``: a certificate, or a node id with everything it holds, is gone for good.

Acts ahead of the log: a stolen key must lose its rights before anybody can reach a sequencer.
"""

from __future__ import annotations

from typing import ClassVar

from statelog.changes import Revoke
from statelog.limits import MAX_TEXT_CHARS, REVOCATION_MAX_VALIDITY_S
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import one_field_of, sha256_hex, text
from statelog.state import CONTROL, AuthorityState, Edit, Mark, Target


class RoleRevocation(Kind):
    """``rap.fabric.role.revocation.v1``."""

    max_validity_s = REVOCATION_MAX_VALIDITY_S
    acts_unlogged: ClassVar[bool] = True
    form = Form(
        "rap.fabric.role.revocation.v1",
        {
            "target": one_field_of(certificate=sha256_hex, node_id=sha256_hex),
            "reason": text(MAX_TEXT_CHARS),
        },
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        ((kind, target),) = record["target"].items()
        return (kind, target)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        return (Revoke(Target(*self.subject(record)), Mark(ctx.record_id, ctx.issued_at, None)),)
