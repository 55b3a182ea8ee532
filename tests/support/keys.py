"""Keys from names, and the objects that list them in records.  Deterministic."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from typing import Any

from statelog.signing import SeedSigner, encode_base64, key_id_of, possession_bytes

CLUSTER_ID = "test.abcdefghijklmnopqrstuvwxyz"


@cache
def signer(name: str) -> SeedSigner:
    """The key of ``name``: root-1, control-2, witness-3, sequencer-1, node:home-1, or any other name."""
    return SeedSigner(sha256(b"key of a test cluster: " + name.encode()).digest())


def key_id(name: str) -> str:
    return key_id_of(signer(name).public)


def node_signer(name: str) -> SeedSigner:
    """The node key of ``name``."""
    return signer(f"node:{name}")


def node_id(name: str) -> str:
    return key_id(f"node:{name}")


def issuer(name: str) -> str:
    """The person behind a key: root-1 and control-1 are two keys of two people, root-a and root-A of one."""
    if name.startswith("node:"):
        return node_id(name.removeprefix("node:"))
    return f"keeper-of-{name.lower()}"


@cache
def possession(cluster_id: str, name: str, issuer_id: str) -> str:
    key = signer(name)
    return encode_base64(key.sign(possession_bytes(cluster_id, issuer_id, key_id_of(key.public))))


def key_entry(
    name: str, *, cluster_id: str = CLUSTER_ID, custody: str = "online", **changes: Any
) -> dict[str, Any]:
    """A KEY object with a proof of possession."""
    entry: dict[str, Any] = {
        "key_id": key_id(name),
        "alg": "ed25519",
        "public": encode_base64(signer(name).public),
        "issuer_id": issuer(name),
        "custody": custody,
        **changes,
    }
    entry.setdefault("proof", possession(cluster_id, name, entry["issuer_id"]))
    return entry


def sequencer_entry(name: str, node: str, cluster_id: str = CLUSTER_ID) -> dict[str, Any]:
    proof = possession(cluster_id, name, node_id(node))
    return {"public": encode_base64(signer(name).public), "node_id": node_id(node), "proof": proof}


def endpoint(node: str = "home-1", n: int = 1, **changes: Any) -> dict[str, Any]:
    """An endpoint object; the pin is a stand-in, see `fabric.identity` for real ones."""
    return {
        "endpoint_id": f"{node_id(node)}/{n}",
        "address": f"quic://192.0.2.{n}:4433",
        "transport": "direct_quic",
        "reachability": "public",
        "connectivity_mode": "direct",
        "priority": 10,
        "weight": 1,
        "peer_cert_sha256": sha256(node.encode()).hexdigest(),
        **changes,
    }
