"""Canonical bytes: the profile of RFC 8785, held against an independent implementation of the whole of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from statelog.canonical import check_profile, decode, encode, encode_trusted
from statelog.errors import Refused
from statelog.limits import MAX_DEPTH, MAX_INTEGER, MAX_RECORD_BYTES

VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "rfc8785"

keys = st.text(st.characters(max_codepoint=127), max_size=8)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(0, MAX_INTEGER)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=20)
objects = st.dictionaries(keys, values)


def refused(code: str, data: bytes) -> bool:
    with pytest.raises(Refused) as caught:
        decode(data)
    return caught.value.code == code


def attempt(data: bytes) -> dict[str, Any] | str:
    """What ``data`` decodes to, or the code of its refusal."""
    try:
        return decode(data)
    except Refused as refusal:
        return refusal.code


def nested(depth: int) -> Any:
    """``depth`` containers, one in the other."""
    value: Any = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


@given(objects)
def test_same_bytes_as_the_oracle(value: dict[str, Any]) -> None:
    assert encode(value) == rfc8785.dumps(value)


@given(objects)
def test_decoding_is_the_inverse(value: dict[str, Any]) -> None:
    assert decode(encode(value)) == value


@given(st.binary(max_size=64) | objects.map(lambda value: json.dumps(value).encode()))
def test_what_decodes_encodes_to_itself(data: bytes) -> None:
    value = attempt(data)
    assert value == "SL-CANON" or rfc8785.dumps(value) == data


@given(objects, st.data())
def test_no_second_spelling(value: dict[str, Any], data: st.DataObject) -> None:
    canonical = encode(value)
    at = data.draw(st.integers(0, len(canonical)))
    other = canonical[:at] + data.draw(st.sampled_from([b" ", b"\n", b"\t"])) + canonical[at:]
    # Inside a string the space makes another string; anywhere else it makes another spelling.
    assert attempt(other) != value


@pytest.mark.parametrize(
    "data",
    [
        b'{"b":1,"a":2}',  # order
        b'{"a":1,"a":1}',  # twice
        b'{"a": 1}',
        b'{"a":1}\n',
        b'\xef\xbb\xbf{"a":1}',  # byte order mark
        b'{"a":1.0}',
        b'{"a":1.5}',
        b'{"a":1e3}',
        b'{"a":-1}',
        b'{"a":-0}',
        b'{"a":01}',
        b'{"a":9007199254740992}',  # 2^53
        b'{"a":18446744073709551616}',
        b'{"a":NaN}',
        b'{"a":"\\ud800"}',  # a lone surrogate
        b'{"a":"\xed\xa0\x80"}',  # the same in UTF-8
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":"\\u001F"}',  # upper-case hex
        b'{"a":"\\u000a"}',  # has a short form
        b'{"\xc3\xa9":1}',  # a key beyond ASCII
        b"[1]",
        b'"a"',
        b"1",
        b"",
        b"{",
        b"\xff",
    ],
)
def test_refused_forms(data: bytes) -> None:
    assert refused("SL-CANON", data)


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b'{"a":2,"b":1}',
        b'{"a":0}',
        b'{"a":9007199254740991}',  # 2^53 - 1
        b'{"a":"\\u001f\\n\\b\\f\\r\\t\\"\\\\/"}',
        b'{"a":"\xc3\xa9\xf0\x9f\x98\x80\x7f"}',
        b'{"a":[true,false,null,[],{}]}',
    ],
)
def test_accepted_forms(data: bytes) -> None:
    assert encode(decode(data)) == data


def test_depth() -> None:
    data = encode(nested(MAX_DEPTH))
    assert decode(data) == nested(MAX_DEPTH)
    assert refused("SL-CANON", encode_trusted(nested(MAX_DEPTH + 1)))
    assert refused("SL-CANON", b'{"a":' + b"[" * 1_000 + b"]" * 1_000 + b"}")
    assert refused("SL-CANON", b'{"a":' * 9_000 + b"1" + b"}" * 9_000)


def test_size() -> None:
    fits = encode({"a": "x" * (MAX_RECORD_BYTES - 8)})
    assert len(fits) == MAX_RECORD_BYTES
    assert decode(fits)
    assert refused("SL-SIZE", fits + b" ")
    assert decode(encode({"a": "xx" * (MAX_RECORD_BYTES // 2)}), max_bytes=2 * MAX_RECORD_BYTES)


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1.0},
        {"a": -1},
        {"a": 2**53},
        {"é": 1},
        {1: 2},
        {"a": (1,)},
        {"a": b"x"},
        {"a": "\ud800"},
        nested(17),
    ],
)
def test_nothing_outside_the_profile_is_encoded(value: Any) -> None:
    with pytest.raises(Refused, match="SL-CANON"):
        encode(value)


def test_subclasses_are_not_taken_for_their_base() -> None:
    class Sneaky(int):
        pass

    with pytest.raises(Refused, match="SL-CANON"):
        check_profile({"a": Sneaky(1)})
    check_profile({"a": 1})


# What of the public vectors lies in the narrowed profile; the others use floats or keys beyond ASCII.
IN_PROFILE = {"arrays", "structures", "unicode"}


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the public RFC 8785 vectors are not here")
@pytest.mark.parametrize("name", ["arrays", "french", "structures", "unicode", "values", "weird"])
def test_public_vectors(name: str) -> None:
    source = json.loads((VECTORS / "input" / f"{name}.json").read_bytes())
    expected = (VECTORS / "output" / f"{name}.json").read_bytes()
    assert expected.hex() == "".join((VECTORS / "outhex" / f"{name}.txt").read_text().split())
    wrapped = b'{"a":' + expected + b"}"  # a record is an object, one of the vectors is a list
    if name in IN_PROFILE:
        assert decode(wrapped) == {"a": source}
        assert encode(decode(wrapped)) == wrapped
    else:
        assert refused("SL-CANON", wrapped)
