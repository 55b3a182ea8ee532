"""Changes that are allowed and easily regretted, each under a name that somebody has to say.

Admission refuses what makes a role unsatisfiable. What is here can be satisfied, but perhaps not when it is
needed: by nobody who is online, or only by people whose keys travel in phones.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from statelog.errors import UsageError, refuse
from statelog.quorum import Key, KeySet
from statelog.records import DESCRIPTOR, KINDS_BY_NAME
from statelog.records.descriptor import descriptor_of
from statelog.records.keys import key_of
from statelog.state import ROOT, AuthorityState

LAST_ONLINE: Final = "last-online-signer"
LAST_FIXED: Final = "last-non-mobile-signer"
RISKS: Final = {
    LAST_ONLINE: "no key of the role is online any more: every record of it waits for people with sticks",
    LAST_FIXED: "every key of the role belongs to a mobile node: its quorum is where its phones are",
}
_MOBILE: Final = "mobile-edge"


class Risk(NamedTuple):
    """A named risk of a change, for one role; `partition` is None for the whole cluster."""

    name: str
    role: str
    partition: str | None

    def __str__(self) -> str:
        where = f" of {self.partition}" if self.partition else ""
        return f"{self.role}{where}: {RISKS[self.name]}"


def risks(record: Mapping[str, Any], state: AuthorityState | None, now: int) -> list[Risk]:
    """What the record would take away that its role has now, at Unix second `now`.

    Without a state nothing is known of what the role has: a set without an online key then counts as a loss,
    and mobile nodes are not known at all.
    """
    found = []
    for new in _proposed_sets(record):
        old = None if state is None else state.key_set(new.role, new.partition)
        if state is not None and old is None:
            continue  # the first set of a role takes nothing away
        if new.role != ROOT and _loses(old, new, lambda key: key.custody == "online"):
            found.append(Risk(LAST_ONLINE, new.role, new.partition))
        if state is not None and _loses(old, new, lambda key: not _is_mobile(key, state, now)):
            found.append(Risk(LAST_FIXED, new.role, new.partition))
    return found


def check_accepted(
    record: Mapping[str, Any], state: AuthorityState | None, now: int, accepted: Collection[str]
) -> None:
    """Raise `Refused` SL-RISK for the first risk that is not `accepted`, `UsageError` for an unknown name."""
    unknown = sorted(set(accepted) - set(RISKS))
    if unknown:
        raise UsageError(f"no risk is called {', '.join(unknown)}; there are {', '.join(RISKS)}")
    for risk in risks(record, state, now):
        if risk.name not in accepted:
            raise refuse("SL-RISK", str(risk), expected=f"--accept-risk={risk.name}")


def _loses(old: KeySet | None, new: KeySet, has: Callable[[Key], bool]) -> bool:
    """Whether some key of the old set, or of one that is not known, has what none of the new set has."""
    return (old is None or any(map(has, old.keys))) and not any(map(has, new.keys))


def _is_mobile(key: Key, state: AuthorityState, now: int) -> bool:
    """Whether the key's issuer is a node that holds the role of a mobile edge."""
    return any(
        certificate.node_id == key.issuer_id and certificate.role == _MOBILE
        for record_id in state.certificates
        if (certificate := state.certificate_in_force(record_id, now)) is not None
    )


def _proposed_sets(record: Mapping[str, Any]) -> Iterator[KeySet]:
    """The key sets that the record installs; its shape is known to be right."""
    if record["schema_version"] == DESCRIPTOR.schema and record["epoch"] > 1:
        coming = descriptor_of(record, "")
        yield from (coming.root, coming.control)
    elif record["schema_version"] == KINDS_BY_NAME["authority.members"].schema:
        keys = tuple(key_of(entry) for entry in record["keys"])
        yield KeySet(record["role"], record.get("partition"), record["threshold"], keys)
