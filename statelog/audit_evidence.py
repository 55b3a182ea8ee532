"""Whether what a database keeps as proof of equivocation proves it: two records of one subject and epoch,
each signed as a quorum signs.

Whoever holds the database alone must not be able to accuse anybody with it. So every signature is verified,
also of keys that were removed and of nodes that were revoked since, and those who signed must once have been
enough: a draft that one of two signed, and that came to nothing, contradicts no record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Protocol

from statelog import canonical, signing
from statelog.audit_store import StoredEvidence
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.limits import MAX_EVIDENCE_PER_EPOCH
from statelog.quorum import Key, KeySet, count
from statelog.records import KINDS
from statelog.records.base import Record
from statelog.records.keys import bytes_of
from statelog.replay import Entry
from statelog.state import NODE, RECOVERY, AuthorityState, Recovery


class EvidenceLog(Protocol):
    """A source that keeps evidence (`statelog.audit_store.StoredLog`)."""

    def evidence(self) -> Iterable[StoredEvidence]:
        """The evidence table, by subject and epoch."""
        ...


class PastSigners:
    """Everybody who could sign at some time of an authority log. Memory: its key sets, a key a node, and the
    holder of each certificate.
    """

    def __init__(self) -> None:
        self._sets: dict[str, dict[KeySet, None]] = {}  # by role, in whatever partition
        self._keys: dict[str, bytes] = {}
        self._nodes: set[str] = set()
        self._holders: dict[str, str] = {}  # node ids, by the record id of a certificate
        self._recoveries: dict[Recovery, None] = {}
        self._learn: dict[str, Callable[[Entry, AuthorityState], None]] = {
            "node.approval": self._node,
            "role.certificate": self._certificate,
            "authority.descriptor": self._descriptor,
            "authority.members": self._members,
            "authority.recovery_intent": self._intent,
        }

    def entry(self, entry: Entry, state: AuthorityState) -> None:
        """An accepted entry, and the state after it."""
        learn = self._learn.get(entry.kind.name)
        if learn is not None:
            learn(entry, state)

    def _node(self, entry: Entry, _: AuthorityState) -> None:
        node_id = entry.record["node_id"]
        self._nodes.add(node_id)
        self._keys[node_id] = bytes_of(entry.record["public"])

    def _certificate(self, entry: Entry, _: AuthorityState) -> None:
        self._holders[entry.record_id] = entry.record["node_id"]

    def _descriptor(self, _: Entry, state: AuthorityState) -> None:
        self._add(state.descriptor.root, state.descriptor.control)
        self._recoveries[state.descriptor.recovery] = None

    def _members(self, entry: Entry, state: AuthorityState) -> None:
        self._add(state.key_sets[entry.record["role"], entry.record.get("partition")])

    def _intent(self, _: Entry, state: AuthorityState) -> None:
        if state.recovery is not None:
            self._add(state.recovery.holders)

    def public_of(self, key_id: str) -> bytes:
        """The public key of that id; empty when nobody ever signed with one."""
        return self._keys.get(key_id, b"")

    def were_enough(self, role: str, signers: list[str]) -> bool:
        """Whether a quorum of `role` is among the `signers` (key ids). Of recovery keys the log may know no
        more than the hashes, which are these ids.
        """
        if role == RECOVERY:
            found = set(signers)
            return any(
                len(found.intersection(one.key_sha256)) >= one.threshold > 0 for one in self._recoveries
            )
        return any(count(one, signers).met for one in self._sets.get(role, ()))

    def was_signed_by_its_node(self, record: Record, signers: list[str]) -> bool:
        """Whether the one node that signs such a record did: who holds the certificate above a delegated one,
        or whom the record is about.
        """
        parent = record.get("parent")
        node = record["node_id"] if parent is None else self._holders.get(parent)
        return node in self._nodes and node in signers

    def _add(self, *sets: KeySet) -> None:
        for one in sets:
            self._sets.setdefault(one.role, {})[one] = None
            self._keys.update((key.key_id, key.public) for key in one.keys)


def check_evidence(stored: EvidenceLog, signers: PastSigners, state: AuthorityState) -> Iterator[Finding]:
    """Evidence proves equivocation when two different, rightly signed records share a subject and an
    epoch. `state` is the authority log's at its end.
    """
    for (subject, epoch), group in groupby(stored.evidence(), key=lambda item: (item.subject, item.epoch)):
        items = list(group)
        path = f"evidence[{subject}/{epoch}]"
        if len(items) != MAX_EVIDENCE_PER_EPOCH:
            yield Finding("SL-EVIDENCE", "evidence is a pair of records", path, "2", str(len(items)))
        for item in items:
            fault = _fault(item, signers, state)
            if fault:
                yield Finding("SL-EVIDENCE", fault, path, record_id=item.record_id)


def subject_of(data: bytes) -> tuple[str, ...]:
    """The kind and subject of record bytes, empty for anything that is not a record of a known kind."""
    try:
        record = canonical.decode(data)
        kind = KINDS[record["schema_version"]]
        kind.shape(record)
    except (Refused, KeyError, TypeError):
        return ()
    return (kind.name, *kind.subject(record))


def _fault(item: StoredEvidence, signers: PastSigners, state: AuthorityState) -> str:
    """Why the row is no evidence, or nothing."""
    try:
        record = canonical.decode(item.data)
        message = signing.signed_bytes(record)
    except Refused as error:
        return f"the kept record is not a record: {error.finding.sentence}"
    if signing.record_id_of(record) != item.record_id or record.get("epoch") != item.epoch:
        return "the kept record is another than the row says"
    if "/".join(subject_of(item.data)) != item.subject:
        return "the kept record is about another subject than the row says"
    if record["cluster_id"] != state.cluster_id:
        return "the kept record is of another cluster"
    return _fault_of_signatures(record, message, signers, state)


def _fault_of_signatures(record: Record, message: bytes, signers: PastSigners, state: AuthorityState) -> str:
    kind = KINDS[record["schema_version"]]
    brought: dict[str, Key] = dict(kind.new_keys(record))  # a new root signs its descriptor, too
    signed: list[str] = []
    for one in record["signatures"]:
        key_id = one["key_id"]
        public = signers.public_of(key_id) or (brought[key_id].public if key_id in brought else b"")
        if not public:
            return "a key that this log never knew has signed the kept record"
        if not signing.verify(public, bytes_of(one["value"]), message):
            return "a signature of the kept record is wrong"
        signed.append(key_id)
    role, _ = kind.signer_role(record, state)
    enough = (
        signers.was_signed_by_its_node(record, signed) if role == NODE else signers.were_enough(role, signed)
    )
    if not enough:
        return "those who signed the kept record were never enough to sign it"
    return ""
