"""The little of QUIC's packet format that a demultiplexer needs: invariants, version negotiation, Retry.

Works on bytes alone and for every engine. Sources: RFC 8999 (invariants), RFC 9000 sections 8.1, 17.2.1,
17.2.2 and 17.2.5, RFC 9001 section 5.8 (the Retry integrity tag and its published key).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fabric import limits
from fabric.io.engines import Address

QUIC_V1 = 0x00000001
CID_BYTES = 8
"""Length of every connection id we issue; short headers do not carry it."""

MIN_INITIAL_BYTES = 1200
"""RFC 9000 section 14.1: a shorter datagram with an Initial packet is discarded."""

_DATAGRAM_FRAME_OVERHEAD = 1 + CID_BYTES + 4 + 16 + 1 + 2
"""A short header with a 4-byte packet number, the AEAD tag, the frame's type and length."""

_MAX_CID_BYTES = 20
_LONG, _FIXED = 0x80, 0x40
_RETRY_KEY = AESGCM(bytes.fromhex("be0c690b9f66575a1d766b54e368c84e"))
_RETRY_NONCE = bytes.fromhex("461599d35d632bf2239825bb")
_TOKEN_NONCE_BYTES = 12
_STREAM, _STREAM_FIN, _STREAM_LENGTH, _STREAM_OFFSET = 0x08, 0x01, 0x02, 0x04


def datagram_frame_room(datagram_bytes: int) -> int:
    """The largest payload of a DATAGRAM frame alone in a packet of so many bytes."""
    return datagram_bytes - _DATAGRAM_FRAME_OVERHEAD


@dataclass(frozen=True, slots=True)
class LongHeader:
    """A long header as far as RFC 8999 fixes it, and the token of a version 1 Initial packet."""

    version: int
    destination_cid: bytes
    source_cid: bytes
    is_initial: bool
    token: bytes


def parse_long_header(data: bytes) -> LongHeader | None:
    """Parse the first packet's long header; None for anything malformed."""
    if len(data) < 7 or not data[0] & _LONG:  # flags, version, two length bytes
        return None
    version = int.from_bytes(data[1:5], "big")
    position = 6 + data[5]
    destination = data[6:position]
    if len(data) <= position:
        return None
    end = position + 1 + data[position]
    source = data[position + 1 : end]
    if len(data) < end:
        return None
    if version != QUIC_V1:
        return LongHeader(version, destination, source, is_initial=False, token=b"")
    if len(destination) > _MAX_CID_BYTES or len(source) > _MAX_CID_BYTES or not data[0] & _FIXED:
        return None
    if data[0] & 0x30:
        return LongHeader(version, destination, source, is_initial=False, token=b"")
    token = _pull_vector(data, end)
    if token is None:
        return None
    return LongHeader(version, destination, source, is_initial=True, token=token)


def long_destination(data: bytes) -> bytes:
    """The destination id of a packet with a long header, unchecked: what a table is asked for."""
    return data[6 : 6 + data[5]] if len(data) > 6 else b""


def version_negotiation(header: LongHeader, unused: int) -> bytes:
    """The answer to a version we do not speak. `unused` is any byte; its low seven bits are sent."""
    return b"".join(
        (
            bytes([_LONG | (unused & 0x7F)]),
            bytes(4),
            bytes([len(header.source_cid)]),
            header.source_cid,
            bytes([len(header.destination_cid)]),
            header.destination_cid,
            struct.pack(">I", QUIC_V1),
        )
    )


def retry(header: LongHeader, *, source_cid: bytes, token: bytes, unused: int) -> bytes:
    """A Retry packet for the client's first Initial. `unused` is any byte; its low four bits are sent."""
    packet = b"".join(
        (
            bytes([0xF0 | (unused & 0x0F)]),
            struct.pack(">I", QUIC_V1),
            bytes([len(header.source_cid)]),
            header.source_cid,
            bytes([len(source_cid)]),
            source_cid,
            token,
        )
    )
    original = header.destination_cid
    return packet + _RETRY_KEY.encrypt(_RETRY_NONCE, b"", bytes([len(original)]) + original + packet)


class RetryTokens:
    """Makes and checks the tokens that prove a client receives at its address (RFC 9000 section 8.1.2)."""

    def __init__(self, key: bytes) -> None:
        """`key`: 16 secret random bytes, this process's alone."""
        self._aead = AESGCM(key)

    def make(
        self, addr: Address, original_cid: bytes, retry_cid: bytes, *, nonce: bytes, now: float
    ) -> bytes:
        """A token for `addr`; `nonce` is 12 bytes never used before."""
        body = b"".join(
            (
                struct.pack(">Q", int(now * 1000)),
                bytes([len(original_cid)]),
                original_cid,
                bytes([len(retry_cid)]),
                retry_cid,
            )
        )
        return nonce + self._aead.encrypt(nonce, body, _address_bytes(addr))

    def check(self, token: bytes, addr: Address, destination_cid: bytes, now: float) -> bytes | None:
        """The client's original destination id, or None: forged, of another address or id, or too old."""
        if len(token) <= _TOKEN_NONCE_BYTES:
            return None
        try:
            body = self._aead.decrypt(
                token[:_TOKEN_NONCE_BYTES], token[_TOKEN_NONCE_BYTES:], _address_bytes(addr)
            )
        except InvalidTag:
            return None
        issued_ms = int.from_bytes(body[:8], "big")
        middle = 9 + body[8]
        original, retry_cid = body[9:middle], body[middle + 1 :]
        age_s = now - issued_ms / 1000
        if retry_cid != destination_cid or not -1.0 <= age_s <= limits.ENDPOINT_RETRY_TOKEN_LIFETIME_S:
            return None
        return original


@dataclass(slots=True)
class StreamFrame:
    """The head of a STREAM frame; its data is the rest of the packet, from `data_at` on."""

    stream_id: int
    offset: int
    fin: bool
    data_at: int


def parse_stream_frame(payload: bytes) -> StreamFrame | None:
    """The STREAM frame that fills a packet's payload to its end (RFC 9000 section 19.8), else None."""
    kind = payload[0] if payload else 0
    if kind & ~0x07 != _STREAM:
        return None
    stream_id, position = _pull_varint(payload, 1)
    offset = 0
    if kind & _STREAM_OFFSET:
        offset, position = _pull_varint(payload, position)
    if kind & _STREAM_LENGTH:
        length, position = _pull_varint(payload, position)
        if position + length != len(payload):
            return None
    if position > len(payload):
        return None
    return StreamFrame(stream_id, offset, bool(kind & _STREAM_FIN), position)


def stream_frame_head(stream_id: int, offset: int) -> bytes:
    """Type, stream id and offset of a STREAM frame; a length of two bytes and the data follow."""
    kind = _STREAM | _STREAM_LENGTH | (_STREAM_OFFSET if offset else 0)
    return bytes((kind,)) + _varint(stream_id) + (_varint(offset) if offset else b"")


def _address_bytes(addr: Address) -> bytes:
    return ipaddress.ip_address(addr[0]).packed + struct.pack(">H", addr[1])


def _varint(value: int) -> bytes:
    """A variable-length integer, RFC 9000 section 16."""
    for width, prefix in ((1, 0x00), (2, 0x40), (4, 0x80)):
        if value < 1 << (8 * width - 2):
            return (value | prefix << 8 * (width - 1)).to_bytes(width)
    return (value | 0xC0 << 56).to_bytes(8)


def _pull_varint(data: bytes, position: int) -> tuple[int, int]:
    """The value and where it ends; past the end of `data` if it is cut off."""
    if position >= len(data):
        return 0, position + 1
    width = 1 << (data[position] >> 6)
    end = position + width
    return int.from_bytes(data[position:end]) & ((1 << (8 * width - 2)) - 1), end


def _pull_vector(data: bytes, position: int) -> bytes | None:
    """A byte string preceded by its length as a QUIC variable-length integer (RFC 9000 section 16)."""
    if position >= len(data):
        return None
    length, start = _pull_varint(data, position)
    if start > len(data) or start + length > len(data):
        return None
    return data[start : start + length]
