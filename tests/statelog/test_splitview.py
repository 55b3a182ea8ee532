"""Split views: what proves that a log has shown two histories, and what only looks like it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from statelog.checkpoint import Checkpoint, sign_checkpoint
from statelog.errors import Refused
from statelog.splitview import SplitView, TermSpan, check_split_view, may_be_dropped
from tests.support.authority import make_cluster, signer
from tests.support.logs import consistency, cosigned, forked, head_note, replay_of

CLUSTER = make_cluster()
FORK = forked(CLUSTER)
SIZE = CLUSTER.log.size
KEYS = replay_of(CLUSTER).sequencer_keys()


def split(smaller: int, larger: int = SIZE) -> SplitView:
    """The fork's head of one size against the cluster's of another."""
    return SplitView(
        head_note(replay_of(FORK, smaller)),
        head_note(replay_of(CLUSTER, larger)),
        replay_of(CLUSTER, smaller).root(),
        tuple(consistency(CLUSTER.leaves(), smaller, larger)),
    )


@pytest.mark.parametrize("smaller", [SIZE, SIZE - 1, SIZE - 3])
def test_two_heads_of_two_histories_are_a_split(smaller: int) -> None:
    found = split(smaller)
    one, other = check_split_view(found, KEYS)
    assert (one.size, other.size) == (smaller, SIZE)
    assert found.proof == () if smaller == SIZE else found.proof
    assert check_split_view(replace(found, smaller=cosigned(found.smaller)), KEYS) == (one, other)


def faults() -> dict[str, tuple[SplitView, str]]:
    sound, same = split(SIZE - 1), split(SIZE)
    elsewhere = Checkpoint("elsewhere.example/authority", SIZE, b"\1" * 32)
    early = replay_of(CLUSTER, SIZE - 1)
    return {
        "no note": (replace(sound, smaller=b"x"), "is none"),
        "not a log's": (replace(sound, smaller=head_note(replay_of(FORK, SIZE - 1), "root-1")), "is none"),
        "ours is not signed": (replace(sound, larger=head_note(replay_of(CLUSTER), "root-1")), "is none"),
        "another log": (replace(same, smaller=sign_checkpoint(elsewhere, signer("sequencer-1"))), "is none"),
        "one history": (replace(sound, smaller=head_note(early)), "agree"),
        "no proof": (replace(sound, proof=()), "not proved"),
        "a proof too many": (replace(same, proof=sound.proof), "not proved"),
        "a wrong root": (replace(sound, root=b"\2" * 32), "not proved"),
        "the larger first": (replace(sound, smaller=sound.larger, larger=sound.smaller), "not proved"),
    }


@pytest.mark.parametrize("name", faults())
def test_what_proves_nothing(name: str) -> None:
    found, said = faults()[name]
    with pytest.raises(Refused, match=said) as refused:
        check_split_view(found, KEYS)
    assert refused.value.code == "SL-EVIDENCE"


def test_heads_of_two_logs_do_not_contradict() -> None:
    """Even where one key signs for both."""
    keys = [*KEYS, *(replace(key, name="other.example/authority") for key in KEYS)]
    other = sign_checkpoint(Checkpoint("other.example/authority", SIZE, b"\1" * 32), signer("sequencer-1"))
    with pytest.raises(Refused, match="two logs"):
        check_split_view(replace(split(SIZE), smaller=other), keys)


OLD, NEW, BOTH = b"old", b"new", b"both"
TERMS = [TermSpan(1, 1, frozenset((OLD, BOTH))), TermSpan(2, 20, frozenset((NEW, BOTH)))]


@pytest.mark.parametrize(
    ("size", "signer_", "dropped"),
    [
        (21, OLD, True),  # the tail past 20 that the second term may have dropped
        (20, OLD, False),  # the second term starts from this very head
        (5, OLD, False),
        (21, NEW, False),  # nobody came after it
        (21, BOTH, True),  # who knows in which term it signed
        (20, BOTH, False),
        (21, b"nobody", False),
    ],
)
def test_a_tail_that_a_later_term_may_have_dropped(size: int, signer_: bytes, dropped: bool) -> None:
    assert may_be_dropped(size, signer_, TERMS) is dropped
    assert not may_be_dropped(size, signer_, TERMS[:1])
