"""``authority.descriptor``: who is root, who is control, who witnesses, and how a lost root is replaced.

Signed by a root quorum: of the descriptor in force *and* of its own.  Its epoch is exactly the last plus one,
so that a node that was away for years can follow the chain step by step.  Where the root is lost, the
descriptor that a recovery intent has named is signed by its recovery keys alone, once the delay is over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from statelog.changes import BeginTerm, InstallDescriptor
from statelog.errors import Refused, UsageError, refuse
from statelog.limits import (
    DESCRIPTOR_MAX_VALIDITY_S,
    MAX_CHECKPOINT_AGE_S,
    MAX_CLOCK_SKEW_S,
    MAX_KEYS_IN_SET,
    MAX_RECOVERY_DELAY_S,
    MAX_SIGNATURES,
    MIN_PRODUCTION_FAULTY_WITNESSES,
    MIN_PRODUCTION_THRESHOLD,
)
from statelog.quorum import Key, KeySet
from statelog.records import keys
from statelog.records.base import Context, Form, Kind, Record
from statelog.records.shapes import fields, integer, list_of, one_of, sha256_hex
from statelog.signing import key_id_of
from statelog.state import (
    AUTHORITY_LOG,
    CONTROL,
    RECOVERY,
    ROOT,
    AuthorityState,
    Descriptor,
    Edit,
    PendingRecovery,
    Recovery,
    Term,
    WitnessSet,
)
from statelog.times import format_time, parse_time

_HOLDERS = fields(
    {
        "threshold": integer(1, MAX_KEYS_IN_SET),
        "key_ids": list_of(sha256_hex, 1, MAX_KEYS_IN_SET, distinct=True),
    }
)

WITNESSES: Final = fields(
    {
        "threshold": integer(1, MAX_KEYS_IN_SET),
        "faulty": integer(0, MAX_KEYS_IN_SET),
        "keys": list_of(keys.WITNESS_KEY, 1, MAX_KEYS_IN_SET),
    }
)


class AuthorityDescriptor(Kind):
    """``rap.fabric.authority.descriptor.v1``."""

    max_validity_s = DESCRIPTOR_MAX_VALIDITY_S
    outlives_descriptor: ClassVar[bool] = True
    opens_term: ClassVar[bool] = True  # that of a recovery
    form = Form(
        "rap.fabric.authority.descriptor.v1",
        {
            "mode": one_of("development", "production"),
            "clock_skew_s": integer(0, MAX_CLOCK_SKEW_S),
            "max_checkpoint_age_s": integer(1, MAX_CHECKPOINT_AGE_S),
            "keys": list_of(keys.KEY, 1, 2 * MAX_KEYS_IN_SET),
            "root": _HOLDERS,
            "control": _HOLDERS,
            "witnesses": WITNESSES,
            "recovery": fields(
                {
                    "threshold": integer(0, MAX_KEYS_IN_SET),
                    "key_sha256": list_of(sha256_hex, 0, MAX_KEYS_IN_SET, distinct=True),
                    "delay_s": integer(0, MAX_RECOVERY_DELAY_S),
                }
            ),
        },
    )

    def subject(self, record: Record) -> tuple[str, ...]:
        return ("cluster",)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return (RECOVERY if _recovers(record) else ROOT), None

    def new_keys(self, record: Record) -> Mapping[str, Key]:
        if _recovers(record):
            return {}
        listed = {entry["key_id"]: keys.key_of(entry) for entry in record["keys"]}
        # An id that is not its key's hash opens nothing; `check` names it.
        return {
            key_id: listed[key_id]
            for key_id in record["root"]["key_ids"]
            if key_id in listed and key_id_of(listed[key_id].public) == key_id
        }

    def quorums(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[KeySet, ...]:
        if _recovers(record):
            pending = _recovery_of(state, ctx)
            # Before an intent has shown the keys there is nobody who could sign; such a set is never met.
            nobody = KeySet(RECOVERY, None, state.recovery_in_force(ctx.now).threshold, ())
            return (nobody if pending is None else pending.holders,)
        coming = KeySet(ROOT, None, record["root"]["threshold"], tuple(self.new_keys(record).values()))
        return (state.root_before(record["epoch"]), coming)

    def check_epoch(self, record: Record, last: int) -> None:
        if record["epoch"] != last + 1:
            raise refuse(
                "SL-EPOCH",
                "descriptors follow one by one",
                path="epoch",
                expected=last + 1,
                found=record["epoch"],
            )

    def check_due(self, record: Record, state: AuthorityState, ctx: Context) -> None:
        if not _recovers(record):
            return
        pending = _recovery_of(state, ctx)
        if pending is None:
            raise refuse("SL-RECOVERY", "no intent under way names this descriptor", found=ctx.record_id)
        if ctx.now < pending.due_at:
            due = format_time(pending.due_at)
            raise refuse("SL-RECOVERY", "the delay is not over", expected=f"at {due} or later")

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        keys.check_listed(state, record["keys"], "keys", "authority", ctx)
        keys.check_listed(state, record["witnesses"]["keys"], "witnesses.keys", "witness", ctx)
        _check_references(record)
        new = descriptor_of(record, ctx.record_id)
        _check_sets(new)
        keys.check_names(state, new.witnesses, "witnesses.keys")
        _check_purposes(new, state)
        _check_recovery(new.recovery)
        if state.mode == "production" and new.mode != "production":
            raise refuse(
                "SL-MODE", "the mode never moves back", path="mode", expected="production", found=new.mode
            )
        if new.mode == "production":
            _check_production(new, state)
        install = InstallDescriptor(new, ctx.now)
        pending = _recovery_of(state, ctx) if _recovers(record) else None
        return (install,) if pending is None else (install, _next_term(new, pending, state, ctx))


def _recovers(record: Record) -> bool:
    """Whether recovery keys sign in place of the root: the record itself says so."""
    return bool(record["issuer_role"] == RECOVERY)


def _recovery_of(state: AuthorityState, ctx: Context) -> PendingRecovery | None:
    """The recovery under way that ends in this very descriptor."""
    pending = state.recovery
    return pending if pending is not None and pending.descriptor == ctx.record_id else None


def _next_term(new: Descriptor, pending: PendingRecovery, state: AuthorityState, ctx: Context) -> BeginTerm:
    """The term that a recovery's descriptor opens: the intent's sequencers write from this entry on."""
    if new.witnesses != pending.witnesses:
        raise refuse("SL-RECOVERY", "not the witnesses that the intent named", path="witnesses")
    root = ctx.log.root_at(ctx.log.size) if ctx.log is not None else None
    if ctx.log is None or root is None:
        raise UsageError("a descriptor of a recovery is judged against its log: pass log=")
    previous = state.terms[AUTHORITY_LOG]
    return BeginTerm(Term(AUTHORITY_LOG, previous.term + 1, ctx.log.size, root, pending.sequencers))


def descriptor_of(record: Record, record_id: str) -> Descriptor:
    """The descriptor that ``record`` states; its shape is right, no rule has been checked."""
    listed = {entry["key_id"]: keys.key_of(entry) for entry in record["keys"]}

    def holders(role: str, part: Mapping[str, Any]) -> KeySet:
        found = tuple(listed[key_id] for key_id in part["key_ids"] if key_id in listed)
        return KeySet(role, None, part["threshold"], found)

    recovery = record["recovery"]
    return Descriptor(
        record_id=record_id,
        epoch=record["epoch"],
        mode=record["mode"],
        clock_skew_s=record["clock_skew_s"],
        max_checkpoint_age_s=record["max_checkpoint_age_s"],
        issued_at=parse_time(record["issued_at"]),
        expires_at=parse_time(record["expires_at"]),
        root=holders(ROOT, record["root"]),
        control=holders(CONTROL, record["control"]),
        witnesses=witness_set_of(record["witnesses"]),
        recovery=Recovery(recovery["threshold"], tuple(recovery["key_sha256"]), recovery["delay_s"]),
    )


def witness_set_of(part: Mapping[str, Any]) -> WitnessSet:
    """The witness set that a ``witnesses`` object states; not yet checked by any rule."""
    found = tuple(keys.witness_key_of(entry) for entry in part["keys"])
    return WitnessSet(part["threshold"], part["faulty"], found)


def _check_references(record: Record) -> None:
    """Root and control name only listed keys, and every listed key is named."""
    listed = {entry["key_id"] for entry in record["keys"]}
    named: set[str] = set()
    for part in ("root", "control"):
        for position, key_id in enumerate(record[part]["key_ids"]):
            if key_id not in listed:
                where = f"{part}.key_ids[{position}]"
                raise refuse("SL-KEY", "names a key that is not listed", path=where, found=key_id)
            named.add(key_id)
    if listed != named:
        raise refuse("SL-KEY", "lists a key that has no role", path="keys", found=min(listed - named))


def _check_sets(new: Descriptor) -> None:
    keys.check_set(new.root, "root")
    keys.check_set(new.control, "control")
    fault = new.witnesses.fault
    if fault is not None:
        raise Refused(fault.under("witnesses"))


def _check_purposes(new: Descriptor, state: AuthorityState) -> None:
    """Authority, witness and recovery keys of one descriptor are pairwise distinct."""
    authority = {key.key_id for key in (*new.root.keys, *new.control.keys)}
    witness = {key.key_id for key in new.witnesses.keys}
    recovery = set(new.recovery.key_sha256)
    for path, clash in (
        ("witnesses.keys", authority & witness),
        ("recovery.key_sha256", recovery & (authority | witness)),
    ):
        if clash:
            raise refuse("SL-KEY", "a key serves two purposes", path=path, found=min(clash))
    for position, key_id in enumerate(new.recovery.key_sha256):
        keys.check_use(state, key_id, f"recovery.key_sha256[{position}]", "recovery")


def _check_recovery(recovery: Recovery) -> None:
    """A recovery quorum that can be met; no recovery at all is threshold 0 and no keys."""
    count = min(len(recovery.key_sha256), MAX_SIGNATURES)
    if not min(1, count) <= recovery.threshold <= count:
        raise refuse(
            "SL-THRESHOLD",
            "the recovery threshold cannot be met",
            path="recovery.threshold",
            expected=f"{min(1, count)} … {count}",
            found=recovery.threshold,
        )


def _check_production(new: Descriptor, state: AuthorityState) -> None:
    """What separates a network that people rely on from a demonstration."""

    def broken(sentence: str, path: str, **more: object) -> Refused:
        return refuse("SL-PRODUCTION", sentence, path=path, **more)

    for part, key_set in (("root", new.root), ("control", new.control)):
        if key_set.threshold < MIN_PRODUCTION_THRESHOLD:
            raise broken("one key must not be enough", f"{part}.threshold", found=key_set.threshold)
    others = {
        key_id
        for where, key_set in state.key_sets.items()
        if where[0] not in (ROOT, CONTROL)
        for key_id in key_set.by_id
    }
    others.update(new.control.by_id)
    for key in new.root.keys:
        if key.custody == "online":
            raise broken(
                "a root key is never online", "keys", expected="offline | hardware", found=key.key_id
            )
        if key.key_id in others:
            raise broken("a root key serves no other role", "root.key_ids", found=key.key_id)
    if new.witnesses.faulty < MIN_PRODUCTION_FAULTY_WITNESSES:
        raise broken("one witness may lie", "witnesses.faulty", expected="at least 1", found=0)
    if new.recovery.threshold < MIN_PRODUCTION_THRESHOLD:
        raise broken("recovery needs two people", "recovery.threshold", found=new.recovery.threshold)
    if new.recovery.delay_s == 0:
        raise broken("recovery happens in the open", "recovery.delay_s", expected="at least 1", found=0)
