"""The own columns of `seed_set`; what all such tables share is in test_latest."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.test_latest import rows_of


def test_its_own_columns() -> None:
    record = facts.seeds("linux", "home")
    (row,) = rows_of("seed_set", record)
    assert (row["platform"], row["site"], row["anchor"]) == ("linux", "home", record["anchor"])
    assert row["endpoints"] == record["endpoints"]
