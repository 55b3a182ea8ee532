"""``authority.members``: who speaks for route, update, storage or observer authority.

Signed by the control quorum, so that the root stays offline.  Without ``partition`` the set speaks wherever
a partition has none of its own.
"""

from __future__ import annotations

from statelog.changes import InstallMembers
from statelog.errors import refuse
from statelog.limits import MAX_KEYS_IN_SET, MEMBERS_MAX_VALIDITY_S, MIN_PRODUCTION_THRESHOLD
from statelog.quorum import KeySet
from statelog.records import keys
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import integer, list_of, one_of, partition
from statelog.state import CONTROL, OBSERVER, ROUTE, STORAGE, UPDATE, AuthorityState, Edit


class AuthorityMembers(Kind):
    """``rap.fabric.authority.members.v1``."""

    max_validity_s = MEMBERS_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.authority.members.v1",
        {
            "role": one_of(ROUTE, UPDATE, STORAGE, OBSERVER),
            "threshold": integer(1, MAX_KEYS_IN_SET),
            "keys": list_of(keys.KEY, 1, MAX_KEYS_IN_SET),
        },
        {"partition": partition},
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["role"], record.get("partition", ""))

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return CONTROL, None

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        keys.check_listed(state, record["keys"], "keys", "authority", ctx)
        key_set = _key_set(record, ctx)
        keys.check_set(key_set, "threshold")
        if state.mode == "production":
            _check_production(key_set, state)
        return (InstallMembers(key_set),)


def _check_production(key_set: KeySet, state: AuthorityState) -> None:
    for position, key in enumerate(key_set.keys):
        if key.key_id in state.descriptor.root.by_id:
            raise refuse("SL-PRODUCTION", "a root key serves no other role", path=f"keys[{position}]")
    # Observers report and change nothing, so one of them may speak.
    if key_set.role != OBSERVER and key_set.threshold < MIN_PRODUCTION_THRESHOLD:
        raise refuse("SL-PRODUCTION", "one key must not be enough", path="threshold", found=key_set.threshold)


def _key_set(record: Record, ctx: Context) -> KeySet:
    return KeySet(
        record["role"],
        record.get("partition"),
        record["threshold"],
        tuple(keys.key_of(entry) for entry in record["keys"]),
        expires_at=ctx.expires_at,
        bootstrap=ctx.bootstrap,
    )
