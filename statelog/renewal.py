"""What must be renewed soon, read off the authority state. Pure; times are Unix seconds.

Most records end with their `expires_at` and are renewed before it. Leases of a day are renewed at half their
life, so that half a day without a quorum is survived (docs/records/). Of some kinds the expiry limits only
how long a record may wait for its place in the log: what it did stays done.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from statelog.state import AuthorityState, Subject, SubjectKey

HALF_LIFE: Final = frozenset({"route.lease", "service.lease", "relay.assignment"})
LASTING: Final = frozenset(
    {
        *("log.term", "log.snapshot", "role.revocation", "route.fence"),
        *("authority.recovery_intent", "authority.veto"),  # once, for one recovery
    }
)
NEVER_FORGOTTEN: Final = frozenset({"authority.descriptor", "authority.members"})

Why = Literal["expired", "expires", "half-life"]


@dataclass(frozen=True, slots=True)
class Due:
    """A record to renew: `subject` is its kind's own tuple; `due_at` is when its renewal should begin."""

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
    counts. What expired longer ago than `within_s` was let go on purpose and is left out, but never the
    descriptor or a members record: without them a whole role is lost.
    """
    latest: dict[SubjectKey, Subject] = {}
    for state in states:
        for key, subject in _standing(state):
            if key not in latest or subject.epoch > latest[key].epoch:
                latest[key] = subject
    found = [_due(key, subject, now, within_s) for key, subject in latest.items()]
    return sorted(filter(None, found), key=lambda due: (due.expires_at, due.kind, due.subject))


def _due(key: SubjectKey, subject: Subject, now: int, within_s: int) -> Due | None:
    kind = key[0]
    if kind in HALF_LIFE:
        due_at = subject.issued_at + (subject.expires_at - subject.issued_at) // 2
        why: Why = "half-life"
    else:
        due_at, why = subject.expires_at - within_s, "expires"
    if now < due_at:
        return None
    if now >= subject.expires_at:
        if kind not in NEVER_FORGOTTEN and now - subject.expires_at > within_s:
            return None
        why = "expired"
    return Due(
        kind, key[1:], subject.epoch, subject.record_id, subject.log_index, why, due_at, subject.expires_at
    )


def _standing(state: AuthorityState) -> Iterator[tuple[SubjectKey, Subject]]:
    """The subjects whose latest record can still end: not lasting, not revoked, fenced or replaced."""
    for key, subject in state.subjects.items():
        kind = key[0]
        if kind in LASTING:
            continue
        if kind == "role.certificate" and subject.record_id not in state.certificates:
            continue
        if kind == "node.approval" and key[1] not in state.nodes:
            continue
        if kind == "route.lease":
            lease = state.leases.get(key[1])
            if lease is None or lease.record_id != subject.record_id:
                continue
        yield key, subject
