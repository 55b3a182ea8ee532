"""A small log that another implementation wrote: checkpoints of sizes 0 to 15, hash tiles, entry bundles.

Source: transparency-dev/tessera, testdata/log. Skipped where the data is not there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from statelog import merkle, tiles
from statelog.checkpoint import Checkpoint, parse_signed_checkpoint
from statelog.merkle import CompactRange, leaf_hash
from statelog.note import VerifierKey, verify_line

LOG = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "tlog-tiles"
KEY = VerifierKey.parse("example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx")
SIZES = range(1, 16)

pytestmark = pytest.mark.skipif(not LOG.is_dir(), reason="the vectors are not beside this checkout")


def checkpoint(size: int) -> Checkpoint:
    parsed, note = parse_signed_checkpoint((LOG / f"checkpoint.{size}").read_bytes())
    assert note.format() == (LOG / f"checkpoint.{size}").read_bytes()
    assert any(verify_line(note.text, line, KEY) for line in note.signatures)
    return parsed


def entries(size: int) -> list[bytes]:
    return tiles.decode_bundle((LOG / tiles.tile_path("entries", 0, size)).read_bytes(), size)


def test_the_empty_log() -> None:
    head = checkpoint(0)
    assert (head.origin, head.size, head.root) == ("example.com/log/testdata", 0, merkle.EMPTY_ROOT)


@pytest.mark.parametrize("size", SIZES)
def test_the_checkpoint_is_the_root_of_the_entries(size: int) -> None:
    head = checkpoint(size)
    assert head.size == size
    assert merkle.root_of(leaf_hash(entry) for entry in entries(size)) == head.root


@pytest.mark.parametrize("size", SIZES)
def test_the_tiles_are_the_hashes_of_the_entries(size: int) -> None:
    bundle = (LOG / tiles.tile_path("entries", 0, size)).read_bytes()
    hashes = [leaf_hash(entry) for entry in entries(size)]
    tile = (LOG / tiles.tile_path(0, 0, size)).read_bytes()
    assert tiles.decode_tile(tile, size) == hashes
    assert tiles.encode_tile(hashes) == tile
    assert tiles.encode_bundle(entries(size)) == bundle


def test_every_pair_of_its_checkpoints_is_consistent() -> None:
    nodes: dict[tuple[int, int], bytes] = {}
    tree = CompactRange()
    for entry in entries(15):
        for level, index, hash_ in tree.append(leaf_hash(entry)):
            nodes[level, index] = hash_
    heads = {size: checkpoint(size) for size in SIZES}
    for new in SIZES:
        for old in range(1, new + 1):
            proof = merkle.consistency_proof(old, new, lambda level, index: nodes[level, index])
            assert merkle.verify_consistency(old, heads[old].root, new, heads[new].root, proof)
