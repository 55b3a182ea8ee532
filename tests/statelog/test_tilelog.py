"""A log in tiles, audited like any other; and every way in which its files can be wrong."""

from __future__ import annotations

import random

import pytest

from statelog.audit import Report, audit
from statelog.audit_store import HashedLog
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable
from statelog.leaf import frame_leaf, split_leaf
from statelog.merkle import CompactRange, inclusion_proof, leaf_hash, verify_inclusion
from statelog.tilelog import TileLog
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import WITNESSES, cosigned, head_note, leases, replay_of
from tests.support.tiles import (
    OTHERS,
    MemoryResources,
    TwoFaced,
    changed_cluster,
    cluster_tiles,
    tiles_of,
)

CLUSTER: Cluster = make_cluster()
FILES = cluster_tiles(CLUSTER)
SIZE = CLUSTER.log.size
BUNDLE, HASHES = f"tile/entries/000.p/{SIZE}", f"tile/0/000.p/{SIZE}"


def log_of(files: dict[str, bytes]) -> TileLog:
    return TileLog(MemoryResources(files))


def report_of(files: dict[str, bytes], cluster: Cluster = CLUSTER) -> Report:
    return audit(log_of(files), cluster.anchor)


def codes(report: Report) -> list[tuple[str, int | None]]:
    return [(finding.code, finding.log_index) for finding in report.findings]


@pytest.fixture(scope="module")
def grown() -> tuple[Cluster, dict[str, bytes]]:
    """A log of 600 entries: two full tiles and a partial one, and a level above them."""
    cluster = make_cluster()
    for record in leases(cluster, 600 - cluster.log.size):
        cluster.log.append(record, cluster.now, 1)
    return cluster, cluster_tiles(cluster)


# --- sound ---


def test_a_sound_log_in_tiles(grown: tuple[Cluster, dict[str, bytes]]) -> None:
    for cluster, files in ((CLUSTER, FILES), grown):
        log = log_of(files)
        assert isinstance(log, HashedLog)
        report = audit(log, cluster.anchor)
        assert report.findings == ()
        assert (report.size, report.final_size, report.complete) == (cluster.log.size, cluster.log.size, True)


def test_the_full_tile_does_where_the_partial_one_is_gone(grown: tuple[Cluster, dict[str, bytes]]) -> None:
    """C2SP tlog-tiles: a log may delete a partial tile once the full one is there."""
    cluster, files = grown
    leaves = cluster.leaves()
    note = cosigned(head_note(replay_of(cluster, 300)))
    older = {**files, "checkpoint": note}
    older["tile/0/001"], older["tile/entries/001"] = files["tile/0/001"], files["tile/entries/001"]
    older["tile/1/000.p/1"] = files["tile/1/000.p/2"][:32]
    report = audit(log_of(older), cluster.anchor)
    assert (report.findings, report.size) == ((), 300)
    assert log_of(older).leaf(299) == leaves[299]


def test_proofs_come_from_tiles(grown: tuple[Cluster, dict[str, bytes]]) -> None:
    cluster, files = grown
    log = log_of(files)
    tree = CompactRange.from_nodes(600, log.read_node)
    for index in (0, 255, 256, 511, 512, 599):
        leaf = log.leaf(index)
        proof = inclusion_proof(index, 600, log.read_node)
        assert verify_inclusion(leaf_hash(leaf), index, 600, proof, tree.root())
    assert leaf == cluster.leaves()[599]
    for level, index in ((0, 600), (9, 1), (3, 75)):
        with pytest.raises(ValueError, match="no "):
            log.read_node(level, index)


# --- damaged ---


def test_every_byte_of_a_bundle_counts_and_its_entry_is_named() -> None:
    chance = random.Random(20_260_102)
    data = FILES[BUNDLE]
    starts, at = [], 0
    for leaf in CLUSTER.leaves():
        starts.append(at)
        at += 2 + len(leaf)
    places = sorted({*starts, *(start + 1 for start in starts), *chance.sample(range(len(data)), 40)})
    for at in places:
        changed = bytearray(data)
        changed[at] ^= chance.randrange(1, 256)
        report = report_of({**FILES, BUNDLE: bytes(changed)})
        entry = max(number for number, start in enumerate(starts) if start <= at)
        assert ("SL-TILE", entry) in codes(report), at
    assert report_of(FILES).findings == ()


def test_every_hash_of_a_tile_counts(grown: tuple[Cluster, dict[str, bytes]]) -> None:
    cluster, files = grown
    # A hash at level 0 fits neither its entry nor the tile above it.
    for path, at, indices in (("tile/0/001", 3, [256, 511]), ("tile/1/000.p/2", 40, [511])):
        changed = bytearray(files[path])
        changed[at] ^= 1
        report = audit(log_of({**files, path: bytes(changed)}), cluster.anchor)
        assert codes(report) == [("SL-TILE", index) for index in indices]
        assert report.final_size == 600  # the entries themselves lead to the signed root


@pytest.mark.parametrize(
    ("path", "change", "code", "index"),
    [
        (BUNDLE, lambda data: data[:-1], "SL-TILE", SIZE - 1),
        (BUNDLE, lambda data: data + b"\0", "SL-TILE", SIZE - 1),
        (BUNDLE, lambda _: b"", "SL-TILE", 0),
        (HASHES, lambda data: data[:-1], "SL-TILE", 0),
        (HASHES, lambda _: b"", "SL-TILE", 0),
        ("history/sizes", lambda _: b"", "", None),
        ("history/sizes", lambda _: b"2", "SL-TILE", None),
        ("history/sizes", lambda _: b"02\n", "SL-TILE", None),
        ("history/sizes", lambda _: b"3\n2\n", "SL-TILE", None),
        ("history/sizes", lambda _: b"\xff\n", "SL-TILE", None),
        ("history/sizes", lambda _: b"../checkpoint\n", "SL-TILE", None),
        ("history/2", lambda _: b"junk", "SL-NOTE", 1),
    ],
)
def test_broken_files_are_named(path: str, change: object, code: str, index: int | None) -> None:
    kept = {2: cosigned(head_note(replay_of(CLUSTER, 2)))}
    files = tiles_of(CLUSTER.leaves(), FILES["checkpoint"], kept)
    assert codes(report_of(files)) == []
    report = report_of({**files, path: change(files.get(path, b""))})  # type: ignore[operator]  # a table of functions
    assert codes(report)[:1] == ([(code, index)] if code else [])


def test_files_that_are_not_there() -> None:
    for path in (BUNDLE, HASHES):
        with pytest.raises(SourceUnreadable, match="is not there"):
            report_of({name: data for name, data in FILES.items() if name != path})
    with pytest.raises(SourceUnreadable, match="kept checkpoint"):
        report_of({**FILES, "history/sizes": b"2\n"})
    with pytest.raises(SourceUnreadable, match="no log in tiles"):
        log_of({})


@pytest.mark.parametrize("note", [b"", b"junk\n", b"\xff", FILES["checkpoint"][:-9]])
def test_a_checkpoint_that_is_none(note: bytes) -> None:
    with pytest.raises(Refused) as refused:
        log_of({**FILES, "checkpoint": note})
    assert refused.value.code in ("SL-NOTE", "SL-CHECKPOINT")


def test_a_server_cannot_send_its_reader_anywhere() -> None:
    """Whatever size a checkpoint claims, paths are computed here and the first gap ends the reading."""
    text = parse_signed_checkpoint(FILES["checkpoint"])[1].format().decode()
    huge = text.replace(f"\n{SIZE}\n", f"\n{2**62}\n").encode()
    resources = MemoryResources({**FILES, "checkpoint": huge})
    with pytest.raises(SourceUnreadable):
        audit(TileLog(resources), CLUSTER.anchor)
    assert set(resources.asked) <= {"checkpoint", "history/sizes", "tile/0/000", "tile/entries/000"}


# --- history ---


def test_the_newest_checkpoint_alone_does_not_show_a_change_of_witnesses() -> None:
    cluster = changed_cluster()
    leaves = cluster.leaves()
    newest = cosigned(head_note(replay_of(cluster)), OTHERS)
    over = cosigned(head_note(replay_of(cluster, 4)), [*WITNESSES[:3], *OTHERS[:3]])
    first = cosigned(head_note(replay_of(cluster, 2)))
    alone = audit(log_of(tiles_of(leaves, newest)), cluster.anchor)
    assert [code for code, _ in codes(alone)] == ["SL-NOTFINAL"]
    chain = audit(log_of(tiles_of(leaves, newest, {2: first, 4: over})), cluster.anchor)
    assert (chain.findings, chain.final_size) == ((), cluster.log.size)
    forged = cosigned(head_note(replay_of(cluster, 4)), OTHERS[:3])  # without the old set's quorum
    broken = audit(log_of(tiles_of(leaves, newest, {2: first, 4: forged})), cluster.anchor)
    assert [code for code, _ in codes(broken)] == ["SL-NOTFINAL"]


def test_what_is_read_again_is_what_was_audited() -> None:
    """A source that shows one log to the audit and another to whoever folds it afterwards."""
    cluster = make_cluster()
    honest = cluster_tiles(cluster)
    (path,) = [name for name in honest if "entries" in name]
    leaves = cluster.leaves()
    parts = split_leaf(leaves[-1])
    forged = [*leaves[:-1], frame_leaf(parts.record, parts.sequenced_at + 1, parts.term)]
    later = {**honest, path: tiles_of(forged, honest["checkpoint"])[path]}
    log = TileLog(TwoFaced(honest, later))
    assert not audit(log, cluster.anchor).findings
    with pytest.raises(Refused, match="not what it was") as refused:
        list(log.entries())
    assert (refused.value.code, refused.value.finding.path) == ("SL-TILE", path)
    with pytest.raises(Refused, match="not what it was"):
        log.leaf(0)
    same = TileLog(TwoFaced(honest, honest))
    assert not audit(same, cluster.anchor).findings
    assert [leaf for _, leaf in same.entries()] == leaves
