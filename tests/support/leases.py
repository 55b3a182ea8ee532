"""A lease from node 1 over node 2 to node 3, and OPENs that ask for it."""

from __future__ import annotations

from typing import Any

import msgspec

from fabric.classes import TrafficClass
from fabric.relay import Lease
from fabric.wire import OpenStream, RouteRef
from tests.support.fabric_frames import LEASED_OPEN
from tests.support.fabric_net import identity

EXPIRES = 2000.0


def hops(*numbers: int) -> tuple[str, ...]:
    return tuple(identity(number).node_id for number in numbers)


LEASE = Lease(
    route_id="r",
    epoch=3,
    hops=hops(1, 2, 3),
    service="echo",
    expires_at=EXPIRES,
    allowed_classes=frozenset({TrafficClass.RELIABLE, TrafficClass.BULK}),
    organization_id="org",
)


def asked(position: int = 1, **fields: Any) -> OpenStream:
    route = RouteRef(route_id=fields.pop("route_id", "r"), epoch=fields.pop("epoch", 3), position=position)
    return msgspec.structs.replace(LEASED_OPEN, **{"service": "echo", "class_": 3, "route": route, **fields})
