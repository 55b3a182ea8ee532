"""What a snapshot answers about services, and that it never changes."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.facts import HOUR, T0
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
        assert farm.view.snapshot.active("control-api") is None
        assert [r.record_id for r in farm.view.snapshot.candidates("control-api")] == [facts.id_of(record)]
        farm.view.verified(facts.id_of(record), NOW)
        active = farm.view.snapshot.active("control-api")
        assert active is not None
        assert [e.endpoint_id[-1] for e in active.best_first] == ["3", "2", "1"]
        assert farm.view.snapshot.active("control-api", "organization", "acme") is None

    def test_at_a_later_time_the_proved_fallback_stands_in_for_an_expired_active(self, farm: Farm) -> None:
        old, new = facts.registry(), facts.registry(epoch=2, valid_s=HOUR)
        farm.log(old, new)
        for record in (old, new):
            farm.view.verified(facts.id_of(record), NOW)
        snapshot = farm.view.snapshot

        def found(now: float) -> tuple[str | None, list[str]]:
            active = snapshot.active("control-api", now=now)
            others = snapshot.fallback("control-api", now=now)
            return active and active.record_id, [one.record_id for one in others]

        assert found(NOW) == (facts.id_of(new), [facts.id_of(old)])
        assert found(T0 + HOUR) == (facts.id_of(old), [])


def test_a_snapshot_shares_what_did_not_change_and_never_changes_itself(farm: Farm) -> None:
    before = farm.view.snapshot
    after = farm.log(facts.lease("r1", ["phone-a", "node-9"]))
    assert (before.size, after.size) == (5, 6)
    assert before.lease("r1") is None
    assert after.nodes is before.nodes
    assert after.policies is before.policies
    assert after.leases is not before.leases
