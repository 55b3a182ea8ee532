"""Bytes of the submit messages."""

from __future__ import annotations

import msgspec
import pytest

from fabric import limits
from fabric.services.messages import MessageError
from fabric.services.submit import CODEC, Message, Result, Submit


@pytest.mark.parametrize(
    "message",
    [
        Submit(b"record"),
        Submit(bytes(limits.GOSSIP_RECORD_BYTES)),
        Result("pending", "ab" * 32, 7),
        Result("refused", code="SL-QUORUM", sentence="one more must sign"),
    ],
)
def test_every_message_survives_the_wire(message: Message) -> None:
    data = CODEC.encode(message)
    reader = CODEC.reader()
    assert [*reader.feed(data[:3]), *reader.feed(data[3:])] == [message]


@pytest.mark.parametrize(
    "fields",
    [
        {"t": "submit", "data": bytes(limits.GOSSIP_RECORD_BYTES + 1)},
        {"t": "submit"},
        {"t": "result", "state": "perhaps"},
        {"t": "result", "state": "final", "log_index": "7"},
    ],
)
def test_fields_out_of_bounds_are_refused(fields: dict[str, object]) -> None:
    body = msgspec.msgpack.encode(fields)
    with pytest.raises(MessageError) as caught:
        CODEC.reader().feed(len(body).to_bytes(4, "big") + body)
    assert caught.value.code == "message_malformed"
