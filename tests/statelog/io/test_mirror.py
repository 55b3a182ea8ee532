"""Mirrors: what was found clean is copied, in the order that readers need; anything else leaves no trace."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path

import pytest

from statelog.audit import LogSource, Report, audit
from statelog.audit_logs import audit_logs
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.io.mirror import EVIDENCE, INCOMING, mirror
from statelog.io.resources import FolderResources
from statelog.rollback import Rollback, check_rollback
from statelog.splitview import SplitView, check_split_view
from statelog.tilelog import TileLog, tile_logs
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import cosigned, head_note, leases, replay_of
from tests.support.partitions import Partition
from tests.support.tiles import MemoryResources, cluster_tiles, read_folder, tiles_of


def grown(count: int) -> Cluster:
    cluster = make_cluster()
    for record in leases(cluster, count - cluster.log.size):
        cluster.log.append(record, cluster.now, 1)
    return cluster


CLUSTER = grown(300)
SMALL = grown(20)
FILES = {**cluster_tiles(CLUSTER), "history/sizes": b"", "logs": b""}
EARLIER = {**cluster_tiles(SMALL), "history/sizes": b"", "logs": b""}


def judge(logs: Mapping[str, LogSource], size: int) -> bool:
    assert size == sum(log.size for log in logs.values() if isinstance(log, TileLog))
    reports = audit_logs(logs, CLUSTER.anchor)
    return all(report.complete and not report.findings for report in reports)


def test_a_sound_log_is_copied_and_followed(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    assert mirror(MemoryResources(EARLIER), copy, judge)
    assert read_folder(copy) == EARLIER
    later = MemoryResources(FILES)
    assert mirror(later, copy, judge)
    files = read_folder(copy)
    assert {path: files[path] for path in FILES} == FILES
    assert audit(TileLog(FolderResources(copy)), CLUSTER.anchor).findings == ()
    asked = MemoryResources(FILES)
    mirror(asked, copy, judge)  # nothing that is here already is asked for again
    assert set(asked.asked) == {"checkpoint", "history/sizes", "logs"}


def test_other_peoples_logs_have_neither_history_nor_partitions(tmp_path: Path) -> None:
    mirror(MemoryResources(cluster_tiles(SMALL)), tmp_path / "copy", judge)
    assert read_folder(tmp_path / "copy") == EARLIER


def test_a_full_tile_is_kept_only_as_far_as_it_was_audited(tmp_path: Path) -> None:
    """A source may have only the full tile of an older head: what lies beyond is nobody's business yet."""
    note = cosigned(head_note(replay_of(CLUSTER, 200)))
    source = {**FILES, "checkpoint": note}
    mirror(MemoryResources(source), tmp_path / "copy", judge)
    assert read_folder(tmp_path / "copy") == {
        **tiles_of(CLUSTER.leaves()[:200], note),
        "history/sizes": b"",
        "logs": b"",
    }


@pytest.mark.parametrize("path", ["tile/0/001.p/44", "tile/entries/000", "tile/1/000.p/1"])
def test_a_source_that_is_not_sound_leaves_no_trace(tmp_path: Path, path: str) -> None:
    bad = {**FILES, path: FILES[path][:-1] + bytes([FILES[path][-1] ^ 1])}
    assert not mirror(MemoryResources(bad), tmp_path / "new", judge)
    assert not (tmp_path / "new").exists()
    copy = tmp_path / "copy"
    mirror(MemoryResources(EARLIER), copy, judge)
    mirror(MemoryResources(bad), copy, judge)
    assert read_folder(copy) == EARLIER


def test_a_source_that_went_back_is_found_out_and_both_heads_are_kept(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mirror(MemoryResources(FILES), copy, judge)
    before = read_folder(copy)
    for _ in range(2):
        with pytest.raises(Refused) as refused:
            mirror(MemoryResources(EARLIER), copy, judge)
        assert (refused.value.code, refused.value.finding.found) == ("SL-ROLLBACK", "20")
    kept = {name.removeprefix(f"{EVIDENCE}/"): data for name, data in read_folder(copy).items()}
    earlier, later = (kept.pop(f"rollback-authority-300-20-{name}.note") for name in ("earlier", "later"))
    assert kept == before
    checked = check_rollback(Rollback(earlier, later), replay_of(CLUSTER).sequencer_keys())
    assert [one.size for one in checked] == [300, 20]
    assert mirror(MemoryResources(FILES), copy, judge)  # it is back


def fork_of(size: int) -> Cluster:
    fork = make_cluster()
    for record in leases(fork, size - fork.log.size, 500):
        fork.log.append(record, fork.now, 1)
    return fork


@pytest.mark.parametrize("size", [250, 300, 310])
def test_a_source_of_another_history_is_found_out_and_both_heads_are_kept(tmp_path: Path, size: int) -> None:
    copy = tmp_path / "copy"
    mirror(MemoryResources(FILES), copy, judge)
    before = read_folder(copy)
    other = {**cluster_tiles(fork_of(size)), "logs": b""}
    with pytest.raises(Refused) as refused:
        mirror(MemoryResources(other), copy, judge)
    assert refused.value.code == "SL-SPLIT"
    kept = {name.removeprefix(f"{EVIDENCE}/"): data for name, data in read_folder(copy).items()}
    smaller, larger, proof = (
        kept.pop(f"split-authority-300-{size}-{name}")
        for name in ("smaller.note", "larger.note", "proof.txt")
    )
    assert kept == before
    _, root, *path = proof.decode().splitlines()
    found = SplitView(smaller, larger, b64decode(root), tuple(map(b64decode, path)))
    checked = check_split_view(found, replay_of(CLUSTER).sequencer_keys())
    assert [one.size for one in checked] == sorted([size, 300])


def test_what_is_not_sound_is_no_evidence(tmp_path: Path) -> None:
    """A shorter head that nobody cosigned: the source is not sound, and nothing is said of it but that."""
    copy = tmp_path / "copy"
    mirror(MemoryResources(FILES), copy, judge)
    before = read_folder(copy)
    assert not mirror(MemoryResources({**EARLIER, "checkpoint": head_note(replay_of(SMALL))}), copy, judge)
    elsewhere = make_cluster(cluster_id="elsewhere." + "b" * 26)
    with pytest.raises(Refused) as refused:
        mirror(MemoryResources(cluster_tiles(elsewhere)), copy, judge)
    assert refused.value.code == "SL-CONSISTENCY"
    assert read_folder(copy) == before


def test_a_source_that_changes_between_two_looks_is_seen_at_one(tmp_path: Path) -> None:
    class Turning(MemoryResources):
        def get(self, path: str, max_bytes: int) -> bytes | None:
            if path == "checkpoint" and path in self.asked:
                self.files = EARLIER
            return super().get(path, max_bytes)

    copy = tmp_path / "copy"
    mirror(MemoryResources(EARLIER), copy, judge)
    turning = Turning(FILES)
    assert mirror(turning, copy, judge)
    assert turning.asked.count("checkpoint") == 1
    assert read_folder(copy)["checkpoint"] == FILES["checkpoint"]


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    class Cut(MemoryResources):
        def get(self, path: str, max_bytes: int) -> bytes | None:
            if path == "tile/entries/001.p/44":
                raise SourceUnreadable("cut off")
            return super().get(path, max_bytes)

    copy = tmp_path / "copy"
    with pytest.raises(SourceUnreadable):
        mirror(Cut(FILES), copy, judge)
    assert set(read_folder(copy)) == {
        f"{INCOMING}/{path}" for path in ("tile/0/000", "tile/entries/000", "tile/0/001.p/44")
    }
    rest = MemoryResources(FILES)
    mirror(rest, copy, judge)
    assert read_folder(copy) == FILES
    assert "tile/entries/000" not in rest.asked


# --- nothing is asked for twice, and this disk is not the source ---


@pytest.mark.parametrize("source", ["new", "following", "back", "another", "unsound", "only the full tiles"])
def test_a_source_is_asked_for_nothing_twice(tmp_path: Path, source: str) -> None:
    """Twice read by the audit of a partition, by the comparison with the copy, by what is shown at last."""
    cluster, files = with_partition()
    copy = tmp_path / "copy"
    bad = {**FILES, "tile/entries/000": FILES["tile/entries/000"][:-1] + b"?"}
    full = {**FILES, "checkpoint": cosigned(head_note(replay_of(CLUSTER, 200)))}
    asked = {
        "new": files,
        "following": FILES,
        "back": EARLIER,
        "another": {**cluster_tiles(fork_of(250)), "logs": b""},
        "unsound": bad,
        "only the full tiles": full,
    }[source]
    before = {"following": EARLIER, "back": FILES, "another": FILES}.get(source)
    if before is not None:
        assert mirror(MemoryResources(before), copy, judge)

    def look(logs: Mapping[str, LogSource], _: int) -> bool:
        sound = [
            not one.findings
            for one in audit_logs(logs, cluster.anchor if source == "new" else CLUSTER.anchor)
        ]
        return all(sound)

    resources = MemoryResources(asked)
    if source in {"back", "another"}:
        with pytest.raises(Refused, match=r"SL-ROLLBACK|SL-SPLIT"):
            mirror(resources, copy, look)
    else:
        assert mirror(resources, copy, look) == (source != "unsound")
    assert len(resources.asked) == len(set(resources.asked)) > 3


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("path", ["tile/entries/000", "tile/0/000", "tile/1/000.p/1"])
@pytest.mark.parametrize("source", [FILES, EARLIER], ids=["sound", "back"])
def test_a_copy_that_is_damaged_says_so_and_is_mended(
    tmp_path: Path, path: str, source: dict[str, bytes]
) -> None:
    copy = tmp_path / "copy"
    mirror(MemoryResources(FILES), copy, judge)
    flip(copy / path)
    with pytest.raises(UsageError, match="the copy is damaged") as error:
        mirror(MemoryResources(source), copy, judge)
    named = str(error.value).removeprefix("the copy is damaged: ").partition(" ")[0]
    # A bundle and the tile of its hashes differ: which of the two is wrong, only their source can say.
    assert Path(named) in {copy / path, copy / path.replace("tile/0/", "tile/entries/")}
    assert "delete that file" in str(error.value)
    assert not (copy / EVIDENCE).exists()
    (copy / path).unlink()
    assert mirror(MemoryResources(FILES), copy, judge)
    assert read_folder(copy) == FILES


def test_a_copy_whose_head_is_damaged_accuses_nobody(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mirror(MemoryResources(FILES), copy, judge)
    note = FILES["checkpoint"]
    root = note.splitlines()[2]
    (copy / "checkpoint").write_bytes(
        note.replace(root, b"A" + root[1:] if root[:1] != b"A" else b"B" + root[1:])
    )
    with pytest.raises(UsageError, match="checkpoint is not of its tiles; mirror into a new folder"):
        mirror(MemoryResources(FILES), copy, judge)
    (copy / "checkpoint").write_bytes(note[:10])
    with pytest.raises(UsageError, match=r"the copy in .* is damaged"):
        mirror(MemoryResources(FILES), copy, judge)
    assert not (copy / EVIDENCE).exists()


def test_what_an_earlier_run_left_accuses_nobody(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    where = copy / INCOMING / "tile/entries/000"
    where.parent.mkdir(parents=True)
    where.write_bytes(FILES["tile/entries/000"])
    flip(where)
    with pytest.raises(SourceUnreadable, match="thrown away: run again"):
        mirror(MemoryResources(FILES), copy, judge)
    assert not where.exists()
    assert mirror(MemoryResources(FILES), copy, judge)


@pytest.mark.parametrize("before", [EARLIER, None], ids=["of the copy", "that just came"])
def test_a_file_that_changes_while_it_is_used_is_not_used(
    tmp_path: Path, before: dict[str, bytes] | None
) -> None:
    copy = tmp_path / "copy"
    if before is not None:
        mirror(MemoryResources(before), copy, judge)
    where = copy / ("tile/entries/000.p/20" if before is not None else f"{INCOMING}/tile/entries/000")

    def damaging(logs: Mapping[str, LogSource], size: int) -> bool:
        assert judge(logs, size)
        flip(where)
        return judge(logs, size)

    with pytest.raises(UsageError, match="not what it was a moment ago"):
        mirror(MemoryResources(before or FILES), copy, damaging)


# --- logs of partitions ---


def with_partition() -> tuple[Cluster, dict[str, bytes]]:
    cluster = make_cluster()
    eu = Partition(cluster)
    for n in range(3):
        eu.append(eu.lease(f"eu-1/{n}"))
    note = cosigned(eu.head())
    files = {f"{eu.log}/{path}": data for path, data in tiles_of(eu.leaves, note, {}).items()}
    return cluster, {**cluster_tiles(cluster), **files, "history/sizes": b"", "logs": f"{eu.log}\n".encode()}


def test_logs_of_partitions_come_along(tmp_path: Path) -> None:
    cluster, files = with_partition()
    reports: list[Report] = []

    def look(logs: Mapping[str, LogSource], _: int) -> bool:
        reports.extend(audit_logs(logs, cluster.anchor))
        return True

    assert mirror(MemoryResources(files), tmp_path / "copy", look)
    assert [(report.log, report.size, report.findings) for report in reports] == [
        ("authority", cluster.log.size, ()),
        ("routes-eu-1", 3, ()),
    ]
    assert read_folder(tmp_path / "copy") == files


@pytest.mark.parametrize(
    "listed",
    [
        b"../authority\n",
        b"routes-\n",
        b"routes-eu-1",
        b"routes-eu-1\nroutes-eu-1\n",
        b"routes-e/u\n",
        b"\xff\n",
    ],
)
def test_a_list_of_logs_leads_nowhere_else(listed: bytes) -> None:
    _, files = with_partition()
    resources = MemoryResources({**files, "logs": listed})
    with pytest.raises(Refused) as refused:
        tile_logs(resources)
    assert refused.value.code == "SL-TILE"
    assert resources.asked == ["logs"]
    assert list(tile_logs(MemoryResources(files))) == ["authority", "routes-eu-1"]
