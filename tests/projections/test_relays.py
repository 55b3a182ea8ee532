"""The own columns of `relay_assignment`; what all such tables share is in test_latest."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.test_latest import rows_of


def test_its_own_columns() -> None:
    record = facts.assignment("eu", "n1")
    (row,) = rows_of("relay_assignment", record)
    assert (row["partition"], row["relays"], row["rendezvous"]) == ("eu", record["relays"], [])
