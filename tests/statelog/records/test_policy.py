"""Policies: any document of the canonical profile, under its name, the latest in force."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.state import UPDATE
from tests.support.authority import QUORUMS, Cluster
from tests.support.verdicts import ADMITTED, verdict


def test_the_latest_document_is_in_force(cluster: Cluster) -> None:
    cluster.append(cluster.policy("p", {"allow": ["a"]}))
    admitted = cluster.append(cluster.policy("p", {"allow": ["b"], "n": {"deep": [1, None, True]}}))
    policy = cluster.state.policies["p"]
    assert (policy.epoch, policy.record_id) == (2, admitted.record_id)
    assert policy.document == {"allow": ["b"], "n": {"deep": [1, None, True]}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"document": {"a": 1}}, ADMITTED),
        ({"document": []}, "SL-SHAPE"),
        ({"document": None}, "SL-SHAPE"),
        ({"assertions": [{"given": {"a": 1}, "expect": "allow"}]}, ADMITTED),
        ({"assertions": [{"given": {"a": 1}, "expect": "maybe"}]}, "SL-SHAPE"),
        ({"assertions": [{"expect": "allow"}]}, "SL-SHAPE"),
        ({"policy": ""}, "SL-SHAPE"),
    ],
)
def test_shape(cluster: Cluster, changes: dict[str, Any], expected: str) -> None:
    assert verdict(cluster, cluster.sign({**cluster.policy(), **changes})) == expected


def test_policies_are_subjects_of_their_own(cluster: Cluster) -> None:
    cluster.append(cluster.policy("p"))
    cluster.append(cluster.policy("q"))
    assert {name: policy.epoch for name, policy in cluster.state.policies.items()} == {"p": 1, "q": 1}


def test_only_control_sets_policy(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.policy()) == ADMITTED
    assert verdict(cluster, cluster.policy(issuer_role=UPDATE, by=QUORUMS[UPDATE])) == "SL-ROLE"
