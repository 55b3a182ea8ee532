"""Traffic classes and stream modes, with their numbers on the wire. Source: docs/wire.md, "Classes"."""

from __future__ import annotations

from enum import IntEnum


class TrafficClass(IntEnum):
    """What a stream is for; lower numbers are more urgent. A class is a claim that every hop meters."""

    CONTROL = 0
    DNS = 1
    INTERACTIVE = 2
    RELIABLE = 3
    BULK = 4
    DROPPABLE = 5


EXPRESS = frozenset({TrafficClass.CONTROL, TrafficClass.DNS, TrafficClass.INTERACTIVE})
"""Classes that go first, each within its token bucket."""


class Mode(IntEnum):
    """How a stream carries data."""

    STREAM = 0
    """Ordered bytes with acknowledgements and credit, on the lane of its class."""
    DATAGRAM = 1
    """Numbered packets in QUIC DATAGRAM frames, without acknowledgement or credit."""
    PROBE = 2
    """A stream that ends with ACCEPTED: shows that a node holds its identity and serves the service."""


CLASS_NAMES: dict[str, TrafficClass] = {c.name.lower(): c for c in TrafficClass}
"""`"bulk"` -> `TrafficClass.BULK`, as leases and configuration write them."""
