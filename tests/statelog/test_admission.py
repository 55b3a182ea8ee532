"""Admission: the order of its checks, one code each, and nothing changed by a refusal."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.admission import Admitted, admit, admit_genesis, admit_node_signed, read, rehearse, reread
from statelog.canonical import encode
from statelog.errors import Refused, UsageError
from statelog.findings import CODES
from statelog.limits import MAX_RECORD_BYTES
from statelog.signing import record_id_of
from statelog.state import CONTROL, ROUTE, AuthorityState
from statelog.times import format_time
from tests.support.authority import BASE_TIME, DAY_S, Cluster, endpoint, make_cluster, node_id
from tests.support.verdicts import ADMITTED, changed, refusal, verdict, without


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


def code_of(judge: Callable[[], object]) -> str:
    try:
        judge()
    except Refused as refused:
        return refused.code if refused.code in CODES else "not explained"
    return ADMITTED


# --- the order ---
#
# A lease is given several faults at once.  Whatever the selection, admission names the first in its order.
# Each fault changes the draft before it is signed, or the signed copy, or its bytes.

Draft = dict[str, Any]
BEFORE: dict[str, Callable[[Draft], None]] = {
    "SL-SCHEMA": lambda d: d.update(schema_version="rap.fabric.route.lease.v2"),
    "SL-SHAPE": lambda d: d.update(zzz=1),
    "SL-CLUSTER": lambda d: d.update(cluster_id="other.abcdefghijklmnopqrstuvwxyz"),
    "SL-EXPIRED": lambda d: d.update(expires_at=format_time(BASE_TIME)),
    "SL-ROLE": lambda d: d.update(issuer_role=CONTROL),
    "SL-FENCED": lambda d: d.update(issued_at=format_time(BASE_TIME)),
    "SL-NODE": lambda d: d.update(hops=[node_id("phone-a"), node_id("stranger")]),
}
EPOCHS = {"SL-STALE": 4, "SL-EQUIVOCATION": 5, "SL-EPOCH": 1_006}
ORDER = [
    *("SL-CANON", "SL-SCHEMA", "SL-SHAPE", "SL-CLUSTER", "SL-EXPIRED", "SL-STALE", "SL-SIG"),
    *("SL-ROLE", "SL-QUORUM", "SL-FENCED", "SL-EQUIVOCATION", "SL-EPOCH", "SL-NODE"),
]


def fenced_cluster() -> Cluster:
    """route-a was leased at epoch 5; its partition was fenced at the base time."""
    cluster = make_cluster()
    cluster.append(cluster.lease("route-a", epoch=5))
    cluster.append(cluster.fence({"partition": "eu-1"}))
    return cluster


FENCED = fenced_cluster()


def faulty_lease(faults: set[str]) -> bytes:
    """The bytes of a lease of route-a with these faults, and no other."""
    draft = FENCED.draft("route.lease", **_own(FENCED.lease("route-a", epoch=6, issued_at=BASE_TIME + 1)))
    draft.update(issued_at=format_time(BASE_TIME + 1), service="another")  # never the logged record itself
    for fault in faults:
        if fault in BEFORE:
            BEFORE[fault](draft)
        if fault in EPOCHS:
            draft["epoch"] = EPOCHS[fault]
    people = ("control-1", "control-2") if "SL-ROLE" in faults else ("route-1", "route-2")
    record = FENCED.sign(draft, people[: 1 if "SL-QUORUM" in faults else 2])
    if "SL-SIG" in faults:
        record = changed(record, "signatures.0.value", "A" * 86 + "==")
    return encode(record) + (b" " if "SL-CANON" in faults else b"")


def _own(record: dict[str, Any]) -> dict[str, Any]:
    header = {"schema_version", "cluster_id", "issued_at", "expires_at", "issuer_node_id", "signatures"}
    return {name: value for name, value in record.items() if name not in header}


def test_without_a_fault_it_is_admitted() -> None:
    assert code_of(lambda: admit(FENCED.state, faulty_lease(set()), BASE_TIME)) == ADMITTED


@pytest.mark.parametrize("fault", ORDER)
def test_each_fault_alone_has_its_code(fault: str) -> None:
    assert code_of(lambda: admit(FENCED.state, faulty_lease({fault}), BASE_TIME)) == fault


@given(st.sets(st.sampled_from(ORDER), min_size=1))
def test_of_many_faults_the_first_is_named(faults: set[str]) -> None:
    for extra in [one for one in ORDER if one in EPOCHS and one in faults][1:]:
        faults.discard(extra)  # a record has one epoch
    first = next(code for code in ORDER if code in faults)
    assert code_of(lambda: admit(FENCED.state, faulty_lease(faults), BASE_TIME)) == first


@given(st.sets(st.sampled_from(ORDER)))
def test_no_verdict_changes_the_state(faults: set[str]) -> None:
    before = FENCED.state.copy()
    code_of(lambda: admit(FENCED.state, faulty_lease(faults), BASE_TIME))
    assert before == FENCED.state


@given(st.binary(max_size=200))
def test_garbage_is_refused_as_garbage(data: bytes) -> None:
    assert code_of(lambda: admit(FENCED.state, data, BASE_TIME)) in ("SL-CANON", "SL-SCHEMA")


# --- 1-3: bytes, kind, shape ---


def test_size(cluster: Cluster) -> None:
    def padded(size: int) -> bytes:
        record = cluster.policy(document={"pad": ""})
        missing = size - len(encode(record))
        return encode(cluster.policy(document={"pad": "x" * missing}))

    assert len(padded(MAX_RECORD_BYTES)) == MAX_RECORD_BYTES
    assert code_of(lambda: admit(cluster.state, padded(MAX_RECORD_BYTES), cluster.now)) == ADMITTED
    assert code_of(lambda: admit(cluster.state, padded(MAX_RECORD_BYTES + 1), cluster.now)) == "SL-SIZE"


@pytest.mark.parametrize(
    "schema", ["", "rap.fabric.registry.gossip_record.v2", "registry.gossip_record", None, 7, []]
)
def test_unknown_kinds_fail_closed(cluster: Cluster, schema: object) -> None:
    assert verdict(cluster, changed(cluster.registry(), "schema_version", schema)) == "SL-SCHEMA"
    assert verdict(cluster, without(cluster.registry(), "schema_version")) == "SL-SCHEMA"
    assert verdict(cluster, cluster.registry()) == ADMITTED


def test_bytes_outside_the_profile_are_refused_as_such_in_every_place(cluster: Cluster) -> None:
    """Forms check every value themselves; what no form accepts is still called by its own name."""

    def code(record: dict[str, Any], old: bytes, new: bytes, **options: Any) -> str:
        data = encode(record)
        assert data.count(old) == 1
        return code_of(lambda: admit(cluster.state, data.replace(old, new), cluster.now, **options))

    for value in (b"10.5", b"1e+30", b"-10", b"9007199254740992", b'{"\xc3\xa9":1}', b"[" * 17 + b"]" * 17):
        new = b'"priority":' + value
        assert code(cluster.registry(), b'"priority":10', new) == "SL-CANON"
        assert code(cluster.candidates(), b'"priority":10', new) == "SL-CANON"
        unknown = {**cluster.registry(), "schema_version": "rap.fabric.unknown.v1"}
        assert code(unknown, b'"priority":10', new) == "SL-CANON"
        policy = cluster.policy(document={"priority": 10})
        assert code(policy, b'"priority":10', new) == "SL-CANON"
        assert code(policy, b'"priority":10', new, ahead_of_log=True) == "SL-CANON"
    assert code(cluster.registry(), b'"priority":10', b'"priority":11') == "SL-SIG"


def test_the_finding_says_where_what_was_expected_and_found(cluster: Cluster) -> None:
    found = refusal(cluster, cluster.registry(endpoints=[endpoint(), endpoint(n=2, address="https://a:443")]))
    assert not isinstance(found, str)
    assert (found.code, found.path) == ("SL-SHAPE", "endpoints[1].address")
    assert (found.expected, found.found) == ("quic://host:port", "'https://a:443'")
    assert str(found).startswith("SL-SHAPE at endpoints[1].address: ")


# --- ahead of the log ---


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda c: c.registry(), ADMITTED),
        (lambda c: c.revocation({"node_id": node_id("home-1")}), ADMITTED),
        (lambda c: c.fence({"partition": "eu-1"}), ADMITTED),
        (lambda c: c.descriptor(), "SL-UNLOGGED"),
        (lambda c: c.members(ROUTE), "SL-UNLOGGED"),
        (lambda c: c.log_term(), "SL-UNLOGGED"),
        (lambda c: c.approval("home-1"), "SL-UNLOGGED"),
        (lambda c: c.certificate("home-1"), "SL-UNLOGGED"),
        (lambda c: c.lease(), "SL-UNLOGGED"),
        (lambda c: c.policy(), "SL-UNLOGGED"),
    ],
)
def test_what_acts_ahead_of_the_log(
    cluster: Cluster, make: Callable[[Cluster], dict[str, Any]], expected: str
) -> None:
    assert verdict(cluster, make(cluster), ahead_of_log=True) == expected
    assert verdict(cluster, make(cluster)) == ADMITTED


# --- development ---


def test_what_development_accepts_is_marked() -> None:
    small, cluster = make_cluster("development"), make_cluster()
    assert small.append(small.registry()).bootstrap
    assert not cluster.append(cluster.registry()).bootstrap
    subject = ("registry.gossip_record", "control-api", "cluster", "")
    assert [c.state.subjects[subject].bootstrap for c in (small, cluster)] == [True, False]


# --- genesis ---


def test_genesis_makes_the_state() -> None:
    cluster = make_cluster()
    state, admitted = admit_genesis(encode(cluster.genesis), cluster.anchor)
    assert isinstance(admitted, Admitted)
    assert (state.cluster_id, state.anchor, state.mode) == (cluster.cluster_id, cluster.anchor, "production")
    assert state.subjects["authority.descriptor", "cluster"].log_index == 0
    assert admitted.subject == ("cluster",)
    assert {role for role, _ in state.key_sets} == {"root-authority", CONTROL}


def test_genesis_is_judged_at_its_own_time_and_against_the_anchor() -> None:
    cluster = make_cluster()
    genesis = encode(cluster.genesis)
    assert code_of(lambda: admit_genesis(genesis, None)) == ADMITTED
    assert code_of(lambda: admit_genesis(genesis, "0" * 64)) == "SL-ANCHOR"
    assert code_of(lambda: admit_genesis(encode(cluster.registry()), None)) == "SL-GENESIS"
    unsigned = encode({**cluster.genesis, "signatures": []})
    assert code_of(lambda: admit_genesis(unsigned, cluster.anchor)) == "SL-QUORUM"
    lasting = cluster.descriptor(epoch=1, lifetime_s=401 * DAY_S)
    assert code_of(lambda: admit_genesis(encode(lasting), None)) == "SL-VALIDITY"


# --- rehearsal ---


def unsigned(record: dict[str, Any]) -> dict[str, Any]:
    return without(record, "signatures")


def test_a_rehearsal_needs_no_signature_and_shows_the_change(cluster: Cluster) -> None:
    record = cluster.registry()
    change = rehearse(cluster.state, unsigned(record), cluster.now, log=cluster.log)
    assert change == cluster.admit(record).change
    assert change.record_id == record_id_of(record)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda c: c.registry(issuer_role=ROUTE), "SL-ROLE"),
        (lambda c: c.registry(epoch=2_000), "SL-EPOCH"),
        (lambda c: c.registry(zzz=1), "SL-SHAPE"),
        (lambda c: c.registry(lifetime_s=0), "SL-EXPIRED"),
        (lambda c: c.lease("a", "stranger", "home-1"), "SL-NODE"),
        (lambda c: c.members(ROUTE, "x-1", "x-2", threshold=1), "SL-PRODUCTION"),
        (lambda c: c.genesis, "SL-DUPLICATE"),
    ],
)
def test_a_rehearsal_refuses_what_cannot_pass(
    cluster: Cluster, make: Callable[[Cluster], dict[str, Any]], code: str
) -> None:
    record = unsigned(make(cluster))
    assert code_of(lambda: rehearse(cluster.state, record, cluster.now, log=cluster.log)) == code


def test_a_rehearsal_of_a_first_descriptor(cluster: Cluster) -> None:
    assert code_of(lambda: rehearse(None, unsigned(cluster.genesis), 0)) == ADMITTED
    assert code_of(lambda: rehearse(None, unsigned(cluster.descriptor(epoch=2)), 0)) == "SL-EPOCH"
    assert code_of(lambda: rehearse(None, unsigned(cluster.registry()), 0)) == "SL-GENESIS"


def test_a_rehearsal_of_a_node_signed_record(cluster: Cluster) -> None:
    record = cluster.candidates()
    assert code_of(lambda: rehearse(cluster.state, unsigned(record), cluster.now)) == ADMITTED
    assert code_of(lambda: admit_node_signed(cluster.state, encode(record), cluster.now)) == ADMITTED


def test_a_term_needs_its_log(cluster: Cluster) -> None:
    record = unsigned(cluster.log_term())
    assert code_of(lambda: rehearse(cluster.state, record, cluster.now, log=cluster.log)) == ADMITTED
    with pytest.raises(UsageError):
        rehearse(cluster.state, record, cluster.now)


def test_the_state_of_two_readers_is_the_same(cluster: Cluster) -> None:
    """Replaying the admitted records, with and without cryptography, gives the same state."""
    cluster.append(cluster.lease())
    cluster.append(cluster.fence({"node_id": node_id("relay-1")}))
    cluster.append(cluster.revocation({"node_id": node_id("phone-a")}))

    def fold(verify_signatures: bool) -> AuthorityState:
        state, _ = admit_genesis(cluster.log.entries[0][0], cluster.anchor)
        for index, (data, at, _) in enumerate(cluster.log.entries[1:], 1):
            admitted = admit(state, data, at, log=_At(cluster, index), verify_signatures=verify_signatures)
            assert admitted.change is not None
            state.apply(admitted.change, index)
        return state

    assert fold(True) == cluster.state
    assert fold(False) == cluster.state
    assert deepcopy(cluster.state) == cluster.state


class _At:
    """The cluster's log as it stood before entry ``size``."""

    name = "authority"

    def __init__(self, cluster: Cluster, size: int) -> None:
        self.size = size
        self.root_at = cluster.log.root_at


def test_a_stored_record_is_read_again_under_its_own_id() -> None:
    cluster = make_cluster()
    for record in (cluster.registry(), cluster.lease(), cluster.policy(document={"signatures": [{"a": 1}]})):
        assert reread(encode(record)) == (record, record_id_of(record))
    strange = {"schema_version": "of somebody else", "n": 1}
    assert reread(encode(strange)) == (strange, record_id_of(strange))
    for data in (b'{"schema_version":"x","n":1.5}', b'{"n":1}', b"[]", b'{"schema_version": "x"}'):
        with pytest.raises(Refused):
            reread(data)


def test_a_reading_of_other_bytes_is_not_used(cluster: Cluster) -> None:
    """Whoever judges a record reads it, unless these very bytes were read before."""
    record, other = cluster.registry("web-admin"), cluster.registry("other")
    data = encode(record)
    for reading in (read(data), read(encode(other))):
        assert admit(cluster.state, data, BASE_TIME, reading=reading).record == record


def test_a_key_of_two_roles_signs_in_the_one_that_must(cluster: Cluster) -> None:
    """With a quorum of the right keys, too: each says in which role it speaks."""
    cluster.append(cluster.members(ROUTE, "control-1", "control-2", "control-3"))
    record = cluster.policy()
    assert verdict(cluster, cluster.sign(record, role=ROUTE)) == "SL-ROLE"
    assert verdict(cluster, cluster.sign(record)) == ADMITTED
