"""QUIC packet pieces: published vectors, strictness on garbage, Retry tokens."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.io.engines.packets import (
    CID_BYTES,
    QUIC_V1,
    LongHeader,
    RetryTokens,
    StreamFrame,
    parse_long_header,
    parse_stream_frame,
    retry,
    stream_frame_head,
    version_negotiation,
)
from tests.support.carrier_pair import Pair

ADDR = ("192.0.2.1", 4433)


def initial(*, dcid: bytes = bytes(8), scid: bytes = b"\x01" * 8, token: bytes = b"") -> bytes:
    """A padded datagram that starts like an Initial packet."""
    head = bytes([0xC3]) + QUIC_V1.to_bytes(4, "big") + bytes([len(dcid)]) + dcid + bytes([len(scid)]) + scid
    head += (len(token) | 0x4000).to_bytes(2, "big") + token
    return head.ljust(1200, b"\x00")


def test_the_retry_packet_of_rfc_9001_appendix_a4() -> None:
    header = LongHeader(QUIC_V1, bytes.fromhex("8394c8f03e515708"), b"", is_initial=True, token=b"")
    made = retry(header, source_cid=bytes.fromhex("f067a5502a4262b5"), token=b"token", unused=0x0F)
    assert made == bytes.fromhex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba")


def test_the_client_initial_of_rfc_9001_appendix_a2() -> None:
    data = bytes.fromhex("c000000001088394c8f03e5157080000449e7b9aec34").ljust(1200, b"\x00")
    assert parse_long_header(data) == LongHeader(
        QUIC_V1, bytes.fromhex("8394c8f03e515708"), b"", is_initial=True, token=b""
    )


def test_a_token_is_found() -> None:
    header = parse_long_header(initial(token=b"t" * 90))
    assert header is not None
    assert header.token == b"t" * 90


def test_every_engines_first_packet_is_an_initial() -> None:
    for engine in ("aioquic", "qh3"):
        [(data, _), *_rest] = Pair(engine, "qh3").dialer.carrier.datagrams_to_send(1000.0)
        header = parse_long_header(data)
        assert header is not None
        assert header.is_initial
        assert len(header.destination_cid) >= CID_BYTES


def test_other_versions_show_their_ids_alone() -> None:
    data = bytes([0x80]) + b"\x0a\x0a\x0a\x0a" + bytes([255]) + b"d" * 255 + bytes([3]) + b"abc" + bytes(50)
    header = parse_long_header(data)
    assert header == LongHeader(0x0A0A0A0A, b"d" * 255, b"abc", is_initial=False, token=b"")
    answer = version_negotiation(header, 0x55)
    parsed = parse_long_header(answer)
    assert parsed is not None
    assert (parsed.version, parsed.destination_cid, parsed.source_cid) == (0, b"abc", b"d" * 255)
    assert answer.endswith(QUIC_V1.to_bytes(4, "big"))


@given(st.binary(max_size=1300))
def test_garbage_never_raises(data: bytes) -> None:
    header = parse_long_header(data)
    if header is not None:
        assert data[0] & 0x80
        assert len(header.destination_cid) + len(header.source_cid) + 7 <= len(data)


@given(st.data())
def test_a_cut_header_is_none(data: st.DataObject) -> None:
    whole = initial(token=b"t" * 20)
    used = 1 + 4 + 1 + 8 + 1 + 8 + 2 + 20
    cut = data.draw(st.integers(0, used - 1))
    assert parse_long_header(whole[:cut]) is None
    assert parse_long_header(whole[:used]) is not None


def test_connection_ids_longer_than_version_1_allows_are_refused() -> None:
    assert parse_long_header(initial(dcid=bytes(20))) is not None
    assert parse_long_header(initial(dcid=bytes(21))) is None
    assert parse_long_header(initial(scid=bytes(21))) is None


VARINTS = st.one_of(*(st.integers(0, (1 << bits) - 1) for bits in (6, 14, 30, 62)))


@given(VARINTS, VARINTS, st.binary(max_size=100))
def test_a_stream_frame_is_read_as_it_was_written(stream_id: int, offset: int, data: bytes) -> None:
    head = stream_frame_head(stream_id, offset) + (len(data) | 0x4000).to_bytes(2, "big")
    frame = StreamFrame(stream_id, offset, False, len(head))
    assert parse_stream_frame(head + data) == frame
    assert parse_stream_frame(head + data + b"\x00") is None, "something follows the frame"
    if data:
        assert parse_stream_frame(head + data[:-1]) is None


def test_the_forms_of_a_stream_frame() -> None:
    # RFC 9000 section 19.8; the integers are the examples of appendix A.1.
    assert parse_stream_frame(b"\x08\x25data") == StreamFrame(37, 0, False, 2)
    assert parse_stream_frame(b"\x0c\x25\x7b\xbddata") == StreamFrame(37, 15_293, False, 4)
    assert parse_stream_frame(b"\x0f\x25\x9d\x7f\x3e\x7d\x04data") == StreamFrame(37, 494_878_333, True, 7)
    assert stream_frame_head(37, 494_878_333) == b"\x0e\x25\x9d\x7f\x3e\x7d"
    assert stream_frame_head(37, 0) == b"\x0a\x25"
    for other in (b"", b"\x00", b"\x07\x25data", b"\x10\x25", b"\x30data", b"\x08", b"\x0c\x25\x9d\x7f"):
        assert parse_stream_frame(other) is None


@given(st.binary(max_size=40))
def test_garbage_is_no_stream_frame_or_a_whole_one(data: bytes) -> None:
    frame = parse_stream_frame(data)
    assert frame is None or frame.data_at <= len(data)


class TestRetryTokens:
    tokens = RetryTokens(bytes(16))
    original, cid = b"original", b"retrycid"

    def token(self, *, now: float = 100.0) -> bytes:
        return self.tokens.make(ADDR, self.original, self.cid, nonce=os.urandom(12), now=now)

    def test_it_comes_back_with_the_original_id(self) -> None:
        assert self.tokens.check(self.token(), ADDR, self.cid, 101.0) == self.original

    def test_it_works_for_ipv6(self) -> None:
        addr = ("2001:db8::1", 4433, 0, 0)
        token = self.tokens.make(addr, self.original, self.cid, nonce=bytes(12), now=1.0)
        assert self.tokens.check(token, addr, self.cid, 1.0) == self.original

    def test_it_is_refused_from_another_address_or_port(self) -> None:
        assert self.tokens.check(self.token(), ("192.0.2.2", 4433), self.cid, 101.0) is None
        assert self.tokens.check(self.token(), ("192.0.2.1", 4434), self.cid, 101.0) is None

    def test_it_is_refused_for_another_id(self) -> None:
        assert self.tokens.check(self.token(), ADDR, b"otherone", 101.0) is None

    def test_it_expires(self) -> None:
        late = 100.0 + limits.ENDPOINT_RETRY_TOKEN_LIFETIME_S
        assert self.tokens.check(self.token(), ADDR, self.cid, late - 0.1) == self.original
        assert self.tokens.check(self.token(), ADDR, self.cid, late + 0.1) is None
        assert self.tokens.check(self.token(), ADDR, self.cid, 90.0) is None

    def test_it_is_refused_when_changed_or_another_processes(self) -> None:
        token = self.token()
        assert self.tokens.check(token[:-1] + bytes([token[-1] ^ 1]), ADDR, self.cid, 101.0) is None
        assert RetryTokens(b"\x01" * 16).check(token, ADDR, self.cid, 101.0) is None
        assert self.tokens.check(b"", ADDR, self.cid, 101.0) is None
        assert self.tokens.check(os.urandom(60), ADDR, self.cid, 101.0) is None
