"""Authority changes hands: the table of named M-of-N cases, as chains (notation: `tests.support.chains`).

Every refusal stands beside the step that is admitted in its place.
"""

from __future__ import annotations

import pytest

from statelog.limits import MAX_SIGNATURES
from statelog.replay import Replay
from statelog.state import AUTHORITY_LOG
from tests.support.chains import Story, run

ROTATIONS = {
    # the root
    "one of three changes": "G1[abc/2] -> D2[abd/2] -> P",
    "two of three change at once": "G1[abc/2] -> D2[ade/2] -> D3[adf/2] by:ad",
    "all three change at once": "G1[abc/2] -> D2[xyz/2] -> D3[xyw/2]",
    "the new root did not sign": "G1[abc/2] -> D2[xyz/2] by:ab !SL-QUORUM -> D2[xyz/2] by:abxy",
    "the old root did not sign": "G1[abc/2] -> D2[xyz/2] by:xy !SL-QUORUM -> D2[xyz/2] by:abxy",
    "half of each signed": "G1[abc/2] -> D2[xyz/2] by:ax !SL-QUORUM -> D2[xyz/2] by:acyz",
    "who is in both counts in both": "G1[abc/2] -> D2[abz/2] by:ab",
    "one of the shared pair is not enough": "G1[abc/2] -> D2[abz/2] by:a !SL-QUORUM -> D2[abz/2] by:ba",
    "more must sign from now on": "G1[abc/2] -> D2[abc/3] by:ab !SL-QUORUM -> D2[abc/3] by:abc",
    "fewer must sign from the next on": (
        "G1[abc/3] -> D2[abc/2] by:ab !SL-QUORUM -> D2[abc/2] by:abc -> D3 by:bc"
    ),
    "two keys of one person count once": "G1[abA/2] -> D2[abc/2] by:aA !SL-QUORUM -> D2[abc/2] by:bcA",
    "a root that its people cannot fill": "G1[abc/2] -> D2[abA/3] by:abcA !SL-QUORUM -> D2[abc/3] by:abc",
    "a removed key signs nothing": (
        "G1[abc/2] -> D2[bcd/2] -> D3[bce/2] by:ab !SL-REVOKED -> D3[bce/2] by:bc"
    ),
    "a removed key never returns": "G1[abc/2] -> D2[bcd/2] -> D3[abc/2] !SL-REVOKED -> D3[bce/2]",
    "a stranger does not help": "G1[abc/2] -> D2[abd/2] by:abz !SL-SIG -> D2[abd/2] by:ab",
    "another role does not help": "G1 -> D2[abd/2] by:ab,control.a !SL-SIG -> D2[abd/2] by:ab",
    "one after the other": "G1[abc/2] -> D2[bcd/2] -> D3[cde/2] -> D4[def/2] -> D5[efg/2] -> P",
    "the successor of an expired descriptor": "G1 -> +366d -> P !SL-EXPIRED -> D2[abd/2] -> P",
    # control
    "control changes": "G1 -> D2[control:bcd/2] -> P by:ab !SL-REVOKED -> P by:bd",
    "control cannot change itself": (
        "G1 -> D2[control:xyz/2] by:control.a,control.b !SL-SIG -> D2[control:xyz/2]"
    ),
    "control grows": "G1[control:abc/2] -> D2[control:abcde/3] -> P by:ab !SL-QUORUM -> P by:cde",
    # witnesses
    "a witness changes": "G1[witness:wxyz/3] -> D2[witness:vxyz/3] -> D3[witness:vwxyz/4]",
    "a witness may return": "G1[witness:wxyz/3] -> D2[witness:vxyz/3] -> D3[witness:wxyz/3]",
    "too few witnesses": "G1 -> D2[witness:xyz/2] !SL-THRESHOLD -> D2[witness:vxyz/3]",
    "too many must cosign": "G1 -> D2[witness:vwxyz/5] !SL-THRESHOLD -> D2[witness:vwxyz/4]",
    # members
    "route changes": "G1 -> M[route:xyz/2] -> F -> M[route:uvz/2] -> F by:xy !SL-REVOKED -> F by:uz",
    "route shrinks to one": "G1 -> M[route:xyz/2] -> M[route:x/1] !SL-PRODUCTION -> M[route:xy/2] -> F",
    "route that nobody can fill": (
        "G1 -> M[route:xyX/3] !SL-THRESHOLD -> M[route:xyX/2] -> F by:xX !SL-QUORUM -> F"
    ),
    "update changes": "G1 -> M[update:xyz/2] -> R -> M[update:wxy/2] -> R by:xz !SL-REVOKED -> R by:wx",
    "root does not name members": "G1 -> M[route:xyz/2] by:root.a,root.b !SL-SIG -> M[route:xyz/2]",
    "nobody is route authority yet": (
        "G1 -> M[update:xyz/2] -> F by:update.x,update.y !SL-SIG -> M[route:xyz/2] -> F"
    ),
    # writers
    "sequencers change": "G1 -> T[s] -> T[st] -> T[t] -> P",
    # the mode
    "one person begins, three go on": (
        "G1[development a/1 control:a/1 recovery:/0] -> P -> D2[production abc/2 control:abc/2 "
        "recovery:pqr/2~3d] -> P by:a !SL-QUORUM -> P"
    ),
    "the mode never moves back": (
        "G1 -> D2[development] !SL-MODE -> D2[abd/2] -> D3[development a/1] by:abd !SL-MODE -> D3[abe/2]"
    ),
    "production wants two": "G1 -> D2[a/1] by:ab !SL-PRODUCTION -> D2[ab/2] by:ab",
}


@pytest.mark.parametrize("chain", ROTATIONS.values(), ids=ROTATIONS)
def test_rotation(chain: str) -> None:
    story = run(chain)
    assert replayed(story).state == story.cluster.state


def replayed(story: Story) -> Replay:
    """What somebody knows who follows the log from its anchor."""
    replay = Replay(story.cluster.anchor)
    for leaf in story.cluster.leaves():
        replay.append(leaf)
    return replay


def test_a_threshold_that_no_record_could_carry() -> None:
    people = "abcdefghijklmnopq"
    assert len(people) == MAX_SIGNATURES + 1
    run(f"G1 -> M[route:{people}/17] !SL-THRESHOLD -> M[route:{people}/16] -> F")
    run(f"G1 -> D2[recovery:{people}/17~3d] !SL-THRESHOLD -> D2[recovery:{people}/16~3d]")


def test_catching_up_over_any_number_of_missed_rotations() -> None:
    """Nine years of rotations, most long expired: a replay follows them, straight or in pieces."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    steps = [f"+200d -> D{n + 1}[{letters[n : n + 3]}/2]" for n in range(1, 18)]
    story = run(" -> ".join(["G1[abc/2]", *steps, "P"]))
    leaves = story.cluster.leaves()
    straight, resumed = replayed(story), Replay(story.cluster.anchor)
    for start in range(0, len(leaves), 5):
        for leaf in leaves[start : start + 5]:
            resumed.append(leaf)
        resumed = resumed.copy()
    assert straight.state == resumed.state == story.cluster.state
    assert story.who("root") == letters[17:20]
    assert straight.state.descriptor.epoch == 18


def test_an_old_quorum_cannot_backdate() -> None:
    """Whatever a record claims of its time: a key removed at n signs nothing from n + 1 on."""
    story = run("G1 -> D2[control:bcd/2]")
    early = story.cluster.policy(by=["control-a", "control-b"], issued_at=story.cluster.now - 60)
    assert early["issued_at"] < story.cluster.genesis["issued_at"]
    run("P by:ab !SL-REVOKED -> P by:bc", story)


RECOVERIES = {
    "the root is lost": "G1[abc/2] -> D9*[xyz/2] -> I(D9)[pq] -> +3d -> D9 -> P -> D3[xyw/2]",
    "not before the delay is over": "G1 -> D9*[xyz/2] -> I(D9)[pq] -> D9 !SL-RECOVERY -> +3d -> D9",
    "not a second before": "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +259199s -> D9 !SL-RECOVERY -> +1s -> D9",
    "not without an intent": (
        "G1 -> D9*[xyz/2] -> D9 by:recovery.p,recovery.q !SL-SIG -> I(D9)[pq] -> +3d -> D9"
    ),
    "nor unsigned": "G1 -> D9*[xyz/2] -> D9 by: !SL-QUORUM -> I(D9)[pq] -> +3d -> D9 by: !SL-QUORUM -> D9",
    "another descriptor than the intent names": (
        "G1 -> D9*[xyz/2] -> D8*[xyv/2] -> I(D9)[pq] -> +3d -> D8 by:recovery.p,recovery.q !SL-SCOPE -> D9"
    ),
    "one recovery key is not enough": "G1 -> D9*[xyz/2] -> I(D9)[pq] by:p !SL-QUORUM -> I(D9)[pq] by:pq",
    "nor one that is shown alone": "G1 -> D9*[xyz/2] -> I(D9)[p] !SL-QUORUM -> I(D9)[pr]",
    "nor two keys of one person": (
        "G1[recovery:pqP/2~3d] -> D9*[xyz/2] -> I(D9)[pP] !SL-QUORUM -> I(D9)[qP] -> +3d -> D9"
    ),
    "nor one signature at the end": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +3d -> D9 by:recovery.p !SL-QUORUM -> D9 by:recovery.p,recovery.q"
    ),
    "a key that was not shown": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +3d -> D9 by:recovery.p,recovery.r !SL-SIG -> D9"
    ),
    "a key that is not pinned": "G1 -> D9*[xyz/2] -> I(D9)[pqz] by:pq !SL-KEY -> I(D9)[pqr] by:pq",
    "signed by one that is not pinned": "G1 -> D9*[xyz/2] -> I(D9)[pz] !SL-SCOPE -> I(D9)[pq]",
    "the root cannot start one": "G1 -> D9*[xyz/2] -> I(D9)[pq] by:root.a,root.b !SL-SIG -> I(D9)[pq]",
    "the coming root need not sign, nor may it": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +3d -> D9 by:recovery.p,recovery.q,root.x !SL-SIG -> D9"
    ),
    "the old root says no": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +2d -> V(I9) -> +1d -> D9 by:recovery.p !SL-SIG -> P"
    ),
    "too late": "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +3d -> V(I9) !SL-RECOVERY -> D9",
    "one root key is no veto": "G1 -> D9*[xyz/2] -> I(D9)[pq] -> V(I9) by:a !SL-QUORUM -> V(I9) by:bc",
    "control is no root": "G1 -> D9*[xyz/2] -> I(D9)[pq] -> V(I9) by:control.a,control.b !SL-SIG -> V(I9)",
    "a veto ends one recovery": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> V(I9) -> D8*[xyv/2] -> I(D8)[qr] -> +3d -> D8"
    ),
    "a veto is of the one under way": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> D8*[xyv/2] -> I(D8)[pq] -> V(I9) !SL-RECOVERY -> V(I8)"
    ),
    "a second intent begins anew": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +2d -> I(D9)[pr] -> +1d -> D9 !SL-RECOVERY -> +2d -> D9"
    ),
    "a successor ends it": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> D2[abd/2] -> +3d -> D9 by:recovery.p !SL-SIG -> P"
    ),
    "the lost root is gone": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +3d -> D9 -> D3[abc/2] by:abxy !SL-REVOKED -> D3[xyv/2]"
    ),
    "control goes with it": (
        "G1 -> D9*[xyz/2 control:xyz/2] -> I(D9)[pq] -> P by:ab -> +3d -> D9 -> P by:ab !SL-REVOKED -> P"
    ),
    "after the descriptor expired": (
        "G1 -> +366d -> D9*[xyz/2] -> I(D9)[pq] -> P !SL-EXPIRED -> +3d -> D9 -> P"
    ),
    "and a veto then": "G1 -> +366d -> D9*[xyz/2] -> I(D9)[pq] -> V(I9) -> +3d -> D2[abd/2] -> P",
    "twice": (
        "G1 -> D9*[xyz/2] -> I(D9)[pq] -> +3d -> D9 -> D8*[uvw/2] -> I(D8)[pr] -> +3d -> D8 -> D4[uvt/2]"
    ),
    "the new root keeps the rules": (
        "G1 -> D9*[x/1] -> I(D9)[pq] -> +3d -> D9 !SL-PRODUCTION -> D8*[xy/2] -> I(D8)[pq] -> +3d -> D8"
    ),
    # the recovery set itself
    "new recovery keys wait for the old delay": (
        "G1 -> D2[recovery:uvw/2~1d] -> D9*[xyz/2] -> I(D9)[uv] !SL-SCOPE -> +3d -> I(D9)[pq] !SL-SCOPE "
        "-> I(D9)[uv] -> +1d -> D9"
    ),
    "the old ones serve meanwhile": (
        "G1 -> D2[recovery:uvw/2~1d] -> +2d -> D9*[xyz/2] -> I(D9)[pq] -> +1d -> D9 !SL-RECOVERY -> +2d -> D9"
    ),
    "a change that is taken back": (
        "G1 -> D2[recovery:uvw/2~1d] -> +2d -> D3[recovery:pqr/2~3d] -> +9d -> D9*[xyz/2] "
        "-> I(D9)[uv] !SL-SCOPE -> I(D9)[pq]"
    ),
    "another change does not delay it": (
        "G1 -> D2[recovery:uvw/2~1d] -> +2d -> D3[abd/2] -> +1d -> D9*[xyz/2] -> I(D9)[uv]"
    ),
    "a change of the change waits anew": (
        "G1 -> D2[recovery:uvw/2~1d] -> +2d -> D3[recovery:stu/2~1d] -> +1d -> D9*[xyz/2] "
        "-> I(D9)[uv] !SL-SCOPE -> I(D9)[pq] -> V(I9) -> +2d -> I(D9)[st]"
    ),
    "two from the first production day on": (
        "G1[development a/1 control:a/1 recovery:p/1~1d] "
        "-> D2[production abc/2 control:abc/2 recovery:pqr/2~3d] -> D9*[xyz/2] "
        "-> I(D9)[p] !SL-PRODUCTION -> +1d -> I(D9)[p] !SL-QUORUM -> I(D9)[pq]"
    ),
    "one is enough in development": (
        "G1[development a/1 control:a/1 recovery:p/1~1d] -> D9*[x/1] -> I(D9)[p] -> +1d -> D9 -> D3[y/1]"
    ),
    "no recovery keys, no recovery": (
        "G1[development a/1 control:a/1 recovery:/0] -> D9*[x/1] -> I(D9)[p] !SL-ROLE "
        "-> D2[recovery:p/1] -> D8*[x/1] -> I(D8)[p]"
    ),
}


@pytest.mark.parametrize("chain", RECOVERIES.values(), ids=RECOVERIES)
def test_recovery(chain: str) -> None:
    story = run(chain)
    assert replayed(story).state == story.cluster.state


def test_a_recovery_opens_a_term_of_the_sequencers_it_named() -> None:
    story = run("G1 -> D9*[xyz/2] -> I(D9)[pq] -> +3d")
    before, size = story.cluster.state.terms[AUTHORITY_LOG], story.cluster.log.size
    run("D9 -> P", story)
    after = story.cluster.state.terms[AUTHORITY_LOG]
    assert (before.term, after.term, after.start_size) == (1, 2, size)
    assert after.start_root == story.cluster.log.root_at(size)
    assert {one.key_id for one in before.sequencers}.isdisjoint(one.key_id for one in after.sequencers)
    assert replayed(story).term == 2


@pytest.mark.parametrize(
    ("signed", "lacking"), [("ax", "1 more of root"), ("ab", "2 more of the proposed root")]
)
def test_a_quorum_that_is_missing_is_named(signed: str, lacking: str) -> None:
    with pytest.raises(AssertionError, match=f": SL-QUORUM at signatures: {lacking}-authority must sign"):
        run(f"G1[abc/2] -> D2[xyz/2] by:{signed}")
