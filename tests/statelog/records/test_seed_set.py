"""Seed sets: endpoints to start from, tied to this cluster's anchor."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.limits import MAX_ENDPOINTS
from statelog.state import CONTROL, UPDATE
from tests.support.authority import QUORUMS, Cluster, endpoint
from tests.support.verdicts import ADMITTED, place, verdict


def test_platform_and_site_are_the_subject(cluster: Cluster) -> None:
    assert cluster.append(cluster.seeds()).subject == ("linux", "home")
    assert cluster.seeds()["epoch"] == 2
    assert cluster.seeds(site="office")["epoch"] == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"endpoints": [endpoint(n=n) for n in range(MAX_ENDPOINTS)]}, ADMITTED),
        ({"endpoints": [endpoint(n=n) for n in range(MAX_ENDPOINTS + 1)]}, ("SL-SHAPE", "endpoints")),
        ({"endpoints": []}, ("SL-SHAPE", "endpoints")),
        ({"endpoints": [endpoint(), endpoint()]}, ("SL-SHAPE", "endpoints")),
        ({"endpoints": [endpoint(address="https://a:1")]}, ("SL-SHAPE", "endpoints[0].address")),
        ({"platform": ""}, ("SL-SHAPE", "platform")),
        ({"anchor": "ab" * 32}, ("SL-ANCHOR", "anchor")),
    ],
)
def test_what_it_may_say(cluster: Cluster, changes: dict[str, Any], expected: object) -> None:
    assert (verdict if expected == ADMITTED else place)(cluster, cluster.seeds(**changes)) == expected


def test_only_control_signs_it(cluster: Cluster) -> None:
    assert verdict(cluster, cluster.seeds(by=QUORUMS[CONTROL])) == ADMITTED
    assert verdict(cluster, cluster.seeds(issuer_role=UPDATE, by=QUORUMS[UPDATE])) == "SL-ROLE"
