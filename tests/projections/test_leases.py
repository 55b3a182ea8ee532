"""Leases, and what fences and revocations end."""

from __future__ import annotations

import pytest

from tests.projections import facts
from tests.projections.facts import HOUR, T0, hexid
from tests.projections.farm import NOW, Farm


class TestLeases:
    def test_leases_are_found_by_route_and_by_first_hop(self, farm: Farm) -> None:
        one = facts.lease("r1", ["phone-a", "relay-1", "node-9"], valid_s=HOUR)
        snapshot = farm.log(one, facts.lease("r2", ["relay-1", "node-9"], service="web"))
        lease = snapshot.lease("r1")
        assert lease is not None
        assert lease.hops == tuple(map(hexid, ("phone-a", "relay-1", "node-9")))
        assert [found.route_id for found in snapshot.leases_from(hexid("phone-a"), "desk")] == ["r1"]
        assert [found.route_id for found in snapshot.leases_from(hexid("relay-1"))] == ["r2"]
        assert snapshot.leases_from(hexid("relay-1"), "dns") == ()
        assert [found.route_id for found in snapshot.leases_from(hexid("relay-1"), "desk")] == ["r2"]
        everything = {**facts.lease("r3", ["home-1", "node-9"]), "allowed_services": ["*"]}
        found = farm.log(everything).leases_from(hexid("home-1"), "dns")
        assert [lease.route_id for lease in found] == ["r3"]
        assert snapshot.leases_from(hexid("node-9")) == ()
        assert snapshot.lease("r1", now=NOW) == lease
        assert snapshot.lease("r1", now=T0 + HOUR) is None
        assert snapshot.leases_from(hexid("phone-a"), now=T0 + HOUR) == ()
        assert snapshot.lease("r9") is None

    def test_a_renewal_replaces_the_lease_and_its_first_hop(self, farm: Farm) -> None:
        farm.log(facts.lease("r1", ["phone-a", "node-9"]))
        snapshot = farm.log(facts.lease("r1", ["relay-1", "node-9"], epoch=2))
        assert snapshot.leases_from(hexid("phone-a")) == ()
        assert [found.epoch for found in snapshot.leases_from(hexid("relay-1"))] == [2]

    @pytest.mark.parametrize(
        "target",
        [{"route_id": "r1"}, {"partition": "eu"}, {"node_id": hexid("relay-1")}],
        ids=lambda t: next(iter(t)),
    )
    def test_a_fence_kills_what_was_sequenced_before_it_and_nothing_else(
        self, farm: Farm, target: dict[str, str]
    ) -> None:
        one, other = (
            facts.lease("r1", ["phone-a", "relay-1", "node-9"]),
            facts.lease("r2", ["phone-a", "node-9"], partition="us"),
        )
        farm.log(one, other)
        fence = facts.fence(target)
        snapshot = farm.log(fence)
        assert snapshot.lease("r1") is None
        assert snapshot.leases["r1"].ended_by == facts.id_of(fence)
        assert snapshot.lease("r2") is not None
        assert [found.route_id for found in snapshot.leases_from(hexid("phone-a"))] == ["r2"]
        later = facts.lease("r1", ["phone-a", "relay-1", "node-9"], epoch=2, issued_at=T0 + 30)
        assert farm.log(later).lease("r1") is not None

    def test_a_revoked_hop_ends_every_lease_through_it_for_good(self, farm: Farm) -> None:
        farm.log(
            facts.lease("r1", ["phone-a", "relay-1", "node-9"]), facts.lease("r2", ["phone-a", "node-9"])
        )
        snapshot = farm.log(facts.revoke_node("relay-1"))
        assert snapshot.lease("r1") is None
        assert snapshot.leases["r1"].ended_by
        assert snapshot.lease("r2") is not None
        snapshot = farm.log(facts.lease("r3", ["relay-1", "node-9"]))
        assert snapshot.lease("r3") is None
        assert snapshot.leases["r3"].ended_by == snapshot.nodes[hexid("relay-1")].ended_by

    def test_a_lease_by_next_hop_policy_has_no_hops(self, farm: Farm) -> None:
        record = facts.lease("r1", [])
        del record["hops"]
        snapshot = farm.log({**record, "next_hop": {"policy": "nearest"}})
        lease = snapshot.lease("r1")
        assert lease is not None
        assert (lease.hops, lease.next_hop_policy) == ((), "nearest")
