"""Quorum: distinct keys of distinct issuers, whatever the order, the repetition and the noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.quorum import Key, KeySet, QuorumResult, count, speakers
from tests.support.authority import key_id, signer


def key(name: str, issuer: str) -> Key:
    return Key(key_id(name), signer(name).public, issuer, "online")


NAMES = [f"k{n}" for n in range(8)]


@st.composite
def key_sets(draw: st.DrawFn) -> KeySet:
    """Any distribution of up to eight keys over up to four issuers, with any threshold."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    issuers = [draw(st.sampled_from("abcd")) for _ in names]
    threshold = draw(st.integers(0, 6))
    return KeySet("role", None, threshold, tuple(key(n, i) for n, i in zip(names, issuers, strict=True)))


signatures = st.lists(st.sampled_from([*map(key_id, NAMES), "f" * 64]), max_size=20)


@given(key_sets(), signatures)
def test_met_exactly_when_enough_issuers_signed(key_set: KeySet, key_ids: list[str]) -> None:
    issuers = {key_set.by_id[one].issuer_id for one in key_ids if one in key_set.by_id}
    usable = 1 <= key_set.threshold <= len({one.issuer_id for one in key_set.keys})
    result = count(key_set, key_ids)
    assert result.met == (usable and len(issuers) >= key_set.threshold)
    assert len(result.signed) == len(issuers)


@given(key_sets(), signatures)
def test_speakers_are_a_quorum_of_the_set_in_its_role(key_set: KeySet, key_ids: list[str]) -> None:
    known = all(one in key_set.by_id for one in key_ids)
    issuers = {one.key_id: one.issuer_id for one in key_set.keys}
    signed = tuple((one, issuers.get(one, "a"), "role") for one in key_ids)
    found = [speakers(key_set, "role", signed) for _ in range(2)]  # the second time from memory
    if known and count(key_set, key_ids).met:
        assert found == [tuple(key_set.by_id[one].public for one in key_ids)] * 2
    else:
        assert found == [None, None]
    more = key_set.keys[0]
    assert speakers(key_set, "role", (*signed, (more.key_id, more.issuer_id, "other"))) is None
    assert speakers(key_set, "role", (*signed, (more.key_id, "z", "role"))) is None
    assert speakers(key_set, "other", signed) is None


@given(key_sets(), signatures, st.randoms())
def test_order_and_repetition_say_nothing(key_set: KeySet, key_ids: list[str], random: object) -> None:
    shuffled = [*key_ids, *key_ids]
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis hands in a random.Random
    assert count(key_set, shuffled) == count(key_set, key_ids)


@given(key_sets(), signatures, signatures)
def test_more_signatures_never_hurt(key_set: KeySet, some: list[str], more: list[str]) -> None:
    assert count(key_set, [*some, *more]).missing <= count(key_set, some).missing


@given(key_sets(), signatures)
def test_signed_names_one_listed_signer_per_issuer(key_set: KeySet, key_ids: list[str]) -> None:
    signed = count(key_set, key_ids).signed
    assert set(signed) <= set(key_ids)
    issuers = [key_set.by_id[one].issuer_id for one in signed]
    assert len(issuers) == len(set(issuers))
    assert list(signed) == sorted(signed)


def two_of_three() -> KeySet:
    return KeySet("role", None, 2, (key("k0", "a"), key("k1", "b"), key("k2", "b")))


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        ([], 2),
        (["k0"], 1),
        (["k0", "k0"], 1),  # one key, twice
        (["k1", "k2"], 1),  # one issuer, two keys
        (["k0", "k7"], 1),  # a stranger
        (["k0", "k1"], 0),
        (["k2", "k0", "k1"], 0),
    ],
)
def test_two_of_three(names: list[str], missing: int) -> None:
    result = count(two_of_three(), map(key_id, names))
    assert (result.missing, result.threshold, result.met) == (missing, 2, missing == 0)


def test_the_answer_says_who_and_how_many() -> None:
    result = count(two_of_three(), [key_id("k0")])
    assert result == QuorumResult((key_id("k0"),), 1, 2)
    assert str(result) == "1 of 2"


def listed_twice() -> KeySet:
    return KeySet("role", None, 2, (key("k0", "a"), key("k1", "b"), key("k0", "c")))


def wrong_id() -> KeySet:
    stranger = Key(key_id("k1"), signer("k2").public, "b", "online")
    return KeySet("role", None, 2, (key("k0", "a"), stranger))


@pytest.mark.parametrize(
    ("key_set", "code"),
    [
        (KeySet("role", None, 0, (key("k0", "a"),)), "SL-THRESHOLD"),
        (KeySet("role", None, 2, (key("k0", "a"),)), "SL-THRESHOLD"),
        (KeySet("role", None, 2, (key("k0", "a"), key("k1", "a"))), "SL-THRESHOLD"),
        (KeySet("role", None, 1, ()), "SL-THRESHOLD"),
        (KeySet("role", None, 1, (key("k0", "a"),) * 65), "SL-THRESHOLD"),
        (listed_twice(), "SL-KEY"),
        (wrong_id(), "SL-KEY"),
    ],
)
def test_a_faulty_set_is_never_met(key_set: KeySet, code: str) -> None:
    assert key_set.fault is not None
    assert key_set.fault.code == code
    assert not count(key_set, [one.key_id for one in key_set.keys]).met


def test_a_sound_set_has_no_fault() -> None:
    assert two_of_three().fault is None
    assert two_of_three().issuers == {"a", "b"}
