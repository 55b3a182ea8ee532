"""Vetoes: of the recovery under way, with a reason, by the old root."""

from __future__ import annotations

from statelog.limits import MAX_TEXT_CHARS
from statelog.state import CONTROL, ROOT
from tests.support.authority import QUORUMS, Cluster
from tests.support.verdicts import ADMITTED, place, verdict


def test_it_ends_the_recovery_it_names(cluster: Cluster) -> None:
    intent = cluster.recovery_intent(cluster.descriptor())
    assert place(cluster, cluster.veto(intent)) == ("SL-RECOVERY", "intent")
    cluster.append(intent)
    assert place(cluster, cluster.veto("ab" * 32)) == ("SL-RECOVERY", "intent")
    assert verdict(cluster, cluster.veto(intent)) == ADMITTED
    cluster.append(cluster.veto(intent))
    assert cluster.state.recovery is None
    assert place(cluster, cluster.veto(intent)) == ("SL-RECOVERY", "intent")


def test_it_gives_a_reason(cluster: Cluster) -> None:
    intent = cluster.recovery_intent(cluster.descriptor())
    cluster.append(intent)
    for reason, expected in (
        ("x" * MAX_TEXT_CHARS, ADMITTED),
        ("x" * (MAX_TEXT_CHARS + 1), "SL-SHAPE"),
        ("", "SL-SHAPE"),
    ):
        assert verdict(cluster, cluster.veto(intent, reason=reason)) == expected


def test_only_the_root_says_no(cluster: Cluster) -> None:
    intent = cluster.recovery_intent(cluster.descriptor())
    cluster.append(intent)
    assert verdict(cluster, cluster.veto(intent, issuer_role=CONTROL, by=QUORUMS[CONTROL])) == "SL-ROLE"
    assert verdict(cluster, cluster.veto(intent, by=QUORUMS[ROOT])) == ADMITTED
