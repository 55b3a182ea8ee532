"""Ids that either end opens: one parity, each once, in almost any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import SessionError, WireError
from fabric.lanes import LaneKey
from fabric.streamids import OwnIds, PeerIds


@given(st.permutations([2 * n for n in range(1, 40)]))
def test_each_id_opens_once_in_any_order(order: list[int]) -> None:
    ids = PeerIds(2)
    for stream_id in order:
        assert not ids.used(stream_id)
        ids.open(stream_id)
        assert ids.used(stream_id)
        with pytest.raises(SessionError, match="stream_id_reused"):
            ids.open(stream_id)
    assert ids.highest == 78
    assert ids.unused == 0


@pytest.mark.parametrize("stream_id", [0, 1, 3])
def test_the_other_parity_and_0_are_not_the_dialers(stream_id: int) -> None:
    ids = PeerIds(2)
    ids.open(2)
    assert not ids.mine(stream_id)
    with pytest.raises(WireError, match="bad_stream_id"):
        ids.open(stream_id)


def test_a_listener_opens_odd_ids() -> None:
    ids = PeerIds(1)
    ids.open(1)
    ids.open(3)
    assert ids.highest == 3
    with pytest.raises(WireError, match="bad_stream_id"):
        ids.open(2)


def test_ids_do_not_run_ahead_without_bound() -> None:
    ids = PeerIds(2)
    far = 2 + 2 * limits.SESSION_STREAM_ID_GAPS
    ids.open(far)
    assert ids.used(far)
    with pytest.raises(WireError, match="bad_stream_id"):
        ids.open(far + 2)


# -- what an opener may open -------------------------------------------------------------------------------


BULK, URGENT = LaneKey(TrafficClass.BULK, 0), LaneKey(TrafficClass.INTERACTIVE, 0)
GAPS = limits.SESSION_STREAM_ID_GAPS


def opened(ids: OwnIds, lane: LaneKey, now: float = 0.0) -> int:
    """An id whose OPEN has left."""
    stream_id = ids.open(lane)
    ids.left(now, stream_id)
    return stream_id


def test_an_opener_stops_before_an_id_that_the_peer_would_refuse() -> None:
    ids, peer = OwnIds(2), PeerIds(2)
    late = opened(ids, BULK)
    for _ in range(GAPS):
        assert ids.may_open(0.0)
        stream_id = opened(ids, URGENT)
        peer.open(stream_id)
        ids.heard(stream_id)
    assert not ids.may_open(0.0)
    with pytest.raises(WireError, match="bad_stream_id"):
        peer.open(ids.next)
    ids.heard(late)
    assert ids.may_open(0.0)
    peer.open(late)
    peer.open(ids.open(URGENT))


def test_an_answer_speaks_for_all_before_it_on_its_lane() -> None:
    ids = OwnIds(1)
    for _ in range(3):
        opened(ids, BULK)
    later = opened(ids, BULK)
    for _ in range(GAPS + 1):
        ids.heard(opened(ids, URGENT))
    assert not ids.may_open(0.0)
    ids.heard(later)
    assert ids.may_open(0.0)
    assert not ids._opening


def test_an_answer_speaks_for_none_that_left_after_it_or_not_yet() -> None:
    ids = OwnIds(1)
    unsent, second, third = ids.open(BULK), ids.open(BULK), ids.open(BULK)
    ids.left(0.0, third)
    ids.left(0.0, second)
    for _ in range(GAPS + 1):
        ids.heard(opened(ids, URGENT))
    ids.heard(third)
    assert set(ids._opening) == {unsent, second}
    assert not ids.may_open(0.0)
    ids.heard(second)
    assert set(ids._opening) == {unsent}
    assert not ids.may_open(0.0)
    ids.left(0.0, unsent)
    ids.heard(unsent)
    assert ids.may_open(0.0)
    assert not ids._opening
    assert not ids._in_order


def test_an_open_that_left_long_ago_has_arrived() -> None:
    ids = OwnIds(2)
    late = ids.open(BULK)
    for _ in range(GAPS + 1):
        ids.heard(opened(ids, URGENT))
    assert not ids.may_open(1e9), "it has not left"
    ids.left(100.0, late)
    ids.left(500.0, late)
    assert not ids.may_open(99.9 + limits.SESSION_OPEN_ARRIVES_S)
    assert ids.may_open(100.0 + limits.SESSION_OPEN_ARRIVES_S)
