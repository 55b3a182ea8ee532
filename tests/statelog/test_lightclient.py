"""A client with nothing but the anchor: what convinces it, and everything that does not."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.canonical import encode
from statelog.errors import Refused
from statelog.leaf import decode_leaf
from statelog.lightclient import Extra, Proved, Shown, Step, check_proof, decode_extra, make_proof
from statelog.merkle import CompactRange, inclusion_proof, leaf_hash
from statelog.signing import encode_base64
from statelog.state import RECOVERY
from statelog.tlogproof import TlogProof, parse_tlog_proof
from tests.support.authority import Cluster, key_entry, make_cluster
from tests.support.logs import WITNESSES, cosigned, head_note, replay_of
from tests.support.tiles import OTHERS, changed_cluster

CLUSTER: Cluster = make_cluster()
NOW = CLUSTER.now
LAST = CLUSTER.log.size - 1


def path(cluster: Cluster, index: int, size: int) -> tuple[bytes, ...]:
    tree, nodes = CompactRange(), {}
    for leaf in cluster.leaves()[:size]:
        for level, at, hash_ in tree.append(leaf_hash(leaf)):
            nodes[level, at] = hash_
    return tuple(inclusion_proof(index, size, lambda level, at: nodes[level, at]))


def step(cluster: Cluster, size: int, indices: tuple[int, ...], names: tuple[str, ...] = WITNESSES) -> Step:
    leaves = cluster.leaves()
    note = cosigned(head_note(replay_of(cluster, size)), names)
    return Step(note, tuple(Shown(index, leaves[index], path(cluster, index, size)) for index in indices))


def proof_of(cluster: Cluster, index: int, *steps: Step) -> tuple[TlogProof, Extra]:
    leaves, size = cluster.leaves(), cluster.log.size
    extra = Extra(leaves[0], steps, leaves[index])
    return TlogProof(index, path(cluster, index, size), steps[-1].checkpoint, extra.encode()), extra


def check(proof: TlogProof, extra: Extra | None = None, cluster: Cluster = CLUSTER, now: int = NOW) -> Proved:
    return check_proof(
        (proof if extra is None else replace(proof, extra=extra.encode())).format(), cluster.anchor, now
    )


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        act()
    return refused.value.code


SIZE = CLUSTER.log.size
PROOF, EXTRA = proof_of(CLUSTER, LAST, step(CLUSTER, SIZE, (1,)))


def test_an_entry_is_proved_by_the_anchor_alone() -> None:
    proved = check(PROOF)
    leaf = decode_leaf(CLUSTER.leaves()[LAST])
    assert (proved.log, proved.index, proved.size, proved.leaf) == ("authority", LAST, SIZE, leaf)
    assert proved.root == replay_of(CLUSTER).root()
    assert proved.signed_by == tuple(f"{name}.example" for name in WITNESSES)
    assert proved.as_of == 1_767_225_600
    for index in range(SIZE):
        assert check(*proof_of(CLUSTER, index, step(CLUSTER, SIZE, (1,)))).index == index


def test_what_is_written_is_read() -> None:
    assert decode_extra(EXTRA.encode()) == EXTRA
    more = replace(EXTRA, more={"row": 1})
    assert decode_extra(more.encode()) == more
    assert check(PROOF, more).more == {"row": 1}
    assert make_proof(LAST, PROOF.hashes, PROOF.checkpoint, EXTRA) == PROOF.format()


# --- what does not convince ---


def test_another_anchor() -> None:
    assert refusal(lambda: check_proof(PROOF.format(), "0" * 64, NOW)) == "SL-ANCHOR"


def test_another_leaf_index_or_path() -> None:
    other = CLUSTER.leaves()[LAST - 1]
    assert refusal(lambda: check(PROOF, replace(EXTRA, leaf=other))) == "SL-PROOF"
    assert refusal(lambda: check(replace(PROOF, index=LAST - 1))) == "SL-PROOF"
    assert refusal(lambda: check(replace(PROOF, hashes=PROOF.hashes[1:]))) == "SL-PROOF"
    assert refusal(lambda: check(replace(PROOF, hashes=(b"x" * 32, *PROOF.hashes[1:])))) == "SL-PROOF"


def test_a_head_without_the_witnesses() -> None:
    few = step(CLUSTER, SIZE, (1,), WITNESSES[:2])
    assert refusal(lambda: check(*proof_of(CLUSTER, LAST, few))) == "SL-FINALITY"
    good = step(CLUSTER, SIZE, (1,))
    assert refusal(lambda: check(replace(PROOF, checkpoint=few.checkpoint))) == "SL-FINALITY"
    three = step(CLUSTER, SIZE, (1,), WITNESSES[1:])
    assert check(*proof_of(CLUSTER, LAST, three)).index == LAST
    assert check(replace(PROOF, checkpoint=good.checkpoint)).index == LAST


def test_a_head_of_a_stranger_or_of_another_log() -> None:
    stranger = cosigned(head_note(replay_of(CLUSTER), by="stranger"))
    assert refusal(lambda: check(replace(PROOF, checkpoint=stranger))) == "SL-CHECKPOINT"
    other = make_cluster(cluster_id="other.abcdefghijklmnopqrstuvwxyz")
    foreign = cosigned(head_note(replay_of(other)))
    assert refusal(lambda: check(replace(PROOF, checkpoint=foreign))) == "SL-CHECKPOINT"
    assert refusal(lambda: check(replace(PROOF, checkpoint=b"junk"))) == "SL-NOTE"


def test_a_trail_without_its_term() -> None:
    assert refusal(lambda: check(*proof_of(CLUSTER, LAST, step(CLUSTER, SIZE, ())))) == "SL-CHECKPOINT"


def test_a_trail_that_shows_other_things() -> None:
    wrong = step(CLUSTER, SIZE, (1, LAST))
    assert refusal(lambda: check(*proof_of(CLUSTER, LAST, wrong))) == "SL-PROOF"
    twice = step(CLUSTER, SIZE, (1, 1))
    assert refusal(lambda: check(*proof_of(CLUSTER, LAST, twice))) == "SL-PROOF"
    same = step(CLUSTER, SIZE, (1,))
    assert refusal(lambda: check(*proof_of(CLUSTER, LAST, same, step(CLUSTER, SIZE, ())))) == "SL-PROOF"


def test_a_trail_that_is_not_under_its_head() -> None:
    (shown,) = EXTRA.steps[0].entries
    for wrong in (replace(shown, index=2), replace(shown, hashes=shown.hashes[1:])):
        steps = (Step(EXTRA.steps[0].checkpoint, (wrong,)),)
        assert refusal(lambda steps=steps: check(PROOF, replace(EXTRA, steps=steps))) == "SL-PROOF"


def test_an_ended_authority_is_not_believed() -> None:
    end = CLUSTER.state.descriptor.expires_at
    assert check(PROOF, now=end - 1).expires_at == end
    assert refusal(lambda: check(PROOF, now=end)) == "SL-EXPIRED"


# --- changes of the authority ---


@pytest.fixture(scope="module")
def changed() -> tuple[Cluster, Step, Step, Step]:
    """Witnesses replaced at entry 3: the heads before, over and after it."""
    cluster = changed_cluster()
    both = (*WITNESSES[:3], *OTHERS[1:])
    return (
        cluster,
        step(cluster, 2, (1,)),
        step(cluster, 4, (3,), both),
        step(cluster, cluster.log.size, (), OTHERS),
    )


def test_a_change_of_witnesses_is_followed(changed: tuple[Cluster, Step, Step, Step]) -> None:
    cluster, before, over, after = changed
    last = cluster.log.size - 1
    assert check(*proof_of(cluster, last, before, over, after), cluster).index == last
    assert check(
        *proof_of(cluster, last, step(cluster, 4, (1, 3), (*WITNESSES[:3], *OTHERS)), after), cluster
    )


def test_a_change_that_the_old_witnesses_did_not_cosign(changed: tuple[Cluster, Step, Step, Step]) -> None:
    cluster, before, _, after = changed
    last = cluster.log.size - 1
    for names in (OTHERS, WITNESSES, (*WITNESSES[:2], *OTHERS[1:])):
        alone = step(cluster, 4, (3,), names)
        assert (
            refusal(lambda alone=alone: check(*proof_of(cluster, last, before, alone, after), cluster))
            == "SL-FINALITY"
        )


def test_a_change_that_is_left_out(changed: tuple[Cluster, Step, Step, Step]) -> None:
    cluster, before, _, after = changed
    last = cluster.log.size - 1
    assert refusal(lambda: check(*proof_of(cluster, last, before, after), cluster)) == "SL-FINALITY"


def test_a_change_that_the_root_did_not_sign() -> None:
    """All witnesses of both sets lie; without the root's quorum a light client still does not follow."""
    cluster = changed_cluster()
    forged = cluster.descriptor(witnesses=cluster.witness_set(*WITNESSES), by=("root-1",))
    cluster.log.append(encode(forged), cluster.now, 1)
    replay = replay_of(cluster, cluster.log.size - 1)
    replay.skip(cluster.leaves()[-1])
    size, index = cluster.log.size, cluster.log.size - 1
    note = cosigned(head_note(replay), (*WITNESSES, *OTHERS[1:]))
    lie = Step(note, (Shown(index, cluster.leaves()[index], path(cluster, index, size)),))
    steps = (step(cluster, 2, (1,)), step(cluster, 4, (3,), (*WITNESSES[:3], *OTHERS[1:])), lie)
    assert refusal(lambda: check(*proof_of(cluster, 2, *steps), cluster)) == "SL-QUORUM"


# --- recovery ---


def recovered() -> tuple[Cluster, int, int]:
    """Recovery keys replaced root, control and the writer; where the intent and the descriptor stand."""
    cluster = make_cluster(members=False, nodes=("home-1",))
    keys = [key_entry(f"{part}-{n}", custody=kept) for part, kept in NEXT for n in (4, 5)]
    holders = {part: cluster.holders(f"{part}-4", f"{part}-5", threshold=2) for part, _ in NEXT}
    coming = cluster.descriptor(issuer_role=RECOVERY, by=[], keys=keys, **holders)
    cluster.append(cluster.recovery_intent(coming))
    pending = cluster.state.recovery
    assert pending is not None
    cluster.now = pending.due_at
    cluster.append(cluster.sign(coming, ("recovery-1", "recovery-2")))
    return cluster, cluster.log.size - 2, cluster.log.size - 1


NEXT = (("root", "offline"), ("control", "online"))


def recovery_proof(cluster: Cluster, shown: tuple[int, ...]) -> tuple[TlogProof, Extra]:
    size = cluster.log.size
    note = cosigned(head_note(replay_of(cluster), by="sequencer-2"))
    entries = tuple(Shown(index, cluster.leaves()[index], path(cluster, index, size)) for index in shown)
    return proof_of(cluster, size - 1, step(cluster, 2, (1,)), Step(note, entries))


def test_a_recovery_is_followed() -> None:
    cluster, intent, descriptor = recovered()
    proof = recovery_proof(cluster, (intent, descriptor))
    assert check(*proof, cluster, now=cluster.now).index == descriptor
    assert replay_of(cluster).state.terms["authority"].term == 2


def test_a_recovery_without_its_intent_is_not() -> None:
    cluster, _, descriptor = recovered()
    proof = recovery_proof(cluster, (descriptor,))
    # Nobody knows the recovery keys before the intent shows them.
    assert refusal(lambda: check(*proof, cluster, now=cluster.now)) == "SL-SIG"


# --- the extra line ---


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda it: {**it, "schema": "statelog.proof.v2"}, "SL-PROOF"),
        (lambda it: {**it, "surprise": 1}, "SL-PROOF"),
        (lambda it: {name: it[name] for name in it if name != "leaf"}, "SL-PROOF"),
        (lambda it: {**it, "leaf": "?"}, "SL-PROOF"),
        (lambda it: {**it, "leaf": 7}, "SL-PROOF"),
        (lambda it: {**it, "steps": {}}, "SL-PROOF"),
        (lambda it: {**it, "steps": [[]]}, "SL-PROOF"),
        (lambda it: {**it, "more": []}, "SL-PROOF"),
        (lambda it: {**it, "genesis": encode_base64(b"{}")}, "SL-LEAF"),
        (lambda it: {**it, "steps": []}, "SL-CHECKPOINT"),
    ],
)
def test_an_extra_line_of_another_form(change: Callable[[dict[str, object]], object], code: str) -> None:
    document = orjson.loads(EXTRA.encode())
    data = encode(change(document))
    assert refusal(lambda: check_proof(replace(PROOF, extra=data).format(), CLUSTER.anchor, NOW)) == code


def test_an_extra_line_that_is_not_canonical() -> None:
    spaced = EXTRA.encode().replace(b'":', b'": ', 1)
    assert (
        refusal(lambda: check_proof(replace(PROOF, extra=spaced).format(), CLUSTER.anchor, NOW)) == "SL-CANON"
    )
    assert refusal(lambda: check_proof(replace(PROOF, extra=b"").format(), CLUSTER.anchor, NOW)) == "SL-CANON"
    assert parse_tlog_proof(PROOF.format()) == PROOF


VALUES = st.sampled_from([None, 0, 1, 2**53 - 1, "", "AA==", "x", [], {}, [[]], {"row": {}}, True])


@given(st.data())
def test_whatever_is_put_into_an_extra_line_is_refused_by_a_code(data: st.DataObject) -> None:
    """No other error comes out, and nothing else is proved than what the proof was made for."""
    document = orjson.loads(EXTRA.encode())
    parent: Any = document
    while True:
        names = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        name = data.draw(st.sampled_from(names))
        inner = parent[name]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        parent = inner
    if isinstance(inner, str) and data.draw(st.booleans()):
        raw = bytearray(base64.b64decode(inner)) if name != "schema" else bytearray(inner.encode())
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
        parent[name] = base64.b64encode(bytes(raw)).decode()
    else:
        parent[name] = data.draw(VALUES)
    changed = replace(PROOF, extra=encode(document)).format()
    with contextlib.suppress(Refused):
        assert check_proof(changed, CLUSTER.anchor, NOW).leaf == decode_leaf(CLUSTER.leaves()[LAST])
