"""Drafts of where things are and how they are reached: services, routes, relays, directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statelog.cli.templates.common import (
    NOTHING,
    Current,
    Endpoints,
    Fields,
    Names,
    NodeId,
    Partition,
    Reason,
    endpoints,
    present,
    read_json,
    target,
)
from statelog.errors import UsageError
from statelog.records.peer_directory import directory_of
from statelog.records.shapes import sha256_hex
from statelog.signing import encode_base64


def registry_record(
    current: Current,
    service: Annotated[str | None, typer.Option(help="The service's logical name.")] = None,
    scope: Annotated[str, typer.Option(help="farm, cluster or organization.")] = "cluster",
    organization_id: Annotated[str | None, typer.Option(help="With scope organization.")] = None,
    endpoint: Endpoints = NOTHING,
) -> Fields:
    """Say where a service is.

    Example:

      statelog propose registry.record --service s --endpoint quic://192.0.2.7:4433,pin=HEX,node=ID
    """
    found = endpoints(endpoint)
    return present(service=service, scope=scope, organization_id=organization_id, endpoints=found)


def route_lease(
    current: Current,
    route_id: Annotated[str | None, typer.Option(help="The route's name.")] = None,
    partition: Annotated[str | None, typer.Option(help="The partition whose authority signs.")] = None,
    service: Annotated[str | None, typer.Option(help="What the route carries.")] = None,
    hop: Annotated[Names, typer.Option(help="A hop's node id, both ends included, in order.")] = NOTHING,
    next_hop: Annotated[str | None, typer.Option(help="A next-hop policy, instead of hops.")] = None,
    channel: Annotated[Names, typer.Option(help="An allowed channel; repeatable.")] = NOTHING,
    traffic_class: Annotated[Names, typer.Option("--class", help="An allowed class; repeatable.")] = NOTHING,
    allow: Annotated[Names, typer.Option("--allow-service", help="A further service; repeatable.")] = NOTHING,
    alternate: Annotated[Names, typer.Option(help="Another route to fall back on; repeatable.")] = NOTHING,
    organization_id: Annotated[str | None, typer.Option(help="Whose traffic it is.")] = None,
) -> Fields:
    """Lease a route through named hops.

    Example:

      statelog propose route.lease --route-id r7 --partition eu-1 --service rdp --hop A --hop B
    """
    return present(
        route_id=route_id,
        partition=partition,
        organization_id=organization_id,
        service=service,
        hops=hop or None,
        next_hop={"policy": next_hop} if next_hop else None,
        allowed_channels=channel,
        allowed_classes=traffic_class,
        allowed_services=allow or ([service] if service else []),
        alternates=alternate,
    )


def route_fence(
    current: Current,
    route_id: Annotated[str | None, typer.Option(help="The route.")] = None,
    node_id: NodeId = None,
    partition: Annotated[str | None, typer.Option(help="The partition.")] = None,
    reason: Reason = None,
) -> Fields:
    """End every lease of a route, a node or a partition.

    Example:

      statelog propose route.fence --route-id r7 --reason "relay misbehaves"
    """
    return present(target=target(route_id=route_id, node_id=node_id, partition=partition), reason=reason)


def service_lease(
    current: Current,
    service: Annotated[str | None, typer.Option(help="The service's logical name.")] = None,
    replica: Annotated[Names, typer.Option(help="A node that serves it; repeatable.")] = NOTHING,
    leader: Annotated[str | None, typer.Option(help="The one that leads; all are equal without it.")] = None,
) -> Fields:
    """Say which nodes serve a name, and who leads them.

    Example:

      statelog propose service.lease --service web-admin --replica A --replica B --leader A
    """
    mode = "active-active" if leader is None else "leader-follower"
    return present(service=service, mode=mode, leader=leader, replicas=replica or None)


def relay_assignment(
    current: Current,
    partition: Partition = None,
    relay: Annotated[
        Names,
        typer.Option(metavar="NODE_ID,mbit=N,class=C[+C…]", help="A relay and what it takes; repeatable."),
    ] = NOTHING,
    rendezvous: Annotated[Names, typer.Option(help="A node where others meet; repeatable.")] = NOTHING,
) -> Fields:
    """Say which nodes relay in a partition, and how much.

    Example:

      statelog propose relay.assignment --partition eu-1 --relay ID,mbit=200,class=interactive+bulk
    """
    return present(partition=partition, relays=[_relay(text) for text in relay], rendezvous=rendezvous)


def peer_directory(
    current: Current,
    partition: Partition = None,
    nodes: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON list of the node ids it lists.")
    ] = None,
) -> Fields:
    """Say which directory of a partition's peers is true.

    Example:

      statelog propose peer_directory.epoch --partition eu-1 --nodes peers.json
    """
    if nodes is None:
        return present(partition=partition)
    listed = read_json(nodes)
    if not isinstance(listed, list) or any(sha256_hex(one) is not None for one in listed):
        raise UsageError("--nodes must hold a JSON list of node ids")
    count, root = directory_of(bytes.fromhex(one) for one in listed)
    return present(partition=partition, node_count=count, directory_root=encode_base64(root))


def _relay(text: str) -> Fields:
    node_id, *rest = text.split(",")
    given = dict(part.partition("=")[::2] for part in rest)
    if given.keys() != {"mbit", "class"} or not given["mbit"].isdecimal():
        raise UsageError(f"--relay {text!r} is not NODE_ID,mbit=N,class=C[+C…]")
    return {
        "node_id": node_id,
        "classes": given["class"].split("+"),
        "max_mbit_per_s": int(given["mbit"]),
    }
