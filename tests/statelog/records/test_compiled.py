"""The written-out form of a kind says yes exactly where its checkers find no fault."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.canonical import encode as encoded
from statelog.limits import MAX_REMEMBERED_TEXTS
from statelog.records import KINDS
from statelog.records.compiled import compiled, may_hold
from statelog.records.shapes import (
    Check,
    Fault,
    OfText,
    base64_bytes,
    exactly,
    fault,
    fields,
    integer,
    json_object,
    list_of,
    name,
    name_list,
    nullable,
    one_field_of,
    one_of,
    sha256_hex,
    text,
    time,
)
from statelog.signing import signed_bytes
from tests.statelog.records.test_shapes import SCALARS
from tests.support.authority import make_cluster
from tests.support.examples import MAKERS
from tests.support.verdicts import single_field_changes

CLUSTER = make_cluster()
RECORDS = {kind: make(CLUSTER) for kind, make in MAKERS.items()}

# Values that look alike to a careless comparison, beside some that every checker refuses.
ODD: list[Any] = [None, True, False, 0, 1, -1, 1.0, "", "*", "a", "a\n", b"a"]
ODD += [[], ["*"], ["a", "a"], {}, {"a": 1}]


def even(value: Any) -> Fault | None:
    """A checker of a kind's own, which the writer does not know."""
    return None if type(value) is int and value % 2 == 0 else fault("an even number", value)


@pytest.mark.parametrize(("check", "good", "bad"), SCALARS)
def test_scalars(check: Check, good: list[Any], bad: list[Any]) -> None:
    accepts = compiled(check, "a scalar")
    for _ in range(2):  # what was accepted once is remembered, what was refused is not
        assert all(accepts(value) for value in good)
        assert not any(accepts(value) for value in bad)


@pytest.mark.parametrize("kind", MAKERS)
def test_every_kind_and_every_single_change_of_a_valid_record(kind: str) -> None:
    record = RECORDS[kind]
    form = KINDS[record["schema_version"]].form
    assert form.accepts(record)
    refused = 0
    for what, other in single_field_changes(record):
        assert form.accepts(other) == (form.check(other) is None), what
        refused += not form.accepts(other)
    assert refused > 40


@given(st.sampled_from(sorted(MAKERS)), st.data())
def test_any_value_in_any_place(kind: str, data: st.DataObject) -> None:
    record = RECORDS[kind]
    form = KINDS[record["schema_version"]].form
    values = (
        st.sampled_from(ODD) | st.sampled_from(list(record.values())) | st.text(max_size=4) | st.integers()
    )
    other = {**record, data.draw(st.sampled_from(sorted(record)) | st.text(max_size=4)): data.draw(values)}
    assert form.accepts(other) == (form.check(other) is None)


STRUCTURES: list[Check] = [
    even,
    list_of(even, 1, 3, distinct=True),
    fields({"a": nullable(name)}, {"b": list_of(integer(0, 1), 1, 2)}),
    fields({"a": one_field_of(x=integer(0, 1), y=list_of(name))}),
    list_of(fields({"a": one_of("a", "b"), "b": integer(0, 9)}), 0, 3, ascending="b"),
    list_of(list_of(name_list(wildcard=True), 0, 2), 0, 2),
    one_field_of(a=exactly("a")),
]


@given(st.sampled_from(STRUCTURES), st.data())
def test_structures(check: Check, data: st.DataObject) -> None:
    leaves = st.sampled_from([*ODD, 2, 4, "b"])
    value = data.draw(
        st.recursive(
            leaves,
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["a", "b", "x", "y"]), inner, max_size=3)
            ),
            max_leaves=8,
        )
    )
    try:
        wanted = check(value) is None
    except TypeError:  # a list of unhashable items that should be distinct: its items are refused before
        wanted = False
    assert compiled(check, "a structure")(value) == wanted


def test_the_fault_is_still_named() -> None:
    record = {**RECORDS["route.lease"], "hops": ["0" * 64, "1" * 63]}
    found = KINDS[record["schema_version"]].form.check(record)
    assert found is not None
    assert (found.path, found.expected) == ("hops[1]", "64 lower-case hex digits")


def test_what_is_remembered_is_bounded() -> None:
    asked: list[str] = []

    def short(value: Any) -> Fault | None:
        asked.append(value)
        return None if len(value) < 9 else fault("short", value)

    accepts = compiled(OfText(short), "short")
    for n in range(MAX_REMEMBERED_TEXTS + 1):
        assert accepts(str(n))
    assert len(asked) == MAX_REMEMBERED_TEXTS + 1
    assert accepts(str(MAX_REMEMBERED_TEXTS))
    assert len(asked) == MAX_REMEMBERED_TEXTS + 1  # the newest is known
    assert accepts("0")
    assert len(asked) == MAX_REMEMBERED_TEXTS + 2  # the oldest was forgotten
    assert not accepts("x" * 9)
    assert not accepts("x" * 9)  # and nothing refused is ever known


def test_where_a_field_may_hide() -> None:
    assert may_hold("a", fields({"a": name}))
    assert may_hold("a", list_of(fields({}, {"a": name})))
    assert may_hold("a", nullable(one_field_of(b=name, a=name)))
    assert may_hold("a", json_object)
    assert may_hold("a", even)  # unknown, so it might
    plain = (name, text(3), time, sha256_hex, integer(0, 1), one_of("a"), base64_bytes(3), name_list())
    assert not any(may_hold("a", check) for check in plain)
    assert not may_hold("a", fields({"b": list_of(name)}))


@pytest.mark.parametrize("kind", MAKERS)
def test_signed_bytes_are_cut_out_as_they_would_be_encoded(kind: str) -> None:
    record = RECORDS[kind]
    cut = KINDS[record["schema_version"]].signed_bytes(record, encoded(record))
    assert cut == signed_bytes(record)


def test_a_document_that_has_signatures_of_its_own_is_signed_with_them() -> None:
    inner = {"signatures": [{"value": "a"}], "z": [1]}
    record = CLUSTER.policy(document=inner)
    kind = KINDS[record["schema_version"]]
    assert kind.signed_bytes(record, encoded(record)) == signed_bytes(record)
    assert CLUSTER.admit(record).record_id
