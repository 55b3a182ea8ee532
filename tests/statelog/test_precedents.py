"""What follows a release and a shard set: the tables of `fault_after`."""

from __future__ import annotations

import pytest

from statelog.precedents import Release, ShardSet, version_order


def release(version: str, artifacts: dict[tuple[str, str], str] | None = None) -> Release:
    return Release("id", version, artifacts or {}, frozenset({"1.2", "1.1"}), 100)


def test_versions_compare_number_by_number() -> None:
    order = ["0", "0.9", "1", "1.0.0.1", "1.2", "1.10", "2"]
    assert sorted(order, key=version_order) == order
    assert version_order("1") == version_order("1.0.0.0")


@pytest.mark.parametrize(
    ("version", "now", "path", "expected"),
    [
        ("1.5", 0, None, None),
        ("1.4", 0, None, None),
        ("1.2", 99, None, None),
        ("1.2", 100, "version", "above 1.4"),
        ("1.3", 99, "version", "above 1.4, or 1.1, 1.2"),
        ("1.2.0", 99, "version", "above 1.4, or 1.1, 1.2"),  # named as it was named
    ],
)
def test_releases(version: str, now: int, path: str | None, expected: str | None) -> None:
    fault = release(version).fault_after(release("1.4"), now)
    found = (None, None) if fault is None else (fault.path, fault.expected)
    assert found == (path, expected)


def test_a_version_keeps_the_artifacts_it_has() -> None:
    out = release("1.4", {("linux", "agent"): "aa", ("mac", "agent"): "bb"})
    for artifacts, path in (
        ({("linux", "agent"): "aa", ("mac", "agent"): "bb", ("win", "agent"): "cc"}, None),
        ({("linux", "agent"): "aa", ("mac", "agent"): "cc"}, "artifacts"),
        ({("linux", "agent"): "aa", ("win", "agent"): "cc"}, "artifacts"),
        ({("linux", "agent"): "aa"}, "artifacts"),
    ):
        fault = release("1.4.0", artifacts).fault_after(out, 0)
        assert (fault.path if fault else None) == path
        assert release("1.5", artifacts).fault_after(out, 0) is None


@pytest.mark.parametrize(
    ("epoch", "content", "expected"),
    [(4, b"a", None), (5, b"b", None), (9, b"a", None), (4, b"b", "above 4"), (3, b"a", "at least 4")],
)
def test_shard_sets(epoch: int, content: bytes, expected: str | None) -> None:
    fault = ShardSet(epoch, content).fault_after(ShardSet(4, b"a"))
    assert (fault.expected if fault else None) == expected
