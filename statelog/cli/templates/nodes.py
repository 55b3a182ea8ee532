"""Drafts about nodes: approval, roles, revocation, policies, seeds."""

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
    Reason,
    endpoints,
    present,
    read_json,
    target,
)
from statelog.signing import key_id_of, public_from_base64


def node_approval(
    current: Current,
    public: Annotated[str | None, typer.Option(help="The node's public key, base64.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call the node.")] = None,
    tier: Annotated[str, typer.Option(help="candidate, standard or trusted.")] = "standard",
    organization: Annotated[Names, typer.Option(help="An organization of the node; repeatable.")] = NOTHING,
) -> Fields:
    """Admit a node.

    Example:

      statelog propose node.approval --public BASE64 --name "Desk, second floor"
    """
    own = present(public=public, display_name=name, trust_tier=tier, organizations=organization)
    return own if public is None else {**own, "node_id": key_id_of(public_from_base64(public))}


def role_certificate(
    current: Current,
    node_id: NodeId = None,
    role: Annotated[str | None, typer.Option(help="relay, entry, service-host, …")] = None,
    action: Annotated[Names, typer.Option(help="An allowed action, or *; repeatable.")] = NOTHING,
    organization: Annotated[Names, typer.Option(help="An organization, or *; repeatable.")] = NOTHING,
    service: Annotated[Names, typer.Option(help="A service, or *; repeatable.")] = NOTHING,
    partition: Annotated[Names, typer.Option(help="A partition, or *; repeatable.")] = NOTHING,
    depth: Annotated[int, typer.Option(min=0, help="How often it may be delegated further.")] = 0,
    parent: Annotated[str | None, typer.Option(help="The certificate it descends from.")] = None,
) -> Fields:
    """Give a node a role.

    Example:

      statelog propose role.certificate --node-id ID --role relay --partition eu-1 --action '*'
    """
    scope = {"actions": action, "organizations": organization, "services": service, "partitions": partition}
    own = present(node_id=node_id, role=role, scope=scope, delegation_depth=depth)
    return {**own, "parent": parent}


def role_revocation(
    current: Current,
    certificate: Annotated[str | None, typer.Option(help="The certificate's record id.")] = None,
    node_id: NodeId = None,
    reason: Reason = None,
) -> Fields:
    """Take a certificate, or a node with all it holds, away for good.

    Example:

      statelog propose role.revocation --node-id ID --reason "laptop stolen"
    """
    return present(target=target(certificate=certificate, node_id=node_id), reason=reason)


def policy_epoch(
    current: Current,
    policy: Annotated[str | None, typer.Option(help="The policy's name.")] = None,
    document: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The document, a JSON object.")
    ] = None,
    assertions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON list of {given, expect}.")
    ] = None,
) -> Fields:
    """Set the next epoch of a policy.

    Example:

      statelog propose policy.epoch --policy probe --document probe.json --assertions probe-tests.json
    """
    return present(
        policy=policy,
        document=read_json(document) if document else None,
        assertions=read_json(assertions) if assertions else [],
    )


def seed_set(
    current: Current,
    platform: Annotated[str | None, typer.Option(help="linux, windows, android, docker, …")] = None,
    site: Annotated[str | None, typer.Option(help="Where the new nodes stand.")] = None,
    endpoint: Endpoints = NOTHING,
) -> Fields:
    """Say where new nodes find their first peers.

    Example:

      statelog propose bootstrap.seed_set --platform linux --site home --endpoint quic://a:4433,pin=HEX,node=ID
    """
    anchor = current.replay.anchor
    return present(platform=platform, site=site, anchor=anchor, endpoints=endpoints(endpoint))
