"""The key sets of the delegated roles."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.facts import hexid
from tests.projections.farm import Farm


class TestMembers:
    def test_the_newest_key_set_of_each_role_and_partition(self, farm: Farm) -> None:
        farm.log(facts.members("route-authority"), facts.members("route-authority", partition="eu"))
        farm.log(facts.members("route-authority", epoch=2))
        rows = {(row["partition"], row["epoch"]): row["keys"] for row in farm.rows.rows("members")}
        carol = {"key_id": hexid("carol"), "issuer_id": "carol", "custody": "offline"}
        assert rows == {("", 2): [carol], ("eu", 1): [carol]}
