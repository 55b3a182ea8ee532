"""The auditor on logs in memory: every kind of damage, what it is called, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statelog import audit as audits
from statelog.audit import Checker, Job, Report, audit
from statelog.canonical import encode
from statelog.checkpoint import Checkpoint, parse_signed_checkpoint, sign_checkpoint
from statelog.findings import Finding
from statelog.io.verify_pool import verify_all
from statelog.leaf import decode_leaf, encode_leaf, frame_leaf
from statelog.merkle import EMPTY_ROOT
from statelog.note import Note
from statelog.replay import Entry
from tests.support.authority import BASE_TIME, Cluster, make_cluster, sequencer_entry, signer
from tests.support.logs import MemorySource, cosigned, head_note, leases, replay_of, source_of

CLUSTER = make_cluster()
EACH = range(2, CLUSTER.log.size + 1)  # every size that may have a checkpoint


def codes(report: Report) -> list[tuple[str, int | None]]:
    return [(finding.code, finding.log_index) for finding in report.findings]


def damaged(change: Callable[[list[bytes]], None], sizes: Sequence[int] = EACH) -> Report:
    """The audit of the sound log, its entries changed after its checkpoints were made."""
    source = source_of(CLUSTER, sizes)
    change(source.leaves)
    return audit(source, CLUSTER.anchor)


def replace(index: int, leaf: bytes) -> Callable[[list[bytes]], None]:
    def change(leaves: list[bytes]) -> None:
        leaves[index] = leaf

    return change


def forged(index: int) -> bytes:
    """The leaf `index` with another value of one signature."""
    leaf = decode_leaf(CLUSTER.leaves()[index])
    value = leaf.record["signatures"][0]["value"]
    leaf.record["signatures"][0]["value"] = ("B" if value[0] == "A" else "A") + value[1:]
    return encode_leaf(leaf)


# --- a sound log ---


def test_a_sound_log_has_no_findings() -> None:
    seen: list[int] = []
    report = audit(source_of(CLUSTER, EACH), CLUSTER.anchor, seen.append)
    replay = replay_of(CLUSTER)
    assert report.findings == ()
    assert report.complete
    assert (report.size, report.root, report.origin) == (replay.size, replay.root(), replay.origin)
    assert (report.final_size, report.final_root) == (replay.size, replay.root())
    assert (report.anchor, report.checkpoints) == (CLUSTER.anchor, len(EACH))
    records = sum(len(decode_leaf(leaf).record["signatures"]) for leaf in CLUSTER.leaves())
    assert report.signatures == records + 5 * len(EACH)


def test_progress_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "AUDIT_PROGRESS_ENTRIES", 5)
    seen: list[int] = []
    audit(source_of(CLUSTER), CLUSTER.anchor, seen.append)
    assert seen == [5, 10]


# --- entries ---


def test_another_anchor_ends_the_audit() -> None:
    report = audit(source_of(CLUSTER, EACH), "0" * 64)
    assert codes(report) == [("SL-ANCHOR", 0)]
    assert not report.complete
    assert (report.size, report.origin) == (1, "")


def test_a_log_without_entries() -> None:
    assert codes(audit(MemorySource([]), CLUSTER.anchor)) == [("SL-GENESIS", None)]


def test_a_bad_leaf_is_named_and_the_rest_is_still_judged() -> None:
    report = damaged(replace(5, b"{}"))
    assert codes(report)[:2] == [("SL-LEAF", 5), ("SL-ROOT", 5)]
    assert report.size == CLUSTER.log.size
    assert [code for code, _ in codes(report)].count(
        "SL-ROOT"
    ) == 1  # every later root differs too: said once
    assert {code for code, _ in codes(report)} == {"SL-LEAF", "SL-ROOT", "SL-NOTFINAL"}


def test_a_forged_signature_is_named() -> None:
    report = damaged(replace(5, forged(5)))
    assert codes(report)[:2] == [("SL-SIG", 5), ("SL-ROOT", 5)]


def test_an_accepted_change_is_found_by_the_tree() -> None:
    """One second later is still a rightful leaf: only the signed roots tell."""
    record, at, term = CLUSTER.log.entries[5]
    last = CLUSTER.log.size - 1
    later = frame_leaf(CLUSTER.log.entries[last][0], at + 1, term)
    assert codes(damaged(replace(last, later))) == [("SL-ROOT", last), ("SL-NOTFINAL", last)]
    report = damaged(replace(last, later), sizes=[2, CLUSTER.log.size])  # many entries under one checkpoint
    assert codes(report)[0] == ("SL-ROOT", 2)
    assert f"entries 2 to {last}" in report.findings[0].sentence
    assert len(record) > 0


def test_an_entry_of_a_dishonest_sequencer_is_named() -> None:
    cluster = make_cluster()
    good, few = leases(cluster, 1)[0], encode(cluster.lease("route-9", by=("route-1",)))
    cluster.log.append(few, cluster.now, 1)
    cluster.log.append(good, cluster.now, 1)
    source = MemorySource(cluster.leaves())
    replay = replay_of(cluster, cluster.log.size - 2)
    for leaf in cluster.leaves()[-2:]:
        replay.skip(leaf)
    source.notes.append((replay.size, cosigned(head_note(replay))))
    report = audit(source, cluster.anchor)
    assert codes(report) == [("SL-QUORUM", cluster.log.size - 2)]
    assert report.final_size == cluster.log.size


def test_a_missing_entry_ends_the_audit() -> None:
    class Gap(MemorySource):
        def entries(self) -> Iterable[tuple[int, bytes]]:  # type: ignore[override]  # a plain iterable will do here
            return iter([pair for pair in enumerate(self.leaves) if pair[0] != 5])

    sound = source_of(CLUSTER)
    report = audit(Gap(sound.leaves, sound.notes), CLUSTER.anchor)
    assert codes(report) == [("SL-STORED", 5)]
    assert not report.complete


def test_a_removed_entry_is_found() -> None:
    def drop(leaves: list[bytes]) -> None:
        del leaves[5]

    found = codes(damaged(drop))
    assert ("SL-ROOT", 5) in found
    assert found[-1][0] == "SL-NOTFINAL"
    assert ("SL-CHECKPOINT", CLUSTER.log.size - 1) in found  # covers more than there is


@settings(max_examples=60)
@given(st.data())
def test_any_changed_byte_of_any_entry_is_found_and_named(data: st.DataObject) -> None:
    leaves = CLUSTER.leaves()
    index = data.draw(st.integers(0, len(leaves) - 1))
    at = data.draw(st.integers(0, len(leaves[index]) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != leaves[index][at]))
    report = damaged(replace(index, leaves[index][:at] + bytes([byte]) + leaves[index][at + 1 :]))
    assert report.findings
    # Entry 0 and 1 share the first checkpoint, which then names the first of the two.
    assert report.findings[0].log_index in ({index} if index > 1 else {0, 1})


def test_findings_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audits, "MAX_AUDIT_FINDINGS", 3)

    def spoil(leaves: list[bytes]) -> None:
        leaves[2:] = [b"{}"] * (len(leaves) - 2)

    report = damaged(spoil)
    assert len(report.findings) == 3
    assert not report.complete


# --- checkpoints ---


def with_note(size: int, note: bytes) -> Report:
    source = source_of(CLUSTER, [n for n in EACH if n != size])
    source.notes = sorted([*source.notes, (size, note)])
    return audit(source, CLUSTER.anchor)


def test_a_malformed_checkpoint() -> None:
    assert codes(with_note(5, b"no note")) == [("SL-NOTE", 4)]


def test_a_checkpoint_of_somebody_else() -> None:
    note = sign_checkpoint(replay_of(CLUSTER, 5).checkpoint(), signer("stranger"))
    assert codes(with_note(5, note)) == [("SL-CHECKPOINT", 4)]


def test_a_wrong_signature_of_the_sequencer() -> None:
    _, note = parse_signed_checkpoint(head_note(replay_of(CLUSTER, 5)))
    stray = parse_signed_checkpoint(head_note(replay_of(CLUSTER, 6)))[1].signatures
    assert codes(with_note(5, Note(note.text, stray).format())) == [("SL-CHECKPOINT", 4)]


def test_a_checkpoint_with_another_root() -> None:
    origin = replay_of(CLUSTER).origin
    note = sign_checkpoint(Checkpoint(origin, 5, EMPTY_ROOT), signer("sequencer-1"))
    report = with_note(5, note)
    assert codes(report)[0] == ("SL-ROOT", 4)
    assert report.findings[0].expected == replay_of(CLUSTER, 5).root().hex()


def test_a_checkpoint_of_another_size_or_log() -> None:
    checkpoint = replay_of(CLUSTER, 6).checkpoint()
    assert codes(with_note(5, sign_checkpoint(checkpoint, signer("sequencer-1")))) == [("SL-CHECKPOINT", 4)]
    other = make_cluster(cluster_id="other.abcdefghijklmnopqrstuvwxyz", members=False, nodes=())
    assert codes(with_note(2, head_note(replay_of(other)))) == [("SL-CHECKPOINT", 1)]


def test_a_misplaced_checkpoint_hides_no_later_damage() -> None:
    source = source_of(CLUSTER, [n for n in EACH if n not in (5, 7)])
    misplaced = sign_checkpoint(replay_of(CLUSTER, 6).checkpoint(), signer("sequencer-1"))
    wrong = sign_checkpoint(Checkpoint(replay_of(CLUSTER).origin, 7, EMPTY_ROOT), signer("sequencer-1"))
    source.notes = sorted([*source.notes, (5, misplaced), (7, wrong)])
    assert codes(audit(source, CLUSTER.anchor)) == [("SL-CHECKPOINT", 4), ("SL-ROOT", 6)]


def test_checkpoints_that_have_no_place() -> None:
    assert codes(with_note(1, head_note(replay_of(CLUSTER, 1), by="sequencer-1")))[0] == ("SL-CHECKPOINT", 0)
    beyond = CLUSTER.log.size + 3
    assert codes(with_note(beyond, head_note(replay_of(CLUSTER)))) == [("SL-CHECKPOINT", beyond - 1)]


def test_a_wrong_cosignature_is_named_even_when_enough_are_right() -> None:
    note = parse_signed_checkpoint(cosigned(head_note(replay_of(CLUSTER, 5))))[1]
    stray = parse_signed_checkpoint(cosigned(head_note(replay_of(CLUSTER, 6))))[1].signatures[1]
    lines = (note.signatures[0], stray, *note.signatures[2:])
    assert codes(with_note(5, Note(note.text, lines).format())) == [("SL-COSIGNATURE", 4)]
    last = CLUSTER.log.size
    full = parse_signed_checkpoint(cosigned(head_note(replay_of(CLUSTER))))[1]
    two = Note(full.text, (full.signatures[0], stray, *full.signatures[2:4])).format()
    assert codes(with_note(last, two)) == [("SL-COSIGNATURE", last - 1), ("SL-NOTFINAL", last - 1)]


def test_lines_of_strangers_are_ignored() -> None:
    note = cosigned(head_note(replay_of(CLUSTER, 5)), ["witness-1", "witness-2", "witness-3", "mirror"])
    assert codes(with_note(5, note)) == []


def test_a_tail_without_checkpoint() -> None:
    assert codes(audit(source_of(CLUSTER, [2, 9]), CLUSTER.anchor)) == [("SL-TAIL", 9)]
    assert codes(audit(source_of(CLUSTER, []), CLUSTER.anchor)) == [("SL-TAIL", 0)]


def test_a_newest_head_that_is_not_final() -> None:
    source = source_of(CLUSTER, EACH)
    size = CLUSTER.log.size
    source.notes[-1] = (size, cosigned(head_note(replay_of(CLUSTER)), ["witness-1", "witness-2"]))
    report = audit(source, CLUSTER.anchor)
    assert codes(report) == [("SL-NOTFINAL", size - 1)]
    assert report.final_size == size - 1


def test_a_change_of_witnesses_needs_both_sets() -> None:
    cluster = make_cluster(members=False, nodes=())
    changed = cluster.witness_set("witness-1", "witness-5", "witness-6", "witness-7")
    cluster.append(cluster.descriptor(witnesses=changed))
    size = cluster.log.size
    source = source_of(cluster, [2])
    new_only = ("witness-1", "witness-5", "witness-6", "witness-7")
    for names, final in ((new_only, False), ((*new_only, "witness-2", "witness-3"), True)):
        note = cosigned(head_note(replay_of(cluster)), names)
        report = audit(MemorySource(source.leaves, [*source.notes, (size, note)]), cluster.anchor)
        assert (report.final_size == size) == final
        assert codes(report) == ([] if final else [("SL-NOTFINAL", size - 1)])


def test_a_head_must_be_signed_in_the_term_in_force() -> None:
    cluster = make_cluster(members=False, nodes=())
    cluster.append(cluster.log_term(sequencers=[sequencer_entry("sequencer-2", "home-1")]))
    size = cluster.log.size
    for name, expected in (("sequencer-1", [("SL-CHECKPOINT", size - 1)]), ("sequencer-2", [])):
        note = cosigned(head_note(replay_of(cluster), by=name))
        report = audit(MemorySource(cluster.leaves(), [(size, note)]), cluster.anchor)
        assert codes(report)[:1] == expected


# --- checkers ---


class Counting:
    """A checker that counts entries, and finds one thing wrong at the end."""

    def __init__(self) -> None:
        self.entries: list[int] = []

    def entry(self, entry: Entry) -> None:
        self.entries.append(entry.index)

    def finish(self) -> Iterable[Finding]:
        yield Finding("SL-PROJECTION", "a row differs")


def test_checkers_follow_the_accepted_entries() -> None:
    made: list[Counting] = []

    def checkers() -> Sequence[Checker]:
        made.append(Counting())
        return made[-1:]

    source = source_of(CLUSTER)
    source.leaves[5] = b"{}"
    report = audit(source, CLUSTER.anchor, checkers=checkers)
    assert made[-1].entries == [n for n in range(CLUSTER.log.size) if n != 5]
    assert report.findings[-1].code == "SL-PROJECTION"


# --- signatures elsewhere ---


class Elsewhere:
    """A verifier that keeps the jobs until the end."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs

    def finish(self) -> bool:
        return verify_all(self.jobs)


def test_signatures_checked_elsewhere_give_the_same_report() -> None:
    for index in (None, 0, 1, 5, CLUSTER.log.size - 1):
        source = source_of(CLUSTER, EACH)
        if index is not None:
            source.leaves[index] = forged(index)
        verifier = Elsewhere()
        assert audit(source, CLUSTER.anchor, verifier=verifier) == audit(source, CLUSTER.anchor)
        assert bool(verifier.jobs) == (index != 0)  # without a genesis nothing else is accepted


def test_a_sound_log_is_read_once() -> None:
    passes: list[int] = []

    def checkers() -> Sequence[Checker]:
        passes.append(1)
        return ()

    audit(source_of(CLUSTER), CLUSTER.anchor, verifier=Elsewhere(), checkers=checkers)
    assert len(passes) == 1


def test_proofs_of_new_keys_are_never_left_to_others() -> None:
    """They are no signatures of the record."""
    leaves = CLUSTER.leaves()
    assert codes(audit(MemorySource(leaves[:2]), CLUSTER.anchor, verifier=Elsewhere())) == [("SL-TAIL", 0)]
    term = decode_leaf(leaves[1])
    proof = term.record["sequencers"][0]["proof"]
    term.record["sequencers"][0]["proof"] = ("B" if proof[0] == "A" else "A") + proof[1:]
    term.record["signatures"] = CLUSTER.sign(term.record, ("control-1", "control-2"))["signatures"]
    source = MemorySource([leaves[0], encode_leaf(term)])
    report = audit(source, CLUSTER.anchor, verifier=Elsewhere())
    assert codes(report)[0] == ("SL-KEY", 1)


def test_a_refused_entry_is_refused_for_the_same_reason() -> None:
    """Its signatures are not handed over, and a wrong one comes before what the fold says without them."""
    elsewhere = {**CLUSTER.lease("route-1"), "issuer_role": "control-authority"}  # covered by no signature
    signed = CLUSTER.sign(elsewhere, ("route-1", "route-2"), "route-authority")
    for record, code in ((elsewhere, "SL-SIG"), (signed, "SL-ROLE")):
        source = source_of(CLUSTER, EACH)
        source.leaves.append(frame_leaf(encode(record), BASE_TIME, 1))
        report = audit(source, CLUSTER.anchor, verifier=Elsewhere())
        assert report == audit(source, CLUSTER.anchor)
        assert codes(report)[0] == (code, CLUSTER.log.size)


def test_jobs_are_the_signatures_of_the_record() -> None:
    replay = replay_of(CLUSTER)
    entry = replay.append(replay.next_leaf(leases(CLUSTER, 1)[0], BASE_TIME))
    jobs = audits.signature_jobs(entry)
    assert len(jobs) == 2
    assert verify_all(jobs)
    assert not verify_all([(jobs[0][0], jobs[1][1], jobs[0][2])])
    assert {job[0] for job in jobs} == {signer("route-1").public, signer("route-2").public}


def test_the_cluster_is_not_changed_by_an_audit() -> None:
    before: Cluster = CLUSTER
    audit(source_of(before, EACH), before.anchor)
    assert audit(source_of(before, EACH), before.anchor).findings == ()
