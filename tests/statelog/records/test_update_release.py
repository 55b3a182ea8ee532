"""Releases: versions go forward, and back only where the release in force says so."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.limits import MAX_ARTIFACTS, MAX_ROLLOUT_STEPS
from statelog.state import CONTROL, UPDATE
from statelog.times import format_time
from tests.support.authority import BASE_TIME, DAY_S, QUORUMS, Cluster
from tests.support.verdicts import ADMITTED, changed, place, verdict

OTHER_HASH = "ab" * 32
LATER = [
    {"cohort_percent": n + 1, "not_before": format_time(BASE_TIME + n)} for n in range(MAX_ROLLOUT_STEPS + 1)
]


def signed(cluster: Cluster, path: str, value: Any) -> dict[str, Any]:
    return cluster.sign(changed(cluster.release(), path, value))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("version", "2", ADMITTED),
        ("version", "1.4.0.999999999", ADMITTED),
        ("version", "1.4.0.0.0", ("SL-SHAPE", "version")),
        ("version", "1.04", ("SL-SHAPE", "version")),
        ("version", "1.4-rc1", ("SL-SHAPE", "version")),
        ("version", "1..4", ("SL-SHAPE", "version")),
        ("compatibility.min_version", "1.4", ADMITTED),
        ("compatibility.min_version", "1.4.1", ("SL-SHAPE", "compatibility.min_version")),
        ("compatibility.min_version", "any", ("SL-SHAPE", "compatibility.min_version")),
        ("compatibility.session_versions", [1, 2], ADMITTED),
        ("compatibility.session_versions", [], ("SL-SHAPE", "compatibility.session_versions")),
        ("compatibility.session_versions", [256], ("SL-SHAPE", "compatibility.session_versions[0]")),
        ("rollback.to", ["1.3", "1.2"], ADMITTED),
        ("rollback.to", ["1.4"], ("SL-SHAPE", "rollback.to[0]")),
        ("rollback.to", ["1.2", "9"], ("SL-SHAPE", "rollback.to[1]")),
        ("rollback.window_s", 400 * DAY_S, ADMITTED),
        ("rollback.window_s", 400 * DAY_S + 1, ("SL-SHAPE", "rollback.window_s")),
        ("artifacts.0.name", "../agent", ("SL-SHAPE", "artifacts[0].name")),
        ("artifacts.0.name", "bin/agent", ("SL-SHAPE", "artifacts[0].name")),
        ("artifacts.0.length", 0, ("SL-SHAPE", "artifacts[0].length")),
        ("artifacts", [], ("SL-SHAPE", "artifacts")),
        ("rollout.0.cohort_percent", 99, ADMITTED),
        ("rollout.0.cohort_percent", 100, ("SL-SHAPE", "rollout[1]")),
        ("rollout.1.cohort_percent", 101, ("SL-SHAPE", "rollout[1].cohort_percent")),
        ("rollout.1.not_before", format_time(BASE_TIME), ("SL-SHAPE", "rollout[1]")),
        ("rollout", LATER[:-1], ADMITTED),
        ("rollout", LATER, ("SL-SHAPE", "rollout")),
        ("rollout", [], ("SL-SHAPE", "rollout")),
    ],
)
def test_shape(cluster: Cluster, path: str, value: object, expected: object) -> None:
    assert (verdict if expected == ADMITTED else place)(cluster, signed(cluster, path, value)) == expected


def test_artifacts_are_distinct_and_few(cluster: Cluster) -> None:
    (one,) = cluster.release()["artifacts"]
    many = [{**one, "platform": f"p{n}"} for n in range(MAX_ARTIFACTS + 1)]
    assert verdict(cluster, signed(cluster, "artifacts", many[:-1])) == ADMITTED
    assert place(cluster, signed(cluster, "artifacts", many)) == ("SL-SHAPE", "artifacts")
    twice = [one, {**one, "sha256": OTHER_HASH}]
    assert place(cluster, signed(cluster, "artifacts", twice)) == ("SL-SHAPE", "artifacts")


def test_the_way_back_is_what_the_release_in_force_allows(cluster: Cluster) -> None:
    """1.4.0 allows 1.2.0 for a week."""
    cluster.append(cluster.release("1.4.0"))
    assert verdict(cluster, cluster.release("1.5.0")) == ADMITTED
    assert place(cluster, cluster.release("1.3.0")) == ("SL-RELEASE", "version")
    back = {"rollback": {"to": [], "window_s": 0}}
    assert verdict(cluster, cluster.release("1.2.0", **back)) == ADMITTED
    cluster.now += 7 * DAY_S - 1
    assert verdict(cluster, cluster.release("1.2.0", **back)) == ADMITTED
    cluster.now += 1
    assert place(cluster, cluster.release("1.2.0", **back)) == ("SL-RELEASE", "version")
    assert verdict(cluster, cluster.release("1.4.1")) == ADMITTED


def test_a_rollback_sets_what_is_allowed_next(cluster: Cluster) -> None:
    cluster.append(cluster.release("1.4.0"))
    cluster.append(cluster.release("1.2.0", rollback={"to": ["1.1"], "window_s": 60}))
    assert verdict(cluster, cluster.release("1.1", rollback={"to": [], "window_s": 0})) == ADMITTED
    assert verdict(cluster, cluster.release("1.0", rollback={"to": [], "window_s": 0})) == "SL-RELEASE"
    assert verdict(cluster, cluster.release("1.4.0")) == ADMITTED


def test_the_version_in_force_keeps_its_artifacts(cluster: Cluster) -> None:
    cluster.append(cluster.release())
    (one,) = cluster.release()["artifacts"]
    more = {**one, "platform": "windows-x86-64", "sha256": OTHER_HASH}
    assert verdict(cluster, signed(cluster, "artifacts", [one, more])) == ADMITTED
    assert verdict(cluster, signed(cluster, "rollout.0.cohort_percent", 50)) == ADMITTED
    assert place(cluster, signed(cluster, "artifacts.0.sha256", OTHER_HASH)) == ("SL-RELEASE", "artifacts")
    assert place(cluster, signed(cluster, "artifacts", [more])) == ("SL-RELEASE", "artifacts")
    newer = cluster.sign(changed(cluster.release("1.4.1"), "artifacts.0.sha256", OTHER_HASH))
    assert verdict(cluster, newer) == ADMITTED


def test_products_and_channels_do_not_mix(cluster: Cluster) -> None:
    cluster.append(cluster.release("1.4.0"))
    assert verdict(cluster, cluster.release("0.1", channel="beta", **OLD)) == ADMITTED
    assert verdict(cluster, cluster.release("0.1", product="relay", **OLD)) == ADMITTED
    assert set(cluster.state.releases) == {("agent", "stable")}


OLD = {
    "compatibility": {"min_version": "0.1", "session_versions": [1]},
    "rollback": {"to": [], "window_s": 0},
}


def test_only_update_authority_signs_it(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.release(by=QUORUMS[UPDATE])) == ADMITTED
    assert verdict(cluster, cluster.release(issuer_role=CONTROL, by=QUORUMS[CONTROL])) == "SL-ROLE"
    assert verdict(cluster, cluster.release(by=["update-1"])) == "SL-QUORUM"
