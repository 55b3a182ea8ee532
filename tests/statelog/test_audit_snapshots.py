"""Snapshots that admission accepted, against a fold of the log."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from statelog.audit import Report
from statelog.audit_logs import audit_logs
from statelog.audit_snapshots import SnapshotWatch, check_snapshots
from statelog.findings import Finding
from statelog.rowproofs import Key, Row, summaries, trees_of
from tests.support.authority import Cluster, make_cluster
from tests.support.logs import MemorySource, source_of


class Indices:
    """A fold whose rows are the indices of the entries."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def add(self, log: str, index: int, leaf: bytes) -> None:
        assert (log, leaf[:1]) == ("authority", b"{")
        self.seen.append(index)

    def rows(self, log: str) -> Iterator[tuple[str, Iterable[tuple[Key, Row]]]]:
        del log
        yield "indices.v1", [((f"{index}",), {"index": index}) for index in self.seen]


def said(size: int, name: str = "indices.v1") -> list[dict[str, Any]]:
    fold = Indices()
    fold.seen = list(range(size))
    return [{**summaries(trees_of(fold, "authority"))[0], "name": name}]


def findings(cluster: Cluster, source: MemorySource | None = None) -> tuple[list[Finding], SnapshotWatch]:
    watch = SnapshotWatch()

    def watching(log: str) -> list[SnapshotWatch]:
        watch.restart(log)
        return [watch]

    sources = {"authority": source or source_of(cluster)}
    reports: list[Report] = audit_logs(sources, cluster.anchor, checkers=watching)
    return list(check_snapshots(sources, reports, watch.claims, Indices)), watch


def test_snapshots_that_say_what_a_fold_says() -> None:
    cluster = make_cluster()
    size = cluster.log.size
    cluster.append(cluster.snapshot(size=size - 2, projections=said(size - 2)))
    cluster.append(cluster.snapshot(size=size - 2, projections=said(size - 2)))
    cluster.append(cluster.snapshot(projections=said(cluster.log.size)))
    found, watch = findings(cluster)
    assert found == []
    assert [claim.size for claim in watch.claims["authority"]] == [size - 2, size - 2, size + 2]
    assert watch.of_other_folds(Indices) == 0


def test_a_wrong_snapshot_is_named() -> None:
    cluster = make_cluster()
    size = cluster.log.size
    cluster.append(cluster.snapshot(projections=said(size)))
    cluster.append(cluster.snapshot(projections=said(size)))  # of the size before
    (one,), _ = findings(cluster)
    assert (one.code, one.log_index, one.log, one.path) == (
        "SL-FOLD",
        size + 1,
        "authority",
        "projections[indices.v1]",
    )
    assert (f"{size + 1} rows" in one.expected, f"{size} rows" in one.found) == (True, True)
    more = make_cluster()
    listed = [*said(more.log.size), {**said(1)[0], "name": "others.v1"}]
    more.append(more.snapshot(projections=listed))
    (extra,), _ = findings(more)
    assert (extra.code, extra.expected) == ("SL-FOLD", "nothing")


def test_snapshots_of_other_folds_are_counted() -> None:
    cluster = make_cluster()
    cluster.append(cluster.snapshot(projections=said(1, "indices.v0")))
    found, watch = findings(cluster)
    assert (found, watch.of_other_folds(Indices)) == ([], 1)


def test_nothing_is_folded_beyond_a_refused_entry() -> None:
    cluster = make_cluster()
    cluster.append(cluster.snapshot(projections=said(3)))
    source = source_of(cluster)
    source.leaves[5] = b"{}"
    assert [one.code for one in findings(cluster)[0]] == ["SL-FOLD"]
    assert findings(cluster, source)[0] == []  # the audit has named entry 5
