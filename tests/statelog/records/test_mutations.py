"""Every kind: a valid record is admitted; a change of one stops at the signatures, or at the rule it breaks.

Each change of each field stands in tests/vectors/mutants.txt with its verdict, the legal ones among them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from statelog.canonical import encode
from statelog.errors import Refused
from statelog.records import KINDS, KINDS_BY_NAME
from statelog.signing import add_signature, sign_record
from statelog.steps import Candidate
from tests.support.authority import QUORUMS, Cluster, issuer, key_id, signer
from tests.support.examples import MAKERS, setting
from tests.support.mutants import expected, mutants
from tests.support.verdicts import ADMITTED, DUPLICATE, changed, single_field_changes, verdict, without


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Nothing here applies a record, so one cluster serves all."""
    return setting()


def judge(cluster: Cluster, record: dict[str, Any]) -> str:
    if KINDS[record["schema_version"]].logged if record.get("schema_version") in KINDS else True:
        return verdict(cluster, record)
    try:
        cluster.admit_node_signed(record)
    except Refused as refused:
        return refused.code
    return ADMITTED


def test_every_kind_is_here() -> None:
    assert set(MAKERS) == set(KINDS_BY_NAME)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_valid_record_is_admitted(cluster: Cluster, kind: str) -> None:
    record = MAKERS[kind](cluster)
    assert KINDS[record["schema_version"]].name == kind
    assert judge(cluster, record) == ADMITTED


@pytest.mark.parametrize("kind", MAKERS)
def test_no_change_of_a_signature_helps(cluster: Cluster, kind: str) -> None:
    found = {
        judge(cluster, record)
        for what, record in single_field_changes(MAKERS[kind](cluster))
        if what.startswith("signatures")
    }
    assert found == {"SL-SHAPE", "SL-SIG", "SL-QUORUM"}


@pytest.mark.parametrize("kind", MAKERS)
def test_step_by_step_says_the_same(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Most records take steps 7 to 9 at once; a change of a signature meets the same words either way."""
    record = MAKERS[kind](cluster)
    changes = [record, *(one for what, one in single_field_changes(record) if what.startswith("signatures"))]
    admit = cluster.admit if KINDS[record["schema_version"]].logged else cluster.admit_node_signed

    def said(one: dict[str, Any]) -> object:
        try:
            return admit(one).record_id
        except Refused as refused:
            return refused.finding

    at_once = [said(one) for one in changes]
    monkeypatch.setattr(Candidate, "signed_by_one_quorum", lambda _: False)
    assert at_once == [said(one) for one in changes]
    assert len({str(one) for one in at_once}) > 3


@pytest.mark.parametrize("kind", ["policy.epoch", "registry.gossip_record", "route.lease"])
def test_the_usual_record_is_not_looked_at_step_by_step(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def looked_at(_: Candidate) -> None:
        raise AssertionError("one look was enough")

    record = MAKERS[kind](cluster)
    monkeypatch.setattr(Candidate, "check_signatures", looked_at)
    assert judge(cluster, record) == ADMITTED
    with pytest.raises(AssertionError, match="one look"):
        judge(cluster, {**record, "signatures": record["signatures"][:1]})  # too few: it is told what lacks


@pytest.mark.parametrize("kind", MAKERS)
def test_an_unsigned_change_goes_no_further_than_the_signatures(cluster: Cluster, kind: str) -> None:
    """The one that is not looked at any further is a record that the state has in this very form."""
    form, record = KINDS_BY_NAME[kind].form.check, MAKERS[kind](cluster)
    found = {(path, change): judge(cluster, mutant) for path, change, mutant in mutants(form, record)}
    late = {what: code for what, code in found.items() if code not in EARLY}
    assert late == {what: DUPLICATE for what, codes in TABLE[kind].items() if DUPLICATE in codes}
    assert set(found.values()) >= {"SL-SHAPE", "SL-SIG", "SL-SCHEMA", "SL-CLUSTER"}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_change_that_all_sign_meets_the_rules_own_code(cluster: Cluster, kind: str) -> None:
    """Every change of every field against the table, which names the legal ones too."""
    form, record = KINDS_BY_NAME[kind].form.check, MAKERS[kind](cluster)
    found: dict[tuple[str, str], set[str]] = {}
    for path, change, mutant in mutants(form, record):
        code = judge(cluster, signed_again(mutant, record))
        what = re.sub(r"\[\d+\]", "[]", path), change
        if code != "SL-SHAPE" or change not in UNLISTED or what in TABLE[kind]:
            found.setdefault(what, set()).add(code)
    assert found == {what: set(codes) for what, codes in TABLE[kind].items()}
    assert judge(cluster, signed_again(record, record)) == ADMITTED


TABLE = expected((Path(__file__).parents[2] / "vectors" / "mutants.txt").read_text())
UNLISTED = {"bent", "extra", "gone"}
EARLY = {
    *("SL-SIZE", "SL-CANON", "SL-SCHEMA", "SL-UNLOGGED", "SL-SHAPE", "SL-CLUSTER", "SL-FUTURE"),
    *("SL-EXPIRED", "SL-VALIDITY", "SL-STALE", "SL-SIG"),
}


def signed_again(mutant: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """``mutant`` signed by those who signed ``record``, in the same role."""
    if not isinstance(mutant.get("schema_version"), str):
        return mutant  # nobody could say what is signed
    unsigned = {name: value for name, value in mutant.items() if name != "signatures"}
    signed: dict[str, Any] = {**unsigned, "signatures": []}
    for entry in record["signatures"]:
        name = next(name for name in NAMES if key_id(name) == entry["key_id"])
        signed = add_signature(signed, sign_record(unsigned, signer(name), issuer(name), entry["role"]))
    return signed


@pytest.mark.parametrize("kind", MAKERS)
def test_a_changed_value_that_keeps_its_shape_meets_the_signatures(cluster: Cluster, kind: str) -> None:
    """The text that informs and proves nothing is signed all the same."""
    record = MAKERS[kind](cluster)
    assert judge(cluster, changed(record, "issuer_node_id", "somebody else")) == "SL-SIG"


@pytest.mark.parametrize("kind", MAKERS)
def test_each_missing_field_is_a_matter_of_shape(cluster: Cluster, kind: str) -> None:
    record = MAKERS[kind](cluster)
    optional = {"generation", "organization_id"} | ({"partition"} if kind == "authority.members" else set())
    for name in set(record) - optional - {"schema_version"}:
        assert judge(cluster, without(record, name)) == "SL-SHAPE", name
    assert judge(cluster, without(record, "schema_version")) == "SL-SCHEMA"


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    ("path", "value", "code"),
    [
        ("signatures.0.value", "A" * 86 + "==", "SL-SIG"),
        ("signatures.0.value", "A" * 85 + "B==", "SL-SHAPE"),  # trailing bits
        ("signatures.0.value", "A" * 84, "SL-SHAPE"),
        ("signatures.0.issuer_id", "somebody-else", "SL-SIG"),
        ("signatures.0.role", "observer-authority", "SL-SIG"),
        ("signatures.0.key_id", "0" * 64, "SL-SIG"),
        ("signatures.0.key_id", "F" * 64, "SL-SHAPE"),
        ("signatures.0.alg", "ed448", "SL-SHAPE"),
        ("signatures", [], "SL-QUORUM"),
        ("cluster_id", "test.zzzzzzzzzzzzzzzzzzzzzzzzzz", "SL-CLUSTER"),
        ("cluster_id", "test", "SL-SHAPE"),
        ("schema_version", "rap.fabric.update.rumour.v1", "SL-SCHEMA"),
        ("epoch", 0, "SL-SHAPE"),
        ("expires_at", "2026-01-01", "SL-SHAPE"),
    ],
)
def test_the_header(cluster: Cluster, kind: str, path: str, value: object, code: str) -> None:
    assert judge(cluster, changed(MAKERS[kind](cluster), path, value)) == code


@pytest.mark.parametrize("kind", MAKERS)
def test_signatures_are_sorted_each_once_and_few(cluster: Cluster, kind: str) -> None:
    record = MAKERS[kind](cluster)
    signatures = record["signatures"]
    assert judge(cluster, {**record, "signatures": [*signatures, signatures[-1]]}) == "SL-SHAPE"
    if len(signatures) > 1:
        assert judge(cluster, {**record, "signatures": signatures[::-1]}) == "SL-SHAPE"
    many = [{**signatures[0], "key_id": f"{n:064x}"} for n in range(17)]
    assert judge(cluster, {**record, "signatures": many}) == "SL-SHAPE"
    assert judge(cluster, {**record, "signatures": many[:16]}) == "SL-SIG"


@pytest.mark.parametrize("kind", MAKERS)
def test_the_longest_validity(cluster: Cluster, kind: str) -> None:
    longest = KINDS_BY_NAME[kind].max_validity_s
    signers = {entry["key_id"] for entry in MAKERS[kind](cluster)["signatures"]}

    def lasting(lifetime_s: int) -> dict[str, Any]:
        record = MAKERS[kind](cluster)
        fresh = cluster.draft(kind, **{**_own(record), "lifetime_s": lifetime_s})
        return cluster.sign(fresh, by=[name for name in NAMES if key_id(name) in signers])

    assert judge(cluster, lasting(longest)) == ADMITTED
    assert judge(cluster, lasting(longest + 1)) == "SL-VALIDITY"
    assert judge(cluster, lasting(0)) == "SL-EXPIRED"


NAMES = [*(name for quorum in QUORUMS.values() for name in quorum), "node:phone-a", "node:relay-1"]
HEADER = {"schema_version", "cluster_id", "issued_at", "expires_at", "issuer_node_id", "signatures"}


def _own(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in HEADER}


@pytest.mark.parametrize("kind", MAKERS)
def test_the_bytes_of_every_kind_fit(cluster: Cluster, kind: str) -> None:
    assert len(encode(MAKERS[kind](cluster))) < 6_000
