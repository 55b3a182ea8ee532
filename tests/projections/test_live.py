"""The live view: the log, what travels ahead of it, what probes proved."""

from __future__ import annotations

from projections.live import LiveView
from projections.registry import RegistryBook
from tests.projections import facts
from tests.projections.facts import HOUR, T0, hexid
from tests.projections.farm import NOW, Farm


class TestAheadOfTheLog:
    def test_an_unlogged_fence_acts_until_the_log_has_it_or_refuses_it(self, farm: Farm) -> None:
        farm.log(facts.lease("r1", ["phone-a", "node-9"], issued_at=T0))
        fence = facts.fence({"route_id": "r1"}, issued_at=T0)
        fence_id = facts.id_of(fence)
        farm.view.unlogged(fence, fence_id)
        assert farm.view.snapshot.lease("r1") is None
        assert not farm.view.snapshot.leases["r1"].ended_by, "rows come from the log only"
        assert farm.view._ahead.keys() == {fence_id}
        farm.view.refused(fence_id)
        assert farm.view.snapshot.lease("r1") is not None
        farm.view.unlogged(fence, fence_id)
        snapshot = farm.log(fence)
        assert snapshot.lease("r1") is None
        assert not farm.view._ahead
        assert snapshot.leases["r1"].ended_by == fence_id

    def test_an_unlogged_fence_spares_a_copy_issued_after_it(self, farm: Farm) -> None:
        farm.log(facts.lease("r1", ["phone-a", "node-9"], issued_at=T0 + 1))
        farm.view.unlogged(facts.fence({"node_id": hexid("node-9")}, issued_at=T0), hexid("f"))
        assert farm.view.snapshot.lease("r1") is not None
        farm.view.unlogged(facts.fence({"node_id": hexid("node-9")}, issued_at=T0 + 1), hexid("g"))
        assert farm.view.snapshot.lease("r1") is None

    def test_an_unlogged_revocation_acts_at_once_and_ends_when_it_can_no_longer_be_logged(
        self, farm: Farm
    ) -> None:
        farm.log(facts.lease("r1", ["phone-a", "relay-1", "node-9"]))
        farm.view.unlogged(facts.revoke_node("relay-1", valid_s=HOUR), hexid("r"))
        assert not farm.view.snapshot.approved(hexid("relay-1"), NOW)
        assert farm.view.snapshot.lease("r1") is None
        farm.view.expired(T0 + HOUR)
        assert farm.view.snapshot.approved(hexid("relay-1"), NOW)
        assert farm.view.snapshot.lease("r1") is not None

    def test_an_unlogged_registry_record_becomes_logged(self, farm: Farm) -> None:
        record = facts.registry()
        record_id = facts.id_of(record)
        (told,) = farm.view.unlogged(record, record_id)
        assert told.after == "candidate"
        farm.view.verified(record_id, NOW)
        active = farm.view.snapshot.active("control-api")
        assert active is not None
        assert active.unlogged
        active = farm.log(record).active("control-api")
        assert active is not None
        assert active.log_index == farm.size - 1


def test_a_live_view_restored_from_a_book_goes_on(farm: Farm) -> None:
    record = facts.registry()
    farm.log(record)
    book = RegistryBook()
    for view in farm.view.snapshot.registry.values():
        for known in view.candidates:
            book.accepted(known, known.record_id, known.log_index)
    book.verified(facts.id_of(record), NOW)
    restored = LiveView(farm.view.snapshot, book)
    assert restored.snapshot.active("control-api") is not None
