"""The judgement every hop makes of a leased OPEN: each refusal by name, beside a twin that passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fabric.classes import TrafficClass
from fabric.relay import Lease, Refusal, check_lease
from tests.support.fabric_frames import DIRECT_OPEN
from tests.support.fabric_net import identity
from tests.support.leases import EXPIRES, LEASE, asked, hops


def verdict(
    lease: Lease | None = LEASE, me: int = 2, previous: int = 1, now: float = 1000.0, **fields: Any
) -> str:
    refusal = check_lease(lease, identity(me).node_id, identity(previous).node_id, asked(**fields), now)
    assert refusal is None or isinstance(refusal, Refusal)
    return refusal.reason if refusal else ""


REFUSALS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    # reason, what is asked, and the twin that passes
    ("no_lease", {"lease": None}, {}),
    ("no_lease", {"route_id": "q"}, {"route_id": "r"}),
    ("no_lease", {"epoch": 4}, {"epoch": 3}),
    ("fenced", {"lease": replace(LEASE, fenced=True)}, {"lease": replace(LEASE, fenced=False)}),
    ("lease_expired", {"now": EXPIRES}, {"now": EXPIRES - 1}),
    ("wrong_hop", {"me": 3}, {"me": 2}),
    ("wrong_hop", {"position": 3, "me": 3, "previous": 2}, {"position": 2, "me": 3, "previous": 2}),
    ("wrong_hop", {"lease": replace(LEASE, hops=hops(1, 2, 1))}, {"lease": replace(LEASE, hops=hops(1, 2))}),
    ("wrong_hop", {"lease": replace(LEASE, hops=())}, {}),
    ("wrong_previous", {"previous": 3}, {"previous": 1}),
    ("wrong_previous", {"position": 2, "me": 3, "previous": 1}, {"position": 2, "me": 3, "previous": 2}),
    ("class_not_allowed", {"class_": 2}, {"class_": 4}),
    (
        "class_not_allowed",
        {"lease": replace(LEASE, allowed_classes=frozenset())},
        {"lease": replace(LEASE, allowed_classes=frozenset(TrafficClass))},
    ),
    (
        "service_not_allowed",
        {"service": "ssh"},
        {"service": "ssh", "lease": replace(LEASE, allowed_services=frozenset({"ssh"}))},
    ),
    (
        "service_not_allowed",
        {"service": "ssh", "lease": replace(LEASE, allowed_services=frozenset({"rdp"}))},
        {"service": "ssh", "lease": replace(LEASE, allowed_services=frozenset({"*"}))},
    ),
]


@pytest.mark.parametrize(("reason", "bad", "good"), REFUSALS)
def test_each_refusal_has_its_name_and_its_twin_passes(
    reason: str, bad: dict[str, Any], good: dict[str, Any]
) -> None:
    assert verdict(**good) == ""
    assert verdict(**bad) == reason


def test_an_open_without_a_route_has_no_lease() -> None:
    refusal = check_lease(LEASE, hops(2)[0], hops(1)[0], DIRECT_OPEN, 1000.0)
    assert refusal is not None
    assert refusal.reason == "no_lease"


def test_an_open_under_an_earlier_epoch_obeys_the_present_lease() -> None:
    assert verdict(lease=replace(LEASE, epoch=9)) == ""
    assert verdict(lease=replace(LEASE, epoch=9, hops=hops(1, 4, 3))) == "wrong_hop"
