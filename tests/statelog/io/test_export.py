"""Exports: the same files that a builder of its own makes, only what is new, never another history."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from statelog.audit import audit
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.io import saved_fold, tables
from statelog.io.database import write_transaction
from statelog.io.export import Exported, export_logs
from statelog.io.loading import load_replay
from statelog.io.sequencer import Sequencer
from statelog.io.sources import open_tiles
from statelog.io.store import Store
from statelog.merkle import leaf_hash
from statelog.note import parse_note
from statelog.replay import Replay
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import WITNESSES, cosigned, finalize, head_note, leases, new_store, replay_of
from tests.support.tiles import OTHERS, changed_cluster, read_folder, tiles_of

CLUSTER: Cluster = make_cluster()
SIZE = CLUSTER.log.size


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    engine, _ = new_store(tmp_path / "state.db", CLUSTER)
    finalize(Store(engine))
    yield engine
    engine.dispose()


def export_tiles(
    store: Store, anchor: str, folder: Path, progress: Callable[[int], None] | None = None
) -> Exported:
    (done,) = export_logs(store, anchor, folder, progress)
    assert (folder / "logs").read_bytes() == b""
    return done


def grow(engine: sa.Engine, count: int, first: int = 0) -> None:
    sequencer = Sequencer(Store(engine), CLUSTER.anchor, signer("sequencer-1"))
    for at in range(0, count, 250):
        sequencer.submit_many(leases(CLUSTER, min(250, count - at), first + at), CLUSTER.now)
    finalize(Store(engine))


def stored_leaves(engine: sa.Engine) -> list[bytes]:
    return [row.leaf for row in Store(engine).entries(0)]


def test_an_export_is_the_log_in_tiles(engine: sa.Engine, tmp_path: Path) -> None:
    done = export_tiles(Store(engine), CLUSTER.anchor, tmp_path / "new" / "tiles")
    note = Store(engine).checkpoint()
    assert note is not None
    assert done.history == ()  # the newest head is the first that is final
    assert read_folder(tmp_path / "new" / "tiles") == {
        **tiles_of(stored_leaves(engine), note, {}),
        "logs": b"",
    }
    with open_tiles(str(tmp_path / "new" / "tiles")) as log:
        report = audit(log, CLUSTER.anchor)
    assert (report.findings, report.final_size) == ((), SIZE)


def test_only_what_is_new_is_written(engine: sa.Engine, tmp_path: Path) -> None:
    folder, seen = tmp_path / "tiles", list[int]()
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    assert export_tiles(Store(engine), CLUSTER.anchor, folder).written == 0
    grow(engine, 300 - SIZE)
    first = export_tiles(Store(engine), CLUSTER.anchor, folder, seen.append)
    assert (first.size, first.written, seen) == (300, 5, [256, 300])
    stamp = (folder / "tile/0/000").stat().st_mtime_ns
    grow(engine, 230, 300)
    assert export_tiles(Store(engine), CLUSTER.anchor, folder).written == 5
    assert (folder / "tile/0/000").stat().st_mtime_ns == stamp
    files = read_folder(folder)
    note = Store(engine).checkpoint()
    assert note is not None
    expected = tiles_of(stored_leaves(engine), note)
    assert {path: files[path] for path in expected} == expected
    extra = set(files) - set(expected)
    assert extra == {f"history/{SIZE}", "history/sizes", "logs", "tile/1/000.p/1"}


def test_what_the_folder_has_lost_is_written_again(engine: sa.Engine, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    grow(engine, 300 - SIZE)
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    before = read_folder(folder)
    for lost in ("tile/entries/000", "tile/0/001.p/44"):
        (folder / lost).unlink()
    assert export_tiles(Store(engine), CLUSTER.anchor, folder).written == 2
    assert read_folder(folder) == before


@pytest.mark.parametrize("how", ["other bytes", "cut off", "longer", "empty", "a link to nowhere"])
@pytest.mark.parametrize("which", ["tile/entries/000", "tile/0/000", "tile/0/001.p/44", "tile/1/000.p/1"])
def test_what_is_damaged_in_the_folder_is_written_again(
    engine: sa.Engine, tmp_path: Path, which: str, how: str
) -> None:
    folder = tmp_path / "tiles"
    grow(engine, 300 - SIZE)
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    before, where = read_folder(folder), folder / which
    data = where.read_bytes()
    if how == "a link to nowhere":
        where.unlink()
        where.symlink_to(tmp_path / "nowhere")
    else:
        others = {"other bytes": data[:-1] + bytes([data[-1] ^ 1]), "cut off": data[:-1], "longer": data * 2}
        where.write_bytes(others.get(how, b""))
    done = export_tiles(Store(engine), CLUSTER.anchor, folder)
    assert (done.written, done.mended) == (1, how != "a link to nowhere")
    assert read_folder(folder) == before
    done = export_tiles(Store(engine), CLUSTER.anchor, folder)
    assert (done.written, done.mended) == (0, 0)


def test_a_damaged_store_mends_nothing(engine: sa.Engine, tmp_path: Path) -> None:
    """A saved fold, which is trusted, leads past old entries: what has rotted there is not read before."""
    folder = tmp_path / "tiles"
    grow(engine, 300 - SIZE)
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    before, store = read_folder(folder), Store(engine)
    path = saved_fold.path_beside(store)
    assert path is not None
    saved_fold.save(path, load_replay(store, CLUSTER.anchor))
    entry, node = tables.log_entry, tables.log_node
    sound = (
        sa.select(entry.c.leaf).where(entry.c.log_index == 20),
        sa.select(node.c.hash).where(node.c.level == 8),
    )
    with write_transaction(engine) as connection:
        leaf, tree = (bytes(connection.execute(one).scalar_one()) for one in sound)
    for values, where in (
        (entry.update().values(leaf=leaf[:-2] + b" }"), entry.c.log_index == 20),
        (entry.update().values(leaf_hash=bytes(32)), entry.c.log_index == 20),
        (node.update().values(hash=bytes(32)), node.c.level == 8),
    ):
        with write_transaction(engine) as connection:
            connection.execute(values.where(where))
        with pytest.raises(Refused) as refused:
            export_tiles(store, CLUSTER.anchor, folder)
        assert refused.value.code in {"SL-STORED", "SL-ROOT"}
        assert read_folder(folder) == before
        with write_transaction(engine) as connection:
            connection.execute(
                entry.update().values(leaf=leaf, leaf_hash=leaf_hash(leaf)).where(entry.c.log_index == 20)
            )
            connection.execute(node.update().values(hash=tree).where(node.c.level == 8))
    assert export_tiles(store, CLUSTER.anchor, folder).written == 0


def test_a_full_tile_of_an_export_that_was_cut_off_ends_its_beginnings(
    engine: sa.Engine, tmp_path: Path
) -> None:
    folder = tmp_path / "tiles"
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    checkpoint = (folder / "checkpoint").read_bytes()
    grow(engine, 300 - SIZE)
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    (folder / "checkpoint").write_bytes(checkpoint)  # as if it had stopped before it said what it wrote
    (folder / "tile/0/000.p").mkdir()
    (folder / "tile/0/000.p/9").write_bytes(b"")
    assert export_tiles(Store(engine), CLUSTER.anchor, folder).written == 0
    assert not (folder / "tile/0/000.p").exists()


def test_a_damaged_checkpoint_is_named_and_may_be_removed(engine: sa.Engine, tmp_path: Path) -> None:
    export_tiles(Store(engine), CLUSTER.anchor, tmp_path)
    checkpoint, before = tmp_path / "checkpoint", read_folder(tmp_path)
    checkpoint.write_bytes(checkpoint.read_bytes()[:10])
    with pytest.raises(Refused, match=r"^SL-NOTE: .*/checkpoint is damaged: .*; remove it and export again$"):
        export_tiles(Store(engine), CLUSTER.anchor, tmp_path)
    checkpoint.unlink()
    export_tiles(Store(engine), CLUSTER.anchor, tmp_path)
    assert read_folder(tmp_path) == before


def test_what_is_not_final_stays_at_home(engine: sa.Engine, tmp_path: Path) -> None:
    Sequencer(Store(engine), CLUSTER.anchor, signer("sequencer-1")).submit(leases(CLUSTER, 1)[0], CLUSTER.now)
    assert export_tiles(Store(engine), CLUSTER.anchor, tmp_path / "tiles").size == SIZE
    with write_transaction(engine) as connection:
        connection.execute(tables.cosignature.delete())
    with pytest.raises(Refused) as refused:  # the store's own word is not enough
        export_tiles(Store(engine), CLUSTER.anchor, tmp_path / "other")
    assert (refused.value.code, refused.value.finding.log_index) == ("SL-FINALITY", 0)
    with write_transaction(engine) as connection:
        connection.execute(tables.log_head.update().values(final_size=0))
    with pytest.raises(UsageError, match="final yet"):
        export_tiles(Store(engine), CLUSTER.anchor, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_folder_of_another_history_is_left_alone(engine: sa.Engine, tmp_path: Path) -> None:
    grow(engine, 1)
    folder = tmp_path / "tiles"
    export_tiles(Store(engine), CLUSTER.anchor, folder)
    before = read_folder(folder)
    older, _ = new_store(tmp_path / "older.db", CLUSTER)
    finalize(Store(older))
    other = make_cluster(now=CLUSTER.now + 5)
    stranger, _ = new_store(tmp_path / "other.db", other)
    finalize(Store(stranger))
    for store, anchor in ((older, CLUSTER.anchor), (stranger, other.anchor)):
        with pytest.raises(Refused) as refused:
            export_tiles(Store(store), anchor, folder)
        assert refused.value.code == "SL-CONSISTENCY"
        store.dispose()
    assert read_folder(folder) == before


def test_a_damaged_tree_is_not_exported(engine: sa.Engine, tmp_path: Path) -> None:
    grow(engine, 260)
    with write_transaction(engine) as connection:
        node = tables.log_node
        connection.execute(node.delete().where(node.c.level == 8))
    with pytest.raises(SourceUnreadable, match="no tree node"):
        export_tiles(Store(engine), CLUSTER.anchor, tmp_path / "tiles")
    assert not (tmp_path / "tiles" / "checkpoint").exists()


def test_a_folder_that_cannot_be_made(engine: sa.Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="file"):
        export_tiles(Store(engine), CLUSTER.anchor, tmp_path / "file")


def test_checkpoints_that_show_a_change_of_witnesses_are_kept(tmp_path: Path) -> None:
    """Nobody of the old set but one cosigns the newest head; the exported folder alone still audits clean."""
    cluster = changed_cluster()
    engine, _ = new_store(tmp_path / "state.db", cluster)
    store = Store(engine)
    replay = Replay(cluster.anchor)
    heads = {}
    for leaf in cluster.leaves():
        replay.append(leaf)
        heads[replay.size] = head_note(replay)
    changed_at = 3
    for size, names in ((2, WITNESSES), (changed_at + 1, (*WITNESSES[:3], *OTHERS)), (replay.size, OTHERS)):
        checkpoint, _ = parse_signed_checkpoint(heads[size])
        if size != replay.size:
            store.put_checkpoint(size, checkpoint.root, heads[size])
        finalize(store, names, size)
    done = export_tiles(store, cluster.anchor, tmp_path / "tiles")
    assert done.history == (2, changed_at + 1)
    with open_tiles(str(tmp_path / "tiles")) as log:
        report = audit(log, cluster.anchor)
    assert (report.findings, report.final_size) == ((), replay.size)
    assert parse_note(cosigned(heads[2])).text == parse_note((tmp_path / "tiles/history/2").read_bytes()).text
    assert replay_of(cluster).root() == done.root
    engine.dispose()
