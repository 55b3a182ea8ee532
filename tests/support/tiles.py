"""Logs in tiles for tests: in memory, file by file, so that a test can damage any of them.

files = tiles_of(leaves, note)          # {"checkpoint": …, "tile/0/000.p/12": …, …}
audit(TileLog(MemoryResources(files)), anchor)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from statelog.errors import SourceUnreadable
from statelog.merkle import CompactRange, leaf_hash
from statelog.tiles import (
    TILE_HEIGHT,
    Tile,
    encode_bundle,
    encode_sizes,
    encode_tile,
    history_path,
    tiles_between,
)
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import cosigned, head_note, replay_of

OTHERS = ("witness-4", "witness-5", "witness-6", "witness-7")


def tiles_of(
    leaves: Sequence[bytes], note: bytes, kept: Mapping[int, bytes] | None = None
) -> dict[str, bytes]:
    """Every file of a log: its newest checkpoint `note`, its tiles, and the `kept` checkpoints by size."""
    tree, levels = CompactRange(), {}
    for leaf in leaves:
        for level, index, hash_ in tree.append(leaf_hash(leaf)):
            levels.setdefault(level, {})[index] = hash_
    files = {"checkpoint": note}

    def content(tile: Tile) -> bytes:
        start = tile.index * 256
        if tile.level is None:
            return encode_bundle(leaves[start : start + tile.width])
        nodes = levels[tile.level * TILE_HEIGHT]
        return encode_tile([nodes[index] for index in range(start, start + tile.width)])

    files.update({tile.path: content(tile) for tile in tiles_between(0, len(leaves))})
    if kept is not None:
        files["history/sizes"] = encode_sizes(kept)
        files.update({history_path(size): data for size, data in kept.items()})
    return files


@dataclass
class MemoryResources:
    """Files in memory; `asked` lists what was read, in order."""

    files: dict[str, bytes]
    where = "memory"
    asked: list[str] = field(default_factory=list)

    def get(self, path: str, max_bytes: int) -> bytes | None:
        self.asked.append(path)
        data = self.files.get(path)
        if data is not None and len(data) > max_bytes:
            raise SourceUnreadable(f"{path} is too long")
        return data


@dataclass
class TwoFaced:
    """A source that answers with other bytes when a bundle of entries is read again."""

    files: dict[str, bytes]
    later: dict[str, bytes]
    where = "memory"
    seen: set[str] = field(default_factory=set)

    def get(self, path: str, max_bytes: int) -> bytes | None:
        again = path in self.seen
        self.seen.add(path)
        return MemoryResources(self.later if again and "entries" in path else self.files).get(path, max_bytes)


def cluster_tiles(cluster: Cluster, size: int | None = None) -> dict[str, bytes]:
    """The log of the cluster, all of it or up to `size`, its head cosigned."""
    return tiles_of(cluster.leaves()[:size], cosigned(head_note(replay_of(cluster, size))))


def changed_cluster() -> Cluster:
    """A cluster whose witness set was replaced but for one, and that went on afterwards."""
    cluster = make_cluster(members=False, nodes=("home-1",))
    cluster.append(cluster.descriptor(witnesses=cluster.witness_set(*OTHERS)))
    cluster.append(cluster.approval("node-9"))
    cluster.append(cluster.approval("relay-1"))
    return cluster


def read_folder(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path with slashes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
