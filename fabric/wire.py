"""Fabric Data Session V1 on the wire: the 16-byte header, bodies to bytes and back, an incremental decoder.

    version u8 = 1 | type u8 | flags u16 | length u32 | stream_id u64        network order, then the body

DATA, ACK, PING, PONG and STREAM_CREDIT have a fixed binary body; the others carry one MessagePack map
(`fabric.frames`). Unknown keys are ignored, every known field is bounded, and each way of being wrong is a
`WireError` with its own code. Flag bit 0 marks a frame as critical: an unknown critical type ends the
session, another unknown type is skipped. Source: docs/wire.md, "Frames".
"""

from __future__ import annotations

import struct
from typing import Any, Final, TypeVar

import msgspec

from fabric import limits
from fabric.errors import WireError
from fabric.frames import (
    AES_256_GCM,
    CHACHA20_POLY1305,
    FLAG_CRITICAL,
    FRAME_TYPES,
    HEADER_BYTES,
    RECORD_FLAGS,
    SESSION_FRAMES,
    STREAM_FRAMES,
    SUITES,
    Ack,
    Auth,
    Body,
    CloseStream,
    Data,
    Frame,
    FrameType,
    Goaway,
    Hello,
    MapBody,
    NodePressure,
    OpenStream,
    Ping,
    Pong,
    ResetStream,
    Resume,
    RouteRef,
    RouteUpdate,
    SealAnswer,
    SealOffer,
    SessionReady,
    StreamAccepted,
    StreamCredit,
    Unknown,
)

__all__ = [
    "AES_256_GCM",
    "CHACHA20_POLY1305",
    "DATA_HEAD_BYTES",
    "FLAG_CRITICAL",
    "FRAME_TYPES",
    "HEADER_BYTES",
    "RECORD_FLAGS",
    "SESSION_FRAMES",
    "STREAM_FRAMES",
    "SUITES",
    "U64_MAX",
    "VERSION",
    "Ack",
    "Auth",
    "Body",
    "Buffer",
    "CloseStream",
    "Data",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "Goaway",
    "Hello",
    "MapBody",
    "NodePressure",
    "OpenStream",
    "Ping",
    "Pong",
    "ResetStream",
    "Resume",
    "RouteRef",
    "RouteUpdate",
    "SealAnswer",
    "SealOffer",
    "SessionReady",
    "StreamAccepted",
    "StreamCredit",
    "Unknown",
    "check_stream_id",
    "decode_data",
    "decode_datagram",
    "decode_frame",
    "encode_ack",
    "encode_credit",
    "encode_data_head",
    "encode_frame",
    "encode_map",
    "encode_ping",
    "encode_pong",
    "with_position",
]

Buffer = bytes | bytearray | memoryview

VERSION: Final = 1
HEADER = struct.Struct(">BBHIQ")
DATA_HEAD = struct.Struct(">BBHIQQ")
"""Header and offset of a DATA frame in one go; the payload follows."""
_PACK_DATA_HEAD: Final = DATA_HEAD.pack
DATA_HEAD_BYTES: Final = 24
_DATA: Final = int(FrameType.DATA)
_PAIR = struct.Struct(">QQ")
_U64 = struct.Struct(">Q")
_UNPACK_U64: Final = _U64.unpack_from
U64_MAX: Final = (1 << 64) - 1

_MAP_TYPES: Final[dict[type[Any], FrameType]] = {
    Hello: FrameType.HELLO,
    Auth: FrameType.AUTH,
    SessionReady: FrameType.SESSION_READY,
    OpenStream: FrameType.OPEN_STREAM,
    StreamAccepted: FrameType.STREAM_ACCEPTED,
    CloseStream: FrameType.CLOSE_STREAM,
    ResetStream: FrameType.RESET_STREAM,
    Goaway: FrameType.GOAWAY,
    NodePressure: FrameType.NODE_PRESSURE,
    RouteUpdate: FrameType.ROUTE_UPDATE,
}
_MAP_DECODERS: Final[dict[int, msgspec.msgpack.Decoder[Any]]] = {
    int(frame_type): msgspec.msgpack.Decoder(body) for body, frame_type in _MAP_TYPES.items()
}
_MAP_ENCODER: Final = msgspec.msgpack.Encoder()
_FIELDS: Final = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
# A peer that does not know one of these must not go on as if it had not been sent.
_CRITICAL: Final = frozenset(FRAME_TYPES - {FrameType.ROUTE_UPDATE, FrameType.NODE_PRESSURE})

_T = TypeVar("_T")


# -- encoding --------------------------------------------------------------------------------------------


def encode_frame(frame_type: int, stream_id: int, body: Buffer, flags: int = 0) -> bytes:
    """Header and body in one `bytes`. Sizes are the caller's business; `decode_frame` has the rules."""
    return HEADER.pack(VERSION, frame_type, flags, len(body), stream_id) + body


def encode_map(body: MapBody, stream_id: int = 0) -> bytes:
    """A whole frame for one of the map bodies. Raises `field_out_of_bounds` before bad bytes leave us."""
    frame_type = _MAP_TYPES[type(body)]
    packed = _MAP_ENCODER.encode(body)
    if len(packed) > limits.MAP_BODY_BYTES:
        raise WireError("frame_too_large", f"{frame_type.name} of {len(packed)} bytes")
    _decode_map(_MAP_DECODERS[frame_type], frame_type, packed)
    flags = FLAG_CRITICAL if frame_type in _CRITICAL else 0
    return HEADER.pack(VERSION, frame_type, flags, len(packed), stream_id) + packed


def encode_data_head(stream_id: int, offset: int, flags: int, payload_bytes: int) -> bytes:
    """The 24 bytes before the payload of a DATA frame, so that the payload need not be copied."""
    flags = flags & RECORD_FLAGS | FLAG_CRITICAL
    return _PACK_DATA_HEAD(VERSION, _DATA, flags, 8 + payload_bytes, stream_id, offset)


def encode_ack(stream_id: int, received_up_to: int, limit: int) -> bytes:
    """A whole ACK frame, 32 bytes."""
    return HEADER.pack(VERSION, FrameType.ACK, FLAG_CRITICAL, 16, stream_id) + _PAIR.pack(
        received_up_to, limit
    )


def encode_ping(stream_id: int, nonce: int, time_us: int) -> bytes:
    """A whole PING frame, 32 bytes."""
    return HEADER.pack(VERSION, FrameType.PING, FLAG_CRITICAL, 16, stream_id) + _PAIR.pack(nonce, time_us)


def encode_pong(stream_id: int, nonce: int, time_us: int) -> bytes:
    """A whole PONG frame, 32 bytes."""
    return HEADER.pack(VERSION, FrameType.PONG, FLAG_CRITICAL, 16, stream_id) + _PAIR.pack(nonce, time_us)


def encode_credit(stream_id: int, allowed: int) -> bytes:
    """A whole STREAM_CREDIT frame, 24 bytes."""
    return HEADER.pack(VERSION, FrameType.STREAM_CREDIT, FLAG_CRITICAL, 8, stream_id) + _U64.pack(allowed)


def with_position(open_body: Buffer, position: int) -> bytes:
    """An OPEN_STREAM body as it came, with only `route.position` changed: what a relay sends on.

    Keys this version does not know are kept, so that a relay never strips what two newer ends agreed on, and
    every other value byte for byte: none is looked into.
    """
    try:
        fields = _FIELDS.decode(open_body)
        route = _FIELDS.decode(fields["route"])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, KeyError):
        raise WireError("bad_body", "an OPEN_STREAM without a route") from None
    route["position"] = msgspec.Raw(_MAP_ENCODER.encode(position))
    fields["route"] = msgspec.Raw(_MAP_ENCODER.encode(route))
    return _MAP_ENCODER.encode(fields)


# -- decoding --------------------------------------------------------------------------------------------


def decode_frame(frame: Frame) -> Body:
    """Parse a frame's body and check what the type says of stream id, length and fields."""
    frame_type = frame.type
    if frame_type == FrameType.DATA:
        return decode_data(frame)
    check_stream_id(frame)
    if frame.flags & RECORD_FLAGS and frame_type in FRAME_TYPES:
        raise WireError("reserved_flags", f"{FrameType(frame_type).name} with flags {frame.flags:#06x}")
    body = frame.body
    if frame_type == FrameType.ACK:
        return Ack(*_fixed(_PAIR, frame))
    if frame_type == FrameType.STREAM_CREDIT:
        return StreamCredit(*_fixed(_U64, frame))
    if frame_type == FrameType.PING:
        return Ping(*_fixed(_PAIR, frame))
    if frame_type == FrameType.PONG:
        return Pong(*_fixed(_PAIR, frame))
    decoder = _MAP_DECODERS.get(frame_type)
    if decoder is None:
        if frame.flags & FLAG_CRITICAL:
            raise WireError("unknown_critical_frame", f"type {frame_type}")
        return Unknown(frame_type)
    if len(body) > limits.MAP_BODY_BYTES:
        raise WireError("frame_too_large", f"{FrameType(frame_type).name} of {len(body)} bytes")
    result: Body = _decode_map(decoder, frame_type, body)
    return result


def decode_data(frame: Frame) -> Data:
    """Parse a DATA frame; the payload stays a view where the body is one."""
    body = frame.body
    if frame.stream_id == 0:
        raise WireError("bad_stream_id", "DATA on stream 0")
    if len(body) < 8:
        raise WireError("bad_body_length", f"DATA of {len(body)} bytes")
    return Data(_UNPACK_U64(body)[0], frame.flags & RECORD_FLAGS, body[8:])


def decode_datagram(data: bytes) -> Frame:
    """The payload of a DATAGRAM frame: exactly one DATA frame, or one of a type that may be skipped.

    Raises `unsupported_version`, `truncated_frame` for a body of another length than the header says,
    `unknown_critical_frame`, and `unexpected_datagram` for any other frame.
    """
    if len(data) < HEADER_BYTES:
        raise WireError("truncated_frame", f"a datagram of {len(data)} bytes")
    version, frame_type, flags, length, stream_id = HEADER.unpack_from(data)
    if version != VERSION:
        raise WireError("unsupported_version", f"version {version}")
    if length != len(data) - HEADER_BYTES:
        raise WireError("truncated_frame", f"a datagram of {len(data)} bytes with a body of {length}")
    if frame_type not in FRAME_TYPES:
        if flags & FLAG_CRITICAL:
            raise WireError("unknown_critical_frame", f"type {frame_type}")
    elif frame_type != FrameType.DATA or not stream_id or len(data) < DATA_HEAD_BYTES:
        raise WireError("unexpected_datagram", f"type {frame_type} on stream {stream_id}")
    return Frame(frame_type, flags, stream_id, memoryview(data)[HEADER_BYTES:])


def check_stream_id(frame: Frame) -> None:
    """Raise `bad_stream_id` where a known type's id must be 0 and is not, or must not be and is."""
    if (frame.type in SESSION_FRAMES and frame.stream_id) or (
        frame.type in STREAM_FRAMES and not frame.stream_id
    ):
        raise WireError("bad_stream_id", f"{FrameType(frame.type).name} on stream {frame.stream_id}")


def _fixed(layout: struct.Struct, frame: Frame) -> tuple[Any, ...]:
    if len(frame.body) != layout.size:
        raise WireError(
            "bad_body_length", f"{FrameType(frame.type).name} of {len(frame.body)}, not {layout.size} bytes"
        )
    return layout.unpack(frame.body)


def _decode_map(decoder: msgspec.msgpack.Decoder[_T], frame_type: int, body: Buffer) -> _T:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise WireError("field_out_of_bounds", f"{FrameType(frame_type).name}: {error}") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise WireError("bad_body", f"{FrameType(frame_type).name}: {error}") from None


_VIEW_SHARE: Final = 4
"""A body at least this fraction of its chunk is a view of it; a smaller one is copied out."""
_VIEW_BYTES: Final = 1024
"""A body shorter than this is copied out in any case: that is cheaper than a view."""


class FrameDecoder:
    """Cuts the bytes of one lane into frames.

    A frame that lies within one chunk is a view of it, without a copy, unless it is short, or so small a
    part that it would keep the whole chunk alive; a frame over several chunks is gathered once in a buffer
    of its own. So a byte is copied at most once however the chunks are cut, and what is held is in
    proportion to what arrived. Frames of unknown type are returned like others; `decode_frame` judges them.
    """

    def __init__(self, body_limit: int = limits.FRAME_BODY_BYTES) -> None:
        self._body_limit = body_limit
        self._partial = bytearray()
        self._need = HEADER_BYTES

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """Take the lane's next bytes, which must not change afterwards; return the frames they complete.

        Raises `WireError` (`unsupported_version`, `frame_too_large`); the lane cannot be read on after that.
        """
        frames: list[Frame] = []
        if not isinstance(data, bytes):
            data = bytes(data)
        view = memoryview(data)
        size = len(data)
        viewed = max(_VIEW_BYTES, size // _VIEW_SHARE)
        unpack, append = HEADER.unpack_from, frames.append
        at = self._fill(view, frames) if self._partial else 0
        start = at + HEADER_BYTES
        while start <= size:
            version, frame_type, flags, length, stream_id = unpack(data, at)
            if version != VERSION or length > self._body_limit:
                raise self._refusal(version, length)
            end = start + length
            if end > size:
                self._need = HEADER_BYTES + length
                break
            body = view[start:end] if length >= viewed else data[start:end]
            append(Frame(frame_type, flags, stream_id, body))
            at, start = end, end + HEADER_BYTES
        if at < size:
            self._partial += view[at:]
        return frames

    def finish(self) -> None:
        """The lane ended: raise `truncated_frame` when it did so inside a frame."""
        if self._partial:
            raise WireError("truncated_frame", f"{len(self._partial)} of {self._need} bytes")

    def _fill(self, view: memoryview, frames: list[Frame]) -> int:
        """Bring the unfinished frame on; returns how much of `view` it took."""
        partial = self._partial
        at = 0
        if len(partial) < HEADER_BYTES:
            at = HEADER_BYTES - len(partial)
            partial += view[:at]
            if len(partial) < HEADER_BYTES:
                return len(view)
            version, _, _, length, _ = HEADER.unpack_from(partial)
            if version != VERSION or length > self._body_limit:
                raise self._refusal(version, length)
            self._need = HEADER_BYTES + length
        end = at + self._need - len(partial)
        partial += view[at:end]
        if len(partial) < self._need:
            return len(view)
        _, frame_type, flags, _, stream_id = HEADER.unpack_from(partial)
        # The buffer is given away with the frame; it is never written again.
        frames.append(Frame(frame_type, flags, stream_id, memoryview(partial)[HEADER_BYTES:]))
        self._partial = bytearray()
        self._need = HEADER_BYTES
        return end

    def _refusal(self, version: int, length: int) -> WireError:
        if version != VERSION:
            return WireError("unsupported_version", f"version {version}")
        return WireError("frame_too_large", f"body of {length} bytes, limit {self._body_limit}")
