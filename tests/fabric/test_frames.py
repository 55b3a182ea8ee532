"""Bodies of frames: the sets of types are whole, and every field has bounds."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from msgspec import inspect

from fabric.frames import (
    FRAME_TYPES,
    SESSION_FRAMES,
    STREAM_FRAMES,
    Body,
    FrameType,
    MapBody,
    OpenStream,
)
from tests.support.fabric_frames import LEASED_OPEN


def test_every_type_is_about_the_session_or_a_stream_or_both() -> None:
    both = {FrameType.PING, FrameType.PONG, FrameType.STREAM_CREDIT}
    assert SESSION_FRAMES | STREAM_FRAMES | both == FRAME_TYPES
    assert not SESSION_FRAMES & STREAM_FRAMES
    assert sorted(FRAME_TYPES) == list(range(1, 16))


def test_every_type_has_a_body() -> None:
    bodies = {kind.__name__ for kind in get_args(Body)}
    assert len(bodies - {"Unknown"}) == len(FRAME_TYPES)


def unbounded(kind: inspect.Type, path: str) -> list[str]:
    """Paths of fields that a peer could fill without end."""
    if isinstance(kind, inspect.IntType):
        return [] if kind.ge is not None and kind.le is not None else [path]
    if isinstance(kind, inspect.StrType):
        return [] if kind.max_length is not None or kind.pattern is not None else [path]
    if isinstance(kind, inspect.BytesType):
        return [] if kind.max_length is not None else [path]
    if isinstance(kind, inspect.ListType):
        return ([] if kind.max_length is not None else [path]) + unbounded(kind.item_type, path + "[]")
    if isinstance(kind, inspect.UnionType):
        return [found for one in kind.types for found in unbounded(one, path)]
    if isinstance(kind, inspect.StructType):
        return [
            found for field in kind.fields for found in unbounded(field.type, f"{path}.{field.encode_name}")
        ]
    return [] if isinstance(kind, inspect.NoneType) else [path]


@pytest.mark.parametrize("body", get_args(MapBody))
def test_every_field_is_bounded(body: type[msgspec.Struct]) -> None:
    assert unbounded(inspect.type_info(body), body.__name__) == []


def test_the_bounds_check_sees() -> None:
    class Loose(msgspec.Struct):
        text: str
        numbers: list[int]

    assert unbounded(inspect.type_info(Loose), "x") == ["x.text", "x.numbers", "x.numbers[]"]


def test_open_names_its_class_and_mode() -> None:
    assert LEASED_OPEN.traffic_class.name == "INTERACTIVE"
    assert LEASED_OPEN.stream_mode.name == "STREAM"
    fields = msgspec.msgpack.decode(msgspec.msgpack.encode(LEASED_OPEN))
    assert fields["class"] == 2
    assert "resume" not in fields
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=OpenStream) == LEASED_OPEN
