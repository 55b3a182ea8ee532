"""Mirrors: what was found clean is copied, in the order that readers need; anything else leaves no trace."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from statelog.audit import LogSource, Report, audit
from statelog.audit_logs import audit_logs
from statelog.errors import Refused, SourceUnreadable
from statelog.io.mirror import INCOMING, mirror
from statelog.io.resources import FolderResources
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


def test_a_source_that_went_back_or_elsewhere(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    mirror(MemoryResources(FILES), copy, judge)
    before = read_folder(copy)
    fork = make_cluster()
    for record in leases(fork, 310 - fork.log.size, 500):
        fork.log.append(record, fork.now, 1)
    for source in (EARLIER, {**cluster_tiles(fork), "logs": b""}):
        target = copy
        if source is not EARLIER:  # as if its tiles were not here: they would be found to differ
            target = tmp_path / "other"
            target.mkdir()
            (target / "checkpoint").write_bytes(FILES["checkpoint"])
        with pytest.raises(Refused) as refused:
            mirror(MemoryResources(source), target, judge)
        assert refused.value.code == "SL-CONSISTENCY"
    assert read_folder(copy) == before
    assert set(read_folder(tmp_path / "other")) == {"checkpoint"}


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
    assert resources.asked == ["checkpoint", "logs"]
    assert list(tile_logs(MemoryResources(files))) == ["authority", "routes-eu-1"]
