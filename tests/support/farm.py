"""Node daemons of a small cluster in one process, on real UDP sockets and real SQLite files.

    async with Farm(tmp_path, engine="qh3") as farm:
        await farm.begin()                       # control-1 sequences, four nodes witness
        await farm.log(farm.cluster.registry(...))
        await farm.until_final(everyone)

Keys are those of `tests.support.authority`; times are the machine's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fabric.identity import NodeIdentity
from fabric.io.config import NodeConfig, Seed
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.io.node import Node
from fabric.io.status import status
from fabric.peering import Address
from statelog.canonical import encode
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer
from statelog.signing import record_id_of
from tests.support.aio import until
from tests.support.authority import NODES, Cluster, endpoint, make_cluster, node_id, signer

CONTROL = "control-1"
WITNESSES = {"home-1": 1, "node-9": 2, "usa-los-1": 3, "relay-1": 4}
ROLES = {"home-1": "service-host", "node-9": "service-host", "usa-los-1": "entry", "relay-1": "relay"}
ROLES |= {"phone-a": "mobile-edge", "control-1": "control-plane"}


def seed_of(key: str) -> bytes:
    """The secret of a test cluster's key, as `authority.signer` makes it."""
    return sha256(b"key of a test cluster: " + key.encode()).digest()


def identity_of(name: str) -> NodeIdentity:
    found = NodeIdentity.from_seed(seed_of(f"node:{name}"))
    assert found.node_id == node_id(name)
    return found


class Farm:
    """Nodes by name. `services` of a node are TCP targets by service name."""

    def __init__(
        self,
        folder: Path,
        engine: str = "qh3",
        *,
        services: dict[str, dict[str, str]] | None = None,
        writers: dict[str, str] | None = None,
    ) -> None:
        """`writers`: the sequencer keys of nodes other than the control host, by node."""
        self.folder = folder
        self.engine = engine
        self.services = services or {}
        self.writers = {CONTROL: "sequencer-1", **(writers or {})}
        self.cluster: Cluster = make_cluster(now=int(time.time()) - 1)
        self.nodes: dict[str, Node] = {}
        self.ports: dict[str, int] = {}
        self._env: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.nodes):
            await self.stop(name)
        for name in self._env:
            os.environ.pop(name, None)

    # -- nodes --

    def _key(self, name: str) -> str:
        variable = f"FABRIC_TEST_{name.upper().replace('-', '_')}"
        os.environ[variable] = base64.b64encode(seed_of(name)).decode()
        self._env.append(variable)
        return f"env:{variable}"

    def config(self, name: str, seeds: Iterable[str] = (), **changes: Any) -> NodeConfig:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        witness = WITNESSES.get(name)
        fields: dict[str, Any] = {
            "folder": folder,
            "name": name,
            "cluster": self.cluster.cluster_id,
            "anchor": self.cluster.anchor,
            "listen_host": "127.0.0.1",
            "listen_port": self.ports.get(name, 0),
            "engine": self.engine,
            "probe_jitter_s": 0.1,
            "witness_key": None if witness is None else self._key(f"witness-{witness}"),
            "witness_name": None if witness is None else f"witness-{witness}.example",
            "sequencer_key": self._key(self.writers[name]) if name in self.writers else None,
            "seeds": tuple(self.seed(one) for one in seeds if one in self.ports),
            "services": self.services.get(name, {}),
        }
        return NodeConfig(**{**fields, **changes})

    def seed(self, name: str) -> Seed:
        identity = identity_of(name)
        address = f"quic://127.0.0.1:{self.ports[name]}"
        return Seed(identity.node_id, Address(address, identity.certificate_sha256))

    async def start(self, name: str, seeds: Iterable[str] = (CONTROL, "usa-los-1"), **changes: Any) -> Node:
        config = self.config(name, [one for one in seeds if one != name], **changes)
        node = Node(config, identity_of(name), rng=random.Random(name))
        await node.start()
        self.ports[name] = int(node.endpoint.local_address[1])
        self.nodes[name] = node
        return node

    async def stop(self, name: str) -> None:
        await self.nodes.pop(name).close()

    async def begin(self, names: Iterable[str] = NODES) -> None:
        """Genesis on the control host's store, then every node; all of them end on the final log."""
        (self.folder / CONTROL).mkdir(exist_ok=True)
        store = f"sqlite:///{self.folder / CONTROL / 'node.db'}"
        engine = open_database(store, create=True)
        records = [record for record, _, _ in self.cluster.log.entries]
        sequencer = Sequencer.create(
            engine, records[0], records[1], signer("sequencer-1"), now=self.cluster.now
        )
        sequencer.submit_many(records[2:], self.cluster.now)
        engine.dispose()
        names = list(names)
        for name in sorted(names, key=lambda n: n != CONTROL):
            await self.start(name)
        await self.until_size(len(records), names)

    # -- records --

    def endpoint(self, name: str, number: int = 1) -> dict[str, Any]:
        return endpoint(
            name,
            number,
            address=f"quic://127.0.0.1:{self.ports[name]}",
            peer_cert_sha256=identity_of(name).certificate_sha256,
        )

    def loopback_policy(self) -> dict[str, Any]:
        return self.cluster.policy("probe_allow", {"cidrs": ["127.0.0.0/8"]})

    def apply(self, record: dict[str, Any]) -> dict[str, Any]:
        """Take the record into the builder's own state, so that the next one follows it."""
        self.cluster.now = max(self.cluster.now, int(time.time()) - 1)
        self.cluster.append(record)
        return record

    async def log(self, record: dict[str, Any]) -> str:
        """Sequence a record at the control host and wait until it is final there."""
        self.apply(record)
        control = self.nodes[CONTROL]
        assert control.sequencing is not None
        result = await control.sequencing.submit(encode(record))
        assert result.state == "pending", result
        assert result.log_index is not None
        await control.sequencing.wait_final(result.log_index)
        return record_id_of(record)

    # -- waiting --

    def picked(self, names: Iterable[str] | None) -> list[Node]:
        return [self.nodes[name] for name in (self.nodes if names is None else names)]

    async def until(
        self, condition: Callable[[Node], bool], names: Iterable[str] | None = None, timeout_s: float = 40.0
    ) -> None:
        nodes = self.picked(names)
        try:
            await until(lambda: all(condition(node) for node in nodes), timeout_s=timeout_s)
        except TimeoutError:
            late = [status(node) for node in nodes if not condition(node)]
            raise AssertionError(f"these nodes never got there: {late}") from None

    async def until_size(self, size: int, names: Iterable[str] | None = None) -> None:
        await self.until(lambda n: n.update.log is not None and n.update.log.final_size >= size, names)

    async def until_active(self, service: str, record_id: str, names: Iterable[str] | None = None) -> None:
        def is_active(node: Node) -> bool:
            view = node.snapshot.registry_view(service)
            return view.active is not None and view.active.record_id == record_id

        await self.until(is_active, names)

    async def until_connected(self, name: str, other: str) -> None:
        peer = node_id(other)
        await self.until(lambda node: peer in node.peers.sessions(), [name])


@contextlib.asynccontextmanager
async def stranger(farm: Farm, name: str, *, known_as: str = "stranger") -> AsyncIterator[Connection]:
    """A session with a node of the farm, by a program that follows no rule but the transport's."""
    seed = farm.seed(name)
    async with await Endpoint.bind(identity_of(known_as), farm.cluster.cluster_id) as endpoint:
        yield await endpoint.dial(seed.address.address, pin=seed.address.cert_sha256, node_id=seed.node_id)


async def echo_server(greeting: bytes) -> tuple[asyncio.Server, str]:
    """A TCP service: says `greeting`, then echoes until the client's end. Returns it and its target."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # a client may break off
            writer.write(greeting)
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    return server, f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
