"""Lanes: the unidirectional QUIC streams that carry frames, one per (class, shard) and direction.

Each side opens the lanes it sends on. A lane starts with an 8-byte preface, then carries frames without gaps:

    magic "RAPL" | version u8 = 1 | class u8 | shard u16          network order

Source: docs/wire.md, "Lanes".
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import NamedTuple

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import WireError
from fabric.wire import Frame, FrameDecoder

_PREFACE = struct.Struct(">4sBBH")
MAGIC = b"RAPL"
VERSION = 1
PREFACE_BYTES = _PREFACE.size


class LaneKey(NamedTuple):
    """One lane of a direction. (CONTROL, 0) is the lane of the session's own frames."""

    traffic_class: TrafficClass
    shard: int


CONTROL_LANE = LaneKey(TrafficClass.CONTROL, 0)

DATAGRAM_SHARD = -1
"""Names no lane: what is scheduled under it goes in DATAGRAM frames."""


def encode_preface(key: LaneKey) -> bytes:
    """The 8 bytes that open the lane `key`."""
    return _PREFACE.pack(MAGIC, VERSION, key.traffic_class, key.shard)


def decode_preface(data: bytes | bytearray | memoryview) -> LaneKey:
    """Parse exactly 8 bytes; anything else is `bad_lane_preface`."""
    if len(data) != PREFACE_BYTES:
        raise WireError("bad_lane_preface", f"a preface has {PREFACE_BYTES} bytes, got {len(data)}")
    magic, version, traffic_class, shard = _PREFACE.unpack(data)
    if magic != MAGIC or version != VERSION:
        raise WireError("bad_lane_preface", f"not a version {VERSION} lane: {bytes(data).hex()}")
    if traffic_class >= len(TrafficClass) or shard >= limits.LANE_SHARDS:
        raise WireError("bad_lane_preface", f"no lane of class {traffic_class}, shard {shard}")
    if traffic_class == TrafficClass.CONTROL and shard:
        raise WireError("bad_lane_preface", "there is one control lane")
    return LaneKey(TrafficClass(traffic_class), shard)


@lru_cache(maxsize=256)  # one object for each lane, however many streams ride on it
def _lane(traffic_class: TrafficClass, shard: int) -> LaneKey:
    return LaneKey(traffic_class, shard)


def lane_for(traffic_class: TrafficClass, uid: bytes, shards: int) -> LaneKey:
    """The lane a stream rides on: its class, and the shard its uid falls in, the same on every hop."""
    if traffic_class == TrafficClass.CONTROL or shards <= 1:
        return _lane(traffic_class, 0)
    return _lane(traffic_class, uid[-1] % min(shards, limits.LANE_SHARDS))


class LaneReader:
    """One lane that the peer opened: its preface, then its frames."""

    def __init__(self, body_limit: int) -> None:
        self.key: LaneKey | None = None
        """Known once the preface is whole."""
        self.received = 0
        """Bytes, the preface included."""
        self._preface = b""
        self._frames = FrameDecoder(body_limit)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """Take the lane's next bytes; returns the frames they complete. Raises `WireError`."""
        self.received += len(data)
        if self.key is not None:
            return self._frames.feed(data)
        missing = PREFACE_BYTES - len(self._preface)
        self._preface += bytes(data[:missing])
        if len(self._preface) < PREFACE_BYTES:
            return []
        self.key = decode_preface(self._preface)
        return self._frames.feed(memoryview(data)[missing:])

    def finish(self) -> None:
        """The peer ended the lane, which a living session never does: raises `WireError` in any case."""
        self._frames.finish()
        raise WireError("lane_ended", f"lane {self.key}")
