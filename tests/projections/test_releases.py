"""The own columns of `update_release`; what all such tables share is in test_latest."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.test_latest import rows_of


def test_its_own_columns() -> None:
    record = facts.release("agent", "1.4")
    (row,) = rows_of("update_release", record)
    assert (row["product"], row["channel"], row["version"]) == ("agent", "stable", "1.4")
    for part in ("artifacts", "compatibility", "rollback", "rollout"):
        assert row[part] == record[part]
