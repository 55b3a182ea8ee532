"""Which way to a service."""

from __future__ import annotations

from typing import Any

from fabric.routing import Route, leased_route, plan
from projections.model import Endpoint, Lease, Node, RegistryRecord, RegistryView
from projections.pmap import PMap
from projections.snapshot import NOTHING_AHEAD, Ahead, Snapshot

ME, RELAY, OLD, NEW, OTHER = ("0" * 64, "1" * 64, "2" * 64, "3" * 64, "4" * 64)
SERVICE, NOW, LATER = "web", 1_000.0, 5_000


def endpoint(node: str, number: int = 1, priority: int = 10, weight: int = 1) -> Endpoint:
    address = f"quic://192.0.2.{number}:7000"
    return Endpoint(
        f"{node}/{number}", address, "direct_quic", "public", "direct", priority, weight, "f" * 64
    )


def record(
    name: str, *endpoints: Endpoint, epoch: int = 1, expires_at: int = LATER, scope: str = "cluster"
) -> RegistryRecord:
    organization = "org-1" if scope == "organization" else ""
    return RegistryRecord(
        name * 64, (SERVICE, scope, organization), epoch, 0, expires_at, 0, endpoints, log_index=epoch
    )


def lease(route_id: str, *hops: str, expires_at: int = LATER, ended_by: str = "", **own: Any) -> Lease:
    values: dict[str, Any] = {
        "route_id": route_id,
        "partition": "p",
        "organization_id": "",
        "service": SERVICE,
        "hops": hops,
        "next_hop_policy": "",
        "allowed_channels": (),
        "allowed_classes": ("reliable",),
        "allowed_services": (SERVICE,),
        "alternates": (),
        "epoch": 3,
        "record_id": "9" * 64,
        "issued_at": 0,
        "expires_at": expires_at,
        "log": "authority",
        "log_index": 7,
        "authority_size": 0,
        "ended_by": ended_by,
        "bootstrap": False,
    }
    return Lease(**{**values, **own})


def snapshot(
    active: RegistryRecord | None = None,
    fallbacks: tuple[RegistryRecord, ...] = (),
    candidates: tuple[RegistryRecord, ...] = (),
    leases: tuple[Lease, ...] = (),
    ahead: Ahead = NOTHING_AHEAD,
    organizations: tuple[str, ...] = (),
) -> Snapshot:
    known = [r for r in (active, *fallbacks) if r is not None]
    view = RegistryView(active, fallbacks, candidates, frozenset(r.record_id for r in known))
    subject = (known or list(candidates) or [record("e", endpoint(OLD))])[0].subject
    first: dict[str, list[str]] = {}
    for one in leases:
        first.setdefault(one.hops[0], []).append(one.route_id)
    me = Node(ME, "", "me", "standard", organizations, 1, "8" * 64, 0, LATER, 1, "", bootstrap=False)
    return Snapshot(
        size=9,
        registry=PMap([(subject, view)]),
        nodes=PMap([(ME, me)]),
        leases=PMap([(one.route_id, one) for one in leases]),
        ahead=ahead,
        _leases_from=PMap([(node, tuple(ids)) for node, ids in first.items()]),
    )


def ways(routes: list[Route]) -> list[str]:
    """`lease:r` or the number of the endpoint."""
    return [
        f"lease:{r.route_id}" if r.endpoint is None else r.endpoint.endpoint_id.split("/")[1] for r in routes
    ]


def test_without_a_record_or_a_lease_there_is_no_way() -> None:
    assert plan(snapshot(), ME, SERVICE, NOW) == []
    assert plan(snapshot(record("a", endpoint(OLD))), ME, "other", NOW) == []


def test_endpoints_of_the_active_record_by_priority_then_weight() -> None:
    active = record(
        "a", endpoint(OLD, 1, priority=20), endpoint(OLD, 2, weight=1), endpoint(NEW, 3, weight=5)
    )
    routes = plan(snapshot(active), ME, SERVICE, NOW)
    assert ways(routes) == ["3", "2", "1"]
    assert routes[0] == Route("direct", (ME, NEW), SERVICE, endpoint=active.endpoints[2], record_id="a" * 64)


def test_a_lease_to_the_active_host_goes_first_and_the_fallback_last() -> None:
    active, old = record("a", endpoint(NEW, 1), epoch=2), record("b", endpoint(OLD, 2))
    leases = (lease("to-new", ME, RELAY, NEW), lease("to-old", ME, RELAY, OLD))
    routes = plan(snapshot(active, (old,), leases=leases), ME, SERVICE, NOW)
    assert ways(routes) == ["lease:to-new", "1", "lease:to-old", "2"]
    first = routes[0]
    assert (first.target, first.next_hop, first.epoch, first.record_id) == (NEW, RELAY, 3, "a" * 64)


def test_of_equal_leases_one_over_a_live_session_goes_first() -> None:
    active = record("a", endpoint(NEW, 1))
    leases = (lease("a", ME, OTHER, NEW), lease("b", ME, RELAY, NEW))
    assert ways(plan(snapshot(active, leases=leases), ME, SERVICE, NOW))[0] == "lease:a"
    assert ways(plan(snapshot(active, leases=leases), ME, SERVICE, NOW, held=[RELAY]))[0] == "lease:b"


def test_only_leases_that_stand_begin_here_and_allow_the_service_are_used() -> None:
    leases = (
        lease("good", ME, RELAY, NEW),
        lease("expired", ME, RELAY, NEW, expires_at=int(NOW)),
        lease("fenced", ME, RELAY, NEW, ended_by="7" * 64),
        lease("elsewhere", OTHER, RELAY, NEW),
        lease("service", ME, RELAY, NEW, service="ssh", allowed_services=()),
        lease("policy", ME),
    )
    assert ways(plan(snapshot(leases=leases), ME, SERVICE, NOW)) == ["lease:good"]


def test_a_revocation_ahead_of_the_log_takes_its_nodes_routes_away() -> None:
    active = record("a", endpoint(NEW, 1), endpoint(OLD, 2))
    ahead = Ahead(nodes=frozenset({NEW}))
    assert ways(plan(snapshot(active), ME, SERVICE, NOW)) == ["2", "1"]
    leases = (lease("gone", ME, RELAY, NEW),)
    assert ways(plan(snapshot(active, leases=leases, ahead=ahead), ME, SERVICE, NOW)) == ["2"]


def test_an_expired_active_record_leaves_its_place_to_the_fallback() -> None:
    active, old = record("a", endpoint(NEW, 1), epoch=2, expires_at=900), record("b", endpoint(OLD, 2))
    assert ways(plan(snapshot(active, (old,)), ME, SERVICE, NOW)) == ["2"]


def test_a_candidate_is_no_destination() -> None:
    assert plan(snapshot(candidates=(record("a", endpoint(NEW, 1)),)), ME, SERVICE, NOW) == []


def test_the_same_door_is_tried_once() -> None:
    active, old = record("a", endpoint(NEW, 1), epoch=2), record("b", endpoint(NEW, 1))
    assert ways(plan(snapshot(active, (old,)), ME, SERVICE, NOW)) == ["1"]


def test_an_organizations_own_record_comes_before_the_clusters() -> None:
    own = record("a", endpoint(NEW, 1), scope="organization")
    assert plan(snapshot(own), ME, SERVICE, NOW) == []
    assert ways(plan(snapshot(own, organizations=("org-1",)), ME, SERVICE, NOW)) == ["1"]


def test_relayed_endpoints_are_not_dialed_directly() -> None:
    via = Endpoint(
        f"{NEW}/via/{RELAY}/1", "quic://192.0.2.1:1", "relay_quic", "public", "relay", 1, 1, "f" * 64
    )
    assert plan(snapshot(record("a", via)), ME, SERVICE, NOW) == []


def test_a_forced_route_is_the_leases_whatever_it_allows() -> None:
    assert leased_route(lease("r", ME, RELAY, NEW), "ssh") == Route(
        "leased", (ME, RELAY, NEW), "ssh", route_id="r", epoch=3
    )
