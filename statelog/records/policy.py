"""``policy.epoch``: a signed policy document, with examples of what it must allow and deny.

The document's own language belongs to those who evaluate it; here it is an object of the canonical profile.
"""

from __future__ import annotations

from typing import ClassVar

from statelog.changes import SetPolicy
from statelog.limits import POLICY_MAX_VALIDITY_S
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import fields, json_object, list_of, name, one_of
from statelog.state import CONTROL, AuthorityState, Edit, Policy


class PolicyEpoch(Kind):
    """``rap.fabric.policy.epoch.v1``."""

    max_validity_s = POLICY_MAX_VALIDITY_S
    free_form: ClassVar[bool] = True
    form = Form(
        "rap.fabric.policy.epoch.v1",
        {
            "policy": name,
            "document": json_object,
            "assertions": list_of(fields({"given": json_object, "expect": one_of("allow", "deny")})),
        },
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["policy"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        policy = Policy(
            record_id=ctx.record_id,
            policy=record["policy"],
            epoch=record["epoch"],
            document=record["document"],
            expires_at=ctx.expires_at,
            bootstrap=ctx.bootstrap,
        )
        return (SetPolicy(policy),)
