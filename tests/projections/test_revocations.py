"""What revocations and fences name."""

from __future__ import annotations

from typing import Any

from projections.base import Fact
from projections.revocations import revoked_certificate, revoked_node, target
from tests.projections import facts
from tests.projections.facts import hexid


def fact(record: dict[str, Any]) -> Fact:
    return facts.log(record)[0]


def test_targets() -> None:
    node, certificate = facts.revoke_node("a"), facts.revoke_certificate(hexid("c"))
    fence = facts.fence({"partition": "eu"})
    assert [target(record) for record in (node, certificate, fence)] == [
        ("node_id", hexid("a")),
        ("certificate", hexid("c")),
        ("partition", "eu"),
    ]
    assert (revoked_node(fact(node)), revoked_certificate(fact(node))) == (hexid("a"), None)
    assert (revoked_node(fact(certificate)), revoked_certificate(fact(certificate))) == (None, hexid("c"))


def test_a_fence_revokes_nobody() -> None:
    fence = fact(facts.fence({"node_id": hexid("a")}))
    assert (revoked_node(fence), revoked_certificate(fence)) == (None, None)
