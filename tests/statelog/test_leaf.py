"""Leaves: one canonical form, cut apart without parsing the record."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog import canonical, limits
from statelog.errors import Refused
from statelog.leaf import Leaf, decode_leaf, encode_leaf, frame_leaf, split_leaf

NOW = 1_767_225_600
RECORD = {"a": 1, "term": 9, "sequenced_at": "x", "signatures": []}
BODY = b'{"a":1,"sequenced_at":"x","signatures":[],"term":9}'
DATA = b'{"record":%b,"sequenced_at":"2026-01-01T00:00:00Z","term":3}' % BODY


def refused_code(data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        decode_leaf(data)
    return refused.value.code


def test_a_leaf_is_the_canonical_object_of_its_three_fields() -> None:
    leaf = Leaf(RECORD, NOW, 3)
    assert encode_leaf(leaf) == DATA
    assert canonical.encode({"record": RECORD, "sequenced_at": "2026-01-01T00:00:00Z", "term": 3}) == DATA
    assert decode_leaf(DATA) == leaf


def test_the_record_stands_in_the_leaf_unchanged() -> None:
    parts = split_leaf(DATA)
    assert parts == (canonical.encode(RECORD), NOW, 3, None)
    assert frame_leaf(*parts) == DATA


def test_a_leaf_of_a_partitions_log_names_an_authority_size() -> None:
    data = DATA.replace(b'{"record"', b'{"authority_size":17,"record"')
    leaf = Leaf(RECORD, NOW, 3, 17)
    fields = {"record": RECORD, "sequenced_at": "2026-01-01T00:00:00Z", "term": 3, "authority_size": 17}
    assert encode_leaf(leaf) == data == canonical.encode(fields)
    assert decode_leaf(data) == leaf
    assert frame_leaf(*split_leaf(data)) == data


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "SL-LEAF"),
        (b"{}", "SL-LEAF"),
        (DATA + b" ", "SL-LEAF"),
        (DATA + b"\n", "SL-LEAF"),
        (b" " + DATA, "SL-LEAF"),
        (DATA.replace(b'"term":3', b'"term":03'), "SL-LEAF"),
        (DATA.replace(b'"term":3', b'"term":-3'), "SL-LEAF"),
        (DATA.replace(b'"term":3', b'"term":3.0'), "SL-LEAF"),
        (DATA.replace(b'"term":3', b'"term":"3"'), "SL-LEAF"),
        (DATA.replace(b'"term":3', b'"term":9007199254740992'), "SL-LEAF"),
        (DATA.replace(b'"term":3', b'"term":99999999999999999'), "SL-LEAF"),
        (DATA.replace(b"2026-01-01", b"2026-02-30"), "SL-LEAF"),
        (DATA.replace(b"00:00:00Z", b"00:00:60Z"), "SL-LEAF"),
        (DATA.replace(b"2026", b"1926"), "SL-LEAF"),
        (DATA.replace(b'"term":3}', b'"term":3,"zoo":1}'), "SL-LEAF"),
        (DATA.replace(b'{"record"', b'{"authority_size":01,"record"'), "SL-LEAF"),
        (DATA.replace(b'{"record"', b'{"authority_size":-1,"record"'), "SL-LEAF"),
        (DATA.replace(b'{"record"', b'{"authority_size":9007199254740992,"record"'), "SL-LEAF"),
        (DATA.replace(b'{"record"', b'{"authority_size":1, "record"'), "SL-LEAF"),
        (DATA.replace(b'"term":3}', b'"term":3,"authority_size":1}'), "SL-LEAF"),
        (b'{"authority_size":1,"sequenced_at":"2026-01-01T00:00:00Z","term":3}', "SL-LEAF"),
        (DATA.replace(b'"a":1', b'"a": 1'), "SL-CANON"),
        (DATA.replace(b'"a":1', b'"b":1,"a":1'), "SL-CANON"),
        (DATA.replace(b'"a":1', b'"a":1,"a":1'), "SL-CANON"),
        (DATA.replace(b'"a":1', b'"a":1.5'), "SL-CANON"),
        (b'{"record":3,"sequenced_at":"2026-01-01T00:00:00Z","term":3}', "SL-CANON"),
        (b'{"record":,"sequenced_at":"2026-01-01T00:00:00Z","term":3}', "SL-CANON"),
    ],
)
def test_other_forms_are_refused(data: bytes, code: str) -> None:
    assert refused_code(data) == code
    assert decode_leaf(DATA).term == 3


def test_the_length_is_bounded() -> None:
    tail = b',"sequenced_at":"2026-01-01T00:00:00Z","term":3}'
    filler = b"x" * (limits.MAX_LEAF_BYTES - len(b'{"record":{"a":""}') - len(tail))
    longest = b'{"record":{"a":"' + filler + b'"}' + tail
    assert len(longest) == limits.MAX_LEAF_BYTES
    assert frame_leaf(*split_leaf(longest)) == longest
    assert refused_code(longest.replace(b"xx", b"xxx", 1)) == "SL-LEAF"
    with pytest.raises(Refused) as refused:
        frame_leaf(split_leaf(longest).record + b" ", NOW, 3)
    assert refused.value.code == "SL-LEAF"
    assert refused_code(longest) == "SL-SIZE"  # the leaf may be that long, the record in it may not


VALUES = st.recursive(
    st.integers(0, 2**53 - 1) | st.text(max_size=8) | st.booleans() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.text("abcxyz_", max_size=6), VALUES, max_size=4),
    st.integers(0, 2**33),
    st.integers(0, 2**53 - 1),
    st.none() | st.integers(0, 2**53 - 1),
)
def test_every_leaf_is_read_as_it_was_written(
    record: dict[str, object], at: int, term: int, authority_size: int | None
) -> None:
    leaf = Leaf(record, at, term, authority_size)
    assert decode_leaf(encode_leaf(leaf)) == leaf


@given(st.data())
def test_every_changed_byte_is_another_leaf_or_none(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(DATA) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != DATA[at]))
    changed = DATA[:at] + bytes([byte]) + DATA[at + 1 :]
    try:
        leaf = decode_leaf(changed)
    except Refused:
        return
    assert leaf != decode_leaf(DATA)
    assert encode_leaf(leaf) == changed
