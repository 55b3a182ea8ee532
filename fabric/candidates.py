"""A node's own candidate set: where others may try it. Pure; docs/records/, endpoint.candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fabric import limits
from fabric.identity import NodeIdentity
from fabric.peering import Address
from statelog.canonical import encode
from statelog.signing import SeedSigner, add_signature, sign_record
from statelog.state import NODE
from statelog.times import format_time

SCHEMA = "rap.fabric.endpoint.candidates.v1"
DIRECT = "direct_quic"


def candidate_set(
    identity: NodeIdentity,
    cluster_id: str,
    listen: Sequence[str],
    addresses: Sequence[str],
    now: float,
    last_epoch: int = 0,
) -> tuple[bytes, int]:
    """The signed record and its epoch. `listen` is what is bound; `addresses` (`quic://host:port`, best
    first) are what others may try.

    The epoch is the Unix time in milliseconds or the last one plus one, so that a node whose disk was wiped
    goes on where it was.
    """
    epoch = max(last_epoch + 1, int(now * 1000))
    record = {
        "schema_version": SCHEMA,
        "cluster_id": cluster_id,
        "epoch": epoch,
        "issued_at": format_time(int(now)),
        "expires_at": format_time(int(now) + limits.CANDIDATES_VALIDITY_S),
        "issuer_node_id": identity.node_id,
        "issuer_role": NODE,
        "node_id": identity.node_id,
        "listen": list(listen),
        "candidates": [
            {
                "endpoint_id": f"{identity.node_id}/{number}",
                "address": address,
                "transport": DIRECT,
                "reachability": "private",
                "connectivity_mode": "direct",
                "priority": 10 * number,
                "weight": 1,
                "peer_cert_sha256": identity.certificate_sha256,
            }
            for number, address in enumerate(addresses, 1)
        ],
        "signatures": [],
    }
    entry = sign_record(record, SeedSigner(identity.seed), identity.node_id, NODE)
    return encode(add_signature(record, entry)), epoch


def addresses_of(node_id: str, candidates: Sequence[Mapping[str, Any]]) -> tuple[Address, ...]:
    """What may be dialed of an admitted candidate set, best first: direct endpoints of the node itself."""
    direct = [
        one
        for one in candidates
        if one["transport"] == DIRECT and one["endpoint_id"].split("/")[0] == node_id
    ]
    direct.sort(key=lambda one: (one["priority"], -one["weight"], one["endpoint_id"]))
    return tuple(Address(one["address"], one["peer_cert_sha256"]) for one in direct)
