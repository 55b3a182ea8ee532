"""Looking ahead at records: what is found holds for ever, and nothing is taken for right that is not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from statelog.canonical import decode, encode
from statelog.io import lookout as lookouts
from statelog.io.lookout import UNSEEN, Lookout
from tests.support.authority import make_cluster
from tests.support.logs import leases, replay_of

CLUSTER = make_cluster()
STATE = replay_of(CLUSTER).state
GOOD = leases(CLUSTER, 20)


def forged(data: bytes) -> bytes:
    """The record with the first signature of another one."""
    record = decode(data)
    record["signatures"][0]["value"] = decode(GOOD[-1])["signatures"][0]["value"]
    return encode(record)


@pytest.fixture
def lookout() -> Iterator[Lookout]:
    made = Lookout()
    yield made
    made.close()


@pytest.mark.parametrize("count", [3, 20])  # here, and by other processes
def test_right_signatures_are_seen_and_wrong_ones_are_left_to_admission(lookout: Lookout, count: int) -> None:
    batch = [*GOOD[:count]]
    assert all(one.verified for one in lookout.finish(lookout.begin(batch, STATE)))
    batch[1] = forged(batch[1])
    batch[2] = b"{}"
    seen = lookout.finish(lookout.begin(batch, STATE))
    assert [one.reading is not None for one in seen] == [True, True, False, *[True] * (count - 3)]
    assert seen[2] == UNSEEN
    assert not seen[1].verified
    assert all(one.verified for one in seen[lookouts.LOOKOUT_GROUP_RECORDS :])
    assert (lookout._pool is not None) == (count == 20)


def test_without_a_state_only_the_form_is_seen(lookout: Lookout) -> None:
    seen = lookout.finish(lookout.begin(GOOD, None))
    assert [(one.reading is not None, one.verified) for one in seen] == [(True, False)] * 20


def test_a_batch_may_begin_before_the_one_before_it_is_finished(lookout: Lookout) -> None:
    wrong = [forged(data) for data in GOOD[:-1]] + GOOD[-1:]
    first, second, third = (lookout.begin(batch, STATE) for batch in (GOOD, wrong, GOOD))
    assert all(one.verified for one in lookout.finish(first))
    assert not any(one.verified for one in lookout.finish(second)[:-4])
    assert all(one.verified for one in lookout.finish(third))


def test_answers_that_are_not_taken_in_order_are_not_taken_for_others(
    lookout: Lookout, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = [forged(data) for data in GOOD[:-1]] + GOOD[-1:]
    lookout.begin(GOOD, STATE)  # and never finished
    seen = lookout.finish(lookout.begin(wrong, STATE))
    assert not any(one.verified for one in seen[:-1])
    assert seen[-1].verified  # verified here
    assert "in this process from now on" in caplog.text


def test_without_its_processes_everything_works_as_before(
    lookout: Lookout, caplog: pytest.LogCaptureFixture
) -> None:
    look = lookout.begin(GOOD, STATE)
    pool = lookout._pool
    assert pool is not None
    for worker in pool._workers:
        worker._process.kill()
        worker._process.wait()
    assert all(one.verified for one in lookout.finish(look))
    assert all(one.verified for one in lookout.finish(lookout.begin(GOOD, STATE)))
    assert lookout._pool is None
    assert "in this process from now on" in caplog.text


def test_a_batch_that_was_handed_over_when_the_processes_fail_is_verified_here(lookout: Lookout) -> None:
    first = lookout.begin(GOOD, STATE)
    pool = lookout._pool
    assert pool is not None
    for worker in pool._workers:
        worker._process.kill()
        worker._process.wait()
    second = lookout.begin(GOOD, STATE)  # the pipes are broken
    for look in (first, second):
        assert all(one.verified for one in lookout.finish(look))
