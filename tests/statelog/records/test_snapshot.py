"""Snapshots: they stand in their own log, at a size and root that it has, over projections in order."""

from __future__ import annotations

import pytest

from statelog import limits
from statelog.admission import admit
from statelog.canonical import encode
from statelog.errors import UsageError
from statelog.merkle import leaf_hash, root_of
from statelog.records import KINDS_BY_NAME, snapshot
from statelog.records.snapshot import state_root_of
from statelog.signing import encode_base64
from statelog.state import CONTROL, ROUTE
from tests.support.authority import QUORUMS, Cluster
from tests.support.verdicts import ADMITTED, changed, place, verdict

OTHER = encode_base64(bytes(32))


def test_it_is_known_by_its_log(cluster: Cluster) -> None:
    admitted = cluster.append(cluster.snapshot())
    assert admitted.subject == ("authority",)
    assert verdict(cluster, cluster.snapshot()) == ADMITTED
    assert verdict(cluster, cluster.snapshot(epoch=1, size=3)) == "SL-EQUIVOCATION"


def test_size_and_root_are_the_logs_own(cluster: Cluster) -> None:
    size = cluster.log.size
    assert verdict(cluster, cluster.snapshot(size=size)) == ADMITTED
    assert verdict(cluster, cluster.snapshot(size=size - 1)) == ADMITTED
    assert place(cluster, cluster.snapshot(size=size + 1)) == ("SL-SNAPSHOT", "size")
    assert place(cluster, cluster.snapshot(size=0)) == ("SL-SHAPE", "size")
    assert place(cluster, cluster.snapshot(root=OTHER)) == ("SL-SNAPSHOT", "root")
    earlier = cluster.log.root_at(size - 1) or b""
    assert place(cluster, cluster.snapshot(root=encode_base64(earlier))) == ("SL-SNAPSHOT", "root")


def test_a_size_far_back_is_refused_by_everybody(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "ROOT_WINDOW_ENTRIES", 3)
    size = cluster.log.size
    assert verdict(cluster, cluster.snapshot(size=size - 3)) == ADMITTED
    assert place(cluster, cluster.snapshot(size=size - 4)) == ("SL-SNAPSHOT", "size")


def test_a_root_that_is_not_known_is_not_believed(cluster: Cluster) -> None:
    record = cluster.snapshot(size=3)
    assert verdict(cluster, record) == ADMITTED
    del cluster.log.roots[3]
    assert place(cluster, record) == ("SL-SNAPSHOT", "root")


def test_the_state_root_is_that_of_the_projections(cluster: Cluster) -> None:
    record = cluster.snapshot()
    entries = record["projections"]
    assert state_root_of(entries) == root_of(leaf_hash(encode(one)) for one in entries)
    assert place(cluster, cluster.snapshot(state_root=OTHER)) == ("SL-SNAPSHOT", "state_root")
    for path, value in (("projections.0.rows", 7), ("projections.1.root", OTHER)):
        assert place(cluster, cluster.sign(changed(record, path, value))) == ("SL-SNAPSHOT", "state_root")


def test_projections_are_sorted_each_once_and_few(cluster: Cluster) -> None:
    one, other = cluster.snapshot()["projections"]
    assert verdict(cluster, cluster.snapshot(projections=[one])) == ADMITTED
    for listed in ([other, one], [one, one], []):
        assert place(cluster, cluster.snapshot(projections=listed)) == ("SL-SHAPE", "projections")
    many = [{**one, "name": f"n{position:03}"} for position in range(limits.MAX_SNAPSHOT_PROJECTIONS + 1)]
    assert verdict(cluster, cluster.snapshot(projections=many[:-1])) == ADMITTED
    assert place(cluster, cluster.snapshot(projections=many)) == ("SL-SHAPE", "projections")


def test_it_stands_in_its_own_log(cluster: Cluster) -> None:
    assert place(cluster, cluster.snapshot(log="routes-eu-1")) == ("SL-SNAPSHOT", "log")
    assert place(cluster, cluster.snapshot(log="somewhere")) == ("SL-SHAPE", "log")
    cluster.append(cluster.log_term("routes-eu-1", start_size=0))
    assert verdict(cluster, cluster.snapshot(log="routes-eu-1")) == "SL-SCOPE"
    assert KINDS_BY_NAME["log.snapshot"].home_partition(cluster.snapshot(), cluster.state) is None


def test_it_cannot_be_judged_without_its_log(cluster: Cluster) -> None:
    with pytest.raises(UsageError):
        admit(cluster.state, encode(cluster.snapshot()), cluster.now)


def test_only_control_signs_it(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.snapshot(by=QUORUMS[CONTROL])) == ADMITTED
    assert verdict(cluster, cluster.snapshot(issuer_role=ROUTE, by=QUORUMS[ROUTE])) == "SL-ROLE"
