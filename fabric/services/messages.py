"""Framing shared by the request/answer services: u32 length in network order, then one MessagePack map.

A service runs on one fabric stream, which is ordered and reliable, so this is all the framing it needs. Every
message is a tagged msgspec Struct (key "t"); unknown keys are ignored, unknown tags and malformed bodies end
the stream with a named error. docs/services.md lists the messages of each service.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from fabric.errors import FabricError

T = TypeVar("T")

CODES: dict[str, str] = {
    "message_too_large": "a message is longer than its service allows",
    "message_malformed": "a message is not a map of the fields that its kind has",
    "message_truncated": "the stream ended inside a message",
    "message_unexpected": "a message that the service's state does not allow",
}


class MessageError(FabricError):
    """A peer's message cannot be accepted; the stream is reset. `code` is a key of `CODES`."""


PREFIX_BYTES = 4


class MessageReader(Generic[T]):
    """Cuts a byte stream into messages. Holds at most one incomplete message of `max_bytes`."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T], max_bytes: int) -> None:
        self._decoder = decoder
        self._max_bytes = max_bytes
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[T]:
        """All messages completed by `data`. Raises MessageError message_too_large | message_malformed."""
        buffer = self._buffer
        buffer += data
        messages: list[T] = []
        offset = 0
        while len(buffer) - offset >= PREFIX_BYTES:
            length = int.from_bytes(buffer[offset : offset + PREFIX_BYTES], "big")
            if length > self._max_bytes:
                raise MessageError("message_too_large", f"{length} bytes, at most {self._max_bytes}")
            end = offset + PREFIX_BYTES + length
            if len(buffer) < end:
                break
            messages.append(self._decode(bytes(buffer[offset + PREFIX_BYTES : end])))
            offset = end
        if offset:
            del buffer[:offset]
        return messages

    def _decode(self, body: bytes) -> T:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, msgspec.ValidationError, RecursionError, UnicodeDecodeError) as error:
            raise MessageError("message_malformed", str(error)) from error

    def finish(self) -> None:
        """The stream ended. Raises MessageError message_truncated when a message was cut off."""
        if self._buffer:
            raise MessageError(
                "message_truncated", f"the stream ended inside a message ({len(self._buffer)} bytes)"
            )


class MessageCodec(Generic[T]):
    """Encoder and readers for one service's union of messages."""

    def __init__(self, union: Any, max_bytes: int) -> None:
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(union)
        self.max_bytes = max_bytes

    def encode(self, message: T) -> bytes:
        """Prefix and body. Raises MessageError message_too_large, as every reader would."""
        body = self._encoder.encode(message)
        if len(body) > self.max_bytes:
            raise MessageError("message_too_large", f"{len(body)} bytes, at most {self.max_bytes}")
        return len(body).to_bytes(PREFIX_BYTES, "big") + body

    def reader(self) -> MessageReader[T]:
        return MessageReader(self._decoder, self.max_bytes)
