"""Paths and contents of the static layout, C2SP tlog-tiles v0.1.0: hash tiles and entry bundles.

A tile at level L holds 256 consecutive hashes of complete subtrees of height 8·L; at level 0, leaf hashes. A
bundle holds the same 256 entries as the tile at level 0, each with a 16-bit length. The rightmost of a level
may be narrower, then its path ends in `.p/<width>`.

Beside that layout stands what an auditor needs of the past (docs/tiles.md, "History"): `history/sizes`, one
decimal a line, and for each of them `history/<size>`, a cosigned checkpoint of that size. `logs` names the
logs of partitions, one a line; each has the whole layout again in the folder of its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from statelog.errors import Refused
from statelog.findings import Finding
from statelog.limits import (
    HASH_BYTES,
    MAX_LEAF_BYTES,
    MAX_LOGS,
    MAX_PARTITION_CHARS,
    MAX_TILE_LEVEL,
    MAX_TREE_SIZE,
    TILE_WIDTH,
)
from statelog.merkle import leaf_hash
from statelog.state import PARTITION_LOG_PREFIX

TILE_HEIGHT: Final = 8
CHECKPOINT_PATH: Final = "checkpoint"
HISTORY_PATH: Final = "history"
SIZES_PATH: Final = f"{HISTORY_PATH}/sizes"
LOGS_PATH: Final = "logs"
_LENGTH_BYTES: Final = 2
_LOG_NAME: Final = re.compile(rf"{PARTITION_LOG_PREFIX}[a-z0-9-]{{1,{MAX_PARTITION_CHARS}}}")
_PATH: Final = re.compile(
    r"tile/(?P<level>entries|\d{1,2})/(?P<index>(?:x\d{3}/)*\d{3})(?:\.p/(?P<width>\d{1,3}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's address: `level` None is the entry bundle that goes with the tile at level 0."""

    level: int | None
    index: int
    width: int = TILE_WIDTH

    @property
    def entries(self) -> tuple[int, int]:
        """The log entries under it, as (first, one past the last)."""
        span = TILE_WIDTH ** (self.level or 0)
        first = self.index * TILE_WIDTH
        return first * span, (first + self.width) * span

    @property
    def path(self) -> str:
        """Where it stands under the log's prefix."""
        return tile_path("entries" if self.level is None else self.level, self.index, self.width)

    @property
    def full(self) -> Tile:
        """The full tile that this one is, or will become, the beginning of."""
        return Tile(self.level, self.index)


def parse_tile(path: str) -> Tile | None:
    """The tile of a path `tile/…`, None unless it is written exactly as C2SP tlog-tiles writes it."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    level = None if match["level"] == "entries" else int(match["level"])
    index = int(match["index"].replace("x", "").replace("/", ""))
    width = int(match["width"]) if match["width"] else TILE_WIDTH
    tile = Tile(level, index, width)
    try:
        written = tile.path
    except ValueError:
        return None
    return tile if written == path else None


def tile_at(level: int | None, index: int, size: int) -> Tile:
    """The tile as a tree of `size` leaves has it: full, or partial at the right edge.

    Raises ValueError when the tree does not reach that far.
    """
    width = min(TILE_WIDTH, (size >> TILE_HEIGHT * (level or 0)) - index * TILE_WIDTH)
    if width < 1:
        raise ValueError(f"a tree of {size} leaves has no tile {index} at level {level}")
    return Tile(level, index, width)


def tiles_between(old_size: int, new_size: int) -> Iterator[Tile]:
    """The tiles and bundles that a tree of `new_size` leaves has and one of `old_size` has not, level by
    level, each bundle before its hashes.
    """
    level = 0
    while count := new_size >> TILE_HEIGHT * level:
        known = old_size >> TILE_HEIGHT * level
        for index in range(known // TILE_WIDTH, -(-count // TILE_WIDTH)):
            tile = tile_at(level, index, new_size)
            if index * TILE_WIDTH + tile.width > known:
                if level == 0:
                    yield Tile(None, index, tile.width)
                yield tile
        level += 1


def history_path(size: int) -> str:
    """Where the kept checkpoint of `size` stands."""
    return f"{HISTORY_PATH}/{size}"


def encode_sizes(sizes: Iterable[int]) -> bytes:
    """The bytes of `history/sizes`: ascending decimals, one a line."""
    return "".join(f"{size}\n" for size in sorted(set(sizes))).encode()


def decode_sizes(data: bytes) -> list[int]:
    """The sizes that `encode_sizes` wrote. Raises Refused SL-TILE for any other spelling."""
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        lines = [""]
    sizes = [int(line) for line in lines[:-1] if line.isascii() and line.isdigit() and len(line) < 20]
    if encode_sizes(sizes) != data or (sizes and sizes[-1] > MAX_TREE_SIZE):
        raise _refuse("the list of kept checkpoints is not ascending decimals, one a line", "", "")
    return sizes


def tile_path(level: int | Literal["entries"], index: int, width: int = TILE_WIDTH) -> str:
    """`tile/<level>/<index>[.p/<width>]`, the index in groups of three digits: 1234067 is x001/x234/067."""
    if level != "entries" and not 0 <= level <= MAX_TILE_LEVEL:
        raise ValueError(f"no tile level {level}")
    if not 0 <= index <= MAX_TREE_SIZE or not 1 <= width <= TILE_WIDTH:
        raise ValueError(f"no tile {index} of width {width}")
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{path}{partial}"


def encode_logs(names: Iterable[str]) -> bytes:
    """The bytes of `logs`: the names of partitions' logs, ascending, one a line."""
    return "".join(f"{name}\n" for name in sorted(set(names))).encode()


def decode_logs(data: bytes) -> list[str]:
    """The names that `encode_logs` wrote, at most `MAX_LOGS`. Raises Refused SL-TILE for any other spelling
    or name.
    """
    names = data.decode("ascii", "replace").split("\n")[:-1]
    if len(names) > MAX_LOGS:
        raise _refuse("the list of logs is too long", f"at most {MAX_LOGS}", str(len(names)))
    if encode_logs(names) != data or not all(_LOG_NAME.fullmatch(name) for name in names):
        raise _refuse("the list of logs is not ascending names of partitions' logs, one a line", "", "")
    return names


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    """A tile's bytes: its 1 to 256 hashes one after the other."""
    if not 1 <= len(hashes) <= TILE_WIDTH or any(len(item) != HASH_BYTES for item in hashes):
        raise ValueError("a tile is 1 to 256 hashes of 32 bytes")
    return b"".join(hashes)


def decode_tile(data: bytes, width: int) -> list[bytes]:
    """The `width` hashes of a tile. Raises Refused SL-TILE when the length is another."""
    if len(data) != width * HASH_BYTES:
        raise _refuse("a hash tile has the wrong length", str(width * HASH_BYTES), str(len(data)))
    return [data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES)]


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """An entry bundle: each entry after its length as a big-endian 16-bit number."""
    parts = []
    for entry in entries:
        if len(entry) > MAX_LEAF_BYTES:
            raise ValueError("an entry is too long for a bundle")
        parts += [len(entry).to_bytes(_LENGTH_BYTES, "big"), entry]
    return b"".join(parts)


def decode_bundle(data: bytes, width: int) -> list[bytes]:
    """The `width` entries of a bundle. Raises Refused SL-TILE when there are more or fewer, or one is cut."""
    entries: list[bytes] = []
    at = 0
    # An entry that is cut, or half a length, moves `at` past the end, which the check below sees.
    while at < len(data) and len(entries) < width:
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        entries.append(data[start:at])
    if at != len(data) or len(entries) != width:
        raise _refuse("an entry bundle does not hold the entries of its width", str(width), str(len(entries)))
    return entries


def first_other(data: bytes, hashes: Sequence[bytes]) -> int:
    """Which entry of a broken bundle is the first that does not have the hash its tile holds."""
    at = 0
    for number, expected in enumerate(hashes):
        start = at + _LENGTH_BYTES
        at = start + int.from_bytes(data[at:start], "big")
        if leaf_hash(data[start:at]) != expected:
            return number
    return max(0, len(hashes) - 1)


def _refuse(sentence: str, expected: str, found: str) -> Refused:
    return Refused(Finding("SL-TILE", sentence, expected=expected, found=found))
