"""The witness replays what it cosigns: the log's own rules, terms, and its source of entries."""

from __future__ import annotations

from typing import Any

import pytest

from statelog import witness
from statelog.canonical import encode
from statelog.checkpoint import Checkpoint, sign_checkpoint
from statelog.leaf import decode_leaf, frame_leaf
from statelog.merkle import CompactRange, leaf_hash
from statelog.replay import Entry, Replay
from statelog.witness import Fetch, Fetched, Persist, Request
from tests.support.authority import DAY_S, Cluster, make_cluster, sequencer_entry, signer
from tests.support.logs import (
    WitnessHost,
    cosigned,
    cosigned_at,
    head_note,
    leases,
    replay_of,
    request_body,
    verdict,
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Read only: 12 entries."""
    return make_cluster()


# --- the log's own rules ---


def grown(records: list[tuple[bytes, int, int]]) -> Cluster:
    """The small log, and after it whatever a dishonest sequencer adds: (record, sequenced_at, term)."""
    cluster = make_cluster()
    for record, at_, term in records:
        cluster.log.append(record, at_, term)
    return cluster


def bad_note(cluster: Cluster, size: int) -> bytes:
    """The checkpoint that the sequencer signs over entries that no fold accepts."""
    tree = CompactRange()
    for leaf in cluster.leaves()[:size]:
        tree.append(leaf_hash(leaf))
    return sign_checkpoint(
        Checkpoint(f"{cluster.cluster_id}/authority", size, tree.root()), signer("sequencer-1")
    )


def refusal(cluster: Cluster, old: int) -> tuple[int, str]:
    host = cosigned_at(cluster, old)
    before, size = host.stored, cluster.log.size
    reply = host.ask(request_body(cluster, old, size, bad_note(cluster, size)))
    assert host.stored == before
    return verdict(reply)


def test_it_refuses_what_an_auditor_would_refuse() -> None:
    honest = make_cluster()
    size, now = honest.log.size, honest.now
    good, other = leases(honest, 2)
    few = encode(honest.lease("route-9", by=("route-1",)))
    assert refusal(grown([(few, now, 1)]), size) == (422, "SL-QUORUM")
    assert refusal(grown([(good, now, 2)]), size) == (422, "SL-TERM")
    assert refusal(grown([(good, now, 1), (good, now, 1)]), size) == (422, "SL-DUPLICATE")
    assert refusal(grown([(good, now + 1, 1), (other, now, 1)]), size) == (422, "SL-ORDER")
    assert refusal(grown([(few, now, 1), (good, now, 1)]), size) == (
        422,
        "SL-QUORUM",
    )
    two_bad = grown([(few, now, 1), (good, now, 2)])
    assert refusal(two_bad, size) == (422, "SL-QUORUM")  # the first, not the last
    host = cosigned_at(grown([(good, now, 1)]), size)
    assert host.ask(request_body(host.cluster, size, size + 1)).status == 200


def test_a_forged_signature_is_found_before_cosigning() -> None:
    cluster = grown([])
    size = cluster.log.size
    leaf = decode_leaf(frame_leaf(leases(cluster, 1)[0], cluster.now, 1))
    value = leaf.record["signatures"][0]["value"]
    leaf.record["signatures"][0]["value"] = ("B" if value[0] == "A" else "A") + value[1:]
    assert refusal(grown([(encode(leaf.record), cluster.now, 1)]), size) == (422, "SL-SIG")


def test_entries_that_are_not_the_signed_ones_are_no_ground_to_cosign(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    leaves = cluster.leaves()
    leaves[7] = b"not what the sequencer signed"
    host.leaves = lambda: leaves
    assert verdict(host.ask(request_body(cluster, 5, 12))) == (422, "SL-ROOT")
    host.leaves = cluster.leaves
    assert host.ask(request_body(cluster, 5, 12)).status == 200


def test_extension_lines_are_not_cosigned(cluster: Cluster) -> None:
    checkpoint = replay_of(cluster, 12).checkpoint()
    extended = Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, ("trust me",))
    note = sign_checkpoint(extended, signer("sequencer-1"))
    assert verdict(cosigned_at(cluster, 5).ask(request_body(cluster, 5, 12, note))) == (422, "SL-CHECKPOINT")


def test_heads_from_the_future_wait(cluster: Cluster) -> None:
    skew = cluster.state.descriptor.clock_skew_s
    host = WitnessHost(cluster)
    assert verdict(host.ask(request_body(cluster, 0, 12), now=cluster.now - skew - 1)) == (422, "SL-FUTURE")
    assert host.stored is None
    assert host.ask(request_body(cluster, 0, 12), now=cluster.now - skew).status == 200


# --- strangers ---


def by_a_stranger(cluster: Cluster, old: int, size: int) -> bytes:
    checkpoint = Checkpoint(f"{cluster.cluster_id}/authority", size, leaf_hash(b"anything"))
    return request_body(cluster, old, size, sign_checkpoint(checkpoint, signer("stranger")))


def judged_by(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The indexes of the entries that are judged from now on."""
    judged: list[int] = []
    append = Replay.append

    def counted(self: Replay, data: bytes, **options: Any) -> Entry:
        judged.append(self.size)
        return append(self, data, **options)

    monkeypatch.setattr(Replay, "append", counted)
    return judged


def test_what_strangers_ask_for_is_judged_once(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    host, rightful = cosigned_at(cluster, 5), request_body(cluster, 5, 12)
    judged = judged_by(monkeypatch)
    for size in (12, 12, 11, 7, 12, 5_000, 12):
        note = by_a_stranger(cluster, 5, min(size, 12)).replace(b"\n12\n", f"\n{size}\n".encode())
        expected = "SL-WITNESS" if size > 12 else "SL-CHECKPOINT"
        assert verdict(host.ask(note)) == (403, expected)
    assert judged == list(range(5, 12))
    assert host.ask(rightful).status == 200
    assert judged == list(range(5, 12))  # and the sequencer gains by it


def test_a_witness_without_memory_reads_once_too(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    host, rightful = WitnessHost(cluster), request_body(cluster, 0, 12)
    judged = judged_by(monkeypatch)
    for _ in range(3):
        assert verdict(host.ask(by_a_stranger(cluster, 0, 12))) == (403, "SL-CHECKPOINT")
    assert host.ask(rightful).status == 200
    assert judged == list(range(12))


def test_an_entry_that_is_refused_is_judged_once_for_strangers(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = make_cluster()
    size = honest.log.size
    few = encode(honest.lease("route-9", by=("route-1",)))
    cluster = grown([(leases(honest, 1)[0], honest.now, 1), (few, honest.now, 1)])
    host, judged = cosigned_at(cluster, size), judged_by(monkeypatch)
    for _ in range(3):
        assert verdict(host.ask(by_a_stranger(cluster, size, size + 2))) == (403, "SL-CHECKPOINT")
    assert judged == [size, size + 1]
    assert verdict(host.ask(request_body(cluster, size, size + 2, bad_note(cluster, size + 2)))) == (
        422,
        "SL-QUORUM",
    )


@pytest.mark.parametrize("is_wrong", [False, True])
def test_a_suffix_that_was_read_ahead_may_be_replaced(is_wrong: bool) -> None:
    """Strangers make the witness read what a new term then drops."""
    cluster = two_terms()
    host, size = cosigned_at(cluster, 3), cluster.log.size
    by = ("control-1",) if is_wrong else None
    record = encode(cluster.policy("dropped", by=by))
    leaves = [*cluster.leaves()[:3], frame_leaf(record, cluster.now, 1)]
    host.leaves = lambda: leaves
    assert verdict(host.ask(by_a_stranger(cluster, 3, 4))) == (403, "SL-CHECKPOINT")
    host.leaves = cluster.leaves
    assert host.ask(request_body(cluster, 3, size, note_by(cluster, size, "sequencer-2"))).status == 200


def test_the_same_term_may_replace_it_too(cluster: Cluster) -> None:
    """The source was another's, and is right now; the head is by the sequencer that is known."""
    host = cosigned_at(cluster, 5)
    leaves = [*cluster.leaves()[:5], frame_leaf(encode(cluster.policy("other")), cluster.now, 1)]
    host.leaves = lambda: leaves
    assert verdict(host.ask(by_a_stranger(cluster, 5, 6))) == (403, "SL-CHECKPOINT")
    host.leaves = cluster.leaves
    assert host.ask(request_body(cluster, 5, 12)).status == 200


# --- terms ---


def two_terms() -> Cluster:
    cluster = make_cluster(nodes=())
    cluster.append(cluster.log_term(sequencers=[sequencer_entry("sequencer-2", "home-1")]))
    cluster.append(cluster.approval("home-1"))
    return cluster


def note_by(cluster: Cluster, size: int, name: str) -> bytes:
    return sign_checkpoint(replay_of(cluster, size).checkpoint(), signer(name))


def test_a_new_terms_sequencer_is_learnt_from_the_entries() -> None:
    cluster = two_terms()
    host, size = cosigned_at(cluster, 4), cluster.log.size
    assert host.ask(request_body(cluster, 3, size, note_by(cluster, size, "sequencer-2"))).body == b"4\n"
    assert host.ask(request_body(cluster, 4, size, note_by(cluster, size, "sequencer-2"))).status == 200
    assert host.stored is not None
    assert host.stored.term == 2


def test_term_1_is_over_once_term_2_was_seen() -> None:
    cluster = two_terms()
    opened = cluster.log.size - 1  # the size of the head that covers the new term
    host = cosigned_at(cluster, 4)
    assert host.ask(request_body(cluster, 4, opened, note_by(cluster, opened, "sequencer-2"))).status == 200
    late = request_body(cluster, opened, cluster.log.size, note_by(cluster, cluster.log.size, "sequencer-1"))
    assert verdict(host.ask(late)) == (422, "SL-TERM")
    same = request_body(cluster, opened, opened, note_by(cluster, opened, "sequencer-1"))
    assert verdict(host.ask(same)) == (422, "SL-TERM")
    host.restart()
    assert verdict(host.ask(late)) == (422, "SL-TERM")
    right = request_body(cluster, opened, cluster.log.size, note_by(cluster, cluster.log.size, "sequencer-2"))
    assert host.ask(right).status == 200


def test_the_old_sequencer_cannot_sign_the_head_that_opens_the_next_term() -> None:
    cluster = two_terms()
    host, size = cosigned_at(cluster, 4), cluster.log.size
    assert verdict(host.ask(request_body(cluster, 4, size, note_by(cluster, size, "sequencer-1")))) == (
        422,
        "SL-TERM",
    )


# --- the source ---


def test_a_witness_whose_source_is_away_says_so(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    host.leaves = lambda: None
    assert verdict(host.ask(request_body(cluster, 5, 12))) == (503, "SL-WITNESS")
    host.leaves = lambda: cluster.leaves()[:8]  # behind
    assert verdict(host.ask(request_body(cluster, 5, 12))) == (503, "SL-WITNESS")
    assert verdict(host.ask(request_body(cluster, 5, 12, note_by(cluster, 12, "stranger")))) == (
        403,
        "SL-WITNESS",
    )
    host.leaves = cluster.leaves
    assert host.ask(request_body(cluster, 5, 12)).status == 200


def test_entries_are_fetched_in_batches(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witness, "STORE_BATCH_ENTRIES", 5)
    host = WitnessHost(cluster)
    assert host.ask(request_body(cluster, 0, 12)).status == 200
    assert host.fetched == [(0, 5), (5, 10), (10, 12)]


def test_a_source_that_gives_too_much_is_cut(cluster: Cluster) -> None:
    host = WitnessHost(cluster)
    (fetch,) = host.machine.handle(cluster.now, Request(1, request_body(cluster, 0, 5)))
    assert isinstance(fetch, Fetch)
    (effect,) = host.machine.handle(cluster.now, Fetched(1, cluster.leaves()))
    assert isinstance(effect, Persist)
    assert effect.new.size == 5


def test_after_a_restart_it_catches_up_from_its_source(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    host.restart()
    host.fetched.clear()
    assert host.ask(request_body(cluster, 5, 12)).status == 200
    assert host.fetched == [(0, 5), (5, 12)]


def test_a_source_with_another_history_is_of_no_use(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 12)
    host.restart()
    fork = make_cluster(nodes=())
    for n in range(8):
        fork.append(fork.policy(f"p{n}"))
    host.leaves = fork.leaves
    assert verdict(host.ask(request_body(cluster, 12, 12))) == (503, "SL-ROOT")
    host.leaves = cluster.leaves
    assert host.ask(request_body(cluster, 12, 12)).status == 200


def test_who_joins_waits_for_those_before_it() -> None:
    """Until K of them have cosigned the entry that names it, a new term may drop that entry."""
    cluster = make_cluster()
    named = cluster.witness_set("witness-1", "witness-2", "witness-5", "witness-6")
    cluster.append(cluster.descriptor(witnesses=named))
    size = cluster.log.size

    def asked(name: str, by: tuple[str, ...]) -> int:
        note = cosigned(head_note(replay_of(cluster, size)), by)
        return WitnessHost(cluster, name).ask(request_body(cluster, 0, size, note)).status

    assert asked("witness-1", ()) == asked("witness-4", ()) == 200
    assert asked("witness-5", ("witness-1", "witness-2")) == 422
    assert asked("witness-5", ("witness-1", "witness-2", "witness-6")) == 422
    assert asked("witness-5", ("witness-1", "witness-2", "witness-4")) == 200


def test_a_name_that_another_has_left_makes_nobody_one_of_those_before() -> None:
    """Who joins under a name that a witness once had is new all the same: what counts is its key."""
    cluster = make_cluster()
    cluster.append(cluster.policy(lifetime_s=3_600))
    cluster.append(cluster.descriptor(witnesses=cluster.witness_set(*(f"witness-{n}" for n in (5, 6, 7, 8)))))
    named = cluster.witness_set(*(f"witness-{n}" for n in (5, 6, 7, 9)))
    named["keys"][-1]["name"] = "witness-1.example"
    cluster.append(cluster.descriptor(witnesses=named))
    size = cluster.log.size

    def asked(key: str, *by: str) -> int:
        host = WitnessHost(cluster, "witness-1")
        host.machine = witness.Witness(host.origin, host.key_name, signer(key), host.fresh(), None)
        note = cosigned(head_note(replay_of(cluster, size)), by)
        return host.ask(request_body(cluster, 0, size, note), now=cluster.now + 2 * DAY_S).status

    quorum = ("witness-5", "witness-6", "witness-7")
    assert asked("witness-1", *quorum) == 422  # it was named before the policy, which has expired
    assert asked("witness-1", "witness-1", "witness-2") == 200
    assert asked("witness-9", "witness-1", "witness-2") == 422
    assert asked("witness-9", *quorum) == 200
