"""A log read from the static layout of C2SP tlog-tiles, wherever its resources come from.

Nothing here is trusted: a resource is bytes of bounded length, every index in a path is computed and never
taken from the other side, and what the bytes say is judged by `statelog.audit`. Memory is one bundle, one
tile a level, and some 300 bytes for every 256 entries. What is read again must be what it was at first: what
was audited is what is folded afterwards, whatever the other side answers by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Protocol

from statelog.checkpoint import Checkpoint, parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable
from statelog.findings import Finding
from statelog.limits import HASH_BYTES, MAX_HISTORY_BYTES, MAX_LEAF_BYTES, MAX_NOTE_BYTES, TILE_WIDTH
from statelog.merkle import root_of
from statelog.note import Note
from statelog.state import AUTHORITY_LOG
from statelog.tiles import (
    CHECKPOINT_PATH,
    LOGS_PATH,
    SIZES_PATH,
    TILE_HEIGHT,
    Tile,
    decode_bundle,
    decode_logs,
    decode_sizes,
    decode_tile,
    first_other,
    history_path,
    tile_at,
)

_MAX_BUNDLED_BYTES = 2 + MAX_LEAF_BYTES  # one entry with its length


class Resources(Protocol):
    """Where the files of a log are: a folder, an address. `where` names it for people."""

    @property
    def where(self) -> str: ...

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The resource at `path` below the log's prefix, None when there is none.

        Never reads more than `max_bytes` and one. Raises SourceUnreadable: too long, or not to be had.
        """
        ...


class Below:
    """The resources of a log that stands in a folder of another one's. Satisfies `Resources`."""

    def __init__(self, resources: Resources, folder: str) -> None:
        self._resources = resources
        self._folder = folder
        self.where = f"{resources.where}/{folder}"

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The resource at `path` below the folder."""
        return self._resources.get(f"{self._folder}/{path}", max_bytes)


def tile_logs(resources: Resources) -> dict[str, TileLog]:
    """The authority log at `resources` and the logs of partitions below it, by name.

    The authority log's head is read last: of a source that goes on meanwhile, it covers what the others rest
    on. Raises as `TileLog`, and Refused SL-TILE for a list of logs that is none.
    """
    data = resources.get(LOGS_PATH, MAX_HISTORY_BYTES)
    names = [] if data is None else decode_logs(data)
    beside = {name: TileLog(Below(resources, name)) for name in names}
    return {AUTHORITY_LOG: TileLog(resources), **beside}


class TileLog:
    """One log in the static layout, at the size of its newest checkpoint.

    Satisfies `statelog.audit.LogSource` and `statelog.audit_store.HashedLog`. Raises SourceUnreadable when
    there is no checkpoint, Refused SL-NOTE or SL-CHECKPOINT when it is none.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        note = resources.get(CHECKPOINT_PATH, MAX_NOTE_BYTES)
        if note is None:
            raise SourceUnreadable(f"there is no checkpoint in {resources.where}, so that is no log in tiles")
        self.note = note
        self.head: Checkpoint
        self.parsed: Note
        self.head, self.parsed = parse_signed_checkpoint(note)
        self._kept: dict[int, tuple[Tile, list[bytes]]] = {}  # the tile of each level that was read last
        self._seen: dict[str, bytes] = {}  # the SHA-256 of what was read, by path
        self._sizes: list[int] | None = None
        self._tile_roots: list[bytes] = []  # of the full tiles at level 0, as far as entries were read

    @property
    def size(self) -> int:
        """How many entries the newest checkpoint covers."""
        return self.head.size

    def entries(self) -> Iterator[tuple[int, bytes]]:
        """(log index, leaf bytes) of every entry.

        Raises Refused SL-TILE, with the index of the entry, for a bundle or tile that is not of its form.
        """
        self._tile_roots = []
        for number in range(-(-self.size // TILE_WIDTH)):
            first = number * TILE_WIDTH
            hashes = self._hashes(tile_at(0, number, self.size))
            for offset, leaf in enumerate(self._bundle(tile_at(None, number, self.size), hashes)):
                yield first + offset, leaf
            if len(hashes) == TILE_WIDTH:
                self._tile_roots.append(root_of(hashes))

    def checkpoints(self, start: int = 0) -> Iterator[tuple[int, bytes]]:
        """(size, signed note) of every kept checkpoint and of the newest, of at least `start`, by size."""
        if self.size < start:
            return
        sizes = self.kept_sizes()
        for size in sizes:
            if start <= size < self.size:
                note = self._resources.get(history_path(size), MAX_NOTE_BYTES)
                if note is None:
                    raise SourceUnreadable(f"the kept checkpoint {history_path(size)} is not there")
                self._require_same(history_path(size), note, size - 1)
                yield size, note
        yield self.size, self.note

    def kept_sizes(self) -> list[int]:
        """The sizes in `history/sizes`; none when there is no such file, as in other people's logs."""
        if self._sizes is None:
            data = self._resources.get(SIZES_PATH, MAX_HISTORY_BYTES)
            self._sizes = [] if data is None else decode_sizes(data)
        return self._sizes

    def leaf_hashes(self) -> Iterator[bytes]:
        """The hash of every entry as the tiles of level 0 have it."""
        for number in range(-(-self.size // TILE_WIDTH)):
            yield from self._hashes(tile_at(0, number, self.size))

    def read_node(self, level: int, index: int) -> bytes:
        """The complete subtree (level, index), from one tile.

        Raises SourceUnreadable when the tile is not there, ValueError beyond the tree, Refused SL-TILE.
        """
        tile_level, height = divmod(level, TILE_HEIGHT)
        start = index << height
        hashes = self._hashes(tile_at(tile_level, start // TILE_WIDTH, self.size))
        offset = start % TILE_WIDTH
        if offset + (1 << height) > len(hashes):
            raise ValueError(f"the log has no complete subtree {index} at level {level}")
        return root_of(hashes[offset : offset + (1 << height)])

    def leaf(self, index: int) -> bytes:
        """The bytes of one entry, from its bundle. Raises as `entries`; ValueError beyond the log."""
        number, offset = divmod(index, TILE_WIDTH)
        hashes = self._hashes(tile_at(0, number, self.size))
        return self._bundle(tile_at(None, number, self.size), hashes)[offset]

    def check_hashes(self) -> Iterator[Finding]:
        """Every hash above level 0 against the tile under it; `entries` must have run to its end."""
        below, level = self._tile_roots, 1
        while below:
            above: list[bytes] = []
            for number in range(-(-len(below) // TILE_WIDTH)):
                tile = tile_at(level, number, self.size)
                expected = below[number * TILE_WIDTH :][:TILE_WIDTH]
                for offset, found in enumerate(self._hashes(tile)):
                    if found != expected[offset]:
                        yield _not_the_hash(tile, offset, expected[offset], found)
                if len(expected) == TILE_WIDTH:
                    above.append(root_of(expected))
            below, level = above, level + 1

    # --- resources ---

    def _hashes(self, tile: Tile) -> list[bytes]:
        level = tile.level or 0
        kept = self._kept.get(level)
        if kept is None or kept[0] != tile:
            data = self.read(tile)
            try:
                kept = tile, decode_tile(data, tile.width)
            except Refused as error:
                raise Refused(error.at(tile.entries[0]).finding.under(tile.path)) from error
            self._kept[level] = kept
        return kept[1]

    def _bundle(self, tile: Tile, hashes: list[bytes]) -> list[bytes]:
        data = self.read(tile)
        try:
            return decode_bundle(data, tile.width)
        except Refused as error:
            index = tile.entries[0] + first_other(data, hashes)
            raise Refused(error.at(index).finding.under(tile.path)) from error

    def read(self, tile: Tile) -> bytes:
        """The bytes of a tile or bundle, cut from the full one when the partial one is there no more.

        Raises SourceUnreadable when neither is, Refused SL-TILE when they are not what they were before.
        """
        data = self._read(tile)
        self._require_same(tile.path, data, tile.entries[0])
        return data

    def _read(self, tile: Tile) -> bytes:
        item_bytes = _MAX_BUNDLED_BYTES if tile.level is None else HASH_BYTES
        data = self._resources.get(tile.path, tile.width * item_bytes)
        if data is not None:
            return data
        if tile.width < TILE_WIDTH:
            whole = self._resources.get(tile.full.path, TILE_WIDTH * item_bytes)
            if whole is not None:
                return _beginning(tile, whole)
        raise SourceUnreadable(f"{tile.path} is not there, though the checkpoint covers it")

    def _require_same(self, path: str, data: bytes, index: int) -> None:
        digest = sha256(data).digest()
        before = self._seen.setdefault(path, digest)
        if digest != before:
            sentence = "it is not what it was when it was read before"
            raise Refused(Finding("SL-TILE", sentence, path, before.hex(), digest.hex(), index))


def _beginning(tile: Tile, whole: bytes) -> bytes:
    """The partial tile that the full one begins with."""
    if tile.level is not None:
        return whole[: tile.width * HASH_BYTES]
    at = 0
    for _ in range(tile.width):
        at += 2 + int.from_bytes(whole[at : at + 2], "big")
    return whole[:at]


def _not_the_hash(tile: Tile, offset: int, expected: bytes, found: bytes) -> Finding:
    span = TILE_WIDTH ** (tile.level or 0)
    last = (tile.index * TILE_WIDTH + offset + 1) * span - 1
    sentence = "a hash of a tile is not the root of the tile under it"
    return Finding("SL-TILE", sentence, tile.path, expected.hex(), found.hex(), last)
