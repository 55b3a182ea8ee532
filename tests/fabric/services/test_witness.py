"""Bytes of the witness messages."""

from __future__ import annotations

import msgspec
import pytest

from fabric import limits
from fabric.services.messages import MessageError
from fabric.services.witness import CODEC, AddCheckpoint, Answer, Entries, Message, Need


@pytest.mark.parametrize(
    "message",
    [
        AddCheckpoint(b"old 2\n\ncheckpoint"),
        AddCheckpoint(b"old 2\n\ncheckpoint", 2, [b"leaf", b"another"]),
        Need(2, 4),
        Entries(2, [b"leaf"]),
        Answer(409, "text/x.tlog.size", b"3\n"),
    ],
)
def test_every_message_survives_the_wire(message: Message) -> None:
    data = CODEC.encode(message)
    reader = CODEC.reader()
    assert [*reader.feed(data[:5]), *reader.feed(data[5:])] == [message]


@pytest.mark.parametrize(
    "fields",
    [
        {"t": "add-checkpoint", "body": b"", "start": -1},
        {"t": "add-checkpoint", "body": b"", "leaves": [b""] * (limits.SYNC_BATCH_ENTRIES + 1)},
        {"t": "need", "start": 0, "end": 1 << 53},
        {"t": "answer", "status": 99, "content_type": "", "body": b""},
    ],
)
def test_fields_out_of_bounds_are_refused(fields: dict[str, object]) -> None:
    body = msgspec.msgpack.encode(fields)
    with pytest.raises(MessageError) as caught:
        CODEC.reader().feed(len(body).to_bytes(4, "big") + body)
    assert caught.value.code == "message_malformed"
