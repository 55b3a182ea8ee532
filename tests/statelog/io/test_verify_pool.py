"""Signatures verified by other processes: every wrong one is told, whichever batch it is in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from statelog.audit import Job
from statelog.io import verify_pool
from statelog.io.verify_pool import VerifyPool, verify_all
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
    monkeypatch.setattr(verify_pool, "VERIFY_BATCHES_WAITING", 1)  # so that some are waited for on the way
    for position in range(25):
        pool.submit([BAD if position == wrong else GOOD])
    assert pool.finish() == (wrong is None)
    pool.submit([GOOD])
    assert pool.finish()  # a new round starts clean


def test_each_group_has_its_own_answer(pool: VerifyPool) -> None:
    groups = [[GOOD], [GOOD, BAD], [], [GONE, GOOD], [BAD], [GOOD] * 5]
    first, second = pool.ask(groups), pool.ask(groups[::-1])
    expected = [True, False, True, False, False, True]
    assert first.answers() == expected
    assert second.answers() == expected[::-1]
