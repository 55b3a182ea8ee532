"""The authority log of a source that is not believed, as far as its witnesses made it final."""

from __future__ import annotations

import pytest

from statelog.errors import SourceUnreadable
from statelog.io.following import FollowedAuthority
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import ClusterEntries, cosigned, head_note, replay_of


@pytest.fixture
def cluster() -> Cluster:
    return make_cluster()


def followed(cluster: Cluster, *final: int) -> tuple[FollowedAuthority, ClusterEntries]:
    source = ClusterEntries(cluster)
    source.final = list(final)
    return FollowedAuthority(cluster.anchor, source), source


def test_it_goes_as_far_as_heads_are_final(cluster: Cluster) -> None:
    authority, source = followed(cluster)
    authority.catch_up()
    assert authority.final_size() == 0
    source.final = [5, 9]
    authority.catch_up()
    assert authority.final_size() == 9
    assert authority.final.root() == replay_of(cluster, 9).root()
    assert list(authority.leaves(2, 9)) == cluster.leaves()[2:9]
    source.final.append(cluster.log.size)
    before = len(source.reads)
    authority.catch_up()
    assert authority.final_size() == cluster.log.size
    assert source.reads[before][0] == 9  # what was judged is not read again


def test_a_head_that_too_few_cosigned_is_not_final(cluster: Cluster) -> None:
    authority, source = followed(cluster, 9)
    source.witnesses = ("witness-1", "witness-2")
    with pytest.raises(SourceUnreadable, match="its witnesses made 0 so"):
        authority.catch_up()
    assert authority.final_size() == 0
    source.witnesses = ("witness-1", "witness-2", "witness-3")
    authority.catch_up()
    assert authority.final_size() == 9


def test_a_change_of_witnesses_must_be_covered_by_both_sets() -> None:
    cluster = make_cluster(members=False, nodes=())
    names = ("witness-1", "witness-5", "witness-6", "witness-7")
    cluster.append(cluster.descriptor(witnesses=cluster.witness_set(*names)))
    change = cluster.log.size
    cluster.append(cluster.approval("home-1"))
    authority, source = followed(cluster, change, cluster.log.size)
    source.witnesses = names  # as if the new ones alone had taken the log over
    with pytest.raises(SourceUnreadable, match="its witnesses made 0 so"):
        authority.catch_up()
    heads = ((change, (*names, "witness-2", "witness-3")), (cluster.log.size, names))
    notes = [(size, cosigned(head_note(replay_of(cluster, size)), by)) for size, by in heads]
    source.heads = lambda start: (one for one in notes if one[0] >= start)  # type: ignore[method-assign]  # each by its own witnesses
    authority.catch_up()
    assert authority.final_size() == cluster.log.size


def badly_signed(leaves: list[bytes], at: int) -> list[bytes]:
    """The leaves, the first signature of one of them changed."""
    before, value = leaves[at].split(b'"value":"', 1)
    first = b"B" if value.startswith(b"A") else b"A"
    return [*leaves[:at], before + b'"value":"' + first + value[1:], *leaves[at + 1 :]]


def test_a_head_over_other_entries_is_none(cluster: Cluster) -> None:
    authority, source = followed(cluster, 9)
    source.heads = lambda start: iter([(9, cosigned(head_note(replay_of(cluster, 8))))])  # type: ignore[method-assign]  # a source that lies
    with pytest.raises(SourceUnreadable, match="SL-CHECKPOINT"):
        authority.catch_up()
    assert authority.final_size() == 0


def test_an_entry_against_the_rules_or_badly_signed_is_not_taken(cluster: Cluster) -> None:
    leaves = cluster.leaves()
    authority, source = followed(cluster, 9)
    source.leaves = badly_signed(leaves, 7)
    with pytest.raises(SourceUnreadable, match="SL-SIG"):
        authority.catch_up()
    source.leaves = leaves
    authority.catch_up()
    assert authority.final_size() == 9


def test_what_it_has_cosigned_itself_is_taken_without_its_signatures_but_not_without_its_root(
    cluster: Cluster,
) -> None:
    authority, _ = followed(cluster, 9)
    with pytest.raises(SourceUnreadable, match="has cosigned"):
        authority.catch_up((5, b"\0" * 32))
    authority.catch_up((5, replay_of(cluster, 5).root()))
    assert authority.final_size() == 9


def test_a_cosigned_head_beyond_the_final_one_spares_no_signature(cluster: Cluster) -> None:
    authority, source = followed(cluster, 9)
    source.leaves = badly_signed(cluster.leaves(), 7)
    with pytest.raises(SourceUnreadable, match="SL-SIG"):
        authority.catch_up((12, replay_of(cluster, 12).root()))


def test_what_is_read_again_must_be_what_was_judged(cluster: Cluster) -> None:
    authority, source = followed(cluster, 9)
    authority.catch_up()
    leaves = cluster.leaves()
    assert list(authority.leaves(3, 5)) == leaves[3:5]
    source.leaves = [*leaves[:4], leaves[5], *leaves[5:]]
    with pytest.raises(SourceUnreadable, match="another entry 4"):
        list(authority.leaves(3, 5))
    source.leaves = leaves[:4]
    with pytest.raises(SourceUnreadable, match="ends at 4"):
        list(authority.leaves(3, 5))
