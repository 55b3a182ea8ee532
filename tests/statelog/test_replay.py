"""The fold of a log: its rules entry by entry, and that a refusal changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog import replay as replays
from statelog.canonical import encode
from statelog.checkpoint import Checkpoint, sign_checkpoint
from statelog.errors import Refused, UsageError
from statelog.leaf import Leaf, decode_leaf, encode_leaf, frame_leaf
from statelog.limits import HASH_BYTES
from statelog.merkle import CompactRange, inclusion_proof, leaf_hash, root_of, verify_inclusion
from statelog.replay import Replay
from statelog.signing import encode_base64, record_id_of
from tests.support.authority import Cluster, make_cluster, sequencer_entry, signer
from tests.support.logs import (
    cosigned,
    head_note,
    leases,
    replay_of,
    with_lines,
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Read only: tests that grow a cluster make their own."""
    return make_cluster()


def state_of(replay: Replay) -> tuple[Any, ...]:
    state = replay.state.copy() if replay.started else None
    return replay.size, replay.root(), replay.last_sequenced_at, replay.term, state


def refused(replay: Replay, leaf: bytes) -> Refused:
    """The refusal of `leaf`, after checking that nothing changed."""
    before, index = state_of(replay), replay.size
    with pytest.raises(Refused) as error:
        replay.append(leaf)
    assert state_of(replay) == before
    assert error.value.finding.log_index == index
    return error.value


def test_a_replay_follows_the_log(cluster: Cluster) -> None:
    replay = Replay(cluster.anchor)
    for index, (leaf, (record, at, term)) in enumerate(
        zip(cluster.leaves(), cluster.log.entries, strict=True)
    ):
        entry = replay.append(leaf)
        assert (entry.index, entry.data, entry.leaf_hash) == (index, leaf, leaf_hash(leaf))
        assert encode(entry.record) == record
        assert entry.leaf == Leaf(entry.record, at, term)
        assert entry.record_id == record_id_of(entry.record)
        assert entry.kind.schema == entry.record["schema_version"]
        assert entry.subject == entry.kind.subject(entry.record)
        assert entry.new_nodes[0] == (0, index, leaf_hash(leaf))
        assert replay.root() == root_of(leaf_hash(one) for one in cluster.leaves()[: index + 1])
    assert replay.state == cluster.state
    assert replay.term == 1
    assert replay.origin == f"{cluster.cluster_id}/authority"


def test_the_new_nodes_make_proofs(cluster: Cluster) -> None:
    replay, nodes = Replay(cluster.anchor), {}
    for leaf in cluster.leaves():
        for level, index, hash_ in replay.append(leaf).new_nodes:
            nodes[level, index] = hash_
    size = replay.size
    proof = inclusion_proof(3, size, lambda level, index: nodes[level, index])
    assert verify_inclusion(leaf_hash(cluster.leaves()[3]), 3, size, proof, replay.root())


def test_before_entry_0_there_is_nothing(cluster: Cluster) -> None:
    replay = Replay(cluster.anchor)
    assert not replay.started
    assert (replay.size, replay.term, replay.sequencer_keys()) == (0, 0, [])
    with pytest.raises(UsageError):
        _ = replay.state


# --- genesis and first term ---


def test_the_log_starts_at_the_anchor(cluster: Cluster) -> None:
    leaf = cluster.leaves()[0]
    assert refused(Replay("0" * 64), leaf).code == "SL-ANCHOR"
    assert Replay(cluster.anchor).append(leaf).record_id == cluster.anchor


def test_the_log_starts_with_a_descriptor(cluster: Cluster) -> None:
    approval = encode(cluster.approval("home-1"))
    anchor = record_id_of(cluster.approval("home-1"))
    assert refused(Replay(anchor), frame_leaf(approval, cluster.now, 0)).code == "SL-GENESIS"


def test_entry_0_is_sequenced_when_it_was_issued_in_term_0(cluster: Cluster) -> None:
    record, at, _ = cluster.log.entries[0]
    replay = Replay(cluster.anchor)
    assert refused(replay, frame_leaf(record, at + 1, 0)).code == "SL-GENESIS"
    assert refused(replay, frame_leaf(record, at - 1, 0)).code == "SL-GENESIS"
    assert refused(replay, frame_leaf(record, at, 1)).code == "SL-TERM"
    assert replay.append(frame_leaf(record, at, 0)).index == 0


def test_entry_1_is_the_first_term(cluster: Cluster) -> None:
    replay = replay_of(cluster, 1)
    approval = encode(cluster.approval("home-1", epoch=1))
    for term in (0, 1):
        assert refused(replay, frame_leaf(approval, cluster.now, term)).code == "SL-TERM"
    record, at, _ = cluster.log.entries[1]
    assert refused(replay, frame_leaf(record, at, 0)).code == "SL-TERM"
    assert refused(replay, frame_leaf(record, at, 2)).code == "SL-TERM"
    assert replay.append(frame_leaf(record, at, 1)).index == 1
    assert replay.term == 1


@pytest.mark.parametrize(("start_size", "root_of_size"), [(0, 0), (1, 0), (2, 1)])
def test_the_first_term_starts_at_the_root_of_size_1(start_size: int, root_of_size: int) -> None:
    cluster = Cluster("production", make_cluster().cluster_id, make_cluster().now)
    replay = replay_of(cluster)
    good = cluster.log_term(start_size=1)
    roots = [CompactRange().root(), replay.root()]
    root = encode_base64(roots[root_of_size])
    bad = cluster.sign({**good, "start_size": start_size, "start_root": root})
    assert refused(replay, frame_leaf(encode(bad), cluster.now, 1)).code == "SL-TERM"
    assert replay.append(frame_leaf(encode(good), cluster.now, 1)).index == 1


# --- order ---


def test_time_never_goes_backwards(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    first, second = leases(cluster, 2)
    replay.append(frame_leaf(first, cluster.now + 10, 1))
    error = refused(replay, frame_leaf(second, cluster.now + 9, 1))
    assert error.code == "SL-ORDER"
    assert replay.append(frame_leaf(second, cluster.now + 10, 1)).leaf.sequenced_at == cluster.now + 10


def test_a_leaf_carries_the_term_in_force(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    (record,) = leases(cluster, 1)
    for term in (0, 2):
        assert refused(replay, frame_leaf(record, cluster.now, term)).code == "SL-TERM"
    assert replay.append(frame_leaf(record, cluster.now, 1)).leaf.term == 1


def test_no_record_is_in_the_log_twice(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    (record,) = leases(cluster, 1)
    leaf = frame_leaf(record, cluster.now, 1)
    entry = replay.append(leaf)
    error = refused(replay, leaf)
    assert error.code == "SL-DUPLICATE"
    assert error.finding.record_id == entry.record_id
    later = encode(cluster.lease("route-0", epoch=2))
    replay.append(frame_leaf(later, cluster.now, 1))
    assert refused(replay, leaf).code == "SL-STALE"  # the subject has moved on


def test_a_record_is_judged_at_its_own_time_and_not_the_readers(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    (record,) = leases(cluster, 1)
    expired = frame_leaf(record, cluster.now + 3_600, 1)
    assert refused(replay, expired).code == "SL-EXPIRED"
    assert replay.append(frame_leaf(record, cluster.now + 3_599, 1)).index == replay.size - 1


def test_malformed_leaves_are_refused(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    leaf = frame_leaf(leases(cluster, 1)[0], cluster.now, 1)
    assert refused(replay, leaf + b" ").code == "SL-LEAF"
    assert refused(replay, leaf.replace(b'"hops"', b' "hops"')).code == "SL-CANON"
    assert refused(replay, b"").code == "SL-LEAF"
    assert replay.append(leaf).index == replay.size - 1


# --- signatures skipped ---


def test_only_the_cryptography_can_be_skipped(cluster: Cluster) -> None:
    leaf = decode_leaf(frame_leaf(leases(cluster, 1)[0], cluster.now, 1))
    value = leaf.record["signatures"][0]["value"]
    leaf.record["signatures"][0]["value"] = ("B" if value[0] == "A" else "A") + value[1:]
    forged = encode_leaf(leaf)
    assert refused(replay_of(cluster), forged).code == "SL-SIG"
    assert replay_of(cluster).append(forged, verify_signatures=False).index == cluster.log.size

    del leaf.record["signatures"][0]
    with pytest.raises(Refused) as error:
        replay_of(cluster).append(encode_leaf(leaf), verify_signatures=False)
    assert error.value.code == "SL-QUORUM"


# --- next_leaf ---


def test_the_sequencer_makes_the_leaf_that_the_fold_accepts(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    for record in leases(cluster, 3):
        leaf = replay.next_leaf(record, cluster.now + 5)
        assert decode_leaf(leaf).sequenced_at == cluster.now + 5
        replay.append(leaf)


def test_a_clock_that_goes_back_does_not_take_the_log_along(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    first, second = leases(cluster, 2)
    replay.append(replay.next_leaf(first, cluster.now + 100))
    leaf = replay.next_leaf(second, cluster.now)
    assert decode_leaf(leaf).sequenced_at == cluster.now + 100
    replay.append(leaf)


def test_the_mention_of_a_term_is_not_a_term(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    record = encode(cluster.policy("p", {"about": "rap.fabric.log.term.v1", "log": "authority", "term": 7}))
    assert decode_leaf(replay.next_leaf(record, cluster.now)).term == 1
    assert replay.append(replay.next_leaf(record, cluster.now)).leaf.term == 1


# --- a new term ---


def second_term(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    return cluster.log_term(sequencers=[sequencer_entry("sequencer-2", "home-1")], **changes)


def test_a_term_record_is_the_first_leaf_of_its_term() -> None:
    cluster = make_cluster()
    replay = replay_of(cluster)
    record = encode(second_term(cluster))
    assert decode_leaf(replay.next_leaf(record, cluster.now)).term == 2
    assert refused(replay, frame_leaf(record, cluster.now, 1)).code == "SL-TERM"
    assert replay.append(replay.next_leaf(record, cluster.now)).leaf.term == 2
    assert replay.term == 2
    (lease,) = leases(cluster, 1)
    assert refused(replay, frame_leaf(lease, cluster.now, 1)).code == "SL-TERM"
    assert replay.append(replay.next_leaf(lease, cluster.now)).leaf.term == 2


def test_the_term_of_another_log_is_an_entry_like_any_other() -> None:
    cluster = make_cluster()
    replay = replay_of(cluster)
    record = encode(cluster.log_term("routes-eu-1", start_size=0))
    assert decode_leaf(replay.next_leaf(record, cluster.now)).term == 1
    cluster.append(second_term(cluster))
    replay = replay_of(cluster)
    leaf = replay.next_leaf(record, cluster.now)
    assert decode_leaf(leaf).term == 2
    assert refused(replay, frame_leaf(record, cluster.now, 1)).code == "SL-TERM"
    assert replay.append(leaf).leaf.term == 2
    assert replay.term == 2


def test_a_term_may_start_before_its_entry() -> None:
    """Between the ceremony and the append the old sequencer may have gone on."""
    cluster = make_cluster()
    record = second_term(cluster)
    start = cluster.log.size
    for lease in leases(cluster, 3):
        replay_record = lease
        cluster.log.append(replay_record, cluster.now, 1)
    replay = replay_of(cluster)
    assert replay.root_at(start) == cluster.log.root_at(start)
    assert replay.append(replay.next_leaf(encode(record), cluster.now)).leaf.term == 2


def test_a_term_starts_at_a_root_that_the_log_had() -> None:
    cluster = make_cluster()
    replay = replay_of(cluster)
    wrong_root = cluster.sign({**second_term(cluster), "start_root": encode_base64(b"x" * 32)})
    beyond = cluster.sign({**second_term(cluster), "start_size": cluster.log.size + 1})
    skipping = cluster.sign({**second_term(cluster), "term": 3, "epoch": 3})
    for bad in (wrong_root, beyond, skipping):
        assert refused(replay, replay.next_leaf(encode(bad), cluster.now)).code == "SL-TERM"
    assert replay.append(replay.next_leaf(encode(second_term(cluster)), cluster.now)).leaf.term == 2


def test_roots_are_known_back_to_the_window(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "_WINDOW_BYTES", 4 * HASH_BYTES)
    replay = Replay(cluster.anchor)
    for size, leaf in enumerate(cluster.leaves(), 1):
        replay.append(leaf)
        known = [n for n in range(size + 2) if replay.root_at(n) is not None]
        assert known == list(range(known[0], size + 1))
        assert size - known[0] >= min(4, size)
        assert len(known) <= 9
        for n in known:
            assert replay.root_at(n) == root_of(leaf_hash(one) for one in cluster.leaves()[:n])


# --- copies, and an auditor's moves ---


def test_a_copy_goes_its_own_way(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    before = state_of(replay)
    other = replay.copy()
    assert state_of(other) == before
    other.append(other.next_leaf(leases(cluster, 1)[0], cluster.now))
    assert state_of(replay) == before
    assert other.size == replay.size + 1
    assert other.root_at(replay.size) == replay.root()


def test_a_skipped_entry_counts_in_the_tree_alone(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    state = replay.state.copy()
    leaf = b"not a leaf"
    assert replay.skip(leaf) == leaf_hash(leaf)
    assert replay.size == cluster.log.size + 1
    assert replay.root() == root_of(leaf_hash(one) for one in [*cluster.leaves(), leaf])
    assert replay.state == state
    assert replay.append(replay.next_leaf(leases(cluster, 1)[0], cluster.now)).index == cluster.log.size + 1


def test_realigning_needs_a_tree_of_the_same_size(cluster: Cluster) -> None:
    replay, good = replay_of(cluster, 5), replay_of(cluster, 6)
    replay.skip(b"damaged")
    replay.realign(good.tree())
    assert replay.root() == good.root()
    with pytest.raises(ValueError, match="not one of"):
        replay.realign(CompactRange())


# --- heads ---


def test_a_head_is_the_signed_word_of_the_terms_sequencer(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    checkpoint, note = replay.verify_head(cosigned(head_note(replay)))
    assert checkpoint == Checkpoint(replay.origin, replay.size, replay.root())
    assert len(note.signatures) == 5


def refused_head(replay: Replay, checkpoint: Checkpoint, by: str = "sequencer-1") -> str:
    with pytest.raises(Refused) as error:
        replay.verify_head(sign_checkpoint(checkpoint, signer(by)))
    assert error.value.finding.log_index == replay.size - 1
    return error.value.code


def test_other_heads_are_refused(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    origin, size, root = replay.origin, replay.size, replay.root()
    assert refused_head(replay, Checkpoint(f"{origin}x", size, root)) == "SL-CHECKPOINT"
    assert refused_head(replay, Checkpoint(origin, size + 1, root)) == "SL-CHECKPOINT"
    assert refused_head(replay, Checkpoint(origin, size - 1, root)) == "SL-CHECKPOINT"
    assert refused_head(replay, Checkpoint(origin, size, b"x" * 32)) == "SL-ROOT"
    assert refused_head(replay, Checkpoint(origin, size, root, ("more",))) == "SL-CHECKPOINT"
    assert refused_head(replay, Checkpoint(origin, size, root), by="witness-1") == "SL-CHECKPOINT"
    with pytest.raises(Refused) as error:
        replay.verify_head(b"no note")
    assert error.value.code == "SL-NOTE"
    assert replay.verify_head(head_note(replay))[0].size == size


def test_a_head_is_compared_line_by_line(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    origin, size, root = replay.origin, replay.size, replay.root()
    replay.check_head(Checkpoint(origin, size, root))
    for other, code in (
        (Checkpoint(f"{origin}x", size, root), "SL-CHECKPOINT"),
        (Checkpoint(origin, size + 1, root), "SL-CHECKPOINT"),
        (Checkpoint(origin, size, b"x" * 32), "SL-ROOT"),
    ):
        with pytest.raises(Refused) as error:
            replay.check_head(other)
        assert error.value.code == code


def test_a_wrong_line_of_the_sequencer_spoils_the_head(cluster: Cluster) -> None:
    replay = replay_of(cluster)
    note = head_note(replay)
    _, parsed = replay.verify_head(note)
    other = replay_of(cluster, 5)
    _, stray = other.verify_head(head_note(other))
    with pytest.raises(Refused) as error:
        replay.verify_head(with_lines(parsed, stray.signatures).format())
    assert error.value.code == "SL-CHECKPOINT"


def test_an_earlier_terms_key_signs_no_head_any_more() -> None:
    cluster = make_cluster()
    cluster.append(second_term(cluster))
    replay = replay_of(cluster)
    checkpoint = replay.checkpoint()
    assert refused_head(replay, checkpoint, by="sequencer-1") == "SL-CHECKPOINT"
    assert replay.verify_head(sign_checkpoint(checkpoint, signer("sequencer-2")))[0] == checkpoint
    assert [key.public for key in replay.past_sequencer_keys()] == [signer("sequencer-1").public]
    assert [key.public for key in replay.sequencer_keys()] == [signer("sequencer-2").public]
    assert replay.copy().past_sequencer_keys() == replay.past_sequencer_keys()
    assert replay_of(cluster, 5).past_sequencer_keys() == []


# --- any byte ---


@given(st.data())
def test_a_changed_byte_never_gives_the_same_log(data: st.DataObject) -> None:
    cluster, leaves = CHANGED, CHANGED.leaves()
    index = data.draw(st.integers(0, len(leaves) - 1))
    at = data.draw(st.integers(0, len(leaves[index]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != leaves[index][at]))
    changed = leaves[index][:at] + bytes([byte]) + leaves[index][at + 1 :]
    replay = replay_of(cluster, index)
    try:
        entry = replay.append(changed)
    except Refused as error:
        refusal: Refused | None = error
    else:
        refusal = None
        assert entry.leaf_hash != leaf_hash(leaves[index])
    assert refusal is None or refusal.finding.log_index == index


CHANGED = make_cluster(members=False, nodes=("home-1",))
