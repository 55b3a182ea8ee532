"""Tile paths, tiles and entry bundles."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog import tiles
from statelog.errors import Refused
from statelog.limits import MAX_LOGS

HASHES = [sha256(b"%d" % n).digest() for n in range(256)]


@pytest.mark.parametrize(
    ("level", "index", "width", "expected"),
    [
        (0, 1234067, 256, "tile/0/x001/x234/067"),  # C2SP tlog-tiles, "Merkle Tree"
        (0, 0, 256, "tile/0/000"),
        (0, 999, 256, "tile/0/999"),
        (0, 1000, 256, "tile/0/x001/000"),
        (1, 0, 17, "tile/1/000.p/17"),
        (63, 5, 1, "tile/63/005.p/1"),
        ("entries", 273, 112, "tile/entries/273.p/112"),
        ("entries", 1234067, 256, "tile/entries/x001/x234/067"),
    ],
)
def test_paths(level: int, index: int, width: int, expected: str) -> None:
    assert tiles.tile_path(level, index, width) == expected


@pytest.mark.parametrize(
    ("level", "index", "width"), [(64, 0, 1), (-1, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)]
)
def test_there_are_no_other_tiles(level: int, index: int, width: int) -> None:
    with pytest.raises(ValueError, match="no tile"):
        tiles.tile_path(level, index, width)


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=20))
def test_bundles_are_read_as_they_were_written(entries: list[bytes]) -> None:
    assert tiles.decode_bundle(tiles.encode_bundle(entries), len(entries)) == entries


def test_a_bundle_is_lengths_and_entries() -> None:
    assert tiles.encode_bundle([b"one", b"", b"x" * 300]) == b"\0\3one\0\0\1\x2c" + b"x" * 300
    assert tiles.decode_bundle(tiles.encode_bundle([b"x" * 65_535]), 1) == [b"x" * 65_535]
    with pytest.raises(ValueError, match="too long"):
        tiles.encode_bundle([b"x" * 65_536])


@pytest.mark.parametrize(
    ("data", "width"),
    [(b"", 1), (b"\0", 1), (b"\0\3on", 1), (b"\0\3one", 2), (b"\0\3one\0\3two", 1), (b"\0\3one\0", 1)],
)
def test_broken_bundles_are_refused(data: bytes, width: int) -> None:
    with pytest.raises(Refused) as refused:
        tiles.decode_bundle(data, width)
    assert refused.value.code == "SL-TILE"


@pytest.mark.parametrize("width", [1, 17, 256])
def test_hash_tiles(width: int) -> None:
    data = tiles.encode_tile(HASHES[:width])
    assert len(data) == 32 * width
    assert tiles.decode_tile(data, width) == HASHES[:width]
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(Refused) as refused:
            tiles.decode_tile(wrong, width)
        assert refused.value.code == "SL-TILE"


@pytest.mark.parametrize("hashes", [[], [b"short"], [*HASHES, HASHES[0]]])
def test_a_tile_is_1_to_256_hashes(hashes: list[bytes]) -> None:
    with pytest.raises(ValueError, match="256 hashes"):
        tiles.encode_tile(hashes)


def test_a_list_of_logs_is_bounded() -> None:
    """Whoever audits them holds a head of each."""
    names = [f"routes-{number:04}" for number in range(MAX_LOGS + 1)]
    assert tiles.decode_logs(tiles.encode_logs(names[1:])) == names[1:]
    for wrong in (tiles.encode_logs(names), b"routes-b\nroutes-a\n", b"authority\n"):
        with pytest.raises(Refused) as refused:
            tiles.decode_logs(wrong)
        assert refused.value.code == "SL-TILE"
