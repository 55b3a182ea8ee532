"""Policy documents."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.facts import HOUR, T0
from tests.projections.farm import Farm


class TestPolicies:
    def test_the_newest_document(self, farm: Farm) -> None:
        farm.log(facts.policy("probe_allow", {"networks": []}))
        snapshot = farm.log(facts.policy("probe_allow", {"networks": ["127.0.0.0/8"]}, epoch=2, valid_s=HOUR))
        policy = snapshot.policy("probe_allow")
        assert policy is not None
        assert policy.document == {"networks": ["127.0.0.0/8"]}
        assert snapshot.policy("probe_allow", now=T0 + HOUR) is None
        assert snapshot.policy("other") is None
