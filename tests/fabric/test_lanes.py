"""Lanes: prefaces and what follows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits, wire
from fabric.classes import TrafficClass
from fabric.errors import WireError
from fabric.lanes import CONTROL_LANE, LaneKey, LaneReader, decode_preface, encode_preface, lane_for
from tests.support.fabric_frames import VECTORS


def test_golden_prefaces() -> None:
    assert encode_preface(CONTROL_LANE) == bytes.fromhex(VECTORS["lanes"]["control 0"])
    assert encode_preface(LaneKey(TrafficClass.BULK, 3)) == bytes.fromhex(VECTORS["lanes"]["bulk 3"])
    assert encode_preface(CONTROL_LANE) == b"RAPL" + bytes([1, 0, 0, 0])


@given(st.sampled_from(TrafficClass), st.integers(0, limits.LANE_SHARDS - 1))
def test_prefaces_round_trip(traffic_class: TrafficClass, shard: int) -> None:
    key = LaneKey(traffic_class, 0 if traffic_class is TrafficClass.CONTROL else shard)
    assert decode_preface(encode_preface(key)) == key


@pytest.mark.parametrize(
    "preface",
    [
        b"RAPX" + bytes([1, 4, 0, 0]),
        b"RAPL" + bytes([2, 4, 0, 0]),
        b"RAPL" + bytes([1, 6, 0, 0]),
        b"RAPL" + bytes([1, 4, 0, 16]),
        b"RAPL" + bytes([1, 0, 0, 1]),
        b"RAPL" + bytes([1, 4, 0]),
    ],
)
def test_bad_prefaces(preface: bytes) -> None:
    assert decode_preface(b"RAPL" + bytes([1, 4, 0, 15])) == LaneKey(TrafficClass.BULK, 15)
    with pytest.raises(WireError, match="bad_lane_preface"):
        decode_preface(preface)


@given(st.integers(1, 30))
def test_a_lane_is_read_in_any_pieces(largest: int) -> None:
    data = encode_preface(LaneKey(TrafficClass.BULK, 2)) + wire.encode_ack(2, 3, 4) + wire.encode_credit(2, 5)
    reader = LaneReader(limits.FRAME_BODY_BYTES)
    frames = [frame for at in range(0, len(data), largest) for frame in reader.feed(data[at : at + largest])]
    assert reader.key == LaneKey(TrafficClass.BULK, 2)
    assert [wire.decode_frame(frame) for frame in frames] == [wire.Ack(3, 4), wire.StreamCredit(5)]


def test_the_end_of_a_lane_is_an_error_whole_or_not() -> None:
    reader = LaneReader(limits.FRAME_BODY_BYTES)
    assert len(reader.feed(encode_preface(CONTROL_LANE) + wire.encode_ack(2, 3, 4))) == 1
    with pytest.raises(WireError, match="lane_ended"):
        reader.finish()
    reader.feed(b"\x01")
    with pytest.raises(WireError, match="truncated_frame"):
        reader.finish()


def test_streams_spread_over_the_shards_of_their_class() -> None:
    keys = {lane_for(TrafficClass.BULK, bytes(15) + bytes([n]), 4) for n in range(256)}
    assert keys == {LaneKey(TrafficClass.BULK, shard) for shard in range(4)}
    assert lane_for(TrafficClass.BULK, b"\xff" * 16, 1) == LaneKey(TrafficClass.BULK, 0)
    assert lane_for(TrafficClass.CONTROL, b"\xff" * 16, 4) == CONTROL_LANE
    assert lane_for(TrafficClass.BULK, b"\xff" * 16, 99).shard < limits.LANE_SHARDS
