"""The newest record of each subject: its own columns, its header, and where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from projections.all import TABLES, fold_all
from projections.base import MemoryRows, Row
from tests.projections import facts
from tests.projections.facts import HOUR, T0


def rows_of(table: str, *records: dict[str, Any], mode: str = "production") -> list[Row]:
    made = facts.log(facts.descriptor(mode), *records)
    for fact in made:
        fact.log = fact.record.get("log", fact.log)  # a snapshot stands in its own log
    rows: MemoryRows = fold_all(made)
    return list(rows.rows(table))


NEWEST = {
    "service_lease": (facts.service_lease("a", "n1"), facts.service_lease("a", "n2", epoch=2)),
    "relay_assignment": (facts.assignment("eu", "n1"), facts.assignment("eu", "n2", epoch=2)),
    "peer_directory": (facts.directory("eu", 1), facts.directory("eu", 2, epoch=2)),
    "update_release": (facts.release("a", "1"), facts.release("a", "2", epoch=2)),
    "shard_manifest": (facts.manifest("s", "n1"), facts.manifest("s", "n2", epoch=2)),
    "seed_set": (facts.seeds("linux", "home"), facts.seeds("linux", "home", epoch=2)),
    "log_snapshot": (facts.snapshot(1), facts.snapshot(2, epoch=2)),
}
OTHER = {
    "service_lease": facts.service_lease("b", "n1"),
    "relay_assignment": facts.assignment("us", "n1"),
    "peer_directory": facts.directory("us", 1),
    "update_release": facts.release("a", "1", "beta"),
    "shard_manifest": facts.manifest("t", "n1"),
    "seed_set": facts.seeds("linux", "office"),
    "log_snapshot": facts.snapshot(1, "routes-eu"),
}


@pytest.mark.parametrize("table", NEWEST)
def test_the_newest_record_is_the_row(table: str) -> None:
    first, second = NEWEST[table]
    (row,) = rows_of(table, first, second)
    assert (row["epoch"], row["record_id"], row["log_index"]) == (2, facts.id_of(second), 2)
    assert (row["issued_at"], row["expires_at"]) == (T0, T0 + 20 * HOUR)
    assert not row["bootstrap"]
    assert row["log"] == "authority"


@pytest.mark.parametrize("table", NEWEST)
def test_subjects_have_rows_of_their_own(table: str) -> None:
    assert len(rows_of(table, NEWEST[table][0], OTHER[table])) == 2


@pytest.mark.parametrize("table", NEWEST)
def test_what_development_admits_is_marked(table: str) -> None:
    (row,) = rows_of(table, NEWEST[table][0], mode="development")
    assert row["bootstrap"]


@pytest.mark.parametrize("table", NEWEST)
def test_no_other_kind_writes_here(table: str) -> None:
    others = [pair[0] for name, pair in NEWEST.items() if name != table]
    assert rows_of(table, *others, facts.approval("n1"), facts.revoke_node("n1")) == []


def test_every_table_of_newest_records_is_covered() -> None:
    assert set(NEWEST) == set(OTHER) <= {table.name for table in TABLES}
