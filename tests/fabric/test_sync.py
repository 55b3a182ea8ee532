"""Following the log: what a follower takes from a source, and whom it follows."""

from __future__ import annotations

import random

import pytest

from fabric import limits
from fabric.services.messages import MessageError
from fabric.sync import (
    CODEC,
    Entries,
    Fetch,
    Follow,
    Head,
    Intake,
    Message,
    Refuse,
    Sources,
    Start,
    Stop,
    batches,
)
from statelog.errors import Refused
from statelog.note import Note, parse_note
from statelog.replay import Replay
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import cosigned, head_note

# -- messages --


@pytest.mark.parametrize(
    "message",
    [
        Follow("authority", 7, "a" * 64),
        Follow("authority", 0, "a" * 64, entries=False),
        Fetch("authority", 3, 9),
        Entries(5, [b"one", b"two"]),
        Head(b"note"),
        Refuse("other_anchor", "why"),
    ],
)
def test_messages_survive_the_wire(message: Message) -> None:
    assert CODEC.reader().feed(CODEC.encode(message)) == [message]


def test_batches_are_bounded_in_entries_and_bytes_and_leave_nothing_out() -> None:
    for leaves in ([bytes(100)] * 600, [bytes(60_000)] * 30, [b"x"], []):
        messages = batches(11, leaves)
        assert [leaf for m in messages for leaf in m.leaves] == leaves
        assert all(m.start == 11 + sum(len(b.leaves) for b in messages[:i]) for i, m in enumerate(messages))
        for message in messages:
            assert CODEC.encode(message)
            assert sum(map(len, message.leaves)) <= limits.SYNC_BATCH_BYTES


# -- intake --


class Source:
    """An honest log, cut into entries and heads at will."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.leaves = cluster.leaves()

    def entries(self, start: int, end: int) -> Entries:
        return Entries(start, self.leaves[start:end])

    def head(self, size: int, witnesses: tuple[int, ...] = (1, 2, 3), sequencer: str = "sequencer-1") -> Head:
        replay = Replay(self.cluster.anchor)
        for leaf in self.leaves[:size]:
            replay.append(leaf)
        names = [f"witness-{n}" for n in witnesses]
        return Head(cosigned(head_note(replay, sequencer), names, self.cluster.now))


@pytest.fixture(scope="module")
def source() -> Source:
    return Source(make_cluster())


def intake(source: Source) -> Intake:
    return Intake(Replay(source.cluster.anchor))


def test_a_final_head_over_all_entries_gives_a_batch(source: Source) -> None:
    made, size = intake(source), len(source.leaves)
    made.entries(source.entries(0, 5))
    made.entries(source.entries(5, size))
    batch = made.head(source.head(size).note)
    assert batch is not None
    assert [entry.data for entry in batch.entries] == source.leaves
    assert (batch.size, batch.after.root()) == (size, source.cluster.log.tree.root())
    assert {one.witness.name for one in batch.cosigned} == {f"witness-{n}.example" for n in (1, 2, 3)}
    assert len(parse_note(batch.note).signatures) == 1
    assert made.final.size == 0  # nothing is final here before it is stored
    made.accept(batch)
    assert made.final.size == size


def test_it_goes_on_from_head_to_head_and_skips_what_it_has(source: Source) -> None:
    made = intake(source)
    made.entries(source.entries(0, 4))
    first = made.head(source.head(4).note)
    assert first is not None
    made.accept(first)
    made.entries(source.entries(2, 6))
    second = made.head(source.head(6).note)
    assert second is not None
    assert [entry.index for entry in second.entries] == [4, 5]
    made.accept(second)
    assert made.head(source.head(4).note) is None


def test_newer_cosignatures_of_the_same_head_come_without_entries(source: Source) -> None:
    made = intake(source)
    made.entries(source.entries(0, 4))
    first = made.head(source.head(4).note)
    assert first is not None
    made.accept(first)
    again = made.head(source.head(4, witnesses=(2, 3, 4)).note)
    assert again is not None
    assert again.entries == ()
    assert {one.witness.name for one in again.cosigned} == {f"witness-{n}.example" for n in (2, 3, 4)}


@pytest.mark.parametrize(
    ("witnesses", "code"), [((), "SL-FINALITY"), ((1, 2), "SL-FINALITY"), ((1, 1, 1), "SL-FINALITY")]
)
def test_too_few_cosignatures_are_not_final(source: Source, witnesses: tuple[int, ...], code: str) -> None:
    made = intake(source)
    made.entries(source.entries(0, 4))
    with pytest.raises(Refused) as caught:
        made.head(source.head(4, witnesses).note)
    assert caught.value.code == code


def test_a_wrong_cosignature_does_not_count(source: Source) -> None:
    made = intake(source)
    made.entries(source.entries(0, 4))
    note = parse_note(source.head(4).note)
    other = parse_note(source.head(5).note)
    forged = Note(note.text, (*note.signatures[:3], other.signatures[3]))
    with pytest.raises(Refused) as caught:
        made.head(forged.format())
    assert caught.value.code == "SL-FINALITY"


def test_a_head_that_no_sequencer_signed_is_refused(source: Source) -> None:
    made = intake(source)
    made.entries(source.entries(0, 4))
    with pytest.raises(Refused) as caught:
        made.head(source.head(4, sequencer="control-1").note)
    assert caught.value.code == "SL-CHECKPOINT"


def test_an_entry_that_was_changed_or_left_out_is_refused(source: Source) -> None:
    changed = intake(source)
    leaf = bytearray(source.leaves[3])
    leaf[40] ^= 1
    with pytest.raises(Refused):
        changed.entries(Entries(0, [*source.leaves[:3], bytes(leaf)]))
    shorter = intake(source)
    shorter.entries(Entries(0, [*source.leaves[:3], *source.leaves[4:6]]))
    with pytest.raises(Refused) as caught:
        shorter.head(source.head(5).note)
    assert caught.value.code == "SL-ROOT"


def test_another_anchor_is_refused_at_entry_0(source: Source) -> None:
    made = Intake(Replay("0" * 64))
    with pytest.raises(Refused) as caught:
        made.entries(source.entries(0, 1))
    assert caught.value.code == "SL-ANCHOR"


def test_gaps_and_heads_beyond_the_entries_are_no_messages_of_a_source(source: Source) -> None:
    made = intake(source)
    with pytest.raises(MessageError):
        made.entries(source.entries(1, 3))
    made.entries(source.entries(0, 3))
    with pytest.raises(MessageError):
        made.head(source.head(4).note)


def test_what_no_head_covers_is_bounded(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SYNC_UNPROVEN_ENTRIES", 5)
    made = intake(source)
    made.entries(source.entries(0, 5))
    with pytest.raises(MessageError):
        made.entries(source.entries(5, 6))


def test_the_first_head_over_a_new_witness_set_needs_the_old_one_too() -> None:
    cluster = make_cluster(nodes=())
    size = cluster.log.size
    changed = cluster.witness_set("witness-5", "witness-6", "witness-7", "witness-8")
    cluster.append(cluster.descriptor(witnesses=changed, by=("root-1", "root-2")))
    source = Source(cluster)
    made = intake(source)
    made.entries(source.entries(0, size))
    before = made.head(source.head(size).note)
    assert before is not None
    made.accept(before)
    made.entries(source.entries(size, size + 1))
    with pytest.raises(Refused) as caught:
        made.head(source.head(size + 1, witnesses=(5, 6, 7)).note)
    assert caught.value.code == "SL-FINALITY"
    both = made.head(source.head(size + 1, witnesses=(1, 2, 3, 5, 6, 7)).note)
    assert both is not None
    assert len(both.cosigned) == 6


# -- sources --


def up(made: Sources, *names: str, preferred: str = "", now: float = 0.0) -> list[Start | Stop]:
    return [e for name in names for e in made.up(now, name, preferred=name == preferred)]


def test_the_first_peer_is_followed_and_the_others_watched() -> None:
    made = Sources(random.Random(1))
    assert up(made, "a", "b", "c") == [
        Start("a", entries=True),
        Start("b", entries=False),
        Start("c", entries=False),
    ]
    assert (made.main, list(made._watched)) == ("a", ["b", "c"])
    assert made.deadline() is None or made.deadline() == 0.0


def test_watched_peers_are_bounded() -> None:
    made = Sources(random.Random(1))
    up(made, *(str(i) for i in range(30)))
    assert len(made._watched) == limits.SYNC_WATCHED


def test_when_the_followed_peer_goes_another_takes_its_place_at_once() -> None:
    made = Sources(random.Random(1))
    up(made, "a", "b")
    assert made.down(1.0, "a") == [Stop("b"), Start("b", entries=True)]
    assert made.main == "b"


def test_a_sequencer_is_preferred_whenever_it_comes() -> None:
    made = Sources(random.Random(1))
    up(made, "a")
    effects = made.up(1.0, "seq", preferred=True)
    assert made.main == "seq"
    assert Stop("a") in effects
    assert Start("seq", entries=True) in effects
    assert list(made._watched) == ["a"]


def test_a_failed_source_is_left_for_a_growing_while() -> None:
    made = Sources(random.Random(1))
    up(made, "a")
    now, pauses = 0.0, []
    for _ in range(3):
        assert made.failed(now, "a") == []
        due = made.deadline()
        assert due is not None
        assert made.timer(due) == [Start("a", entries=True)]
        pauses.append(due - now)
        now = due
    assert pauses == [0.5, 1.0, 2.0]


def test_a_source_that_sent_what_is_refused_is_not_asked_again() -> None:
    made = Sources(random.Random(1))
    up(made, "a")
    assert made.failed(0.0, "a", barred=True) == []
    assert made.deadline() is None
    assert made.timer(1000.0) == []
    assert up(made, "b", now=1001.0) == [Start("b", entries=True)]
    # A new session is a new chance: the peer may have been repaired.
    assert made.up(1002.0, "a", preferred=False) == [Start("a", entries=False)]


def test_a_source_that_withholds_is_left_for_the_peer_that_shows_more() -> None:
    made = Sources(random.Random(1))
    up(made, "a", "b", "c")
    made.advanced(10)
    assert made.seen(1.0, "c", 12) == []
    due = made.deadline()
    assert due == 1.0 + limits.SYNC_STALL_S
    effects = made.timer(due)
    assert made.main == "c"
    assert effects[:3] == [Stop("a"), Stop("c"), Start("c", entries=True)]


def test_a_source_that_is_only_a_little_late_is_kept() -> None:
    made = Sources(random.Random(1))
    up(made, "a", "b")
    made.advanced(10)
    made.seen(1.0, "b", 12)
    made.advanced(12)
    assert made.timer(10.0) == []
    assert made.main == "a"


def test_heads_of_peers_that_are_not_watched_move_nothing() -> None:
    made = Sources(random.Random(1))
    up(made, "a", "b")
    made.seen(1.0, "stranger", 99)
    assert made.timer(50.0) == []
    assert made.main == "a"


@pytest.mark.parametrize("seed", range(10))
def test_who_shows_more_than_this_node_has_is_followed_first_unless_another_writes(seed: int) -> None:
    made = Sources(random.Random(seed))
    up(made, "main")
    made.advanced(10)
    for name, shown in (("behind", 9), ("ahead", 11), ("level", 10)):
        made.up(1.0, name, preferred=False, shown=shown)
    assert Start("ahead", entries=True) in made.down(2.0, "main")
    made.up(3.0, "seq", preferred=True)
    made.up(3.0, "liar", preferred=False, shown=1 << 50)
    made.down(4.0, "seq")
    made.up(5.0, "seq", preferred=True)
    assert made.main == "seq"
