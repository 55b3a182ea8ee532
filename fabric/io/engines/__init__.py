"""The QUIC carriers: one small sans-IO port over two engines, `aioquic` (reference) and `qh3` (fast).

A `Carrier` is one QUIC connection. It knows datagrams, lanes (unidirectional QUIC streams), DATAGRAM frames
and its own timer; it knows nothing of sockets, of the event loop or of the session above it. Whatever differs
between the two libraries, or needs a guard, is inside the engine modules, and one contract suite
(tests/contracts/test_engine.py) runs on each and across both.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from fabric import limits
from fabric.errors import FabricError
from fabric.identity import ALPN, NodeIdentity

Address = tuple[str, int] | tuple[str, int, int, int]
"""A socket address as the operating system gives it: (host, port), with flow and scope for IPv6."""

EngineName = Literal["aioquic", "qh3"]


class CarrierError(FabricError):
    """A carrier was used in a way it cannot serve. Codes: `carrier_closed`, `datagram_too_large`,
    `engine_unknown`, `engine_missing`, `no_probe`."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """TLS agreed on the protocol. The listener may send from here on; the dialer must not."""


@dataclass(frozen=True, slots=True)
class Handshaken:
    """The TLS handshake is complete.

    On the dialer `peer_certificate_der` is the certificate whose key signed the handshake (None when the
    peer sent none); it must be checked before anything is sent. On the listener it is always None: the
    dialer proves itself above, by AUTH.
    """

    peer_certificate_der: bytes | None


@dataclass(slots=True)
class LaneBytes:
    """Bytes of a lane the peer opened, in order; `fin` ends the lane."""

    quic_stream_id: int
    data: bytes | memoryview
    fin: bool


@dataclass(frozen=True, slots=True)
class LaneReset:
    """The peer abandoned a lane it opened, or refuses to read one of ours (`stopped`)."""

    quic_stream_id: int
    error_code: int
    stopped: bool


@dataclass(slots=True)
class DatagramBytes:
    """The payload of one DATAGRAM frame."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CidIssued:
    """The peer may from now on address this carrier by `connection_id`."""

    connection_id: bytes


@dataclass(frozen=True, slots=True)
class CidRetired:
    """Datagrams for `connection_id` no longer belong to this carrier."""

    connection_id: bytes


@dataclass(frozen=True, slots=True)
class Terminated:
    """The last event: the connection is over, or closing (see `Carrier.done`).

    `code` is the QUIC error code, `reason` the text beside it.
    `by_application` tells the fabric's own codes (RFC 9000 section 20.2) from the transport's.
    """

    code: int
    reason: str
    by_application: bool


@dataclass(frozen=True, slots=True)
class DatagramProbed:
    """The probe that `Carrier.probe` was given under `number` was acknowledged, or is lost."""

    number: int
    delivered: bool


CarrierEvent = (
    Negotiated
    | Handshaken
    | LaneBytes
    | LaneReset
    | DatagramBytes
    | DatagramProbed
    | CidIssued
    | CidRetired
    | Terminated
)


@dataclass(frozen=True, slots=True)
class CarrierConfig:
    """What may be tuned per endpoint. Sizes in bytes, times in seconds."""

    max_datagram_bytes: int = limits.CARRIER_DATAGRAM_BYTES
    """UDP payload that is sent without asking; more only once a probe got through."""
    probe_datagram_bytes: int = limits.CARRIER_PROBE_DATAGRAM_BYTES
    """Up to where the path is probed; not over `max_datagram_bytes`: not at all."""
    idle_timeout_s: float = limits.CARRIER_IDLE_TIMEOUT_S
    connection_window_bytes: int = limits.CARRIER_CONNECTION_WINDOW_BYTES
    lane_window_bytes: int = limits.CARRIER_LANE_WINDOW_BYTES
    alpn: tuple[str, ...] = (ALPN,)
    qlog_folder: Path | None = None
    """Where each connection leaves a qlog file; a traced connection is slower."""


DEFAULT_CONFIG = CarrierConfig()


@dataclass(frozen=True, slots=True)
class CarrierStats:
    """What an engine tells of a connection; None where it does not, or not yet."""

    congestion_window_bytes: int = 0
    bytes_in_flight: int = 0
    rtt_s: float | None = None
    packets_lost: int | None = None
    """Packets whose content was sent again, or, in DATAGRAM frames, lost for good."""
    packets_resent: int | None = None
    """Those, and packets sent again without being taken for lost: when a probe timeout expired."""
    probe_timeouts: int | None = None


class Carrier(Protocol):
    """One QUIC connection. `now` is seconds on a steady clock, the same for every call."""

    is_dialer: bool
    datagrams_dropped: int

    @property
    def remote(self) -> Address:
        """Where datagrams go now; moves when the peer proved to receive at another address."""

    @property
    def done(self) -> bool:
        """The closing period is over: nothing is sent or expected any more, the carrier can be forgotten."""

    def receive(self, datagrams: list[bytes], addr: Address, now: float) -> None:
        """Take datagrams that arrived from `addr`, in order. Never raises for what a peer sent."""

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, Address]]:
        """What must go out now; empties the carrier as far as congestion allows."""

    def moved(self) -> None:
        """Our own address changed: go on under another of the peer's connection ids, where there is one, so
        that nobody on the way can tell the two addresses are one node (RFC 9000 section 9.5).
        """

    def timer(self) -> float | None:
        """When `handle_timer` must be called, or None."""

    def handle_timer(self, now: float) -> None:
        """Let retransmissions, delayed acknowledgements and idle timeouts happen that are due."""

    def events(self) -> list[CarrierEvent]:
        """What happened since the last call; `Terminated` comes last and once."""

    def open_lane(self) -> int:
        """The id of a new unidirectional stream of ours."""

    def send(self, quic_stream_id: int, data: bytes | memoryview, fin: bool = False) -> None:
        """Queue bytes on a lane; they are copied. Unbounded: the caller looks at `unsent` first."""

    def reset_lane(self, quic_stream_id: int, error_code: int) -> None:
        """Abandon a lane of ours."""

    def unsent(self, quic_stream_id: int | None = None) -> int:
        """Bytes queued but not yet transmitted once, of a lane or of all."""

    def in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor given up as lost."""

    def round_trip(self) -> float | None:
        """The latest round-trip sample in seconds; None before the first."""

    def datagram_bytes(self) -> int:
        """The largest UDP payload that is sent now."""

    def probe_ceiling(self) -> int:
        """The largest UDP payload that `probe` takes; no larger than `datagram_bytes()`: it takes none."""

    def probe(self, number: int, size: int) -> None:
        """Send one packet padded to `size` with the next datagrams; `DatagramProbed` tells its fate."""

    def use_datagram_bytes(self, size: int) -> None:
        """Send UDP payloads of at most `size` from now on. An engine that searches by itself only shrinks."""

    def losses_in_a_row(self) -> int:
        """How often packets larger than `max_datagram_bytes` were lost since one such was acknowledged."""

    def datagram_room(self) -> int:
        """The largest payload `send_datagram` takes now; 0 while the peer allows none."""

    def send_datagram(self, data: bytes) -> None:
        """Queue one DATAGRAM frame; `datagram_too_large` over `datagram_room()`."""

    def close(self, code: int, reason: str) -> None:
        """Close with an application error code. Idempotent; `Terminated` follows."""

    def stats(self) -> CarrierStats:
        """The connection's measurements now."""

    def connection_ids(self) -> AbstractSet[bytes]:
        """Every id by which datagrams for this carrier may be addressed now; a live view."""


class Engine(Protocol):
    """A factory of carriers over one library, holding the listener's certificate."""

    name: EngineName

    def dial(self, addr: Address, now: float) -> Carrier:
        """Start a connection to `addr`."""

    def accept(
        self,
        *,
        original_destination_cid: bytes,
        retry_source_cid: bytes | None,
        addr: Address,
        now: float,
    ) -> Carrier:
        """A carrier for an Initial packet from `addr`, which is then fed to it with `receive`.

        `retry_source_cid` is the id our Retry packet gave, when one was sent; the address then counts as
        validated and `original_destination_cid` is the one the client used first.
        """


def available_engines() -> list[EngineName]:
    """The engines whose library is installed, the preferred first."""
    names: tuple[EngineName, ...] = ("qh3", "aioquic")
    return [name for name in names if importlib.util.find_spec(name) is not None]


def load_engine(name: str, identity: NodeIdentity, config: CarrierConfig = DEFAULT_CONFIG) -> Engine:
    """The engine `name`: "auto" (qh3 where it imports, else aioquic), "qh3" or "aioquic"."""
    installed = available_engines()
    wanted = (installed[0] if installed else "qh3") if name == "auto" else name
    if wanted not in ("qh3", "aioquic"):
        raise CarrierError("engine_unknown", f"no QUIC engine is called {name!r}; use auto, qh3 or aioquic")
    if wanted not in installed:
        raise CarrierError("engine_missing", f"the QUIC engine {wanted!r} is not installed")
    if wanted == "qh3":
        from fabric.io.engines.qh3 import Qh3Engine  # noqa: PLC0415 - only what is installed and used

        return Qh3Engine(identity, config)
    from fabric.io.engines.aioquic import AioquicEngine  # noqa: PLC0415 - same

    return AioquicEngine(identity, config)


# Both libraries log every peer's close as a warning; an event tells the same to whoever needs it.
logging.getLogger("quic").setLevel(logging.ERROR)
