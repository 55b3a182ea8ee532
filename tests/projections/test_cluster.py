"""The descriptor in force, and what a development one admitted."""

from __future__ import annotations

from projections.all import fold
from projections.base import Fact
from projections.snapshot import Snapshot
from tests.projections import facts
from tests.projections.facts import T0, hexid
from tests.projections.farm import NOW, Farm


class TestCluster:
    def test_the_descriptor_in_force(self, farm: Farm) -> None:
        cluster = farm.view.snapshot.cluster
        assert cluster is not None
        assert (cluster.mode, cluster.max_checkpoint_age_s, cluster.log_index) == ("production", 600, 0)

    def test_what_a_development_descriptor_admits_is_marked_its_successor_included(self) -> None:
        farm = Farm("development")
        farm.log(facts.approval("a"), facts.descriptor("production", epoch=2), facts.approval("b"))
        marks = {name: farm.view.snapshot.nodes[hexid(name)].bootstrap for name in "ab"}
        assert marks == {"a": True, "b": False}

    def test_and_counts_no_more_in_production(self) -> None:
        farm = Farm("development")
        record = facts.registry()
        farm.log(
            facts.approval("a"),
            facts.certificate("a", "relay"),
            facts.lease("r1", ["a", "b"]),
            facts.policy("p", {}),
            record,
        )
        farm.view.verified(facts.id_of(record), NOW)

        def counts(snapshot: Snapshot) -> list[bool]:
            return [
                snapshot.approved(hexid("a"), NOW),
                snapshot.has_role(hexid("a"), "relay", NOW),
                snapshot.lease("r1") is not None,
                snapshot.policy("p") is not None,
                snapshot.active("control-api") is not None,
            ]

        assert counts(farm.view.snapshot) == [True] * 5
        assert counts(farm.log(facts.descriptor("production", epoch=2))) == [False] * 5

    def test_a_kind_without_a_read_model_changes_nothing(self, farm: Farm) -> None:
        assert fold(farm.rows, Fact(facts.record("log.term"), "0" * 64, 9, T0)) == []
