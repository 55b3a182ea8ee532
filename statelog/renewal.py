"""What must be renewed soon, read off the authority state. Pure; times are Unix seconds.

Most records end with their `expires_at` and are renewed before it. Leases of a day are renewed at half their
life, so that half a day without a quorum is survived (docs/records/). Of some kinds the expiry limits only
how long a record may wait for its place in the log: what it did stays done.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from statelog.state import AuthorityState, Certificate, Subject, SubjectKey, Target

HALF_LIFE: Final = frozenset({"route.lease", "service.lease", "relay.assignment"})
LASTING: Final = frozenset(
    {
        *("log.term", "log.snapshot", "role.revocation", "route.fence"),
        *("authority.recovery_intent", "authority.veto"),  # once, for one recovery
    }
)
NEVER_FORGOTTEN: Final = frozenset({"authority.descriptor", "authority.members"})

Why = Literal["expired", "expires", "half-life", "parent"]


@dataclass(frozen=True, slots=True)
class Due:
    """A record to renew: `subject` is its kind's own tuple; `due_at` is when its renewal should begin.

    `why` is `parent` for a certificate that ended early, as the one above it was replaced: due at once.
    """

    kind: str
    subject: tuple[str, ...]
    epoch: int
    record_id: str
    log_index: int | None
    why: Why
    due_at: int
    expires_at: int


def renewals(states: Iterable[AuthorityState], now: int, within_s: int) -> list[Due]:
    """What expires in the next `within_s` seconds or is past half the life of a lease, soonest first.

    `states` are those of the authority log and of partition logs; of a subject in several the highest epoch
    counts, and what one of them has ended is over. What expired longer ago than `within_s` was let go on
    purpose and is left out, but never the descriptor or a members record: without them a whole role is lost.
    """
    latest: dict[SubjectKey, Subject] = {}
    over: set[str] = set()  # record ids: what is revoked, fenced or replaced stays so, whichever log says it
    orphans: set[str] = set()
    for state in states:
        for key, subject in state.subjects.items():
            if key[0] in LASTING:
                continue
            if _is_over(state, key, subject):
                over.add(subject.record_id)
            if key not in latest or subject.epoch > latest[key].epoch:
                latest[key] = subject
        lost, again = _split_by_chain(state)
        orphans |= lost
        over |= again
    found = [
        _due(key, subject, now, within_s, orphan=subject.record_id in orphans)
        for key, subject in latest.items()
        if subject.record_id not in over
    ]
    return sorted(filter(None, found), key=lambda due: (due.expires_at, due.kind, due.subject))


def _due(key: SubjectKey, subject: Subject, now: int, within_s: int, *, orphan: bool) -> Due | None:
    kind = key[0]
    why: Why = "expires"
    due_at = subject.expires_at - within_s
    if orphan:
        due_at, why = now, "parent"
    elif kind in HALF_LIFE:
        due_at = subject.issued_at + (subject.expires_at - subject.issued_at) // 2
        why = "half-life"
    if now < due_at:
        return None
    if now >= subject.expires_at:
        if kind not in NEVER_FORGOTTEN and now - subject.expires_at > within_s:
            return None
        why = "expired"
    return Due(
        kind, key[1:], subject.epoch, subject.record_id, subject.log_index, why, due_at, subject.expires_at
    )


def _is_over(state: AuthorityState, key: SubjectKey, subject: Subject) -> bool:
    """Whether the latest record of a subject has ended for good: revoked, fenced, or replaced."""
    kind = key[0]
    if kind == "role.certificate":
        certificate = state.certificates.get(subject.record_id)
        return certificate is None or _end_of_chain(state, certificate) == "revoked"
    if kind == "node.approval":
        return key[1] not in state.nodes
    if kind == "route.lease":
        lease = state.leases.get(key[1])
        return lease is None or lease.record_id != subject.record_id
    return False


def _split_by_chain(state: AuthorityState) -> tuple[set[str], set[str]]:
    """The certificates that ended because one above them was replaced, by record id: those whose node holds
    the role no more, and those whose node has it from another certificate.
    """
    lost = [one for one in state.certificates.values() if _end_of_chain(state, one) == "replaced"]
    whole = {
        (one.node_id, one.role)
        for one in (state.certificates.values() if lost else ())
        if _end_of_chain(state, one) is None
    }
    again = {one.record_id for one in lost if (one.node_id, one.role) in whole}
    return {one.record_id for one in lost} - again, again


def _end_of_chain(state: AuthorityState, certificate: Certificate) -> Literal["revoked", "replaced"] | None:
    """What ended a certificate before its time, itself or one above it; None when nothing did."""
    current = certificate
    while True:
        if Target("node_id", current.node_id) in state.revoked:
            return "revoked"
        if current.parent is None:
            return None
        if Target("certificate", current.parent) in state.revoked:
            return "revoked"
        above = state.certificates.get(current.parent)
        if above is None:
            return "replaced"
        current = above
