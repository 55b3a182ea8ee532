"""Who makes a head final, and from when its age counts."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.errors import Refused
from statelog.finality import (
    final_cosignatures,
    finality,
    freshness,
    is_final,
    needed_sets,
    takeover_size,
)
from statelog.note import Note, NoteSignature
from statelog.state import WitnessSet
from tests.support.authority import BASE_TIME, Cluster, key_id, make_cluster, signer
from tests.support.logs import (
    WITNESSES,
    cosigned,
    head_note,
    replay_of,
    with_lines,
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return make_cluster(members=False, nodes=())


@pytest.fixture(scope="module")
def note(cluster: Cluster) -> bytes:
    return head_note(replay_of(cluster))


def parsed(data: bytes) -> Note:
    return parse_signed_checkpoint(data)[1]


@pytest.mark.parametrize("count", range(5))
def test_three_of_four_witnesses_make_a_head_final(cluster: Cluster, note: bytes, count: int) -> None:
    result = final_cosignatures(parsed(cosigned(note, WITNESSES[:count])), cluster.state.witnesses)
    assert result.met == (count >= 3)
    assert result.missing == max(0, 3 - count)
    assert result.signed == tuple(f"{name}.example" for name in WITNESSES[:count])
    assert result.threshold == 3
    assert str(result) == f"{count} of 3"


def test_one_witness_counts_once(cluster: Cluster, note: bytes) -> None:
    twice = cosigned(cosigned(note, WITNESSES[:2]), WITNESSES[:2], BASE_TIME + 60)
    result = final_cosignatures(parsed(twice), cluster.state.witnesses)
    assert result.missing == 1
    assert set(result.timestamps.values()) == {BASE_TIME + 60}  # each one's newest


def test_strangers_and_wrong_signatures_count_for_nobody(cluster: Cluster, note: bytes) -> None:
    witnesses = cluster.state.witnesses
    stranger = parsed(cosigned(note, [*WITNESSES[:2], "stranger"]))
    assert final_cosignatures(stranger, witnesses).missing == 1
    assert final_cosignatures(stranger, witnesses).findings == ()

    text = parsed(note).text
    good = cosign(text, "witness-3.example", signer("witness-3"), BASE_TIME)
    forged = NoteSignature(good.name, good.key_id, good.signature[:-1] + bytes([good.signature[-1] ^ 1]))
    result = final_cosignatures(with_lines(parsed(cosigned(note, WITNESSES[:2])), [forged]), witnesses)
    assert result.missing == 1
    assert [finding.code for finding in result.findings] == ["SL-COSIGNATURE"]
    both = with_lines(parsed(cosigned(note, WITNESSES[:2])), [forged, good])
    assert final_cosignatures(both, witnesses).met

    impostor = cosign(text, "witness-3.example", signer("stranger"), BASE_TIME)
    by_impostor = final_cosignatures(with_lines(parsed(note), [impostor]), witnesses)
    assert (by_impostor.signed, by_impostor.findings) == ((), ())  # an unknown key, whatever its name


def test_a_cosignature_of_another_head_does_not_count(cluster: Cluster, note: bytes) -> None:
    other = cosigned(head_note(replay_of(make_cluster(members=False, nodes=(), now=BASE_TIME + 1))))
    mixed = with_lines(parsed(note), parsed(other).signatures)
    assert final_cosignatures(parsed(other), cluster.state.witnesses).met
    assert final_cosignatures(mixed, cluster.state.witnesses).signed == ()


def test_a_quorum_counts_issuers(cluster: Cluster, note: bytes) -> None:
    """A set that lists one issuer twice slipped in wrong: it is never met, and its keys count once."""
    keys = cluster.state.witnesses.keys
    shared = WitnessSet(3, 1, (keys[0], replace(keys[1], issuer_id=keys[0].issuer_id), *keys[2:]))
    result = final_cosignatures(parsed(cosigned(note, WITNESSES[:3])), shared)
    assert result.signed == ("witness-1.example", "witness-3.example")
    assert result.missing == 1
    assert not final_cosignatures(parsed(cosigned(note)), shared).met
    assert final_cosignatures(parsed(cosigned(note)), cluster.state.witnesses).met


def test_a_set_that_protects_nobody_is_never_met(cluster: Cluster, note: bytes) -> None:
    keys = cluster.state.witnesses.keys
    for threshold, faulty in ((0, 0), (2, 1), (4, 1)):
        weak = WitnessSet(threshold, faulty, keys)
        assert weak.fault is not None
        assert final_cosignatures(parsed(cosigned(note)), weak).missing >= 1


def test_a_change_of_witnesses_needs_both_quorums() -> None:
    cluster = make_cluster(members=False, nodes=())
    before = cluster.state.witnesses
    changed = cluster.witness_set("witness-1", "witness-5", "witness-6", "witness-7")
    cluster.append(cluster.descriptor(witnesses=changed))
    cluster.append(cluster.approval("home-1"))
    replay = replay_of(cluster)
    after = cluster.state.witnesses
    note, size = head_note(replay), replay.size

    assert needed_sets(replay.state, 0, 2) == (before,)
    assert needed_sets(replay.state, 2, size) == (before, after)
    assert needed_sets(replay.state, 3, size) == (after,)  # a final head has covered the change
    assert needed_sets(replay.state, size, size) == (after,)

    def final(*names: str) -> bool:
        return is_final(finality(parsed(cosigned(note, names)), needed_sets(replay.state, 2, size)))

    assert not final("witness-1", "witness-5", "witness-6", "witness-7")
    assert not final("witness-1", "witness-2", "witness-3", "witness-4")
    assert not final("witness-1", "witness-2", "witness-3", "witness-5")
    assert final("witness-1", "witness-2", "witness-3", "witness-5", "witness-6")


def test_a_head_that_needs_nobody_is_not_final() -> None:
    assert not is_final([])


def test_age_counts_from_a_time_that_f_liars_cannot_move(cluster: Cluster, note: bytes) -> None:
    data = note
    for name, at in zip(WITNESSES[:3], (100, 200, 900), strict=True):
        data = cosigned(data, [name], at)
    result = final_cosignatures(parsed(data), cluster.state.witnesses)
    assert freshness(result, faulty=1) == 200
    assert freshness(result, faulty=0) == 900
    assert freshness(result, faulty=3) is None
    assert key_id("witness-1") == cluster.state.witnesses.by_name["witness-1.example"].key_id


# --- where a new term may start ---


@functools.cache
def witness_set() -> WitnessSet:
    return make_cluster().state.witnesses


@pytest.mark.parametrize(
    ("sizes", "least"),
    [
        ((5, 5, 5), 5),  # K say 5: whatever lies above has at most the fourth, and a liar
        ((5, 5, 7), 7),  # 7 may be final: this one, the silent one, and the liar among the others
        ((5, 5, 5, 7), 5),
        ((3, 5, 7, 7), 7),
        ((0, 0, 0, 9), 0),
    ],
)
def test_a_term_starts_above_all_that_may_be_final(sizes: tuple[int, ...], least: int) -> None:
    witnesses = witness_set()
    said = dict(zip(sorted(witnesses.by_name), sizes, strict=False))
    assert takeover_size(said, witnesses) == least
    assert takeover_size({**said, "stranger": 99}, witnesses) == least


def test_too_few_witnesses_tell_nothing() -> None:
    witnesses = witness_set()
    said = dict.fromkeys(sorted(witnesses.by_name)[:2], 5)
    with pytest.raises(Refused) as error:
        takeover_size(said, witnesses)
    assert error.value.code == "SL-FINALITY"


@given(st.lists(st.integers(0, 6), min_size=4, max_size=4), st.integers(0, 3), st.permutations(range(4)))
def test_no_head_that_became_final_lies_above(true: list[int], lie: int, order: list[int]) -> None:
    """Whoever answers, and whatever one of them says instead of the truth."""
    witnesses = witness_set()
    names = sorted(witnesses.by_name)
    final = max(size for size in range(7) if size == 0 or sum(one >= size for one in true) >= 3)
    said = {names[n]: true[n] for n in order[:3]}
    said[names[order[0]]] = lie
    assert takeover_size(said, witnesses) >= final
