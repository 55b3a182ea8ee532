"""What a snapshot answers about services, and that it never changes."""

from __future__ import annotations

import pytest

from tests.projections import facts
from tests.projections.facts import HOUR, T0, hexid
from tests.projections.farm import NOW, Farm


class TestRegistryQueries:
    def test_endpoints_of_the_active_record_in_order_of_priority_and_weight(self, farm: Farm) -> None:
        endpoints = [
            facts.endpoint(number=1, priority=20),
            facts.endpoint(number=2, priority=10, weight=1),
            facts.endpoint(number=3, priority=10, weight=5),
        ]
        record = facts.registry(endpoints=endpoints)
        farm.log(record)
        assert farm.view.snapshot.active_endpoints("control-api") == ()
        assert [r.record_id for r in farm.view.snapshot.candidates("control-api")] == [facts.id_of(record)]
        farm.view.verified(facts.id_of(record), NOW)
        order = [e.endpoint_id[-1] for e in farm.view.snapshot.active_endpoints("control-api")]
        assert order == ["3", "2", "1"]
        assert farm.view.snapshot.active_endpoints("control-api", "organization", "acme") == ()

    def test_at_a_later_time_the_proved_fallback_stands_in_for_an_expired_active(self, farm: Farm) -> None:
        old = facts.registry(endpoints=[facts.endpoint(number=1)])
        new = facts.registry(endpoints=[facts.endpoint(number=2)], epoch=2, valid_s=HOUR)
        farm.log(old, new)
        for record in (old, new):
            farm.view.verified(facts.id_of(record), NOW)
        snapshot = farm.view.snapshot
        assert [e.endpoint_id[-1] for e in snapshot.active_endpoints("control-api", now=NOW)] == ["2"]
        assert [e.endpoint_id[-1] for e in snapshot.fallback_endpoints("control-api", now=NOW)] == ["1"]
        assert [e.endpoint_id[-1] for e in snapshot.active_endpoints("control-api", now=T0 + HOUR)] == ["1"]
        assert snapshot.fallback("control-api", now=T0 + HOUR) == ()

    @pytest.mark.parametrize("ahead", [False, True], ids=["in the log", "ahead of it"])
    def test_endpoints_of_revoked_nodes_and_through_revoked_relays_are_left_out(
        self, farm: Farm, ahead: bool
    ) -> None:
        through = facts.endpoint("node-9", 2, endpoint_id=f"{hexid('node-9')}/via/{hexid('relay-1')}/2")
        record = facts.registry(
            endpoints=[facts.endpoint("node-9", 1), through, facts.endpoint("phone-a", 3)]
        )
        farm.log(record)
        farm.view.verified(facts.id_of(record), NOW)
        assert len(farm.view.snapshot.active_endpoints("control-api")) == 3
        for node, left in (("relay-1", ["1", "3"]), ("node-9", ["3"])):
            revocation = facts.revoke_node(node)
            if ahead:
                farm.view.unlogged(revocation, facts.id_of(revocation))
            else:
                farm.log(revocation)
            found = farm.view.snapshot.active_endpoints("control-api")
            assert sorted(e.endpoint_id[-1] for e in found) == left


def test_a_snapshot_shares_what_did_not_change_and_never_changes_itself(farm: Farm) -> None:
    before = farm.view.snapshot
    after = farm.log(facts.lease("r1", ["phone-a", "node-9"]))
    assert (before.size, after.size) == (5, 6)
    assert before.lease("r1") is None
    assert after.nodes is before.nodes
    assert after.policies is before.policies
    assert after.leases is not before.leases
