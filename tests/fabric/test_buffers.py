"""The buffer before the seal: order, copies, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fabric import limits
from fabric.buffers import SendBuffer

sizes = st.integers(0, 3 * limits.CHUNK_JOIN_BYTES)


@given(st.lists(sizes, max_size=12), st.lists(st.integers(1, 20_000), max_size=30))
def test_what_comes_out_is_what_went_in(writes: list[int], takes: list[int]) -> None:
    whole = b""
    buffer = SendBuffer()
    out = b""
    for number, size in enumerate(writes):
        data = bytes([number]) * size
        whole += data
        buffer.append(data if number % 2 else memoryview(bytearray(data)))
        if takes:
            out += buffer.take(min(takes.pop(), buffer.size))
        assert buffer.size == len(whole) - len(out)
    out += buffer.take(buffer.size)
    assert out == whole
    assert buffer.size == 0


def test_large_bytes_are_referred_to_and_mutable_ones_copied() -> None:
    data = bytes(100_000)
    buffer = SendBuffer()
    buffer.append(data)
    buffer.append(memoryview(data)[10:90_000])
    first, second = buffer.take(65_536), buffer.take(34_464 + 10)
    assert isinstance(first, memoryview)
    assert first.obj is data
    assert len(second) == 34_474
    mutable = bytearray(b"a" * 50_000)
    buffer.clear()
    buffer.append(mutable)
    buffer.append(memoryview(mutable)[:5])
    mutable[:] = b"b" * 50_000
    assert bytes(buffer.take(50_005)) == b"a" * 50_005


def test_tiny_writes_are_gathered() -> None:
    buffer = SendBuffer()
    for _ in range(10_000):
        buffer.append(b"x")
    assert len(buffer._parts) == 1
    assert bytes(buffer.take(10_000)) == b"x" * 10_000


def test_no_more_is_taken_than_there_is() -> None:
    buffer = SendBuffer()
    buffer.append(b"abc")
    with pytest.raises(ValueError, match="4 of 3"):
        buffer.take(4)
    assert bytes(buffer.take(3)) == b"abc"
    buffer.append(b"abc")
    buffer.clear()
    assert buffer.size == 0
