"""Bindings: what proves that the other end of a stream asks to go on, and what does not."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any, TypeVar

import msgspec
import pytest

from fabric.binding import Binding
from fabric.classes import Mode, TrafficClass
from fabric.errors import StreamError
from fabric.seal import SealContext
from fabric.wire import CHACHA20_POLY1305, SUITES, OpenStream, RouteRef, StreamAccepted
from tests.support.fabric_net import CLUSTER, identity

ONE, OTHER, STRANGER = identity(1), identity(2), identity(3)
ROUTE = RouteRef(route_id="r", epoch=4, position=1)
CONTEXT = SealContext(
    cluster_id=CLUSTER,
    initiator=ONE.node_id,
    responder=OTHER.node_id,
    uid=bytes(range(16)),
    service="echo",
    traffic_class=TrafficClass.BULK,
    mode=Mode.STREAM,
)


def bound(seed: int = 31, context: SealContext = CONTEXT) -> tuple[Binding, Binding]:
    """Initiator and responder with keys."""
    one = Binding.initiate(context, ONE, bytes([seed]) * 32)
    other = Binding.respond(context, OTHER, one.opening(0, 30).seal, bytes([seed + 1]) * 32)
    one.accepted(other.acceptance(0))
    return one, other


Frame = TypeVar("Frame", OpenStream, StreamAccepted)


def replaced(frame: Frame, **change: Any) -> Frame:
    """The frame with another seal."""
    return msgspec.structs.replace(frame, seal=msgspec.structs.replace(frame.seal, **change))


def code_of(binding: Binding, opening: OpenStream) -> str:
    with pytest.raises(StreamError) as refused:
        binding.reopened(opening)
    return refused.value.code


def answer_code(binding: Binding, accepted: StreamAccepted) -> str:
    with pytest.raises(StreamError) as refused:
        binding.reaccepted(accepted)
    return refused.value.code


def test_both_ends_tell_how_far_they_are_and_take_the_new_route() -> None:
    one, other = bound()
    resume = other.reopened(one.reopening(ROUTE, 100, 1000, 30))
    assert (resume.received_up_to, resume.limit, resume.attempt) == (100, 1000, 1)
    answer = one.reaccepted(other.reacceptance(7, 70))
    assert (answer.received_up_to, answer.limit, answer.attempt) == (7, 70, 1)
    assert one.context.route == other.context.route == ROUTE


def test_the_x25519_keys_stay_and_records_open_as_before() -> None:
    one = Binding.initiate(CONTEXT, ONE, bytes([31]) * 32)
    first = one.opening(0, 30)
    other = Binding.respond(CONTEXT, OTHER, first.seal, bytes([32]) * 32)
    one.accepted(other.acceptance(0))
    assert one.keys is not None
    assert other.keys is not None
    record = one.keys.seal(5, 0, b"before")
    again = one.reopening(ROUTE, 0, 0, 30)
    assert again.seal.key == first.seal.key
    assert again.seal.signature != first.seal.signature
    other.reopened(again)
    one.reaccepted(other.reacceptance(0, 0))
    assert other.keys.open(5, 0, record) == b"before"
    assert one.keys.seal(5, 0, b"before") == record


@pytest.mark.parametrize("suites", list(permutations(SUITES)))
def test_the_suite_of_the_beginning_stays(suites: tuple[str, ...]) -> None:
    """The new OPEN offers it alone: neither end, nor who is between them, comes to another that way."""
    one = Binding.initiate(CONTEXT, ONE, bytes([31]) * 32)
    other = Binding.respond(CONTEXT, OTHER, one.opening(0, 30).seal, bytes([32]) * 32, suites)
    one.accepted(other.acceptance(0))
    opening = one.reopening(ROUTE, 0, 0, 30)
    assert opening.seal.offered == suites[:1]
    for changed in ([], list(suites), [suites[1]], ["x"]):
        if changed != list(opening.seal.suites):
            assert code_of(other, replaced(opening, suites=changed)) == "resume_invalid"
    other.reopened(opening)
    accepted = other.reacceptance(0, 0)
    for choice in (suites[1], "x"):
        assert answer_code(one, replaced(accepted, suite=choice)) == "resume_invalid"
    one.reaccepted(accepted)
    assert one.keys is not None
    assert one.keys.suite == suites[0]


def test_not_even_the_other_end_may_change_the_suite() -> None:
    """Signed and proved as it should be, but with another suite."""
    one, other = bound()
    assert one.keys is not None
    assert other.keys is not None
    agreed, one.keys.suite = one.keys.suite, CHACHA20_POLY1305
    assert code_of(other, one.reopening(ROUTE, 0, 0, 30)) == "resume_invalid"
    one.keys.suite = agreed
    other.reopened(one.reopening(ROUTE, 0, 0, 30))
    other.keys.suite = CHACHA20_POLY1305
    assert answer_code(one, other.reacceptance(0, 0)) == "resume_invalid"


def test_each_attempt_is_good_once_and_in_order() -> None:
    one, other = bound()
    first, second = one.reopening(None, 0, 0, 30), one.reopening(ROUTE, 0, 0, 30)
    other.reopened(second)
    assert code_of(other, second) == "resume_stale"
    assert code_of(other, first) == "resume_stale"
    other.reopened(one.reopening(None, 0, 0, 30))


def test_an_answer_is_to_the_newest_attempt() -> None:
    one, other = bound()
    other.reopened(one.reopening(None, 0, 0, 30))
    late = other.reacceptance(3, 30)
    newest = one.reopening(ROUTE, 0, 0, 30)
    assert answer_code(one, late) == "resume_stale"
    other.reopened(newest)
    assert one.reaccepted(other.reacceptance(3, 30)).received_up_to == 3


RESUME: list[dict[str, Any]] = [
    {"attempt": 9},
    {"received_up_to": 101},
    {"limit": 1001},
    {"mac": bytes(32)},
]


@pytest.mark.parametrize("change", RESUME, ids=lambda change: next(iter(change)))
def test_every_field_of_a_request_is_under_the_proof(change: dict[str, Any]) -> None:
    one, other = bound()
    opening = one.reopening(ROUTE, 100, 1000, 30)
    assert opening.resume is not None
    forged = msgspec.structs.replace(opening, resume=msgspec.structs.replace(opening.resume, **change))
    assert code_of(other, forged) == "resume_invalid"
    assert other.context.route is None
    other.reopened(opening)


@pytest.mark.parametrize("change", RESUME[1:], ids=lambda change: next(iter(change)))
def test_every_field_of_an_answer_is_under_the_proof(change: dict[str, Any]) -> None:
    one, other = bound()
    other.reopened(one.reopening(ROUTE, 0, 0, 30))
    accepted = other.reacceptance(100, 1000)
    assert accepted.resume is not None
    forged = msgspec.structs.replace(accepted, resume=msgspec.structs.replace(accepted.resume, **change))
    assert answer_code(one, forged) == "resume_invalid"
    one.reaccepted(accepted)


@pytest.mark.parametrize(
    "change",
    [
        {"service": "echo2"},
        {"class_": int(TrafficClass.INTERACTIVE)},
        {"mode": int(Mode.PROBE)},
        {"route": RouteRef(route_id="other", epoch=4, position=1)},
        {"route": RouteRef(route_id="r", epoch=5, position=1)},
        {"route": None},
        {"resume": None},
    ],
    ids=str,
)
def test_the_request_describes_this_stream_on_the_signed_route(change: dict[str, Any]) -> None:
    one, other = bound()
    opening = one.reopening(ROUTE, 0, 0, 30)
    assert code_of(other, msgspec.structs.replace(opening, **change)) == "resume_invalid"
    # Only the position is each hop's to change.
    other.reopened(msgspec.structs.replace(opening, route=msgspec.structs.replace(ROUTE, position=2)))


def test_another_streams_request_is_not_this_streams() -> None:
    one, other = bound()
    stranger, _ = bound(seed=41)
    assert code_of(other, stranger.reopening(ROUTE, 0, 0, 30)) == "resume_invalid"
    genuine = one.reopening(ROUTE, 0, 0, 30)
    foreign = stranger.reopening(ROUTE, 0, 0, 30)
    assert code_of(other, msgspec.structs.replace(genuine, resume=foreign.resume)) == "resume_invalid"
    assert code_of(other, msgspec.structs.replace(foreign, resume=genuine.resume)) == "resume_invalid"


def test_an_answer_without_the_responders_key_or_signature_is_none() -> None:
    one, other = bound()
    other.reopened(one.reopening(ROUTE, 0, 0, 30))
    accepted = other.reacceptance(0, 0)
    for change in ({"key": bytes(32)}, {"signature": bytes(64)}, {"public": STRANGER.public}):
        assert answer_code(one, replaced(accepted, **change)) == "resume_invalid"
    assert answer_code(one, msgspec.structs.replace(accepted, resume=None)) == "resume_invalid"
    one.reaccepted(accepted)


def test_what_each_end_may_not_do_is_a_mistake_of_ours() -> None:
    one = Binding.initiate(CONTEXT, ONE, bytes(32))
    for misuse in (
        lambda: one.acceptance(0),
        lambda: one.reacceptance(0, 0),
        lambda: one.reopening(None, 0, 0, 30),
    ):
        with pytest.raises(AssertionError):
            misuse()
    assert replace(CONTEXT, route=ROUTE).route == ROUTE
