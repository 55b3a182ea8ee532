"""The framing of request/answer services."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric.services.messages import CODES, MessageCodec, MessageError


class Ask(msgspec.Struct, tag_field="t", tag="ask"):
    number: int


class Tell(msgspec.Struct, tag_field="t", tag="tell"):
    text: str


CODEC: MessageCodec[Ask | Tell] = MessageCodec(Ask | Tell, 100)


@given(st.lists(st.integers(0, 9) | st.text(max_size=10), max_size=8), st.integers(1, 7))
def test_any_cut_of_the_bytes_gives_the_same_messages(values: list[int | str], step: int) -> None:
    messages = [Ask(v) if isinstance(v, int) else Tell(v) for v in values]
    data = b"".join(CODEC.encode(m) for m in messages)
    reader = CODEC.reader()
    read = [m for start in range(0, len(data), step) for m in reader.feed(data[start : start + step])]
    reader.finish()
    assert read == messages


def test_unknown_keys_are_ignored() -> None:
    body = msgspec.msgpack.encode({"t": "ask", "number": 7, "later": True})
    assert CODEC.reader().feed(len(body).to_bytes(4, "big") + body) == [Ask(7)]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        ((101).to_bytes(4, "big"), "message_too_large"),
        (b"\x00\x00\x00\x01\xc1", "message_malformed"),
        (b"\x00\x00\x00\x00", "message_malformed"),
        (b"\x00\x00\x00\x07\x81\xa1t\xa3ask", "message_malformed"),  # number is missing
        (b"\x00\x00\x00\x08\x81\xa1t\xa4nope", "message_malformed"),
        (b"\x00\x00\x00\x11\x82\xa1t\xa4tell\xa4text\xa3\xed\xa0\x80", "message_malformed"),  # a surrogate
        (b"\x00\x00\x00\x32" + b"\x91" * 50, "message_malformed"),  # nesting
    ],
)
def test_bad_bytes_have_a_name(data: bytes, code: str) -> None:
    with pytest.raises(MessageError) as caught:
        CODEC.reader().feed(data)
    assert caught.value.code == code
    assert code in CODES


def test_a_cut_message_is_named_at_the_end() -> None:
    reader = CODEC.reader()
    assert reader.feed(CODEC.encode(Ask(1))[:-1]) == []
    with pytest.raises(MessageError) as caught:
        reader.finish()
    assert caught.value.code == "message_truncated"


def test_what_no_reader_takes_is_not_sent() -> None:
    assert CODEC.encode(Tell("a" * 80))
    with pytest.raises(MessageError) as caught:
        CODEC.encode(Tell("a" * 100))
    assert caught.value.code == "message_too_large"
