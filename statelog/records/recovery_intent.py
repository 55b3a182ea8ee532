"""``authority.recovery_intent``: the root is lost; here is who replaces it, unless the root says no in time.

Signed with recovery keys, of which the descriptor has pinned only the hashes.  The log's time of the intent
starts the delay.  While it runs the old root may veto; then the descriptor that the intent names needs the
recovery quorum alone.  That descriptor opens a term of the sequencers named here and is the first entry of
it, so neither a lost control quorum nor a silent sequencer can stop a recovery that the log has seen begin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from statelog.changes import BeginRecovery
from statelog.errors import Refused, refuse
from statelog.limits import (
    MAX_KEYS_IN_SET,
    MAX_SEQUENCERS,
    MIN_PRODUCTION_THRESHOLD,
    RECOVERY_MAX_VALIDITY_S,
)
from statelog.quorum import Key, KeySet
from statelog.records import keys
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.descriptor import WITNESSES, witness_set_of
from statelog.records.shapes import list_of, sha256_hex
from statelog.records.term import SEQUENCER, sequencers_of
from statelog.signing import key_id_of
from statelog.state import RECOVERY, AuthorityState, Edit, PendingRecovery


class RecoveryIntent(Kind):
    """``rap.fabric.authority.recovery_intent.v1``."""

    max_validity_s = RECOVERY_MAX_VALIDITY_S
    outlives_descriptor: ClassVar[bool] = True
    new_role: ClassVar[str] = RECOVERY
    form = Form(
        "rap.fabric.authority.recovery_intent.v1",
        {
            "descriptor": sha256_hex,
            "keys": list_of(keys.KEY, 1, MAX_KEYS_IN_SET),
            "sequencers": list_of(SEQUENCER, 1, MAX_SEQUENCERS),
            "witnesses": WITNESSES,
        },
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        return ("cluster",)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return RECOVERY, None

    def new_keys(self, record: Record) -> Mapping[str, Key]:
        shown = [keys.key_of(entry) for entry in record["keys"]]
        return {key.key_id: key for key in shown if key_id_of(key.public) == key.key_id}

    def quorums(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[KeySet, ...]:
        recovery = state.recovery_in_force(ctx.now)
        if not recovery.key_sha256:
            raise refuse("SL-ROLE", "this cluster has no recovery keys", path="issuer_role")
        if state.mode == "production" and recovery.threshold < MIN_PRODUCTION_THRESHOLD:
            raise refuse("SL-PRODUCTION", "recovery needs two people", found=recovery.threshold)
        pinned = [key for key_id, key in self.new_keys(record).items() if key_id in recovery.key_sha256]
        return (KeySet(RECOVERY, None, recovery.threshold, tuple(pinned)),)

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        recovery = state.recovery_in_force(ctx.now)
        keys.check_listed(state, record["keys"], "keys", "recovery", ctx)
        for position, entry in enumerate(record["keys"]):
            if entry["key_id"] not in recovery.key_sha256:
                raise _not_pinned(f"keys[{position}]", entry["key_id"])
        (holders,) = self.quorums(record, state, ctx)
        keys.check_set(holders, "keys")
        keys.check_listed(state, record["witnesses"]["keys"], "witnesses.keys", "witness", ctx)
        witnesses = witness_set_of(record["witnesses"])
        if witnesses.fault is not None:
            raise Refused(witnesses.fault.under("witnesses"))
        keys.check_names(state, witnesses, "witnesses.keys")
        sequencers = sequencers_of(record, state, ctx)
        watching = {key.key_id for key in witnesses.keys}
        for position, sequencer in enumerate(sequencers):
            if sequencer.key_id in watching:
                where = f"sequencers[{position}]"
                raise refuse("SL-KEY", "a key serves two purposes", path=where, found=sequencer.key_id)
        pending = PendingRecovery(
            record_id=ctx.record_id,
            descriptor=record["descriptor"],
            holders=holders,
            due_at=ctx.now + recovery.delay_s,
            sequencers=sequencers,
            witnesses=witnesses,
        )
        return (BeginRecovery(pending),)


def _not_pinned(path: str, key_id: str) -> Refused:
    return refuse("SL-KEY", "not a recovery key that the descriptor pins", path=path, found=key_id)
