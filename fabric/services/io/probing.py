"""Probes: does this endpoint answer with the pinned identity, and serve the service?"""

from __future__ import annotations

import asyncio
import socket

from fabric import limits
from fabric.classes import Mode, TrafficClass
from fabric.discovery import FORBIDDEN_ADDRESS, IpNetwork, Probe, may_probe
from fabric.errors import FabricError
from fabric.identity import AddressError, format_quic_address, parse_quic_address
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint


async def probe(endpoint: Endpoint, what: Probe, allowed: tuple[IpNetwork, ...]) -> str | None:
    """None when the endpoint is proved, else the reason: `address_forbidden`, `timeout`, or a stable code.

    A name is resolved here and the address that was judged is the one that is dialed, so that a name cannot
    lead elsewhere a moment later.
    """
    node_ids = what.endpoint.node_ids
    if len(node_ids) != 1 or what.endpoint.transport != "direct_quic":
        return "not_direct"
    if node_ids[0] == endpoint.identity.node_id:
        return None if what.service in endpoint.services else "unknown_service"
    try:
        async with asyncio.timeout(limits.PROBE_TIMEOUT_S):
            address = await _judged(what.endpoint.address, allowed)
            if address is None:
                return FORBIDDEN_ADDRESS
            await _ask(endpoint, what, address, node_ids[0])
    except TimeoutError:
        return "timeout"
    except FabricError as error:
        return error.code
    return None


async def _judged(address: str, allowed: tuple[IpNetwork, ...]) -> str | None:
    """The address with its host resolved, None when a probe may not go there. Raises AddressError."""
    host, port = parse_quic_address(address)
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise AddressError("no_address", f"{host}: {error}") from error
    for _, _, _, _, resolved in found:
        if may_probe(str(resolved[0]), allowed):
            return format_quic_address(str(resolved[0]), port)
    return None


async def _ask(endpoint: Endpoint, what: Probe, address: str, node_id: str) -> None:
    """AUTH, OPEN in probe mode, ACCEPTED. A session that is there already proves the node, not the address:
    the probe is of the address, so it makes a connection of its own unless the session goes there.
    """
    connection = endpoint.connection_to(node_id)
    host, port = parse_quic_address(address)
    own: Connection | None = None
    if connection is None or not connection.is_dialer or connection.remote[:2] != (host, port):
        own = connection = await endpoint.dial(
            address, pin=what.endpoint.peer_cert_sha256, node_id=node_id, timeout_s=limits.PROBE_TIMEOUT_S
        )
    try:
        stream = await connection.open(what.service, TrafficClass.CONTROL, mode=Mode.PROBE)
        stream.reset("cancelled", "probed")
    finally:
        if own is not None and own is not endpoint.connection_to(node_id):
            own.goaway()
