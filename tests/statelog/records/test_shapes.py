"""Checkers: what each accepts, what it refuses, and where it says the fault is."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from statelog.limits import MAX_INTEGER
from statelog.records import KINDS, shapes
from statelog.records.shapes import (
    MISSING,
    Check,
    Fault,
    base64_bytes,
    cluster_id,
    exactly,
    fields,
    integer,
    json_object,
    list_of,
    name,
    name_list,
    nullable,
    one_field_of,
    one_of,
    partition,
    public_key,
    quic_address,
    sha256_hex,
    text,
    time,
)

HEX = "0123456789abcdef" * 4
SCALARS: list[tuple[Check, list[Any], list[Any]]] = [
    (exactly("x"), ["x"], ["y", "", 1]),
    (one_of("a", "b"), ["a", "b"], ["c", "", ["a"]]),
    (integer(2, 4), [2, 3, 4], [1, 5, True, 2.0, "2"]),
    (text(3), ["a", "abc", "é ü"], ["", "abcd", "a\n", "a\x1b", "\u202e", 1]),
    (
        name,
        ["a", "A1", "statelog.sync/1", "0.x_y@z-", "a" * 128],
        ["", "-a", "a b", "é", "a+b", "a" * 129, 1],
    ),
    (partition, ["eu-1", "a", "0", "a" * 48], ["EU", "-a", "a-", "a.b", "a_b", "", "a" * 49, 1]),
    (
        cluster_id,
        ["a.abcdefghijklmnopqrstuvwxyz", "my-farm.eu.234567abcdefghijklmnopqrst", "a" * 36 + "." + "a" * 26],
        [
            *("abcdefghijklmnopqrstuvwxyz", "a.abc", "A.abcdefghijklmnopqrstuvwxyz", 1),
            *("-a.abcdefghijklmnopqrstuvwxyz", "a.0bcdefghijklmnopqrstuvwxyz"),
            *("a.abcdefghijklmnopqrstuvwxyz\n", "a" * 37 + "." + "a" * 26),
        ],
    ),
    (sha256_hex, [HEX], [HEX.upper(), HEX[:-1], HEX + "0", HEX + "\n", "g" * 64, 1]),
    (base64_bytes(1), ["QQ=="], ["QQ", "QR==", "QUE=", "QQ==\n", "", 1]),
    (public_key, ["A" * 43 + "="], ["A" * 44, "A" * 43, "A" * 42 + "B="]),
    (time, ["2026-01-01T00:00:00Z"], ["2026-01-01", "2026-13-01T00:00:00Z", 1]),
    (json_object, [{}, {"a": [1]}], [[], "", 1]),
    (nullable(name), [None, "a"], ["", 1]),
    (
        quic_address,
        [
            *("quic://home-1.example:4433", "quic://192.0.2.1:1", "quic://[2001:db8::1]:65535"),
            *("quic://a:4433", "quic://1a.example:4433", "quic://" + "a" * 63 + ".b:1"),
        ],
        [
            *("https://a:443", "wss://a:443", "tcp://a:1", "QUIC://a:1", "quic://A:1", "quic://a:1/", 1),
            *("quic://a", "quic://a:0", "quic://a:01", "quic://a:65536", "quic://:1", "quic://a:1\n"),
            *("quic://u@a:1", "quic://a b:1", "quic://a..b:1", "quic://a.:1", "quic://-a:1", "quic://a-.b:1"),
            *("quic://999.1.1.1:1", "quic://1.2.3:1", "quic://127.1:1", "quic://1:1", "quic://é:1"),
            *("quic://[::g]:1", "quic://[1.2.3.4]:1", "quic://[fe80::1%eth0]:1", "quic://::1:1"),
            *("quic://" + "a" * 64 + ".b:1", "quic://" + "a." * 130 + "b:1"),
        ],
    ),
]


@pytest.mark.parametrize(("check", "good", "bad"), SCALARS)
def test_scalars(check: Check, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if check(value) is not None] == []
    assert [
        value
        for value in [*bad, MISSING, {"x": 1} if check is not json_object else 0]
        if check(value) is None
    ] == []


def test_no_checker_takes_null_unless_the_format_shows_it() -> None:
    checks = [check for check, good, _ in SCALARS if None not in good]
    assert all(check(None) is not None for check in checks)


@pytest.mark.parametrize("value", [1.5, 0.0, -1, 2**53, True, b"x", (), {1: 2}, "\x00"])
def test_no_checker_takes_what_canonical_bytes_cannot_hold(value: Any) -> None:
    """Admission relies on it: a record of a kind's form needs no second walk of its types."""
    checks = [check for check, _, _ in SCALARS if check is not json_object]
    assert all(check(value) is not None for check in [*checks, integer(0, MAX_INTEGER)])


def test_free_form_kinds_say_so() -> None:
    """Whatever holds an object that its form does not know must be walked."""
    held = {kind.name for kind in KINDS.values() if kind.free_form}
    using = {
        kind.name for kind in KINDS.values() if "json_object" in vars(sys.modules[type(kind).__module__])
    }
    assert held == using == {"policy.epoch"}


def at(check: Check, value: Any) -> str | None:
    found = check(value)
    return None if found is None else found.path


POINT = fields({"x": integer(0, 9), "name": name}, {"note": text(9)})


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"x": 1, "name": "a"}, None),
        ({"x": 1, "name": "a", "note": "b"}, None),
        ({"x": 1}, "name"),
        ({"x": 10, "name": "a"}, "x"),
        ({"x": 1, "name": "a", "note": None}, "note"),  # absent, never null
        ({"x": 1, "name": "a", "other": 1}, "other"),
        ({"x": 1, "name": "a", "note": "b", "other": 1}, "other"),
        ({}, "x"),
        ([], ""),
        (None, ""),
    ],
)
def test_fields(value: Any, path: str | None) -> None:
    assert at(POINT, value) == path


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([], ""),
        ([{"x": 1, "name": "a"}], None),
        ([{"x": 1, "name": "a"}, {"x": 1, "name": "-"}], "[1].name"),
        ([{"x": 1, "name": "a"}] * 4, ""),
        ({}, ""),
    ],
)
def test_lists(value: Any, path: str | None) -> None:
    assert at(list_of(POINT, 1, 3), value) == path


def test_paths_lead_through_every_level() -> None:
    deep = fields({"a": fields({"b": list_of(list_of(POINT))})})
    assert at(deep, {"a": {"b": [[], [{"x": "1", "name": "a"}]]}}) == "a.b[1][0].x"
    assert Fault("", "e", "f").under("a") == Fault("a", "e", "f")


def test_distinct_and_ascending() -> None:
    assert at(list_of(name, distinct=True), ["a", "b"]) is None
    assert at(list_of(name, distinct=True), ["a", "b", "a"]) == ""
    by_name = list_of(POINT, ascending="name")
    a, b = {"x": 1, "name": "a"}, {"x": 1, "name": "b"}
    assert [at(by_name, value) for value in ([a, b], [b, a], [a, a], [])] == [None, "", "", None]


def test_tagged_choice() -> None:
    target = one_field_of(route_id=name, node_id=sha256_hex)
    assert at(target, {"route_id": "a"}) is None
    assert at(target, {"node_id": HEX}) is None
    assert at(target, {"node_id": "a"}) == "node_id"
    others: list[Any] = [{}, {"route_id": "a", "node_id": HEX}, {"partition": "a"}, [], None]
    for other in others:
        assert at(target, other) == ""


def test_the_wildcard_stands_alone() -> None:
    assert at(name_list(wildcard=True), ["*"]) is None
    assert at(name_list(wildcard=True), []) is None
    assert at(name_list(wildcard=True), ["*", "a"]) == "[0]"
    assert at(name_list(), ["*"]) == "[0]"
    assert at(name_list(), ["a", "a"]) == ""


def test_what_was_found_is_described_briefly() -> None:
    assert shapes.fault("x", "a" * 500).found == repr("a" * 500)[:80]
    assert shapes.fault("x", MISSING).found == "nothing"
