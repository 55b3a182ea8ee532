"""The fifteen frame types of Fabric Data Session V1 and their bodies, with the bounds of every field.

A body is either one MessagePack map, whose keys are the attributes of its Struct, or a fixed layout.
`fabric.wire` turns them into bytes and back. Source: docs/wire.md, "Frames".
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from fabric import limits
from fabric.classes import Mode, TrafficClass

HEADER_BYTES: Final = 16
FLAG_CRITICAL: Final = 0x0001
AES_256_GCM: Final = "aes-256-gcm"
CHACHA20_POLY1305: Final = "chacha20-poly1305"
SUITES: Final = (AES_256_GCM, CHACHA20_POLY1305)
"""The ciphers of seals: keys of 32 bytes, nonces of 12, tags of 16."""
RECORD_FLAGS: Final = 0xFFFE
"""Every header flag of a DATA frame but `critical` belongs to the record and is authenticated with it."""


class FrameType(IntEnum):
    """Frame types; 0 is never sent."""

    HELLO = 1
    AUTH = 2
    SESSION_READY = 3
    OPEN_STREAM = 4
    DATA = 5
    ACK = 6
    PING = 7
    PONG = 8
    ROUTE_UPDATE = 9
    STREAM_CREDIT = 10
    NODE_PRESSURE = 11
    CLOSE_STREAM = 12
    RESET_STREAM = 13
    GOAWAY = 14
    STREAM_ACCEPTED = 15


FRAME_TYPES: Final = frozenset(int(t) for t in FrameType)
SESSION_FRAMES: Final = frozenset(
    {
        FrameType.HELLO,
        FrameType.AUTH,
        FrameType.SESSION_READY,
        FrameType.ROUTE_UPDATE,
        FrameType.NODE_PRESSURE,
        FrameType.GOAWAY,
    }
)
"""Types whose stream id is 0."""
STREAM_FRAMES: Final = frozenset(
    {
        FrameType.OPEN_STREAM,
        FrameType.DATA,
        FrameType.ACK,
        FrameType.CLOSE_STREAM,
        FrameType.RESET_STREAM,
        FrameType.STREAM_ACCEPTED,
    }
)
"""Types whose stream id is not 0. PING, PONG and STREAM_CREDIT take both."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One frame as it came: `type` may be unknown, `body` may be a view of a received chunk."""

    type: int
    flags: int
    stream_id: int
    body: bytes | memoryview

    @property
    def size(self) -> int:
        """Bytes on the lane, header included."""
        return HEADER_BYTES + len(self.body)


# -- bodies: maps ----------------------------------------------------------------------------------------

U32 = Annotated[int, Meta(ge=0, le=(1 << 32) - 1)]
U63 = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Epoch = Annotated[int, Meta(ge=0, le=(1 << 53) - 1)]  # as records count them, and signed as JSON
Key32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature64 = Annotated[bytes, Meta(min_length=64, max_length=64)]
Uid16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
NodeId = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
ClusterId = Annotated[str, Meta(min_length=1, max_length=63)]
ServiceName = Annotated[str, Meta(min_length=1, max_length=limits.SERVICE_NAME_CHARS)]
RouteId = Annotated[str, Meta(min_length=1, max_length=limits.ROUTE_ID_CHARS)]
Reason = Annotated[str, Meta(pattern=f"^[a-z0-9_]{{1,{limits.REASON_CHARS}}}$")]
Detail = Annotated[str, Meta(max_length=limits.DETAIL_CHARS)]
Capability = Annotated[str, Meta(min_length=1, max_length=limits.CAPABILITY_CHARS)]
Suite = Annotated[str, Meta(pattern=f"^[a-z0-9-]{{1,{limits.SEAL_SUITE_CHARS}}}$")]
Percent = Annotated[int, Meta(ge=0, le=100)]


class _Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A MessagePack map; keys are the attribute names (`class_` is `class`), defaults are not sent."""


class Hello(_Body, frozen=True):
    """Who speaks: the raw node key, the versions it knows, a fresh nonce, and what it can do."""

    public: Key32
    versions: Annotated[list[Annotated[int, Meta(ge=0, le=65_535)]], Meta(min_length=1, max_length=8)]
    nonce: Key32
    capabilities: Annotated[list[Capability], Meta(max_length=limits.CAPABILITIES)] = []


class Auth(_Body, frozen=True):
    """The dialer's proof, see `fabric.handshake`; a token may ride beside it, never instead."""

    cluster_id: ClusterId
    signature: Signature64
    token: Annotated[bytes, Meta(max_length=limits.TOKEN_BYTES)] = b""


class SessionReady(_Body, frozen=True):
    """What the sender of this frame takes: sizes in bytes, credits counted since OPEN or since the start."""

    body_limit: Annotated[int, Meta(ge=limits.FRAME_BODY_BYTES_MIN, le=limits.FRAME_BODY_BYTES_MAX)]
    session_credit: U63
    session_reserve: U63
    stream_credit: U63
    max_streams: U32
    idle_timeout_s: Annotated[int, Meta(ge=1, le=86_400)]
    route_epoch: Epoch = 0
    peer_epoch: Epoch = 0


class RouteRef(_Body, frozen=True):
    """The leased route a stream takes. `position` is the index in the lease's hops of whoever receives it."""

    route_id: RouteId
    epoch: Epoch
    position: Annotated[int, Meta(ge=1, le=15)]


class SealOffer(_Body, frozen=True):
    """The initiator's ephemeral X25519 key, its raw node key, and its signature (`fabric.seal`).

    `suites` are those it takes, the best first; without them it takes AES-256-GCM and nothing else.
    """

    key: Key32
    public: Key32
    signature: Signature64
    suites: Annotated[list[Suite], Meta(min_length=1, max_length=limits.SEAL_SUITES)] = []

    @property
    def offered(self) -> tuple[str, ...]:
        """The suites as they are signed, of which there is always one."""
        return tuple(self.suites) or (AES_256_GCM,)


class SealAnswer(_Body, frozen=True):
    """The responder's ephemeral X25519 key, its raw node key, its signature, and the suite it chose."""

    key: Key32
    public: Key32
    signature: Signature64
    suite: Suite = AES_256_GCM


class Resume(_Body, frozen=True):
    """Where a stream goes on: plaintext received in order, the window's end, and a proof of its key.

    `attempt` counts the resumptions that the initiator tried, so that each proof is good once.
    """

    attempt: Annotated[int, Meta(ge=1, le=(1 << 32) - 1)]
    received_up_to: U63
    limit: U63
    mac: Key32


class OpenStream(_Body, frozen=True):
    """Opens the stream of the header's id. `limit` is the offset up to which the other end may send.

    `hold_s`: how long both ends keep the stream when its carrier is lost; 0 is not at all.
    """

    uid: Uid16
    service: ServiceName
    class_: Annotated[int, Meta(ge=0, le=5)] = msgspec.field(name="class")
    mode: Annotated[int, Meta(ge=0, le=2)]
    limit: U63
    seal: SealOffer
    route: RouteRef | None = None
    resume: Resume | None = None
    hold_s: Annotated[int, Meta(ge=0, le=3600)] = 0

    @property
    def traffic_class(self) -> TrafficClass:
        """`class_` as the enumeration."""
        return TrafficClass(self.class_)

    @property
    def stream_mode(self) -> Mode:
        """`mode` as the enumeration."""
        return Mode(self.mode)


class StreamAccepted(_Body, frozen=True):
    """The responder's half of the seal, and the offset up to which the initiator may send."""

    limit: U63
    seal: SealAnswer
    resume: Resume | None = None


class CloseStream(_Body, frozen=True):
    """The sender sends nothing more for this stream on this hop."""


class ResetStream(_Body, frozen=True):
    """The stream is dead in both directions; `reason` is a code, `detail` a sentence for a person."""

    reason: Reason
    detail: Detail = ""


class Goaway(_Body, frozen=True):
    """No stream of the receiver's above `last_id` was taken; the session ends `drain_s` seconds from now."""

    last_id: U63
    drain_s: Annotated[int, Meta(ge=0, le=3600)]
    reason: Reason


class NodePressure(_Body, frozen=True):
    """How busy the sender is, each 0 to 100."""

    queue: Percent = 0
    cpu: Percent = 0
    memory: Percent = 0
    sockets: Percent = 0
    network: Percent = 0


class RouteUpdate(_Body, frozen=True):
    """A route changed: the lease's record id to fetch, and alternates in order of preference."""

    route_id: RouteId
    epoch: Epoch
    record_id: NodeId | None = None
    alternates: Annotated[list[RouteId], Meta(max_length=limits.ROUTE_ALTERNATES)] = []
    reason: Reason = "renewed"


# -- bodies: fixed ---------------------------------------------------------------------------------------


class Data(msgspec.Struct, frozen=True, gc=False):
    """One record: its plaintext offset, its flags (`RECORD_FLAGS` of the header), its sealed bytes."""

    offset: int
    flags: int
    payload: bytes | memoryview


class Ack(msgspec.Struct, frozen=True, gc=False):
    """End to end: everything below `received_up_to` arrived, and offsets below `limit` may be sent.

    The end of data counts one position after the final offset.
    """

    received_up_to: int
    limit: int


class Ping(msgspec.Struct, frozen=True, gc=False):
    """`time` is the sender's own clock in microseconds; only the sender reads it."""

    nonce: int
    time: int


class Pong(msgspec.Struct, frozen=True, gc=False):
    """A PING's body sent back."""

    nonce: int
    time: int


class StreamCredit(msgspec.Struct, frozen=True, gc=False):
    """Hop-local bytes of DATA frames allowed since OPEN; on stream 0, since the session began."""

    allowed: int


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """A frame of a type this version does not know, not critical: skip and count it."""

    type: int


MapBody = (
    Hello
    | Auth
    | SessionReady
    | OpenStream
    | StreamAccepted
    | CloseStream
    | ResetStream
    | Goaway
    | NodePressure
    | RouteUpdate
)
Body = MapBody | Data | Ack | Ping | Pong | StreamCredit | Unknown
