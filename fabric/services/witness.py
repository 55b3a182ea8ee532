"""Messages of the service `statelog.witness/1`: C2SP tlog-witness `add-checkpoint` over a fabric stream.

Request and answer are byte for byte the HTTP bodies of C2SP tlog-witness. Around them, what the fabric adds:
the asker may send the new entries along, and the witness asks it for those that it lacks, because it replays
them before it signs.

    AddCheckpoint body, entries known to be new  ->
                                                 <-  Need start, end       (any number of times)
    Entries start, leaves                        ->
                                                 <-  Answer status, content type, body
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fabric import limits
from fabric.services.messages import MessageCodec

SERVICE = "statelog.witness/1"
CAPABILITY = "witness:"
"""A node that serves this announces the capability `witness:<key_id>` of its witness key."""

Leaves = Annotated[list[bytes], msgspec.Meta(max_length=limits.SYNC_BATCH_ENTRIES)]
Index = Annotated[int, msgspec.Meta(ge=0, lt=1 << 53)]


class AddCheckpoint(msgspec.Struct, tag_field="t", tag="add-checkpoint"):
    """`body`: the request body of C2SP tlog-witness. `leaves`: entries from index `start` on, or none."""

    body: bytes
    start: Index = 0
    leaves: Leaves = []


class Need(msgspec.Struct, tag_field="t", tag="need"):
    """The witness lacks the entries `start` up to, not including, `end`."""

    start: Index
    end: Index


class Entries(msgspec.Struct, tag_field="t", tag="entries"):
    """Leaves from index `start` on; at least one of those asked for."""

    start: Index
    leaves: Leaves


class Answer(msgspec.Struct, tag_field="t", tag="answer"):
    """The HTTP answer: 200 with cosignature lines, 404, 403, 409, 422 or 503 (C2SP tlog-witness)."""

    status: Annotated[int, msgspec.Meta(ge=100, le=599)]
    content_type: str
    body: bytes


Message = AddCheckpoint | Need | Entries | Answer
CODEC: MessageCodec[Message] = MessageCodec(Message, limits.SERVICE_MESSAGE_BYTES)
