"""The newest fence of each target."""

from __future__ import annotations

from projections.all import fold
from projections.base import Fact
from projections.fences import TABLE
from projections.model import Fence
from tests.projections import facts
from tests.projections.facts import T0, hexid
from tests.projections.farm import Farm

RELAY = {"node_id": hexid("relay-1")}


def test_each_target_has_its_newest_fence(farm: Farm) -> None:
    size = farm.size
    first, other = facts.fence(RELAY), facts.fence({"partition": "eu"})
    snapshot = farm.log(first, other)
    assert snapshot.fences.get(("node_id", hexid("relay-1"))) == Fence(facts.id_of(first), "authority", size)
    assert snapshot.fences.get(("partition", "eu")) == Fence(facts.id_of(other), "authority", size + 1)
    again = facts.fence(RELAY, epoch=2)
    found = farm.log(again).fences.get(("node_id", hexid("relay-1")))
    assert found == Fence(facts.id_of(again), "authority", size + 2)
    assert len(list(farm.rows.rows(TABLE.name))) == 2


def test_other_kinds_leave_no_fence(farm: Farm) -> None:
    before = list(farm.rows.rows(TABLE.name))
    farm.log(
        facts.approval("relay-1"), facts.lease("r1", ["phone-a", "relay-1"]), facts.revoke_node("relay-1")
    )
    assert list(farm.rows.rows(TABLE.name)) == before == []


def test_a_fence_of_a_partitions_log_names_it(farm: Farm) -> None:
    record = facts.fence({"route_id": "eu/a"})
    (change,) = fold(farm.rows, Fact(record, "f" * 64, 3, T0, "routes-eu", 1))
    farm.rows.apply([change])
    (row,) = farm.rows.rows(TABLE.name)
    assert (row["log"], row["log_index"], row["target_kind"], row["target"]) == (
        "routes-eu",
        3,
        "route_id",
        "eu/a",
    )
