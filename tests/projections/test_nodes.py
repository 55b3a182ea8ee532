"""Approved nodes."""

from __future__ import annotations

from tests.projections import facts
from tests.projections.facts import hexid
from tests.projections.farm import NOW, Farm


class TestNodes:
    def test_an_approved_node(self, farm: Farm) -> None:
        snapshot = farm.view.snapshot
        node = snapshot.node(hexid("node-9"))
        assert node is not None
        assert node.display_name == "node-9"
        assert snapshot.approved(node.node_id, NOW)
        assert not snapshot.approved(node.node_id, node.expires_at)
        assert not snapshot.approved(hexid("stranger"), NOW)
        assert not snapshot.revoked(hexid("stranger"))

    def test_a_revoked_node_stays_revoked_whatever_is_approved_later(self, farm: Farm) -> None:
        revocation = facts.revoke_node("node-9")
        snapshot = farm.log(revocation, facts.approval("node-9", epoch=2))
        assert not snapshot.approved(hexid("node-9"), NOW)
        assert snapshot.nodes[hexid("node-9")].ended_by == facts.id_of(revocation)
        assert snapshot.approved(hexid("relay-1"), NOW)
