"""Frames: golden bytes, round trips, every way of being wrong, and chunks cut in any way."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fabric import limits, wire
from fabric.errors import WIRE_CODES, WireError
from fabric.wire import FRAME_TYPES, Ack, Body, Data, Frame, FrameDecoder, FrameType, Ping, Pong, StreamCredit
from tests.support.fabric_frames import (
    DIRECT_OPEN,
    FIXED,
    GOLDEN,
    LEASED_OPEN,
    MAPS,
    session_bodies,
    stream_bodies,
)

u64 = st.integers(0, (1 << 64) - 1)


def frames_of(data: bytes) -> list[Frame]:
    decoder = FrameDecoder()
    frames = decoder.feed(data)
    decoder.finish()
    return frames


def only(data: bytes) -> Body:
    (frame,) = frames_of(data)
    return wire.decode_frame(frame)


def framed(frame_type: int, body: bytes, stream_id: int = 0, flags: int = 0) -> bytes:
    return wire.encode_frame(frame_type, stream_id, body, flags)


def read(data: bytes) -> list[tuple[Frame, Body]] | str:
    """The frames and what they say, or the code of the error. Any other exception fails the test."""
    try:
        return [(frame, wire.decode_frame(frame)) for frame in frames_of(data)]
    except WireError as error:
        return error.code


def code_of(data: bytes) -> str:
    found = read(data)
    assert isinstance(found, str), f"accepted as {found}"
    return found


# -- golden bytes ----------------------------------------------------------------------------------------


def test_golden_frames_cover_every_type() -> None:
    assert {GOLDEN[name][1] for name in GOLDEN} == FRAME_TYPES


@pytest.mark.parametrize("name", MAPS)
def test_golden_map_frames(name: str) -> None:
    body, stream_id = MAPS[name]
    assert wire.encode_map(body, stream_id) == GOLDEN[name]
    assert only(GOLDEN[name]) == body


def test_golden_fixed_frames() -> None:
    head = wire.encode_data_head(2, 65536, 2, 20)
    assert head + b"\x0b" * 20 == GOLDEN["DATA"]
    assert len(head) == wire.DATA_HEAD_BYTES
    assert wire.encode_ack(2, 65536, 1114112) == GOLDEN["ACK"]
    assert wire.encode_ping(0, 0x0102030405060708, 1700000000000000) == GOLDEN["PING"]
    assert wire.encode_pong(0, 0x0102030405060708, 1700000000000000) == GOLDEN["PONG"]
    assert wire.encode_credit(0, 67108864) == GOLDEN["STREAM_CREDIT"]
    for name, (body, stream_id) in FIXED.items():
        assert only(GOLDEN[name]) == body
        assert frames_of(GOLDEN[name])[0].stream_id == stream_id


def test_the_header_is_as_documented() -> None:
    """docs/wire.md: version, type, flags, length, stream id, in network order."""
    frame = framed(FrameType.CLOSE_STREAM, b"\x80", 0x0102030405060708, 0x0001)
    assert frame == bytes.fromhex("01 0c 0001 00000001 0102030405060708 80")


# -- round trips -----------------------------------------------------------------------------------------


@given(session_bodies)
def test_session_frames_round_trip(body: wire.MapBody) -> None:
    assert only(wire.encode_map(body)) == body


@given(stream_bodies, st.integers(1, (1 << 64) - 1))
def test_stream_frames_round_trip(body: wire.MapBody, stream_id: int) -> None:
    data = wire.encode_map(body, stream_id)
    assert only(data) == body
    assert frames_of(data)[0].stream_id == stream_id


@given(st.integers(1, (1 << 64) - 1), u64, u64)
def test_fixed_frames_round_trip(stream_id: int, one: int, other: int) -> None:
    assert only(wire.encode_ack(stream_id, one, other)) == Ack(one, other)
    assert only(wire.encode_ping(stream_id, one, other)) == Ping(one, other)
    assert only(wire.encode_pong(0, one, other)) == Pong(one, other)
    assert only(wire.encode_credit(stream_id, one)) == StreamCredit(one)


@given(st.integers(1, (1 << 64) - 1), u64, st.integers(0, 0xFFFF), st.binary(max_size=300))
def test_data_round_trips_with_its_flags(stream_id: int, offset: int, flags: int, payload: bytes) -> None:
    data = only(wire.encode_data_head(stream_id, offset, flags, len(payload)) + payload)
    assert data == Data(offset, flags & wire.RECORD_FLAGS, payload)


@given(st.lists(stream_bodies, max_size=6), st.randoms(use_true_random=False), st.integers(1, 40))
def test_any_cutting_gives_the_same_frames(bodies: list[wire.MapBody], rng: Random, largest: int) -> None:
    data = b"".join(wire.encode_map(body, 2) for body in bodies)
    decoder = FrameDecoder()
    frames: list[Frame] = []
    at = 0
    while at < len(data):
        size = rng.randint(0, largest)
        frames += decoder.feed(data[at : at + size])
        at += size
    decoder.finish()
    assert [wire.decode_frame(frame) for frame in frames] == bodies
    assert not decoder._partial


# -- damage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN)
def test_every_truncation_is_named(name: str) -> None:
    golden = GOLDEN[name]
    assert only(golden) is not None
    for size in range(1, len(golden)):
        assert code_of(golden[:size]) == "truncated_frame"


@pytest.mark.parametrize("name", GOLDEN)
def test_every_flip_of_a_byte_is_named_or_another_frame(name: str) -> None:
    golden = GOLDEN[name]
    whole = frames_of(golden)[0]
    for at in range(len(golden)):
        for value in range(256):
            if value == golden[at]:
                continue
            damaged = golden[:at] + bytes([value]) + golden[at + 1 :]
            found = read(damaged)
            if isinstance(found, str):
                assert found in WIRE_CODES
            else:
                assert found[0][0] != whole, f"at {at}: {value}"


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_noise_is_frames_or_named(data: bytes) -> None:
    found = read(data)
    assert isinstance(found, list) or found in WIRE_CODES


@settings(max_examples=300)
@given(st.sampled_from(sorted(FRAME_TYPES)), st.binary(max_size=120), st.integers(0, 3))
def test_noise_in_a_body_is_a_body_or_named(frame_type: int, body: bytes, stream_id: int) -> None:
    found = read(framed(frame_type, body, stream_id))
    assert isinstance(found, list) or found in WIRE_CODES


# -- each refusal beside its twin ------------------------------------------------------------------------


def test_version_is_1() -> None:
    assert only(GOLDEN["ACK"])
    assert code_of(b"\x02" + GOLDEN["ACK"][1:]) == "unsupported_version"
    # Also where the header comes in two pieces.
    decoder = FrameDecoder()
    assert decoder.feed(b"\x02") == []
    with pytest.raises(WireError, match="unsupported_version"):
        decoder.feed(GOLDEN["ACK"][1:])


def test_body_limit() -> None:
    fits = framed(FrameType.DATA, bytes(limits.FRAME_BODY_BYTES), 2)
    assert len(frames_of(fits)) == 1
    assert code_of(framed(FrameType.DATA, bytes(limits.FRAME_BODY_BYTES + 1), 2)) == "frame_too_large"
    decoder = FrameDecoder()
    header = framed(FrameType.DATA, bytes(limits.FRAME_BODY_BYTES + 1), 2)[:16]
    assert decoder.feed(header[:7]) == []
    with pytest.raises(WireError, match="frame_too_large"):
        decoder.feed(header[7:])


def test_a_map_is_smaller_than_a_record() -> None:
    padding = msgspec.msgpack.encode({"later": bytes(limits.MAP_BODY_BYTES)})
    assert code_of(framed(FrameType.CLOSE_STREAM, padding, 2)) == "frame_too_large"
    smaller = msgspec.msgpack.encode({"later": bytes(limits.MAP_BODY_BYTES - 64)})
    assert only(framed(FrameType.CLOSE_STREAM, smaller, 2)) == wire.CloseStream()


@pytest.mark.parametrize("frame_type", [FrameType.ACK, FrameType.PING, FrameType.PONG])
def test_fixed_bodies_have_their_length(frame_type: FrameType) -> None:
    assert only(framed(frame_type, bytes(16), 2))
    assert code_of(framed(frame_type, bytes(15), 2)) == "bad_body_length"
    assert code_of(framed(frame_type, bytes(17), 2)) == "bad_body_length"


def test_credit_and_data_have_their_length() -> None:
    assert only(framed(FrameType.STREAM_CREDIT, bytes(8))) == StreamCredit(0)
    assert code_of(framed(FrameType.STREAM_CREDIT, bytes(7))) == "bad_body_length"
    assert only(framed(FrameType.DATA, bytes(8), 2)) == Data(0, 0, b"")
    assert code_of(framed(FrameType.DATA, bytes(7), 2)) == "bad_body_length"


@pytest.mark.parametrize("name", [name for name in MAPS if MAPS[name][1] == 0])
def test_session_frames_are_on_stream_0(name: str) -> None:
    body, _ = MAPS[name]
    assert only(wire.encode_map(body, 0)) == body
    assert code_of(wire.encode_map(body, 2)) == "bad_stream_id"


@pytest.mark.parametrize("name", [name for name in MAPS if MAPS[name][1]])
def test_stream_frames_are_not(name: str) -> None:
    body, _ = MAPS[name]
    assert only(wire.encode_map(body, 2)) == body
    assert code_of(wire.encode_map(body, 0)) == "bad_stream_id"


def test_data_and_ack_are_about_a_stream() -> None:
    assert code_of(framed(FrameType.DATA, bytes(8), 0)) == "bad_stream_id"
    assert code_of(framed(FrameType.ACK, bytes(16), 0)) == "bad_stream_id"


@pytest.mark.parametrize("bit", range(1, 16))
def test_flags_that_mean_nothing_yet_are_refused_where_the_type_is_known(bit: int) -> None:
    flags = 1 << bit
    assert code_of(framed(FrameType.PING, bytes(16), 0, flags)) == "reserved_flags"
    assert code_of(framed(FrameType.CLOSE_STREAM, b"\x80", 2, flags | wire.FLAG_CRITICAL)) == "reserved_flags"
    assert only(framed(FrameType.PING, bytes(16), 0, wire.FLAG_CRITICAL)) == wire.Ping(0, 0)
    assert only(framed(FrameType.DATA, bytes(8), 2, flags)) == wire.Data(0, flags, b"")
    assert only(framed(77, b"", 0, flags)) == wire.Unknown(77)


def test_unknown_types_are_skipped_unless_critical() -> None:
    assert only(framed(77, b"whatever", 9)) == wire.Unknown(77)
    assert code_of(framed(77, b"whatever", 9, wire.FLAG_CRITICAL)) == "unknown_critical_frame"


def test_unknown_keys_are_ignored_and_known_ones_bounded() -> None:
    def reset(**fields: object) -> bytes:
        return framed(FrameType.RESET_STREAM, msgspec.msgpack.encode(fields), 2)

    assert only(reset(reason="gone", later=[1, {"x": 2}])) == wire.ResetStream(reason="gone")
    assert code_of(reset(detail="no reason")) == "field_out_of_bounds"
    assert code_of(reset(reason="Not A Code")) == "field_out_of_bounds"
    assert code_of(reset(reason="x" * 65)) == "field_out_of_bounds"
    assert code_of(reset(reason=7)) == "field_out_of_bounds"
    assert code_of(reset(reason="gone", detail="x" * 257)) == "field_out_of_bounds"


def test_deep_nesting_under_an_unknown_key_is_an_error_and_no_crash() -> None:
    deep = b"\x81\xa1z" + b"\x91" * 7000
    assert code_of(framed(FrameType.CLOSE_STREAM, deep, 2)) == "bad_body"


@pytest.mark.parametrize(
    "body",
    [b"", b"\x80\x80", b"\x81", b"\xdf\xff\xff\xff\xff", b"\x81\xa1z\xdd\xff\xff\xff\xff", b"\x81\xa1z\xa1"],
)
def test_maps_that_do_not_parse(body: bytes) -> None:
    assert code_of(framed(FrameType.CLOSE_STREAM, body, 2)) == "bad_body"
    assert only(framed(FrameType.CLOSE_STREAM, b"\x80", 2)) == wire.CloseStream()


def test_we_do_not_send_what_we_would_refuse() -> None:
    assert wire.encode_map(wire.ResetStream(reason="gone"), 2)
    with pytest.raises(WireError, match="field_out_of_bounds"):
        wire.encode_map(wire.ResetStream(reason="Not A Code"), 2)
    with pytest.raises(WireError, match="frame_too_large"):
        wire.encode_map(wire.Auth(cluster_id="c", signature=bytes(64), token=bytes(9000)))


def test_an_unfinished_frame_holds_no_more_than_arrived() -> None:
    decoder = FrameDecoder()
    header = wire.encode_data_head(2, 0, 0, 65_000)
    assert decoder.feed(header) == []
    assert decoder._partial == header


# -- relays ----------------------------------------------------------------------------------------------


def test_with_position_changes_the_position_and_keeps_strange_keys() -> None:
    fields = msgspec.msgpack.decode(wire.encode_map(LEASED_OPEN, 2)[16:])
    fields["later"] = {"suite": b"\x01"}
    fields["route"]["later"] = 1
    onward = wire.with_position(msgspec.msgpack.encode(fields), 2)
    fields["route"]["position"] = 2
    assert msgspec.msgpack.decode(onward) == fields
    body = only(framed(FrameType.OPEN_STREAM, onward, 2))
    assert isinstance(body, wire.OpenStream)
    assert body.route is not None
    assert body.route.position == 2
    assert body.seal == LEASED_OPEN.seal


def test_with_position_leaves_every_other_value_as_it_is_spelled() -> None:
    """Also one that no encoder of ours would spell so: an integer in five bytes, a timestamp."""
    strange = b"\xa1i\xd2\x00\x00\x00\x01" + b"\xa1t\xc7\x0c\xff" + bytes(12)
    whole = wire.encode_map(LEASED_OPEN, 2)[16:]
    fields = msgspec.msgpack.decode(whole)
    assert whole[0] == 0x80 + len(fields), "a map of fewer than 16 keys"
    onward = wire.with_position(bytes([whole[0] + 2]) + whole[1:] + strange, 2)
    assert onward.endswith(strange)
    fields["route"]["position"] = 2
    assert msgspec.msgpack.decode(onward[: -len(strange)].replace(onward[:1], whole[:1], 1)) == fields


@pytest.mark.parametrize(
    "body", [wire.encode_map(DIRECT_OPEN, 2)[16:], b"\x91", b"\x80", b"\x81\xa5route\x01"]
)
def test_with_position_needs_a_route(body: bytes) -> None:
    assert wire.with_position(wire.encode_map(LEASED_OPEN, 2)[16:], 3)
    with pytest.raises(WireError, match="bad_body"):
        wire.with_position(body, 2)


# -- copies ----------------------------------------------------------------------------------------------


def test_a_whole_frame_is_a_view_of_its_chunk() -> None:
    chunk = wire.encode_data_head(2, 0, 0, 60_000) + bytes(60_000)
    (frame,) = FrameDecoder().feed(chunk)
    assert isinstance(frame.body, memoryview)
    assert frame.body.obj is chunk


def test_a_small_frame_does_not_keep_a_large_chunk() -> None:
    chunk = wire.encode_ack(2, 1, 2) + framed(77, bytes(60_000))
    ack, _ = FrameDecoder().feed(chunk)
    assert isinstance(ack.body, bytes)


def test_a_frame_in_tiny_chunks_is_gathered_in_one_buffer_and_never_copied_again() -> None:
    data = framed(FrameType.DATA, bytes(9_000), 2)
    decoder = FrameDecoder()
    buffers = set()
    frames: list[Frame] = []
    for at in range(0, len(data), 7):
        buffers.add(id(decoder._partial))
        frames += decoder.feed(data[at : at + 7])
    (frame,) = frames
    assert isinstance(frame.body, memoryview)
    assert buffers == {id(frame.body.obj)}
    assert len(frame.body) == 9_000
