"""The own columns of `peer_directory`; what all such tables share is in test_latest."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.test_latest import rows_of


def test_its_own_columns() -> None:
    record = facts.directory("eu", 7)
    (row,) = rows_of("peer_directory", record)
    assert (row["partition"], row["node_count"], row["directory_root"]) == ("eu", 7, record["directory_root"])
