"""Differences: every leaf is said, whole and in ASCII, and no two records read the same."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.differences import differences


def changes(before: dict[str, Any] | None, after: dict[str, Any]) -> list[str]:
    return [str(difference) for difference in differences(before, after)]


def test_values_that_change_appear_and_disappear() -> None:
    before = {"epoch": 1, "reason": "old", "same": "x", "scope": {"actions": ["a"], "services": []}}
    after = {"epoch": 2, "same": "x", "scope": {"actions": ["a", "b"], "services": []}, "new": True}
    assert changes(before, after) == [
        "~ epoch: 1 → 2",
        '+ scope.actions[]: "b"',
        "+ new: true",
        '- reason: "old"',
    ]


def test_what_is_new_is_said_leaf_by_leaf() -> None:
    assert changes(None, {"document": {"deny": [], "allow": ["x", {"to": None, "n": 1}], "more": {}}}) == [
        "+ document.deny: []",
        '+ document.allow[0]: "x"',
        "+ document.allow[1].to: null",
        "+ document.allow[1].n: 1",
        "+ document.more: {}",
    ]


def test_items_are_matched_by_what_identifies_them() -> None:
    def endpoint(name: str, address: str) -> dict[str, Any]:
        return {"endpoint_id": name, "address": address}

    before = {"endpoints": [endpoint("n/0", "quic://a:1"), endpoint("n/1", "quic://b:1")]}
    after = {"endpoints": [endpoint("n/0", "quic://z:1"), endpoint("n/2", "quic://c:1")]}
    assert changes(before, after) == [
        '~ endpoints[endpoint_id=n/0].address: "quic://a:1" → "quic://z:1"',
        '+ endpoints[endpoint_id=n/2].endpoint_id: "n/2"',
        '+ endpoints[endpoint_id=n/2].address: "quic://c:1"',
        '- endpoints[endpoint_id=n/1]: {"endpoint_id": "n/1", "address": "quic://b:1"}',
    ]


def test_items_that_nothing_tells_apart_are_compared_place_by_place() -> None:
    before = {"pairs": [{"name": "a"}, {"name": "a"}], "mixed": [1, "a", 3, 4]}
    assert changes(before, {**before, "mixed": [1, "b", 4]}) == [
        '~ mixed[1]: "a" → "b"',
        "- mixed[2]: 3",
    ]
    assert changes(before, {**before, "pairs": [{"name": "a"}]}) == ['- pairs[1]: {"name": "a"}']
    assert changes(before, {**before, "pairs": [{"name": "a"}, {"name": "a", "n": 1}]}) == ["+ pairs[1].n: 1"]


def test_null_is_a_value_of_its_own() -> None:
    assert changes({"parent": None}, {"parent": None}) == []
    assert changes({"parent": None}, {"parent": "ab"}) == ['~ parent: null → "ab"']
    assert changes({"parent": None}, {}) == ["- parent: null"]
    assert changes(None, {"parent": None}) == ["+ parent: null"]


@pytest.mark.parametrize("items", [["a", "b"], [{"name": "a", "n": 1}, {"name": "b", "n": 2}]])
def test_order_is_a_change_where_it_changes(items: list[Any]) -> None:
    assert changes({"hops": items}, {"hops": list(items)}) == []
    assert changes({"hops": items}, {"hops": items[::-1]}) == ['~ hops (order): ["a", "b"] → ["b", "a"]']


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("ac", "abc", False),  # sorted as it was
        ("ac", "acb", True),
        ("ca", "cab", False),  # at the end
        ("ca", "cba", True),
        ("cab", "cb", False),
    ],
)
def test_where_a_word_was_put_is_said_unless_it_is_expected(before: str, after: str, said: bool) -> None:
    found = changes({"hops": list(before)}, {"hops": list(after)})
    assert any("(order)" in one for one in found) is said


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": "1"}, {"a": 1}),
        ({"a": "true"}, {"a": True}),
        ({"a": 1}, {"a": True}),
        ({"a": "null"}, {"a": None}),
        ({"a": "x"}, {"a": ["x"]}),
        ({"a": []}, {"a": {}}),
        ({"a": ["x", "y"]}, {"a": ["x, y"]}),
        ({"a": {"b": 1}}, {"a.b": 1}),
        ({"a": [1]}, {"a[0]": 1}),
        ({"a": [1]}, {"a": {"0": 1}}),
        ({"a": "paypal"}, {"a": "p\u0430ypal"}),  # a Cyrillic letter
        ({"a": "x\x1b[2K"}, {"a": "x\\x1b[2K"}),
        ({"a": "evil\u202e"}, {"a": "evil\\u202e"}),
        ({"a": "\x7f"}, {"a": "\\u007f"}),
        ({"a": "x" * 5_000 + "1"}, {"a": "x" * 5_000 + "2"}),
        ({"a": "1" + "x" * 5_000}, {"a": "2" + "x" * 5_000}),
    ],
)
@pytest.mark.parametrize("before", [None, {"a": "y" * 400}, {"a": ["y"]}, {"a": {"c": 2}}, {"a": "x" * 400}])
def test_different_records_read_differently(
    before: dict[str, Any] | None, one: dict[str, Any], other: dict[str, Any]
) -> None:
    assert changes(before, one) != changes(before, other)


def test_a_long_text_is_shown_around_where_it_differs() -> None:
    before, after = ("x" * 500 + middle + "y" * 500 for middle in ("old", "older"))
    x, y = "x" * 21, "y" * 24
    assert changes({"reason": before}, {"reason": after}) == [
        f'~ reason (from character 480 on): "{x}old{y}" → "{x}older{y}"'
    ]
    assert changes({"reason": "ab" * 200}, {"reason": "ab" * 201}) == [
        f'~ reason (from character 377 on): "{"ab" * 12}" → "{"ab" * 13}"'
    ]


_JSON = st.recursive(
    st.integers(0, 2) | st.text("ab.", max_size=2) | st.booleans() | st.none() | st.sampled_from(["0" * 300]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "a.b", "name", "[0]"]), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"name": st.sampled_from("abc"), "v": inner}), max_size=3)
    ),
    max_leaves=8,
)
_RECORDS = st.dictionaries(st.sampled_from(["x", "y", "x.y"]), _JSON, max_size=2)


@given(_RECORDS | st.none(), _RECORDS, _RECORDS)
def test_no_two_records_read_the_same(
    before: dict[str, Any] | None, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Compared as sets of lines: members of an object come in the order in which it holds them."""
    same = repr(_sorted(one)) == repr(_sorted(other))
    assert (set(changes(before, one)) == set(changes(before, other))) == same


@given(_RECORDS, _RECORDS)
def test_no_change_goes_unsaid(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert bool(changes(before, after)) == (repr(_sorted(before)) != repr(_sorted(after)))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@given(st.text(), st.text())
def test_whatever_is_shown_is_printable_ascii(text: str, other: str) -> None:
    before = {"a": other, text: [other], "b": [{"name": other, "c": 1}]}
    after = {"a": text, text: [text], "b": [{"name": text, "c": 2}, {"name": text + "x"}]}
    for one in [*differences(None, after), *differences(before, after)]:
        shown = str(one).replace(" → ", " ")
        assert shown.isascii()
        assert shown.isprintable()


@pytest.mark.parametrize("name", ["proof", "alg", "signatures", "schema_version", "cluster_id", "keys"])
def test_a_policy_cannot_hide_a_change_behind_a_familiar_name(name: str) -> None:
    assert changes({"document": {name: 1}}, {"document": {name: 2}}) == [f"~ document.{name}: 1 → 2"]
    assert name in str(changes(None, {"document": {"list": [{name: "x", "key_id": "y"}]}}))
    assert "c2ln" in str(changes(None, {"document": {"keys": [{"proof": "c2ln", "key_id": "y"}]}}))


def test_proofs_of_new_keys_are_not_read_aloud() -> None:
    key = {"key_id": "ab" * 32, "issuer_id": "alice", "proof": "c2lnbmF0dXJl", "alg": "ed25519"}
    said = [f'+ keys[key_id=abababab]: {{"key_id": "{"ab" * 32}", "issuer_id": "alice"}}']
    assert changes({"keys": []}, {"keys": [key]}) == said
    assert changes(None, {"keys": [key]}) == said
    assert changes({"keys": [key]}, {"keys": [{**key, "proof": "eA=="}]}) == [
        '~ keys[key_id=abababab].proof: "c2lnbmF0dXJl" → "eA=="'
    ]


def test_keys_that_begin_alike_are_named_in_full() -> None:
    one, other = "ab" * 32, "ab" * 31 + "cd"
    keys = [{"key_id": name, "custody": "offline"} for name in (one, other)]
    changed = [keys[0], {**keys[1], "custody": "online"}]
    assert changes({"keys": keys}, {"keys": changed}) == [
        f'~ keys[key_id={other}].custody: "offline" → "online"'
    ]


def test_a_quorum_is_read_by_names() -> None:
    old, new = "ab" * 32, "cd" * 32
    before = {"keys": [{"key_id": old, "issuer_id": "alice"}], "root": {"key_ids": [old]}}
    after = {"keys": [{"key_id": new, "issuer_id": "bob"}], "root": {"key_ids": [new, "ef"]}}
    assert changes(before, after) == [
        f'+ keys[key_id=cdcdcdcd]: {{"key_id": "{new}", "issuer_id": "bob"}}',
        f'- keys[key_id=abababab]: {{"key_id": "{old}", "issuer_id": "alice"}}',
        f'+ root.key_ids[]: "bob {new}"',
        '+ root.key_ids[]: "ef"',  # of a key that the record does not list: admission will refuse it
        f'- root.key_ids[]: "alice {old}"',
    ]
    assert changes({"q": {"key_ids": [1]}}, {"keys": [], "q": {"key_ids": [2]}})[1:] == [
        "~ q.key_ids[0]: 1 → 2"
    ]


def test_public_bytes_are_left_out_only_beside_their_hash() -> None:
    key = {"key_id": "ab" * 32, "public": "cHVibGlj"}
    assert "cHVibGlj" not in str(changes({"keys": []}, {"keys": [key]}))
    assert "cHVibGlj" in str(changes({"keys": [key]}, {"keys": [{**key, "public": "b3RoZXI="}]}))
    sequencer = {"node_id": "cd" * 32, "public": "cHVibGlj", "proof": "x"}
    assert "cHVibGlj" in str(changes({"sequencers": []}, {"sequencers": [sequencer]}))


def test_a_large_record_is_compared_in_a_moment() -> None:
    words = [f"w{number}" for number in range(8_000)]
    assert len(changes({"allow": words}, {"allow": [*words[1:], "new"]})) == 2
    assert len(changes({"allow": words}, {"allow": [*words[:4_000], 1, *words[4_000:]]})) == 1
