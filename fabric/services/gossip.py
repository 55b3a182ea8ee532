"""Messages of the service `fabric.gossip/1` and their bytes. The machine is fabric/gossip.py.

Ids are 32 raw bytes on the wire and lower-case hex in memory, as everywhere else in the project.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from fabric import limits
from fabric.services.messages import MessageCodec, MessageReader

SERVICE = "fabric.gossip/1"


@dataclass(frozen=True, slots=True)
class Have:
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Want:
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    record_id: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Digest:
    """Bucket number -> SHA-256 of its sorted raw ids; empty buckets are left out."""

    buckets: dict[int, bytes]
    reply: bool


Message = Have | Want | Record | Digest

_Id = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
_Ids = Annotated[list[_Id], msgspec.Meta(max_length=limits.GOSSIP_MAX_IDS)]
_Bucket = Annotated[int, msgspec.Meta(ge=0, le=255)]


class _Have(msgspec.Struct, tag_field="t", tag="have"):
    ids: _Ids


class _Want(msgspec.Struct, tag_field="t", tag="want"):
    ids: _Ids


class _Record(msgspec.Struct, tag_field="t", tag="record"):
    id: _Id
    data: Annotated[bytes, msgspec.Meta(max_length=limits.GOSSIP_RECORD_BYTES)]


class _Digest(msgspec.Struct, tag_field="t", tag="digest"):
    buckets: dict[_Bucket, _Id]
    reply: bool = False


_Wire = _Have | _Want | _Record | _Digest
_CODEC: MessageCodec[_Wire] = MessageCodec(_Wire, limits.GOSSIP_MESSAGE_BYTES)


def encode(message: Message) -> bytes:
    """Length prefix and body. Raises MessageError message_too_large."""
    wire: _Wire
    match message:
        case Have(ids):
            wire = _Have([bytes.fromhex(i) for i in ids])
        case Want(ids):
            wire = _Want([bytes.fromhex(i) for i in ids])
        case Record(record_id, data):
            wire = _Record(bytes.fromhex(record_id), data)
        case Digest(buckets, reply):
            wire = _Digest(buckets, reply)
    return _CODEC.encode(wire)


class Reader:
    """Bytes of one gossip stream to messages."""

    def __init__(self) -> None:
        self._reader: MessageReader[_Wire] = _CODEC.reader()

    def feed(self, data: bytes | bytearray | memoryview) -> list[Message]:
        """Raises MessageError message_too_large | message_malformed."""
        return [_from_wire(wire) for wire in self._reader.feed(data)]


def _from_wire(wire: _Wire) -> Message:
    match wire:
        case _Have():
            return Have(tuple(i.hex() for i in wire.ids))
        case _Want():
            return Want(tuple(i.hex() for i in wire.ids))
        case _Record():
            return Record(wire.id.hex(), wire.data)
        case _Digest():
            return Digest(wire.buckets, wire.reply)
