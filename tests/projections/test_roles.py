"""Role certificates, their delegation and their end."""

from __future__ import annotations

import pytest

from tests.projections import facts
from tests.projections.facts import HOUR, T0, hexid
from tests.projections.farm import NOW, Farm


class TestRoles:
    def test_roles_need_a_valid_certificate_of_an_approved_node(self, farm: Farm) -> None:
        relay = facts.certificate("relay-1", "relay", valid_s=HOUR)
        snapshot = farm.log(relay, facts.certificate("stranger", "relay"))
        (held,) = snapshot.roles_of(hexid("relay-1"), NOW)
        assert (held.role, held.scope.partitions, held.scope.organizations) == ("relay", ("eu",), ())
        assert snapshot.has_role(hexid("relay-1"), "relay", NOW)
        assert not snapshot.has_role(hexid("relay-1"), "exit", NOW)
        assert not snapshot.has_role(hexid("relay-1"), "relay", T0 + HOUR)
        assert snapshot.roles_of(hexid("stranger"), NOW) == ()

    def test_a_renewed_certificate_takes_its_predecessors_place(self, farm: Farm) -> None:
        wide, narrow = facts.certificate("relay-1", "relay"), facts.certificate("relay-1", "relay", epoch=2)
        snapshot = farm.log(wide, narrow)
        assert [held.record_id for held in snapshot.roles_of(hexid("relay-1"), NOW)] == [facts.id_of(narrow)]
        assert facts.id_of(wide) not in snapshot.certificates

    def test_the_scope_of_a_delegation_is_its_parents_where_it_says_all(self, farm: Farm) -> None:
        top = facts.certificate("usa-los-1", "entry")
        child = facts.certificate("relay-1", "exit", facts.id_of(top))
        child["scope"] = {"actions": ["open"], "organizations": [], "services": ["*"], "partitions": ["*"]}
        snapshot = farm.log(top, child)
        (held,) = snapshot.roles_of(hexid("relay-1"), NOW)
        scope = snapshot.scope_of(held)
        assert (scope.actions, scope.organizations, scope.services, scope.partitions) == (
            ("open",),
            (),
            ("*",),
            ("eu",),
        )

    def test_a_revoked_certificate_ends_with_all_that_hangs_from_it(self, farm: Farm) -> None:
        top = facts.certificate("usa-los-1", "entry")
        child = facts.certificate("relay-1", "exit", facts.id_of(top))
        grandchild = facts.certificate("node-9", "exit", facts.id_of(child))
        beside = facts.certificate("node-9", "service-host")
        snapshot = farm.log(top, child, grandchild, beside)
        assert snapshot.has_role(hexid("node-9"), "exit", NOW)
        revocation = facts.revoke_certificate(facts.id_of(top))
        snapshot = farm.log(revocation)
        for holder, role in (("usa-los-1", "entry"), ("relay-1", "exit"), ("node-9", "exit")):
            assert not snapshot.has_role(hexid(holder), role, NOW)
        assert snapshot.certificates[facts.id_of(grandchild)].ended_by == facts.id_of(revocation)
        assert snapshot.has_role(hexid("node-9"), "service-host", NOW)

    @pytest.mark.parametrize(
        "reason", ["node revoked", "parent expired", "parent renewed", "node revoked ahead", "revoked ahead"]
    )
    def test_a_delegation_needs_its_whole_chain(self, farm: Farm, reason: str) -> None:
        top = facts.certificate("usa-los-1", "entry", valid_s=HOUR)
        child = facts.certificate("relay-1", "exit", facts.id_of(top), valid_s=2 * HOUR)
        assert farm.log(top, child).has_role(hexid("relay-1"), "exit", NOW)
        now = NOW
        if reason == "node revoked":
            farm.log(facts.revoke_node("usa-los-1"))
        elif reason == "parent expired":
            now = T0 + HOUR
        elif reason == "parent renewed":
            farm.log(facts.certificate("usa-los-1", "entry", epoch=2))
        elif reason == "node revoked ahead":
            farm.view.unlogged(facts.revoke_node("usa-los-1"), hexid("r"))
        else:
            farm.view.unlogged(facts.revoke_certificate(facts.id_of(top)), hexid("r"))
        assert not farm.view.snapshot.has_role(hexid("relay-1"), "exit", now)
