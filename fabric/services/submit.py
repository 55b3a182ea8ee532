"""Messages of the service `statelog.submit/1`: hand a signed record to a node that can have it sequenced.

    Submit data   ->
                  <-  Result state pending      at once, when the record was taken into the durable outbox
                  <-  Result state final | refused | unavailable

Whoever asks may go after `pending`: the record is safe then. Submitting again is harmless, a record is known
by its `record_id`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from fabric import limits
from fabric.services.messages import MessageCodec
from fabric.sync import AUTHORITY

SERVICE = "statelog.submit/1"
CAPABILITY = "sequencer"
"""A node that serves this announces the capability `sequencer`."""

ELSEWHERE = "elsewhere"
"""The code of a result that is `unavailable` because another node writes the record's log."""

State = Literal["pending", "final", "refused", "unavailable"]


class Submit(msgspec.Struct, tag_field="t", tag="submit"):
    data: Annotated[bytes, msgspec.Meta(max_length=limits.GOSSIP_RECORD_BYTES)]


class Result(msgspec.Struct, tag_field="t", tag="result"):
    """`code` and `sentence` say why when the state is `refused` or `unavailable`."""

    state: State
    record_id: str = ""
    log_index: int | None = None
    code: str = ""
    sentence: str = ""
    log: str = AUTHORITY
    """The log that carries the record at `log_index`."""


Message = Submit | Result
CODEC: MessageCodec[Message] = MessageCodec(Message, limits.SERVICE_MESSAGE_BYTES)
