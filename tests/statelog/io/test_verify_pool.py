"""Signatures verified by other processes: every wrong one is told, whichever batch it is in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from statelog.audit import Job
from statelog.errors import StatelogError
from statelog.io import verify_pool
from statelog.io.verify_pool import VerifyPool, verify_all
from statelog.io.verify_worker import all_right
from statelog.limits import VERIFY_BATCH_SIGNATURES
from tests.support.authority import signer

ALICE = signer("alice")
GOOD: Job = (ALICE.public, ALICE.sign(b"message"), b"message")
BAD: Job = (ALICE.public, ALICE.sign(b"message"), b"another message")
GONE: Job = (b"", ALICE.sign(b"message"), b"message")


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifyPool]:
    with VerifyPool(2) as pool:
        yield pool


def test_all_must_be_right() -> None:
    assert verify_all([])
    assert verify_all([GOOD, GOOD])
    assert not verify_all([GOOD, BAD])
    assert not verify_all([GONE])


def test_nothing_to_verify(pool: VerifyPool) -> None:
    assert pool.finish()


@pytest.mark.parametrize("wrong", [None, 0, 7, 24])
def test_one_wrong_signature_among_many(
    pool: VerifyPool, monkeypatch: pytest.MonkeyPatch, wrong: int | None
) -> None:
    monkeypatch.setattr(verify_pool, "VERIFY_BATCH_SIGNATURES", 2)
    monkeypatch.setattr(verify_pool, "VERIFY_BATCHES_WAITING", 1)  # so that some are verified here
    for position in range(25):
        pool.submit([BAD if position == wrong else GOOD])
    assert pool.finish() == (wrong is None)
    pool.submit([GOOD])
    assert pool.finish()  # a new round starts clean


@pytest.mark.parametrize("wrong", [None, 3])
def test_what_would_have_to_wait_is_verified_here(
    pool: VerifyPool, monkeypatch: pytest.MonkeyPatch, wrong: int | None
) -> None:
    monkeypatch.setattr(verify_pool, "VERIFY_BATCH_SIGNATURES", 1)
    monkeypatch.setattr(verify_pool, "VERIFY_BATCHES_WAITING", 0)  # no worker ever has room
    here: list[Job] = []
    monkeypatch.setattr(verify_pool, "all_right", lambda jobs: (here.extend(jobs), all_right(jobs))[1])
    jobs = [BAD if position == wrong else GOOD for position in range(5)]
    for job in jobs:
        pool.submit([job])
    assert here == jobs
    assert pool.finish() == (wrong is None)
    assert pool.finish()  # a new round starts clean


def test_a_worker_that_ends_is_an_error_and_not_a_yes() -> None:
    with VerifyPool(1) as pool:
        pool.submit([GOOD] * VERIFY_BATCH_SIGNATURES)
        assert pool.finish()
        pool.submit([GOOD] * VERIFY_BATCH_SIGNATURES)
        for worker in pool._workers:
            worker._process.kill()
            worker._process.wait()
            while worker._arrived.poll(0) and worker._answers.read(1):
                pass  # an answer that was under way would hide that nobody is there
        with pytest.raises(StatelogError, match="ended"):
            pool.finish()


def test_each_group_has_its_own_answer(pool: VerifyPool) -> None:
    groups = [[GOOD], [GOOD, BAD], [], [GONE, GOOD], [BAD], [GOOD] * 5]
    first, second = pool.ask(groups), pool.ask(groups[::-1])
    expected = [True, False, True, False, False, True]
    assert first.answers() == expected
    assert second.answers() == expected[::-1]
