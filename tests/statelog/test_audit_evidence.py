"""What of a kept pair of records an auditor believes: only what a quorum of the log's own people signed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from statelog.audit_evidence import PastSigners, check_evidence, subject_of
from statelog.audit_store import StoredEvidence
from statelog.canonical import decode, encode
from statelog.replay import Replay
from statelog.signing import record_id_of
from tests.support.authority import DAY_S, Cluster, key_entry, key_id, make_cluster, node_id

CLUSTER = make_cluster()
NEVER_ENOUGH = "those who signed the kept record were never enough to sign it"


@dataclass
class Kept:
    rows: list[StoredEvidence]

    def evidence(self) -> Iterable[StoredEvidence]:
        return self.rows


def row_of(record: dict[str, Any]) -> StoredEvidence:
    data = encode(record)
    return StoredEvidence("/".join(subject_of(data)), record["epoch"], record_id_of(record), data)


def faults(kept: list[StoredEvidence], cluster: Cluster = CLUSTER) -> list[str]:
    replay, signers = Replay(cluster.anchor), PastSigners()
    for leaf in cluster.leaves():
        signers.entry(replay.append(leaf), replay.state)
    findings = list(check_evidence(Kept(kept), signers, replay.state))
    assert {finding.code for finding in findings} <= {"SL-EVIDENCE"}
    return [finding.sentence for finding in findings]


def pair(cluster: Cluster = CLUSTER, *by: str) -> list[StoredEvidence]:
    """Two policies of one subject and epoch, by default signed by the control quorum."""
    records = [cluster.policy("p", {"allow": [str(n)]}, by=by or None) for n in range(2)]
    return [row_of(one) for one in records]


def forged(item: StoredEvidence) -> StoredEvidence:
    """With a signature of somebody else's choice."""
    at = item.data.index(b'"value":"') + 9
    return replace(item, data=item.data[:at] + b"AAAA" + item.data[at + 4 :])


def test_evidence_is_a_pair_of_signed_records() -> None:
    first, second = pair()
    assert faults([first, second]) == []
    assert faults([first]) == ["evidence is a pair of records"]
    unsigned = encode({**CLUSTER.policy("p", {"allow": ["0"]}), "signatures": []})
    wrong = {
        "not a record": replace(first, data=b"{}"),
        "no bytes": replace(first, data=b""),
        "another id": replace(first, record_id="0" * 64),
        "unsigned": replace(first, data=unsigned),
    }
    for name, item in wrong.items():
        assert faults([item, second]), name
    assert faults([forged(first), second]) == ["a signature of the kept record is wrong"]


def test_evidence_of_another_epoch_proves_nothing() -> None:
    rows = [replace(item, epoch=2) for item in pair()]
    assert faults(rows) == ["the kept record is another than the row says"] * 2


def test_evidence_is_about_one_subject() -> None:
    first, _ = pair()
    other = replace(row_of(CLUSTER.policy("q")), subject=first.subject)
    assert faults([first, other]) == ["the kept record is about another subject than the row says"]


def test_what_strangers_sign_is_no_evidence() -> None:
    first, second = pair()
    record = decode(second.data)
    strangers = sorted(key_id(f"control-{n}") for n in (8, 9))
    for signature, stranger in zip(record["signatures"], strangers, strict=True):
        signature["key_id"] = stranger
    strange = replace(second, data=encode(record))
    assert faults([first, strange]) == ["a key that this log never knew has signed the kept record"]


def test_a_draft_that_too_few_signed_accuses_nobody() -> None:
    first, second = pair()
    assert faults([first, pair(CLUSTER, "control-1")[1]]) == [NEVER_ENOUGH]
    assert faults([first, pair(CLUSTER, "route-1", "route-2")[1]]) == [NEVER_ENOUGH]
    assert faults([first, second]) == []


def test_keys_that_were_removed_since_signed_what_they_signed_and_no_more() -> None:
    cluster = make_cluster()
    names = ("control-1", "control-2", "control-4")
    first, second = pair(cluster, "control-2", "control-3")
    listed = [key_entry(f"root-{n}", custody="offline") for n in (1, 2, 3)] + list(map(key_entry, names))
    cluster.append(cluster.descriptor(keys=listed, control=cluster.holders(*names, threshold=2)))
    assert key_id("control-3") in cluster.state.retired
    assert faults([first, second], cluster) == []
    record = decode(second.data)
    record["signatures"] = [
        {**one, "value": other["value"]}
        for one, other in zip(record["signatures"], reversed(record["signatures"]), strict=True)
    ]
    swapped = replace(second, data=encode(record))
    assert faults([first, swapped], cluster) == ["a signature of the kept record is wrong"]
    alone = pair(cluster, "control-3")
    assert faults(alone, cluster) == [NEVER_ENOUGH] * 2


def test_a_delegate_that_was_revoked_since_signed_two_things() -> None:
    cluster = make_cluster()
    parent = cluster.certificate("home-1", lifetime_s=60 * DAY_S, delegation_depth=1)
    cluster.append(parent)
    rows = [row_of(cluster.certificate("node-9", parent=parent, scope={"services": [name]})) for name in "ab"]
    cluster.now += 1
    cluster.append(cluster.revocation({"node_id": node_id("home-1")}))
    assert faults(rows, cluster) == []
    assert faults([rows[0], forged(rows[1])], cluster) == ["a signature of the kept record is wrong"]


def test_one_node_signs_and_no_other_for_it() -> None:
    """Whoever holds the database and the key of some node accuses itself alone."""
    cluster = make_cluster()
    parent = cluster.certificate("home-1", lifetime_s=60 * DAY_S, delegation_depth=1)
    cluster.append(parent)

    def delegated(by: str, under: dict[str, Any]) -> list[StoredEvidence]:
        scopes = [{"services": [name]} for name in "ab"]
        return [row_of(cluster.certificate("node-9", parent=under, scope=scope, by=[by])) for scope in scopes]

    def announced(by: str) -> list[StoredEvidence]:
        return [row_of(cluster.candidates("phone-a", listen=[f"[::]:{port}"], by=[by])) for port in (1, 2)]

    assert faults(delegated("node:home-1", parent), cluster) == []
    assert faults(delegated("node:relay-1", parent), cluster) == [NEVER_ENOUGH] * 2
    unknown = cluster.certificate("relay-1", delegation_depth=1)
    assert faults(delegated("node:relay-1", unknown), cluster) == [NEVER_ENOUGH] * 2
    assert faults(announced("node:phone-a"), cluster) == []
    assert faults(announced("node:relay-1"), cluster) == [NEVER_ENOUGH] * 2
    of_no_node = [
        row_of(cluster.candidates(node_id=key_id("control-1"), listen=[f"[::]:{port}"], by=["control-1"]))
        for port in (1, 2)
    ]
    assert faults(of_no_node, cluster) == [NEVER_ENOUGH] * 2


def test_what_the_same_people_signed_in_another_cluster_is_no_evidence() -> None:
    other = make_cluster(cluster_id=f"other.{'a' * 26}")
    assert faults(pair(other), other) == []
    assert faults(pair(other)) == ["the kept record is of another cluster"] * 2


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (("recovery-1", "recovery-2"), []),
        (("recovery-1",), [NEVER_ENOUGH] * 2),
        (("recovery-8", "recovery-9"), [NEVER_ENOUGH] * 2),  # their keys are in the record, and nowhere else
    ],
)
def test_two_intents_of_recovery_holders(shown: tuple[str, ...], expected: list[str]) -> None:
    coming = [CLUSTER.descriptor(clock_skew_s=n) for n in (60, 90)]
    rows = [row_of(CLUSTER.recovery_intent(one, shown=shown)) for one in coming]
    assert faults(rows) == expected


def test_nobody_recovers_a_cluster_without_recovery_keys() -> None:
    cluster = make_cluster("development")
    coming = [cluster.descriptor(clock_skew_s=n) for n in (60, 90)]
    rows = [row_of(cluster.recovery_intent(one, shown=("recovery-1",))) for one in coming]
    assert faults(rows, cluster) == [NEVER_ENOUGH] * 2


def test_recovery_holders_are_no_root() -> None:
    cluster = make_cluster()
    holders = ("recovery-1", "recovery-2")
    cluster.append(cluster.recovery_intent(cluster.descriptor()))  # which shows their keys
    rows = [row_of(cluster.descriptor(clock_skew_s=skew, by=holders)) for skew in (60, 90)]
    assert faults(rows, cluster) == [NEVER_ENOUGH] * 2


def test_two_descriptors_of_a_recovery() -> None:
    """Signed by keys that no descriptor lists: an intent in the log has shown them."""
    cluster = make_cluster()
    drafts = [
        cluster.descriptor(
            clock_skew_s=skew, issuer_role="recovery-authority", by=("recovery-1", "recovery-2")
        )
        for skew in (60, 90)
    ]
    cluster.append(cluster.recovery_intent(drafts[0]))
    assert faults([row_of(one) for one in drafts], cluster) == []


def test_two_descriptors_of_the_root() -> None:
    assert faults([row_of(CLUSTER.descriptor(clock_skew_s=skew)) for skew in (60, 90)]) == []
