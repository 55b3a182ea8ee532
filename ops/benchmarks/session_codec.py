"""The frame codec alone, on one core: DATA frames to bytes and back.

Encoding makes the 24 bytes before a payload, which is not copied; decoding cuts a lane's chunk into frames
and parses them, so what is measured is everything that stands between a record and its lane.
"""

from __future__ import annotations

import os
import time
from typing import Any

from fabric import wire
from fabric.wire import FrameDecoder
from ops.benchmarks.common import result

LARGE, SMALL = 64 << 10, 64
LARGE_GBYTES_PER_S = 10.0
SMALL_NS = 1_000.0
FRAMES_A_CHUNK = {LARGE: 1, SMALL: 64}


def rows(runs: int, quick: bool) -> list[dict[str, Any]]:
    """The best of many short rounds in each run: what the code needs when nothing else runs."""
    rounds = 20 if quick else 400
    return [
        result(
            "frame codec, 64 KiB payload, encoded and decoded",
            "GB/s",
            [LARGE / pair_ns(LARGE, rounds) for _ in range(runs)],
            peer="limit",
            peer_values=[LARGE_GBYTES_PER_S] * runs,
            target=1.0,
        ),
        result(
            "frame codec, 64 B payload, encoded and decoded",
            "ns/frame",
            [pair_ns(SMALL, rounds) for _ in range(runs)],
            peer="limit",
            peer_values=[SMALL_NS] * runs,
            target=1.0,
            lower_is_better=True,
        ),
    ]


def pair_ns(size: int, rounds: int) -> float:
    """Nanoseconds to encode and decode one DATA frame with `size` bytes of payload."""
    count = FRAMES_A_CHUNK[size]
    payload, decoder = os.urandom(size), FrameDecoder()
    chunk = b"".join(wire.encode_data_head(2, 0, 0, size) + payload for _ in range(count))
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter_ns()
        for offset in range(0, count * size, size):
            wire.encode_data_head(2, offset, 0, size)
        for frame in decoder.feed(chunk):
            wire.decode_data(frame)
        best = min(best, time.perf_counter_ns() - start)
    return best / count
