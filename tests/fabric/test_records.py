"""The two directions of a sealed stream: order, bounds, copies, acknowledgements."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import StreamError
from fabric.events import SendRecord, StreamConfig
from fabric.records import RecordReceiver, RecordSender
from fabric.seal import RECORD_EMPTY, RECORD_END, StreamKeys

ONE = StreamKeys(bytes(64), b"uid" + bytes(13), TrafficClass.BULK, initiator=True)
OTHER = StreamKeys(bytes(64), b"uid" + bytes(13), TrafficClass.BULK, initiator=False)
KIB = 1024


def sender(limit: int = 1 << 20, **config: int) -> RecordSender:
    made = RecordSender(StreamConfig(**config))
    made.allow(limit)
    return made


def receiver(window: int = 1 << 20) -> RecordReceiver:
    return RecordReceiver(StreamConfig(window=window, window_max=window), 0.0)


def drain(source: RecordSender) -> list[SendRecord]:
    records = []
    while (record := source.next_record(ONE)) is not None:
        records.append(record)
    return records


def sizes(records: Sequence[SendRecord | None]) -> list[tuple[int, int, int]]:
    return [(r.offset, r.flags, len(r.ciphertext) - 16) for r in records if r is not None]


def take(sink: RecordReceiver, record: SendRecord) -> bool:
    return sink.take(OTHER, record.offset, record.flags, record.ciphertext)


def code(sink: RecordReceiver, offset: int, flags: int, payload: bytes) -> str:
    with pytest.raises(StreamError) as caught:
        sink.take(OTHER, offset, flags, payload)
    return caught.value.code


# -- sending ---------------------------------------------------------------------------------------------


def test_large_writes_are_split_and_small_ones_gathered() -> None:
    source = sender()
    assert source.write(bytes(150_000)) == 150_000
    assert sizes(drain(source)) == [(0, 0, 65_536), (65_536, 0, 65_536), (131_072, 0, 18_928)]
    for _ in range(100):
        source.write(b"x")
    assert sizes(drain(source)) == [(150_000, 0, 100)]


def test_what_would_wait_behind_others_is_joined_and_not_sealed_in_small_records() -> None:
    source = sender()
    source.write(b"first")
    assert source.next_record(ONE) is not None
    assert not source.joining
    for count in range(limits.JOINED_BYTES // 100):
        source.write(bytes(100))
        assert source.next_record(ONE, behind=True) is None, count
        assert source.joining
    source.write(bytes(100))
    assert sizes([source.next_record(ONE, behind=True)]) == [(5, 0, limits.JOINED_BYTES // 100 * 100 + 100)]
    assert not source.joining
    source.write(bytes(100))
    assert source.next_record(ONE, behind=True) is None
    assert [size for _, _, size in sizes(drain(source))] == [100], "nothing is before it any more"
    source.write(bytes(100))
    source.finishing = True
    last = source.next_record(ONE, behind=True)
    assert last is not None
    assert last.flags == RECORD_END, "nothing will come to be joined with it"


def test_the_end_rides_on_the_last_record_or_alone() -> None:
    source = sender()
    source.write(b"bye")
    source.finishing = True
    assert sizes(drain(source)) == [(0, RECORD_END, 3)]
    assert drain(source) == []
    late = sender()
    late.write(b"bye")
    assert sizes(drain(late)) == [(0, 0, 3)]
    late.finishing = True
    assert sizes(drain(late)) == [(3, RECORD_END, 0)]
    assert drain(late) == []


def test_a_confirmation_is_owed_only_while_nothing_else_was_sent() -> None:
    source = sender()
    source.owes_confirmation = True
    assert sizes(drain(source)) == [(0, RECORD_EMPTY, 0)]
    assert source.kept() == []
    other = sender()
    other.owes_confirmation = True
    other.write(b"x")
    assert sizes(drain(other)) == [(0, 0, 1)]
    ended = sender()
    ended.owes_confirmation = ended.finishing = True
    assert sizes(drain(ended)) == [(0, RECORD_END, 0)]


def test_the_confirmation_needs_no_window_and_data_does() -> None:
    source = sender(limit=0)
    source.owes_confirmation = True
    source.write(b"x")
    assert sizes(drain(source)) == [(0, RECORD_EMPTY, 0)]
    source.allow(1)
    assert sizes(drain(source)) == [(0, 0, 1)]


def test_the_peers_window_is_obeyed_and_never_shrinks() -> None:
    source = sender(limit=100_000)
    source.write(bytes(200_000))
    # 34,464 bytes of window are left: not worth a record while an acknowledgement is on its way.
    assert sizes(drain(source)) == [(0, 0, 65_536)]
    assert not source.acknowledge(65_536)
    assert sizes(drain(source)) == [(65_536, 0, 34_464)]
    source.allow(50)
    source.allow(300_000)
    assert source.acknowledge(100_000) is False
    assert sum(size for _, _, size in sizes(drain(source))) == 100_000


def test_what_is_kept_is_bounded_whatever_the_peer_allows() -> None:
    source = sender(limit=1 << 60, window_max=128 * KIB)
    source.write(bytes(512 * KIB))
    assert sum(size for _, _, size in sizes(drain(source))) == 128 * KIB
    source.acknowledge(64 * KIB)
    assert [record.offset for record in source.kept()] == [64 * KIB]
    assert sum(size for _, _, size in sizes(drain(source))) == 64 * KIB


def test_a_writer_waits_for_the_buffer_and_is_told_once() -> None:
    source = sender(send_buffer=1000, limit=0)
    assert source.write(bytes(1500)) == 1000
    assert source.write(b"x") == 0
    assert not source.became_writable()
    source.allow(1000)
    drain(source)
    assert source.became_writable()
    assert not source.became_writable()
    assert source.write(b"x") == 1
    assert not source.became_writable()


def test_acknowledgements_stop_at_records() -> None:
    source = sender()
    for part in (b"abc", b"defg"):
        source.write(part)
        drain(source)
    assert [record.offset for record in source.kept()] == [0, 3]
    source.acknowledge(3)
    assert [record.offset for record in source.kept()] == [3]
    source.acknowledge(1)  # an older one changes nothing
    assert source.acknowledged == 3
    with pytest.raises(StreamError, match="bad_ack"):
        source.acknowledge(5)
    fresh = sender()
    fresh.write(b"abc")
    drain(fresh)
    with pytest.raises(StreamError, match="bad_ack"):
        fresh.acknowledge(4)


def test_the_end_is_acknowledged_by_one_position_more() -> None:
    source = sender()
    source.write(b"abc")
    source.finishing = True
    drain(source)
    with pytest.raises(StreamError, match="bad_ack"):
        source.acknowledge(3)  # within the record: its end is part of it
    source = sender()
    source.write(b"abc")
    source.finishing = True
    drain(source)
    assert source.unacknowledged == 3
    assert source.acknowledge(4)
    assert source.end_acknowledged
    assert source.kept() == []
    assert not source.acknowledge(4)


def test_a_key_seals_only_so_much() -> None:
    source = sender()
    source.sent = limits.STREAM_BYTES_MAX - 1
    assert source.write(b"x") == 1
    with pytest.raises(StreamError, match="stream_too_long"):
        source.write(b"y")


# -- receiving -------------------------------------------------------------------------------------------


def test_records_in_order_are_read_in_any_pieces() -> None:
    source, sink = sender(), receiver()
    data = bytes(range(256)) * 600
    source.write(data)
    source.finishing = True
    assert all(take(sink, record) for record in drain(source))
    assert sink.ended
    assert sink.position == len(data) + 1
    assert sink.readable == len(data)
    assert sink.read(10) + sink.read(70_000) + sink.read(0) + sink.read() == data
    assert sink.read() == b""


def test_a_copy_is_dropped_and_delivered_once() -> None:
    sink = receiver()
    first, second = ONE.seal(0, 0, b"abc"), ONE.seal(3, RECORD_END, b"de")
    assert sink.take(OTHER, 0, 0, first)
    assert not sink.take(OTHER, 0, 0, first)
    assert sink.take(OTHER, 3, RECORD_END, second)
    assert not sink.take(OTHER, 3, RECORD_END, second)
    assert not sink.take(OTHER, 0, 0, first)
    assert sink.read() == b"abcde"
    empty_end = receiver()
    assert empty_end.take(OTHER, 0, RECORD_END, ONE.seal(0, RECORD_END, b""))
    assert not empty_end.take(OTHER, 0, RECORD_END, ONE.seal(0, RECORD_END, b""))


def test_reading_in_small_pieces_does_not_copy_the_rest_each_time() -> None:
    sink, data = receiver(), bytes(range(256)) * 256
    assert sink.take(OTHER, 0, 0, ONE.seal(0, 0, data))
    assert sink.take(OTHER, len(data), 0, ONE.seal(len(data), 0, b"next"))
    parts = [sink.read(5)]
    assert sink._chunks is not None
    rest = sink._chunks[0]
    assert isinstance(rest, memoryview), "the rest of a record is a view"
    whole = rest.obj
    while sink.readable > 10:
        parts.append(sink.read(5))
        if len(sink._chunks) == 2:
            assert isinstance(sink._chunks[0], memoryview)
            assert sink._chunks[0].obj is whole
    assert all(type(part) is bytes for part in parts)
    last = sink.read()
    assert type(last) is bytes
    assert b"".join([*parts, last]) == data + b"next"


def test_order_and_boundaries() -> None:
    sink = receiver()
    assert code(sink, 3, 0, ONE.seal(3, 0, b"de")) == "record_gap"
    assert sink.take(OTHER, 0, 0, ONE.seal(0, 0, b"abc"))
    assert code(sink, 1, 0, ONE.seal(1, 0, b"bcd")) == "record_overlap"
    assert sink.take(OTHER, 3, 0, ONE.seal(3, 0, b"de"))


def test_nothing_follows_the_end() -> None:
    sink = receiver()
    assert sink.take(OTHER, 0, RECORD_END, ONE.seal(0, RECORD_END, b"abc"))
    assert code(sink, 3, 0, ONE.seal(3, 0, b"d")) == "record_after_end"
    assert code(sink, 4, 0, ONE.seal(4, 0, b"d")) == "record_after_end"
    assert code(sink, 1, 0, ONE.seal(1, 0, b"bcd")) == "record_after_end"
    for flags in (RECORD_END, RECORD_EMPTY):
        assert code(sink, 3, flags, ONE.seal(3, flags, b"")) == "record_after_end"
    assert not sink.take(OTHER, 0, RECORD_END, ONE.seal(0, RECORD_END, b"abc")), "a copy is no harm"
    assert (sink.read(), sink.at_end) == (b"abc", True)


@pytest.mark.parametrize(
    ("flags", "size"),
    [(0, 0), (RECORD_EMPTY, 1), (RECORD_END | RECORD_EMPTY, 0), (0x8, 1), (0, 65_537), (0, -1)],
)
def test_shapes_that_no_sender_makes(flags: int, size: int) -> None:
    assert receiver().take(OTHER, 0, 0, ONE.seal(0, 0, bytes(65_536)))
    payload = bytes(size + 16) if size < 0 else ONE.seal(0, flags, bytes(size))
    assert code(receiver(), 0, flags, payload) == "record_shape"


def test_the_window_is_a_bound_on_what_is_held() -> None:
    sink = receiver(window=4)
    assert sink.take(OTHER, 0, 0, ONE.seal(0, 0, b"abcd"))
    assert code(sink, 4, 0, ONE.seal(4, 0, b"e")) == "window_exceeded"
    assert sink.read(2) == b"ab"
    assert sink.window_moved(0.0)
    assert sink.limit == 6
    assert sink.take(OTHER, 4, 0, ONE.seal(4, 0, b"ef"))
    assert not sink.window_moved(0.0)


def test_offsets_end_somewhere() -> None:
    sink = receiver()
    assert code(sink, limits.STREAM_BYTES_MAX, 0, ONE.seal(0, 0, b"x")) == "stream_too_long"
    assert code(sink, limits.STREAM_BYTES_MAX - 1, 0, ONE.seal(0, 0, b"x")) == "record_gap"


def test_a_forged_record_is_refused_and_changes_nothing() -> None:
    sink = receiver()
    record = ONE.seal(0, 0, b"abc")
    assert code(sink, 0, RECORD_END, record) == "record_invalid"
    assert code(sink, 0, 0, record[:-1] + bytes([record[-1] ^ 1])) == "record_invalid"
    assert (sink.position, sink.readable) == (0, 0)
    assert sink.take(OTHER, 0, 0, record)


@given(
    st.lists(st.binary(max_size=5000), max_size=20), st.integers(1, 3000), st.randoms(use_true_random=False)
)
def test_any_writes_through_any_window_arrive_whole(writes: list[bytes], window: int, rng: object) -> None:
    source, sink = sender(limit=window, send_buffer=4000), receiver(window)
    pending, got = [memoryview(one) for one in writes], b""
    for _ in range(100_000):
        while pending and (took := source.write(pending[0])) < len(pending[0]):
            pending[0] = pending[0][took:]
            if not took:
                break
        else:
            pending = pending[1:]
        source.finishing = not pending
        for record in drain(source):
            assert take(sink, record)
        got += sink.read()
        sink.window_moved(0.0)
        source.allow(sink.limit)
        if source.acknowledge(sink.position):
            break
    assert got == b"".join(writes)
    assert sink.ended
    assert source.end_acknowledged
