"""Bytes of the gossip messages."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.services import gossip
from fabric.services.gossip import Digest, Have, Message, Record, Want
from fabric.services.messages import MessageError

IDS = st.binary(min_size=32, max_size=32)
HEX = st.lists(IDS.map(bytes.hex), max_size=4).map(tuple)
MESSAGES = st.one_of(
    HEX.map(Have),
    HEX.map(Want),
    st.builds(Record, IDS.map(bytes.hex), st.binary(max_size=50)),
    st.builds(Digest, st.dictionaries(st.integers(0, 255), IDS, max_size=5), st.booleans()),
)


@given(st.lists(MESSAGES, max_size=5))
def test_every_message_survives_the_wire(messages: list[Message]) -> None:
    assert gossip.Reader().feed(b"".join(gossip.encode(m) for m in messages)) == messages


def test_the_largest_messages_fit() -> None:
    ids = tuple(bytes([i] * 32).hex() for i in range(limits.GOSSIP_MAX_IDS))
    whole = Digest({b: bytes(32) for b in range(256)}, reply=True)
    record = Record("00" * 32, bytes(limits.GOSSIP_RECORD_BYTES))
    for message in (Have(ids), whole, record):
        assert gossip.Reader().feed(gossip.encode(message)) == [message]


@pytest.mark.parametrize(
    "fields",
    [
        {"t": "have", "ids": [bytes(31)]},
        {"t": "have", "ids": [bytes(32)] * (limits.GOSSIP_MAX_IDS + 1)},
        {"t": "record", "id": bytes(33), "data": b""},
        {"t": "record", "id": bytes(32), "data": bytes(limits.GOSSIP_RECORD_BYTES + 1)},
        {"t": "digest", "buckets": {256: bytes(32)}},
        {"t": "digest", "buckets": {-1: bytes(32)}},
        {"t": "digest", "buckets": {0: bytes(31)}},
        {"t": "unheard"},
    ],
)
def test_fields_out_of_bounds_are_refused(fields: dict[str, object]) -> None:
    body = msgspec.msgpack.encode(fields)
    with pytest.raises(MessageError) as caught:
        gossip.Reader().feed(len(body).to_bytes(4, "big") + body)
    assert caught.value.code == "message_malformed"
