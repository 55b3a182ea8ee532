"""``authority.veto``: the old root is not lost; the recovery under way ends.

Signed by a root quorum of the descriptor in force, while the delay of the intent runs.  A successor of the
descriptor, signed by the root as ever, ends a recovery too.
"""

from __future__ import annotations

from typing import ClassVar

from statelog.changes import EndRecovery
from statelog.errors import refuse
from statelog.limits import MAX_TEXT_CHARS, RECOVERY_MAX_VALIDITY_S
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import sha256_hex, text
from statelog.state import ROOT, AuthorityState, Edit
from statelog.times import format_time


class AuthorityVeto(Kind):
    """``rap.fabric.authority.veto.v1``."""

    max_validity_s = RECOVERY_MAX_VALIDITY_S
    outlives_descriptor: ClassVar[bool] = True
    form = Form("rap.fabric.authority.veto.v1", {"intent": sha256_hex, "reason": text(MAX_TEXT_CHARS)})

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["intent"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return ROOT, None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        pending = state.recovery
        if pending is None or pending.record_id != record["intent"]:
            raise refuse(
                "SL-RECOVERY", "no such recovery is under way", path="intent", found=record["intent"]
            )
        if ctx.now >= pending.due_at:
            raise refuse("SL-RECOVERY", "the delay is over", expected=f"before {format_time(pending.due_at)}")
        return (EndRecovery(),)
