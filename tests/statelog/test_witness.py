"""The witness: C2SP tlog-witness status by status, the log's own rules, and memory before answers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog import limits, witness
from statelog.checkpoint import (
    Checkpoint,
    parse_signed_checkpoint,
    sign_checkpoint,
    verify_cosignature,
    witness_key,
)
from statelog.errors import Refused
from statelog.merkle import EMPTY_ROOT
from statelog.note import parse_signature_lines
from statelog.witness import (
    Fetch,
    Fetched,
    Persist,
    Persisted,
    Reply,
    Request,
    WitnessState,
    encode_add_checkpoint,
    parse_add_checkpoint,
    parse_size,
)
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import (
    WitnessHost,
    consistency,
    cosigned,
    cosigned_at,
    head_note,
    replay_of,
    request_body,
    verdict,
    with_lines,
)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Read only: 12 entries."""
    return make_cluster()


# --- the bytes of a request ---


def test_a_request_is_written_as_the_specification_says(cluster: Cluster) -> None:
    note = head_note(replay_of(cluster, 6))
    hashes = consistency(cluster.leaves(), 3, 6)
    data = encode_add_checkpoint(3, hashes, note)
    lines = data.split(b"\n")
    assert lines[0] == b"old 3"
    assert lines[1 + len(hashes)] == b""
    assert data.endswith(b"\n\n" + note)
    parsed = parse_add_checkpoint(data)
    assert (parsed.old_size, list(parsed.proof)) == (3, hashes)
    assert (parsed.checkpoint, parsed.note) == parse_signed_checkpoint(note)


def test_the_request_of_the_specification() -> None:
    """C2SP tlog-witness, example request body."""
    text = (
        "old 20852014\n"
        "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=\n"
        "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=\n"
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=\n"
        "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=\n"
        "\n"
        "example.com/behind-the-sofa\n"
        "20852163\n"
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
        "\n"
        "— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1g"
        "GzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    )
    parsed = parse_add_checkpoint(text.encode())
    assert (parsed.old_size, parsed.checkpoint.size, len(parsed.proof)) == (20852014, 20852163, 4)
    assert encode_add_checkpoint(parsed.old_size, parsed.proof, parsed.note.format()) == text.encode()


def malformed(cluster: Cluster) -> dict[str, bytes]:
    good = request_body(cluster, 3, 6)
    return {
        "nothing": b"",
        "no old line": good.removeprefix(b"old 3\n"),
        "the number alone": good.replace(b"old 3", b"3"),
        "a huge proof": good.replace(b"old 3\n", b"old 3\n" + b"A" * limits.MAX_ADD_CHECKPOINT_BYTES + b"\n"),
        "a leading zero": good.replace(b"old 3", b"old 03"),
        "no number": good.replace(b"old 3", b"old x"),
        "negative": good.replace(b"old 3", b"old -3"),
        "two spaces": good.replace(b"old 3", b"old  3"),
        "another word": good.replace(b"old 3", b"new 3"),
        "a proof that is no base64": good.replace(b"old 3\n", b"old 3\n!\n"),
        "a short hash": good.replace(b"old 3\n", b"old 3\nAAAA\n"),
        "too long a proof": good.replace(b"old 3\n", b"old 3\n" + b"A" * 43 + b"=\n" * 64),
        "64 hashes": good.replace(b"old 3\n", b"old 3\n" + (b"A" * 43 + b"=\n") * 64),
        "no empty line": good.replace(b"\n\n", b"\n", 1),
        "no checkpoint": good.split(b"\n\n")[0] + b"\n\n",
        "no signature": b"\n\n".join(good.split(b"\n\n")[:2]) + b"\n\n",
        "huge": good + b"x" * limits.MAX_NOTE_BYTES,
        "not text": b"\xff" + good,
    }


def test_malformed_requests_are_bad(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 3)
    for name, data in malformed(cluster).items():
        reply = host.ask(data)
        assert reply.status == 400, name
        assert reply.body.startswith(b"SL-"), name
    assert host.ask(b"old 3 x\n\n" + head_note(replay_of(cluster, 6))).status == 400
    assert "SL-WITNESS" in host.ask(b"").body.decode()
    assert host.ask(request_body(cluster, 3, 6)).status == 200


def test_sizes_in_conflicts_are_strict() -> None:
    assert parse_size(b"0\n") == 0
    assert parse_size(b"20852014\n") == 20852014
    for wrong in (
        b"",
        b"1",
        b"10",
        b"01\n",
        b"-1\n",
        b"1\n\n",
        b"x\n",
        b"\xff\n",
        b"9223372036854775808\n",
        b"9" * 40 + b"\n",
    ):
        with pytest.raises(Refused):
            parse_size(wrong)


@given(st.binary(max_size=300))
def test_any_bytes_are_answered(data: bytes) -> None:
    host = WitnessHost(SMALL)
    assert host.ask(data).status == 400
    assert host.stored is None


# --- the answers of the specification ---


def test_a_first_head_and_a_next_one_are_cosigned(cluster: Cluster) -> None:
    host = WitnessHost(cluster)
    for old, new in ((0, 5), (5, 12)):
        reply = host.ask(request_body(cluster, old, new), now=cluster.now + new + 0.9)
        assert reply.status == 200
        (line,) = parse_signature_lines(reply.body)
        assert line.line().encode() == reply.body
        text = replay_of(cluster, new).checkpoint().text()
        key = witness_key("witness-1.example", signer("witness-1").public)
        assert verify_cosignature(text, line, key) == cluster.now + new
        expected = WitnessState(host.origin, new, replay_of(cluster, new).root(), 1)
        assert host.stored == host.machine.state == expected
    assert host.fetched == [(0, 5), (5, 12)]


def test_the_same_head_is_cosigned_again_with_a_new_time(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 12)
    reply = host.ask(request_body(cluster, 12, 12), now=cluster.now + 100)
    (line,) = parse_signature_lines(reply.body)
    assert int.from_bytes(line.signature[:8], "big") == cluster.now + 100
    assert host.fetched == [(0, 12)]


def test_an_unknown_log_is_not_found(cluster: Cluster) -> None:
    other = make_cluster(cluster_id="other.abcdefghijklmnopqrstuvwxyz", members=False, nodes=())
    host = cosigned_at(cluster, 5)
    assert verdict(host.ask(request_body(other, 0, 2))) == (404, "SL-WITNESS")


def test_an_untrusted_signature_is_forbidden(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    checkpoint = replay_of(cluster, 12).checkpoint()
    stranger = sign_checkpoint(checkpoint, signer("stranger"))
    assert verdict(host.ask(request_body(cluster, 5, 12, stranger))) == (403, "SL-CHECKPOINT")
    assert verdict(
        host.ask(
            request_body(cluster, 5, 5, sign_checkpoint(replay_of(cluster, 5).checkpoint(), signer("x")))
        )
    ) == (
        403,
        "SL-CHECKPOINT",
    )
    good, stray = head_note(replay_of(cluster, 12)), head_note(replay_of(cluster, 6))
    mixed = parse_signed_checkpoint(good)[1].text.encode() + b"\n" + stray.split(b"\n\n")[1]
    assert verdict(host.ask(request_body(cluster, 5, 12, mixed))) == (403, "SL-CHECKPOINT")
    assert verdict(host.ask(request_body(cluster, 4, 12, stranger))) == (403, "SL-CHECKPOINT")
    smaller = sign_checkpoint(replay_of(cluster, 4).checkpoint(), signer("stranger"))
    assert verdict(host.ask(request_body(cluster, 4, 4, smaller))) == (403, "SL-CHECKPOINT")
    both = with_lines(parse_signed_checkpoint(good)[1], parse_signed_checkpoint(stranger)[1].signatures)
    assert host.ask(request_body(cluster, 5, 12, both.format())).status == 200  # unknown lines are ignored


def test_an_unsigned_head_is_forbidden_to_a_witness_without_memory(cluster: Cluster) -> None:
    host = WitnessHost(cluster)
    stranger = sign_checkpoint(replay_of(cluster, 12).checkpoint(), signer("stranger"))
    assert verdict(host.ask(request_body(cluster, 0, 12, stranger))) == (403, "SL-CHECKPOINT")
    assert host.stored is None


def test_an_old_size_beyond_the_checkpoint_is_bad(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    data = encode_add_checkpoint(7, [], head_note(replay_of(cluster, 6)))
    assert verdict(host.ask(data)) == (400, "SL-WITNESS")


def test_another_old_size_is_a_conflict_that_names_the_right_one(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    for old in (0, 4, 6):
        reply = host.ask(request_body(cluster, old, 12))
        assert (reply.status, reply.content_type, reply.body) == (409, "text/x.tlog.size", b"5\n")
    assert parse_size(reply.body) == 5
    assert WitnessHost(cluster).ask(request_body(cluster, 3, 12)).body == b"0\n"


def test_a_wrong_proof_is_unprocessable(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    note = head_note(replay_of(cluster, 12))
    right = consistency(cluster.leaves(), 5, 12)
    for wrong in ([], right[:-1], [*right, EMPTY_ROOT], [EMPTY_ROOT, *right[1:]]):
        assert verdict(host.ask(encode_add_checkpoint(5, wrong, note))) == (422, "SL-CONSISTENCY")
    assert verdict(WitnessHost(cluster).ask(encode_add_checkpoint(0, [EMPTY_ROOT], note))) == (
        422,
        "SL-CONSISTENCY",
    )
    same = head_note(replay_of(cluster, 5))
    assert verdict(host.ask(encode_add_checkpoint(5, [EMPTY_ROOT], same))) == (422, "SL-CONSISTENCY")
    assert host.ask(encode_add_checkpoint(5, right, note)).status == 200


def test_two_histories_are_never_cosigned(cluster: Cluster) -> None:
    """The sequencer signs a second head of one size, and an extension of it."""
    host = cosigned_at(cluster, 12)
    fork = make_cluster(nodes=())
    for name in ("a", "b", "c", "d", "e", "f", "g"):
        fork.append(fork.policy(name))
    assert fork.anchor == cluster.anchor
    host.leaves = fork.leaves
    second = encode_add_checkpoint(12, [], head_note(replay_of(fork, 12)))
    assert host.ask(second).status == 409
    assert verdict(host.ask(request_body(fork, 12, 13))) == (422, "SL-CONSISTENCY")
    assert host.stored is not None
    assert host.stored.root == replay_of(cluster, 12).root()


@pytest.mark.parametrize("size", [0, 1])
def test_there_is_no_head_before_the_first_term(cluster: Cluster, size: int) -> None:
    root = replay_of(cluster, 1).root() if size else EMPTY_ROOT
    note = sign_checkpoint(Checkpoint(f"{cluster.cluster_id}/authority", size, root), signer("sequencer-1"))
    assert verdict(WitnessHost(cluster).ask(encode_add_checkpoint(0, [], note))) == (422, "SL-CHECKPOINT")
    assert WitnessHost(cluster).ask(request_body(cluster, 0, 2)).status == 200


# --- memory before answers ---


def test_nothing_is_cosigned_before_it_is_stored(cluster: Cluster) -> None:
    host = WitnessHost(cluster)
    host.machine.handle(cluster.now, Request(7, request_body(cluster, 0, 5)))
    (persist,) = host.machine.handle(cluster.now, Fetched(7, cluster.leaves()[:5]))
    root = replay_of(cluster, 5).root()
    expected = WitnessState(host.origin, 0, EMPTY_ROOT, 0)
    assert persist == Persist(7, expected, WitnessState(host.origin, 5, root, 1))
    assert host.machine.state == expected
    (reply,) = host.machine.handle(cluster.now, Persisted(7, persist.new))
    assert isinstance(reply, Reply)
    assert (reply.request_id, reply.status) == (7, 200)


def test_when_another_process_was_faster_its_memory_counts(cluster: Cluster) -> None:
    host = cosigned_at(cluster, 5)
    host.machine.handle(cluster.now, Request(8, request_body(cluster, 5, 12)))
    host.machine.handle(cluster.now, Fetched(8, cluster.leaves()[5:12]))
    ahead = WitnessState(host.origin, 9, replay_of(cluster, 9).root(), 1)
    (reply,) = host.machine.handle(cluster.now, Persisted(8, ahead))
    assert (reply.status, reply.body) == (409, b"9\n")
    host.stored = ahead
    assert host.ask(request_body(cluster, 9, 12)).status == 200


def test_a_memory_that_went_backwards_is_not_believed(cluster: Cluster) -> None:
    """A restored backup must not make a running witness forget what it cosigned."""
    host = cosigned_at(cluster, 9)
    host.stored = WitnessState(host.origin, 5, replay_of(cluster, 5).root(), 1)
    assert verdict(host.ask(request_body(cluster, 9, 12))) == (503, "SL-WITNESS")
    assert host.machine.state.size == 9


def test_a_witness_starts_where_it_may(cluster: Cluster) -> None:
    replay = replay_of(cluster, 5)
    for state in (None, WitnessState(replay.origin, 4, b"x" * 32, 1), WitnessState("other", 5, b"x" * 32, 1)):
        with pytest.raises(ValueError, match="ahead"):
            witness.Witness(replay.origin, "w", signer("witness-1"), replay, state)
    state = WitnessState(replay.origin, 5, replay.root(), 1)
    assert witness.Witness(replay.origin, "w", signer("witness-1"), replay, state).state == state


def test_another_root_at_the_same_size_is_a_conflict(cluster: Cluster) -> None:
    """C2SP tlog-witness: not a bad proof, for there is nothing to prove."""
    host = cosigned_at(cluster, 9)
    other = sign_checkpoint(Checkpoint(host.origin, 9, b"\7" * 32), signer("sequencer-1"))
    reply = host.ask(encode_add_checkpoint(9, [], other))
    assert (reply.status, reply.content_type, reply.body) == (409, "text/x.tlog.size", b"9\n")
    assert host.ask(request_body(cluster, 9, 9)).status == 200


# --- one at a time ---


def test_requests_wait_their_turn(cluster: Cluster) -> None:
    host = WitnessHost(cluster)
    (fetch,) = host.machine.handle(cluster.now, Request(1, request_body(cluster, 0, 5)))
    assert fetch == Fetch(1, 0, 5)
    assert host.machine.handle(cluster.now, Request(2, request_body(cluster, 0, 12))) == []
    assert host.machine.handle(cluster.now, Request(3, request_body(cluster, 5, 12))) == []
    assert host.machine.handle(cluster.now, Fetched(9, [])) == []  # nobody asked
    (persist,) = host.machine.handle(cluster.now, Fetched(1, cluster.leaves()[:5]))
    effects: list[Any] = host.machine.handle(cluster.now, Persisted(1, persist.new))
    assert [(one.request_id, getattr(one, "status", None)) for one in effects] == [
        (1, 200),
        (2, 409),
        (3, None),
    ]
    assert effects[2] == Fetch(3, 5, 12)


def test_the_queue_is_bounded(cluster: Cluster) -> None:
    host = WitnessHost(cluster)
    host.machine.handle(cluster.now, Request(0, request_body(cluster, 0, 5)))
    for n in range(limits.MAX_WITNESS_QUEUE):
        assert host.machine.handle(cluster.now, Request(n + 1, b"")) == []
    (reply,) = host.machine.handle(cluster.now, Request(99, request_body(cluster, 0, 5)))
    assert (reply.request_id, verdict(reply)) == (99, (503, "SL-WITNESS"))
    replies = host.machine.handle(cluster.now, Fetched(0, None))
    assert [one.status for one in replies] == [503] + [400] * limits.MAX_WITNESS_QUEUE


def test_four_witnesses_make_a_head_final(cluster: Cluster) -> None:
    note = head_note(replay_of(cluster))
    lines = [
        parse_signature_lines(WitnessHost(cluster, f"witness-{n}").ask(request_body(cluster, 0, 12)).body)[0]
        for n in range(1, 5)
    ]
    parsed = with_lines(parse_signed_checkpoint(note)[1], lines)
    assert parsed.format() == cosigned(note)


SMALL = make_cluster(members=False, nodes=())
