"""Ids a peer opens: one parity, each once, in almost any order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.errors import SessionError, WireError
from fabric.streamids import PeerIds


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
    assert not ids._above


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
