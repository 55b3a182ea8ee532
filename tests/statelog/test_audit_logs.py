"""Audits of several logs: each finding names its log, and nothing rests on what was not found sound."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from statelog.audit import Checker, LogSource, Report
from statelog.audit_logs import AuditedAuthority, audit_logs
from statelog.findings import Finding
from statelog.io.verify_pool import verify_all
from statelog.leaf import decode_leaf, encode_leaf, frame_leaf, split_leaf
from statelog.replay import Entry
from statelog.tilelog import TileLog
from tests.support.authority import Cluster, make_cluster, node_id
from tests.support.logs import MemorySource, cosigned, source_of
from tests.support.partitions import Partition
from tests.support.tiles import TwoFaced, cluster_tiles, tiles_of


class Site:
    """A cluster with a partition's log of three entries, judged at three authority sizes."""

    def __init__(self) -> None:
        self.cluster: Cluster = make_cluster()
        self.eu = Partition(self.cluster)
        self.heads = []
        self._lease("eu-1/a", "phone-a", "relay-1", "home-1")
        self.cluster.append(self.cluster.fence({"node_id": node_id("relay-1")}))
        self.cluster.now += 1
        self._lease("eu-1/b", "phone-a", "home-1")
        self.cluster.append(self.cluster.policy())
        self._lease("eu-1/c", "phone-a", "home-1")

    def _lease(self, *names: str) -> None:
        self.eu.append(self.eu.lease(*names))
        self.heads.append((self.eu.replay.size, cosigned(self.eu.head())))

    def sources(self) -> dict[str, MemorySource]:
        size = self.cluster.log.size
        every = range(2, size + 1)
        return {
            "routes-eu-1": MemorySource(list(self.eu.leaves), list(self.heads)),
            "authority": source_of(self.cluster, every),
        }


@pytest.fixture(scope="module")
def site() -> Site:
    return Site()


def codes(reports: list[Report]) -> list[tuple[str | None, str, int | None]]:
    return [(one.log, one.code, one.log_index) for report in reports for one in report.findings]


def test_sound_logs_have_no_findings(site: Site) -> None:
    seen: list[int] = []
    reports = audit_logs(site.sources(), site.cluster.anchor, seen.append)
    assert codes(reports) == []
    assert [report.log for report in reports] == ["authority", "routes-eu-1"]
    authority, eu = reports
    assert (eu.size, eu.root, eu.final_size) == (3, site.eu.replay.root(), 3)
    assert (authority.sound_size, eu.origin) == (site.cluster.log.size, site.eu.replay.origin)
    assert all(report.complete for report in reports)


def test_signatures_may_be_verified_elsewhere(site: Site) -> None:
    class Elsewhere:
        def __init__(self) -> None:
            self.right = True

        def submit(self, jobs: Iterable[tuple[bytes, bytes, bytes]]) -> None:
            self.right = self.right and verify_all(list(jobs))

        def finish(self) -> bool:
            right, self.right = self.right, True
            return right

    assert codes(audit_logs(site.sources(), site.cluster.anchor, verifier=Elsewhere())) == []
    sources = site.sources()
    leaf = decode_leaf(sources["routes-eu-1"].leaves[1])
    value = leaf.record["signatures"][0]["value"]
    leaf.record["signatures"][0]["value"] = ("B" if value[0] == "A" else "A") + value[1:]
    sources["routes-eu-1"].leaves[1] = encode_leaf(leaf)
    found = codes(audit_logs(sources, site.cluster.anchor, verifier=Elsewhere()))
    assert ("routes-eu-1", "SL-SIG", 1) in found
    assert {log for log, _, _ in found} == {"routes-eu-1"}


def test_each_finding_names_its_log(site: Site) -> None:
    sources = site.sources()
    leaf = sources["routes-eu-1"].leaves[2]
    behind = split_leaf(leaf)._replace(authority_size=site.eu.opened + 1)
    sources["routes-eu-1"].leaves[2] = frame_leaf(*behind)
    found = codes(audit_logs(sources, site.cluster.anchor))
    assert ("routes-eu-1", "SL-AUTHORITY", 2) in found
    assert not [one for one in found if one[0] == "authority"]


def test_a_log_rests_on_nothing_that_is_not_final(site: Site) -> None:
    sources = site.sources()
    del sources["authority"].notes[-1]
    found = codes(audit_logs(sources, site.cluster.anchor))
    size = site.cluster.log.size
    assert ("authority", "SL-TAIL", size - 1) in found
    assert ("routes-eu-1", "SL-AUTHORITY", 2) in found
    assert not {("routes-eu-1", "SL-AUTHORITY", 0), ("routes-eu-1", "SL-AUTHORITY", 1)} & set(found)


def test_a_log_rests_on_nothing_behind_a_refused_entry(site: Site) -> None:
    sources = site.sources()
    index = site.eu.opened + 1  # the fence
    parts = split_leaf(sources["authority"].leaves[index])
    sources["authority"].leaves[index] = frame_leaf(*parts._replace(term=9))
    found = codes(audit_logs(sources, site.cluster.anchor))
    assert ("authority", "SL-TERM", index) in found
    assert {one for one in found if one[0] == "routes-eu-1" and one[1] == "SL-AUTHORITY"} == {
        ("routes-eu-1", "SL-AUTHORITY", 1),
        ("routes-eu-1", "SL-AUTHORITY", 2),
    }


def test_a_log_that_was_never_opened_is_a_finding(site: Site) -> None:
    sources = site.sources()
    sources["routes-us-1"] = sources.pop("routes-eu-1")
    found = codes(audit_logs(sources, site.cluster.anchor))
    assert ("routes-us-1", "SL-AUTHORITY", 0) in found


def test_checkers_follow_each_log(site: Site) -> None:
    class Counting:
        def __init__(self, log: str) -> None:
            self.log, self.entries = log, 0

        def entry(self, entry: Entry) -> None:
            self.entries += 1

        def finish(self) -> Iterable[Finding]:
            yield Finding("SL-PROJECTION", f"{self.log}: {self.entries}")

    def checkers(log: str) -> list[Checker]:
        return [Counting(log)]

    reports = audit_logs(site.sources(), site.cluster.anchor, checkers=checkers)
    said = [one.sentence for report in reports for one in report.findings]
    assert said == [f"authority: {site.cluster.log.size}", "routes-eu-1: 3"]


def test_the_audited_authority_is_read_on(site: Site) -> None:
    source = site.sources()["authority"]
    (report, *_) = audit_logs({"authority": source}, site.cluster.anchor)
    feed = AuditedAuthority(source, report)
    assert feed.final_size() == len(source.leaves)
    assert list(feed.leaves(0, 3)) == source.leaves[:3]
    assert list(feed.leaves(3, 5)) == source.leaves[3:5]
    assert list(feed.leaves(1, 2)) == source.leaves[1:2]


def test_a_partition_rests_on_the_authority_log_that_was_audited(site: Site) -> None:
    """Not on what the source says of it when the partition's audit reads it again."""
    leaves = site.cluster.leaves()
    honest = cluster_tiles(site.cluster)
    (path,) = [name for name in honest if "entries" in name]
    parts = split_leaf(leaves[-1])
    forged = [*leaves[:-1], frame_leaf(parts.record, parts.sequenced_at + 1, parts.term)]
    later = {**honest, path: tiles_of(forged, honest["checkpoint"])[path]}

    def audited(again: dict[str, bytes]) -> list[Report]:
        sources: dict[str, LogSource] = {**site.sources(), "authority": TileLog(TwoFaced(honest, again))}
        return audit_logs(sources, site.cluster.anchor)

    assert not any(report.findings for report in audited(honest))
    authority, partition = audited(later)
    assert not authority.findings
    assert partition.findings[0].code == "SL-AUTHORITY"
    assert "not what it was" in str(partition.findings[0])
