"""What goes into the session and stream machines and what comes out: configuration, inputs, effects, events.

Source: docs/wire.md, "Sessions" and "Sealed streams".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from fabric import limits
from fabric.classes import TrafficClass
from fabric.wire import HEADER_BYTES, SUITES, NodePressure, OpenStream, RouteUpdate, StreamAccepted

_SHARDED: Final = (TrafficClass.INTERACTIVE, TrafficClass.BULK)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """What this end offers and takes. Sizes in bytes, times in seconds."""

    capabilities: tuple[str, ...] = ()
    body_limit: int = limits.FRAME_BODY_BYTES
    session_window: int = limits.SESSION_WINDOW_BYTES
    session_reserve: int = limits.SESSION_RESERVE_BYTES
    stream_window: int = limits.STREAM_WINDOW_BYTES
    stream_window_max: int = limits.STREAM_WINDOW_BYTES_MAX
    max_streams: int = limits.SESSION_STREAMS
    handshake_timeout_s: float = limits.SESSION_HANDSHAKE_TIMEOUT_S
    idle_timeout_s: int = int(limits.SESSION_IDLE_TIMEOUT_S)
    slow_peer_s: float = limits.SESSION_SLOW_PEER_S
    keepalive_s: float | None = limits.SESSION_KEEPALIVE_S
    """None: never pings by itself (a backgrounded phone)."""
    datagrams: bool = True
    """Whether streams of datagram mode are carried."""
    shards: dict[TrafficClass, int] = field(default_factory=dict)
    """Lanes of interactive and bulk; one where not named, and for the other classes."""
    token: bytes = b""
    route_epoch: int = 0
    peer_epoch: int = 0

    def __post_init__(self) -> None:
        # Credit comes back in quarters of a window; a window of fewer frames could wait for itself for ever.
        frame = self.body_limit + HEADER_BYTES
        if self.session_window - self.session_reserve < 4 * frame or self.stream_window < 4 * frame:
            raise ValueError(f"windows must hold four frames of {frame} bytes, besides the reserve")
        for traffic_class, lanes in self.shards.items():
            most = limits.SESSION_SHARDS if traffic_class in _SHARDED else 1
            if not 1 <= lanes <= most:
                raise ValueError(f"{lanes} lanes for {traffic_class.name}: 1 to {most}")


# -- inputs ----------------------------------------------------------------------------------------------


class LaneData(msgspec.Struct, frozen=True, gc=False):
    """Bytes of a lane the peer opened, in order. `lane_id` is any stable number: the QUIC stream id."""

    lane_id: int
    data: bytes | memoryview
    fin: bool = False


class DatagramData(msgspec.Struct, frozen=True, gc=False):
    """The payload of a QUIC DATAGRAM frame: one DATA frame of a stream in datagram mode."""

    data: bytes


class CarrierLost(msgspec.Struct, frozen=True):
    """The QUIC connection ended; `code` is the stable code when the peer sent one as its reason phrase."""

    code: str = "carrier_lost"
    reason: str = ""


class Timer(msgspec.Struct, frozen=True):
    """The time that `timer()` named has come (early or spurious calls are harmless)."""


SessionInput = LaneData | DatagramData | CarrierLost | Timer


# -- events ----------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True):
    """The peer is proved and both ends said SESSION_READY. Always the first event but `SessionClosed`."""

    peer_node_id: str
    peer_public: bytes
    capabilities: tuple[str, ...]
    token: bytes
    route_epoch: int
    peer_epoch: int


class StreamOpened(msgspec.Struct, frozen=True):
    """The peer opens a stream. Answer with `accept_stream` or `reset_stream`. `raw` is the OPEN's body."""

    stream_id: int
    open: OpenStream
    raw: bytes


class StreamAcceptedEvent(msgspec.Struct, frozen=True):
    """The peer accepted a stream we opened. `raw` is the body, for a relay to pass on unchanged."""

    stream_id: int
    accepted: StreamAccepted
    raw: bytes


class StreamRecord(msgspec.Struct, frozen=True, gc=False):
    """A DATA frame. Give `carried` back with `consumed` once the payload is no longer held."""

    stream_id: int
    offset: int
    flags: int
    payload: bytes | memoryview
    carried: int


class StreamDatagram(msgspec.Struct, frozen=True, gc=False):
    """A datagram of a stream in datagram mode. `size`: bytes of its frame, header included."""

    stream_id: int
    number: int
    flags: int
    payload: bytes | memoryview
    size: int


class StreamAck(msgspec.Struct, frozen=True, gc=False):
    """End-to-end acknowledgement and window of the other end."""

    stream_id: int
    received_up_to: int
    limit: int


class StreamPing(msgspec.Struct, frozen=True, gc=False):
    """An end-to-end PING on a stream: answer with `pong`, or pass it on."""

    stream_id: int
    nonce: int
    time: int


class StreamPong(msgspec.Struct, frozen=True, gc=False):
    """An end-to-end PONG on a stream."""

    stream_id: int
    nonce: int
    time: int


class StreamClosed(msgspec.Struct, frozen=True):
    """The peer's direction is closed. `dead` when ours is too: the id is gone."""

    stream_id: int
    dead: bool


class StreamReset(msgspec.Struct, frozen=True):
    """The stream is dead: reset by the peer, or by this session (credit overrun, GOAWAY)."""

    stream_id: int
    reason: str
    detail: str = ""


class StreamWritable(msgspec.Struct, frozen=True, gc=False):
    """A stream that had no `room` has some again."""

    stream_id: int


class StreamSent(msgspec.Struct, frozen=True, gc=False):
    """Frames left the queues of a stream that a relay adopted, among them `carried` bytes of DATA: 0 where
    it was datagrams, CLOSE or another frame without credit.
    """

    stream_id: int
    carried: int


class Pong(msgspec.Struct, frozen=True):
    """A PING of ours on stream 0 came back after `rtt_s` seconds."""

    nonce: int
    rtt_s: float


class PeerGoaway(msgspec.Struct, frozen=True):
    """The peer drains. Streams of ours above `last_id` were reset already; open no more here."""

    last_id: int
    drain_s: int
    reason: str


class PeerPressure(msgspec.Struct, frozen=True):
    """The peer says how busy it is."""

    pressure: NodePressure


class PeerRouteUpdate(msgspec.Struct, frozen=True):
    """The peer says that a route changed."""

    update: RouteUpdate


class SessionClosed(msgspec.Struct, frozen=True):
    """The session is over and every stream with it. Close the carrier with `close_number(code)` and `code`.

    `by_peer`: the carrier is gone already. No event follows.
    """

    code: str
    reason: str
    by_peer: bool


SessionEvent = (
    Ready
    | StreamOpened
    | StreamAcceptedEvent
    | StreamRecord
    | StreamDatagram
    | StreamAck
    | StreamPing
    | StreamPong
    | StreamClosed
    | StreamReset
    | StreamWritable
    | StreamSent
    | Pong
    | PeerGoaway
    | PeerPressure
    | PeerRouteUpdate
    | SessionClosed
)


# == sealed streams ==========================================================================================


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """Bounds of one stream. Sizes in plaintext bytes, times in seconds."""

    window: int = limits.E2E_WINDOW_BYTES
    window_max: int = limits.E2E_WINDOW_BYTES_MAX
    send_buffer: int = limits.E2E_SEND_BUFFER_BYTES
    hold_s: int = limits.RESUME_TIMEOUT_S
    """How long the stream is kept without a carrier; the shorter of both ends' counts, 0 is not at all."""
    accept_timeout_s: float = limits.E2E_ACCEPT_TIMEOUT_S
    confirm_timeout_s: float = limits.E2E_CONFIRM_TIMEOUT_S
    suites: tuple[str, ...] = SUITES
    """Ciphers of the seal that this end takes, the best first."""


# -- inputs: the hop stream's events, without its id --------------------------------------------------------


class HopAccepted(msgspec.Struct, frozen=True):
    """STREAM_ACCEPTED came."""

    accepted: StreamAccepted


class HopRecord(msgspec.Struct, frozen=True, gc=False):
    """A DATA frame came."""

    offset: int
    flags: int
    payload: bytes | memoryview


class HopDatagram(msgspec.Struct, frozen=True, gc=False):
    """A datagram came."""

    number: int
    flags: int
    payload: bytes | memoryview


class HopAck(msgspec.Struct, frozen=True, gc=False):
    """An ACK came."""

    received_up_to: int
    limit: int


class HopClosed(msgspec.Struct, frozen=True):
    """CLOSE_STREAM came."""


class HopReset(msgspec.Struct, frozen=True):
    """RESET_STREAM came, or the session was closed on purpose: the stream is over."""

    reason: str
    detail: str = ""


class HopLost(msgspec.Struct, frozen=True):
    """The hop stream is gone without a word of the other end: its session broke, or a hop further on did
    (a RESET with `route_failed`). The stream may go on over another.
    """

    reason: str = "route_failed"
    detail: str = ""


class StreamTimer(msgspec.Struct, frozen=True):
    """The time that `timer()` named has come."""


HopInput = HopAccepted | HopRecord | HopDatagram | HopAck | HopClosed | HopReset | HopLost | StreamTimer


# -- effects: what to do on the hop stream; `perform` does it --------------------------------------------


class SendOpen(msgspec.Struct, frozen=True):
    """`id = session.open_stream(now, open)`: what `EndToEnd.initiate` begins with."""

    open: OpenStream


class SendAccepted(msgspec.Struct, frozen=True):
    """`session.accept_stream(now, id, accepted)`."""

    accepted: StreamAccepted


class SendRecord(msgspec.Struct, frozen=True, gc=False):
    """`session.send_data(now, id, offset, flags, ciphertext)`."""

    offset: int
    flags: int
    ciphertext: bytes


class SendDatagram(msgspec.Struct, frozen=True, gc=False):
    """`session.send_datagram(now, id, number, flags, ciphertext)`."""

    number: int
    flags: int
    ciphertext: bytes


class SendAck(msgspec.Struct, frozen=True, gc=False):
    """`session.send_ack(now, id, received_up_to, limit)`."""

    received_up_to: int
    limit: int


class SendClose(msgspec.Struct, frozen=True):
    """`session.close_stream(now, id)`."""


class SendReset(msgspec.Struct, frozen=True):
    """`session.reset_stream(now, id, reason, detail)`."""

    reason: str
    detail: str = ""


StreamEffect = SendAccepted | SendRecord | SendDatagram | SendAck | SendClose | SendReset


# -- events: what the service adapter above learns -----------------------------------------------------------


class Opened(msgspec.Struct, frozen=True):
    """The stream is confirmed. A responder calls its service adapter now and not before."""

    peer_node_id: str


class DataReadable(msgspec.Struct, frozen=True):
    """`read` has bytes, or the end was reached."""


class Writable(msgspec.Struct, frozen=True):
    """`write` takes bytes again after it took fewer than given."""


class Suspended(msgspec.Struct, frozen=True):
    """The stream has no carrier, or an attempt to resume it failed. An initiator calls `resume` when it has
    one; a responder waits.
    """

    reason: str


class Resumed(msgspec.Struct, frozen=True):
    """The stream goes on over the hop stream it is bound to now."""


class Finished(msgspec.Struct, frozen=True):
    """Both directions ended. `Suspended` and `Resumed` may follow, while the other end may not know it."""


class Failed(msgspec.Struct, frozen=True):
    """The stream broke; bytes read so far are good, more will not come. No event follows."""

    reason: str
    detail: str = ""


StreamEvent = Opened | DataReadable | Writable | Suspended | Resumed | Finished | Failed
