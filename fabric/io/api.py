"""The short way in for programs: one context manager to connect, one to serve. See `fabric`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from fabric.classes import Mode, TrafficClass
from fabric.identity import NodeIdentity
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint, StreamHandler
from fabric.io.streams import Stream


class Session:
    """A neighbour, and the session with it: dialed anew when it is gone and something is to be opened.

    Streams that are open when a session breaks go on over the next one by themselves. Made by `connect`.
    """

    def __init__(
        self, endpoint: Endpoint, connection: Connection, address: str, pin: str | None, node_id: str | None
    ) -> None:
        self._endpoint = endpoint
        self._connection = connection
        self._address = address
        self._pin = pin
        self._node_id = node_id

    @property
    def peer_node_id(self) -> str:
        """Who is at the other end: the hash of the key that it has proved to hold."""
        return self._connection.peer_node_id

    @property
    def connection(self) -> Connection:
        """The newest QUIC connection with the neighbour."""
        return self._endpoint.connection_to(self.peer_node_id) or self._connection

    async def open(
        self, service: str, traffic_class: TrafficClass, *, mode: Mode = Mode.STREAM, resume: bool = True
    ) -> Stream:
        """A stream to a service of the neighbour: bytes in order, or with `Mode.DATAGRAM` packets.

        Use it as an async context manager: leaving it delivers what was written, an exception resets the
        stream. Cancelling this call leaves nothing behind. Without `resume` the stream ends with the session
        it was opened on. Raises `StreamError` with the reason of a refusal, `FabricError` when the neighbour
        cannot be reached.
        """
        connection = await self._connected()
        return await connection.open(service, traffic_class, mode=mode, resume=resume)

    async def ping(self) -> float:
        """Round-trip time in seconds."""
        return await (await self._connected()).ping()

    async def _connected(self) -> Connection:
        connection = self._endpoint.connection_to(self.peer_node_id)
        if connection is None:
            connection = await self._endpoint.dial(self._address, pin=self._pin, node_id=self._node_id)
        self._connection = connection
        return connection


@contextlib.asynccontextmanager
async def connect(
    address: str,
    *,
    identity: NodeIdentity,
    cluster_id: str,
    pin: str | None = None,
    node_id: str | None = None,
    bind_host: str | None = None,
    engine: str = "auto",
    services: Mapping[str, StreamHandler] | None = None,
) -> AsyncIterator[Session]:
    """A session with the node at `quic://host:port`, over a socket of its own, closed on leaving.

    `pin` (SHA-256 of the listener's certificate, hex) or `node_id` says whom to expect; one is needed.
    `services` are offered to it over the same session. Without `bind_host` every IPv4 interface is used, or
    IPv6 where the address is one. Raises `FabricError` as `Endpoint.dial` does.
    """
    host = bind_host or ("::" if address.startswith("quic://[") else "0.0.0.0")
    async with await Endpoint.bind(
        identity, cluster_id, host, 0, engine=engine, services=dict(services or {})
    ) as endpoint:
        connection = await endpoint.dial(address, pin=pin, node_id=node_id)
        yield Session(endpoint, connection, address, pin, node_id)


@contextlib.asynccontextmanager
async def serve(
    services: Mapping[str, StreamHandler],
    *,
    identity: NodeIdentity,
    cluster_id: str,
    host: str = "0.0.0.0",
    port: int = 0,
    engine: str = "auto",
) -> AsyncIterator[Endpoint]:
    """An endpoint that offers `services` by logical name, closed on leaving; port 0 picks a free one.

    A handler is called as a task of its own for each stream, once the other end has proved itself. When it
    returns, what it wrote is delivered; when it raises, the stream is reset and the endpoint goes on.
    """
    async with await Endpoint.bind(
        identity, cluster_id, host, port, engine=engine, services=dict(services)
    ) as endpoint:
        yield endpoint
