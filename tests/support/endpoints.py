"""Endpoints for tests: identities by number, one cluster, addresses as URLs, and two plain services."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import Any

import pytest

from fabric.classes import TrafficClass
from fabric.identity import NodeIdentity, format_quic_address
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint, StreamHandler
from fabric.io.streams import Stream
from tests.support.carrier_pair import identity
from tests.support.udp_link import UdpLink

CLUSTER = "test.aaaaaaaaaaaaaaaaaaaaaaaaaa"

PAIRS = [("qh3", "qh3"), ("qh3", "aioquic"), ("aioquic", "qh3"), ("aioquic", "aioquic")]
engines = pytest.mark.parametrize("engines", PAIRS, ids=["-".join(pair) for pair in PAIRS])


def url(endpoint: Endpoint) -> str:
    """`quic://host:port` of an endpoint."""
    return format_quic_address(endpoint.local_address[0], endpoint.local_address[1])


async def bind(number: int, *, cluster_id: str = CLUSTER, **options: Any) -> Endpoint:
    """An endpoint on loopback with the identity of `number`."""
    return await Endpoint.bind(identity(number), cluster_id, **options)


async def dial(source: Endpoint, target: Endpoint, address: str | None = None) -> Connection:
    """A ready session from one endpoint to the other, over a link when `address` is its URL."""
    peer: NodeIdentity = target.identity
    return await source.dial(address or url(target), pin=peer.certificate_sha256, node_id=peer.node_id)


async def assert_alive(a: Endpoint, b: Endpoint) -> None:
    """The positive twin of every refusal: an honest dialer gets in afterwards."""
    connection = await dial(a, b)
    assert await connection.ping() > 0
    await connection.aclose()


async def echo(stream: Stream, connection: Connection) -> None:
    """Send back what comes, then end."""
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
    await stream.end()


async def digest(stream: Stream, connection: Connection) -> None:
    """Read to the end, answer with its hash."""
    seen = hashlib.sha256()
    while data := await stream.read():
        seen.update(data)
    stream.write(seen.digest())
    await stream.end()


SERVICES: dict[str, StreamHandler] = {"echo": echo, "digest": digest}


@contextlib.asynccontextmanager
async def pair(names: tuple[str, str] = ("qh3", "qh3"), **options: Any) -> Any:
    """Two endpoints and a session from the first to the second, which serves `SERVICES`."""
    async with (
        await bind(1, engine=names[0]) as a,
        await bind(2, engine=names[1], **({"services": SERVICES} | options)) as b,
    ):
        yield a, b, await dial(a, b)


@contextlib.asynccontextmanager
async def linked(names: tuple[str, str] = ("qh3", "qh3"), **options: Any) -> Any:
    """As `pair`, the session over a `UdpLink` with these options, which comes as the fourth."""
    async with (
        await bind(1, engine=names[0]) as a,
        await bind(2, engine=names[1], services=SERVICES) as b,
        UdpLink(b.local_address, **options) as link,
    ):
        yield a, b, await dial(a, b, link.url), link


async def send_and_hash(connection: Connection, total: int, traffic_class: TrafficClass) -> bool:
    """Stream random bytes to `digest`; whether the answer is their hash and then the end."""
    expected = hashlib.sha256()
    async with await connection.open("digest", traffic_class) as stream:
        for start in range(0, total, 300_000):
            data = os.urandom(min(300_000, total - start))
            expected.update(data)
            stream.write(data)
            await stream.drain()
        await stream.end()
        return await stream.readexactly(32) == expected.digest() and await stream.read() == b""
