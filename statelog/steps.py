"""The steps of admission from the fourth on: one record, of known form, judged against one state.

`admission` drives them in their fixed order and says which apply where.  A step raises `Refused` or returns;
none changes the state, and only `Candidate.judge` looks at a kind's own rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final

from statelog.errors import Refused, refuse
from statelog.quorum import Key, KeySet, QuorumResult, SignedAs, count, speakers
from statelog.records import DESCRIPTOR
from statelog.records.base import Context, Kind, LogView
from statelog.records.keys import bytes_of
from statelog.signing import verify
from statelog.state import (
    AUTHORITY_LOG,
    NODE,
    PARTITION_LOG_PREFIX,
    RECOVERY,
    AuthorityState,
    Change,
    KnownKey,
    SubjectKey,
    Target,
)
from statelog.times import format_time, parse_time

_SIGNED_AS: Final[Callable[[Mapping[str, str]], SignedAs]] = itemgetter("key_id", "issuer_id", "role")


class Candidate(Context):
    """One record on its way through the steps, with its circumstances; its shape is known to be right.

    ``data`` are the canonical bytes of ``record``, ``subject`` is the kind's own subject tuple, without the
    kind, ``last`` what the state has of it.  ``bootstrap``: what development mode accepts.  ``signed`` are
    the bytes that the signatures cover, ``signed_by``, once they were looked at, the public keys of these in
    their order.  Once all steps are behind it, ``change`` is what `AuthorityState.apply` commits.
    """

    __slots__ = (
        "change",
        "epoch",
        "key",
        "kind",
        "last",
        "record",
        "signed",
        "signed_by",
        "signers",
        "state",
        "subject",
        "verify",
    )

    def __init__(  # one object for record and context: admission makes one for every entry of a log
        self,
        record: dict[str, Any],
        data: bytes,
        kind: Kind,
        state: AuthorityState,
        now: int,
        log: LogView | None,
        ahead_of_log: bool,
        verify: bool,
    ) -> None:
        self.record = record
        self.kind = kind
        self.state = state
        self.epoch: int = record["epoch"]
        self.subject = kind.subject(record)
        self.key: SubjectKey = (kind.name, *self.subject)
        self.last = state.subjects.get(self.key)
        self.signed = signed = kind.signed_bytes(record, data)
        self.signed_by: Sequence[bytes] = ()
        self.change: Change | None = None
        self.record_id = sha256(signed).hexdigest()
        self.now = now
        self.issued_at = parse_time(record["issued_at"])
        self.expires_at = parse_time(record["expires_at"])
        self.log = log
        self.ahead_of_log = ahead_of_log
        self.verify = verify
        # What development mode accepts is marked; the descriptor that leaves it has a production quorum.
        mode = record["mode"] if kind is DESCRIPTOR else state.descriptor.mode
        self.bootstrap = mode == "development"

    @property
    def duplicate(self) -> bool:
        """Of one that passed: it is the very record that the state already holds for its subject.

        Nothing is to be done, and the signatures of this copy were *not* looked at, so the copy must not
        replace the stored one.  A log never carries a duplicate, so a replay refuses it.
        """
        return self.change is None

    def check_cluster_and_time(self) -> None:
        """Steps 4 and 5."""
        record, descriptor = self.record, self.state.descriptor
        if record["cluster_id"] != self.state.cluster_id:
            raise refuse(
                "SL-CLUSTER",
                "made for another cluster",
                path="cluster_id",
                expected=self.state.cluster_id,
                found=record["cluster_id"],
            )
        if self.now < self.issued_at - descriptor.clock_skew_s:
            raise refuse("SL-FUTURE", "issued in the future", path="issued_at", found=record["issued_at"])
        if self.now >= self.expires_at:
            raise refuse(
                "SL-EXPIRED", "the record has expired", path="expires_at", found=record["expires_at"]
            )
        lifetime_s = self.expires_at - self.issued_at
        if not 0 < lifetime_s <= self.kind.max_validity_s:
            raise refuse(
                "SL-VALIDITY",
                f"not a lifetime of a {self.kind.name}",
                path="expires_at",
                expected=f"1 … {self.kind.max_validity_s} s after issued_at",
                found=f"{lifetime_s} s",
            )
        if self.now >= descriptor.expires_at and not self.kind.outlives_descriptor:
            raise refuse(
                "SL-EXPIRED", "the descriptor has expired; only its successor or recovery is admitted"
            )

    def settled_by_subject(self) -> bool:
        """Step 6: True for a duplicate; raises SL-STALE for a copy older than what the subject has."""
        last = self.last
        if last is None or self.epoch > last.epoch:
            return False
        if last.record_id == self.record_id:
            return True
        if self.epoch < last.epoch:
            raise refuse(
                "SL-STALE", "an older epoch", path="epoch", expected=f"> {last.epoch}", found=self.epoch
            )
        return False

    def signed_by_one_quorum(self) -> bool:
        """Steps 7 to 9 but for the place, at once, for the many records that known members of one set sign.

        False says nothing: going step by step says what is wrong, or that nothing is.  Raises `Refused`
        where all that is wrong is a signature.
        """
        record = self.record
        if self.kind.new_keys(record):
            return False
        try:
            quorums = self.check_role()
        except Refused:
            return False  # what is wrong with the signatures is said first
        signatures = record["signatures"]
        signed_as = tuple(map(_SIGNED_AS, signatures))
        found = speakers(quorums[0], record["issuer_role"], signed_as) if len(quorums) == 1 else None
        if found is None:
            return False
        if self.verify:
            for position, public in enumerate(found):
                self._check_signature(position, public, signatures[position])
        self.signed_by = found
        return True

    def check_signatures(self) -> None:
        """Step 7: every signature is right, of a known key, and says who its key's issuer and role are."""
        new_keys = self.kind.new_keys(self.record)
        keys = {} if new_keys else self.state.keys
        root = self.state.root_before(self.epoch)
        if self.kind is DESCRIPTOR and root is not self.state.descriptor.root:
            new_keys = {**root.by_id, **new_keys}
        self.signers: list[SignedAs] = []
        self.signed_by = signed_by = list[bytes]()
        for position, entry in enumerate(self.record["signatures"]):
            signed_as = key_id, issuer_id, role = _SIGNED_AS(entry)
            key = keys.get(key_id) or _known_key(self.state, new_keys, self.kind.new_role, key_id, position)
            if issuer_id != key.issuer_id:
                raise _bad_signature("not this key's issuer", position, key.issuer_id, issuer_id)
            if role not in key.roles:
                raise _bad_signature("not a role of this key", position, sorted(key.roles), role)
            if self.verify:
                self._check_signature(position, key.public, entry)
            self.signers.append(signed_as)
            signed_by.append(key.public)

    def _check_signature(self, position: int, public: bytes, entry: Mapping[str, str]) -> None:
        if not verify(public, bytes_of(entry["value"]), self.signed):
            raise _bad_signature("the signature is wrong", position, "", entry["key_id"])

    def check_place(self) -> None:
        """Step 8, first half: the record belongs in this log.  Ahead of the log there is no place yet."""
        if self.ahead_of_log:
            return
        name = self.log.name if self.log is not None else AUTHORITY_LOG
        home = home_of(self.kind, self.record, self.state)
        if name != home:
            raise refuse("SL-SCOPE", "the record belongs in another log", expected=home, found=name)

    def check_role(self) -> tuple[KeySet, ...]:
        """Step 8, second half, without the signers: the key sets of each of which a quorum must sign."""
        record, kind, state = self.record, self.kind, self.state
        role, _ = kind.signer_role(record, state)
        if record["issuer_role"] != role:
            raise refuse(
                "SL-ROLE",
                f"{kind.name} is signed by {role} here",
                path="issuer_role",
                expected=role,
                found=record["issuer_role"],
            )
        return kind.quorums(record, state, self)

    def check_authority(self) -> None:
        """Steps 8 and 9: the signers hold the role that must sign, here, and are enough."""
        quorums = self.check_role()
        role = self.record["issuer_role"]
        for position, (key_id, _, signed_as) in enumerate(self.signers):
            if signed_as != role:
                raise _not_for_this("SL-ROLE", "signed in another role", position, role, signed_as)
            if not any(key_id in key_set.by_id for key_set in quorums):
                raise _not_for_this(
                    "SL-SCOPE", "not a key for this record", position, quorums[0].role, key_id
                )
        key_ids = [key_id for key_id, _, _ in self.signers]
        for key_set in quorums:
            result = count(key_set, key_ids)
            if not result.met:
                raise _too_few(key_set, result, proposed=key_set is not quorums[0])

    def check_revoked_and_fenced(self) -> None:
        """Step 10."""
        record, state = self.record, self.state
        for target, path in self.kind.concerns(record, self.record_id) if state.revoked else ():
            if target in state.revoked:
                raise refuse("SL-REVOKED", f"this {target.kind} was revoked", path=path, found=target.id)
        for target, path in self.kind.crosses(record) if state.fenced else ():
            fence = state.fenced.get(target)
            if fence is not None and self.issued_at <= fence.issued_at:
                raise refuse(
                    "SL-FENCED",
                    f"this {target.kind} was fenced",
                    path=path,
                    expected=f"issued after {format_time(fence.issued_at)}",
                    found=record["issued_at"],
                )

    def check_monotonic(self) -> None:
        """Step 11."""
        last = self.last
        if last is not None and self.epoch == last.epoch:
            raise refuse(
                "SL-EQUIVOCATION",
                "another record of this subject has this epoch",
                path="epoch",
                expected=last.record_id,
                found=self.record_id,
            )
        self.kind.check_epoch(self.record, last.epoch if last is not None else 0)

    def check_started(self) -> None:
        """Step 12, for every kind: entry 1 is the first term (entry 0 meets a state without subjects)."""
        started = AUTHORITY_LOG in self.state.terms or not self.state.subjects
        if not started and self.key != ("log.term", AUTHORITY_LOG):
            raise refuse("SL-TERM", "the log has no term yet", expected="log.term of the authority log")

    def judge(self) -> Change:
        """Step 12: the kind's own rules, and what the record changes."""
        edits = self.kind.judge(self.record, self.state, self)
        self.change = change = Change(
            self.key, self.epoch, self.record_id, self.issued_at, self.expires_at, self.bootstrap, edits
        )
        return change


def home_of(kind: Kind, record: Mapping[str, Any], state: AuthorityState) -> str:
    """The one log that may carry the record: its partition's once that is open, else the authority log."""
    if len(state.terms) <= 1:  # no log is open but that one
        return AUTHORITY_LOG
    partition = kind.home_partition(record, state)
    if partition is None or not state.has_log(partition):
        return AUTHORITY_LOG
    return PARTITION_LOG_PREFIX + partition


def _known_key(
    state: AuthorityState, new_keys: Mapping[str, Key], new_role: str, key_id: str, position: int
) -> KnownKey:
    """The key behind ``key_id``: no search, no guess.  Raises `Refused` (SL-REVOKED, SL-SIG)."""
    known = state.keys.get(key_id)
    new = new_keys.get(key_id)
    if new is not None:  # a key that the record itself brings signs for itself, whatever it was before
        sets = frozenset({(new_role, None)}) | (known.sets if known is not None else frozenset())
        return KnownKey(new.public, new.issuer_id, frozenset(), frozenset()).within(sets)
    if known is not None:
        return known
    node = state.nodes.get(key_id)
    if node is not None:
        return KnownKey(node.public, node.node_id, frozenset(), frozenset({NODE}))
    shown = state.recovery.holders.by_id.get(key_id) if state.recovery is not None else None
    if shown is not None:
        return KnownKey(shown.public, shown.issuer_id, frozenset(), frozenset({RECOVERY}))
    if key_id in state.retired:
        raise refuse("SL-REVOKED", "this key was removed", path=f"signatures[{position}]", found=key_id)
    if Target("node_id", key_id) in state.revoked:
        raise refuse("SL-REVOKED", "this node was revoked", path=f"signatures[{position}]", found=key_id)
    raise _bad_signature("an unknown key", position, "", key_id)


def _bad_signature(sentence: str, position: int, expected: object, found: object) -> Refused:
    return _not_for_this("SL-SIG", sentence, position, expected, found)


def _not_for_this(code: str, sentence: str, position: int, expected: object, found: object) -> Refused:
    return refuse(code, sentence, path=f"signatures[{position}]", expected=expected, found=found)


def _too_few(key_set: KeySet, result: QuorumResult, *, proposed: bool) -> Refused:
    """Names the set that lacks signers; `proposed`: the one that the record itself would put in force."""
    whose = f"the proposed {key_set.role}" if proposed else key_set.role
    return refuse(
        "SL-QUORUM",
        f"{result.missing} more of {whose} must sign",
        path="signatures",
        expected=f"{key_set.threshold} of {len(key_set.issuers)} issuers",
        found=f"{len(result.signed)}: {', '.join(result.signed) or 'nobody'}",
    )
