"""The own columns of `log_snapshot`; what all such tables share is in test_latest."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.test_latest import rows_of


def test_its_own_columns() -> None:
    record = facts.snapshot(9)
    (row,) = rows_of("log_snapshot", record)
    for part in ("log", "size", "root", "state_root", "projections"):
        assert row[part] == record[part]
