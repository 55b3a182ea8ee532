"""The fabric: nodes, sealed streams between them, and the sessions and relays that carry these over QUIC.

    identity = fabric.NodeIdentity.from_seed(seed)

    async with fabric.connect("quic://192.0.2.1:4433", identity=identity, cluster_id=c, pin=pin) as session:
        async with await session.open("echo", fabric.TrafficClass.RELIABLE) as stream:
            stream.write(b"hello")
            await stream.end()
            print(await stream.read())

    async with fabric.serve({"echo": echo}, identity=identity, cluster_id=c, port=4433) as endpoint:
        ...

docs/examples/ has programs that run.

The modules directly in this package are pure machines; sockets, clocks and asyncio are in `fabric.io`, which
is loaded only when one of the names below is used. Their types are in `__init__.pyi`.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = [
    "Connection",
    "Endpoint",
    "FabricError",
    "Mode",
    "NodeIdentity",
    "Session",
    "Stream",
    "StreamError",
    "TrafficClass",
    "connect",
    "serve",
]

_HOME = {
    "Connection": "fabric.io.connection",
    "Endpoint": "fabric.io.endpoint",
    "FabricError": "fabric.errors",
    "Mode": "fabric.classes",
    "NodeIdentity": "fabric.identity",
    "Session": "fabric.io.api",
    "Stream": "fabric.io.streams",
    "StreamError": "fabric.errors",
    "TrafficClass": "fabric.classes",
    "connect": "fabric.io.api",
    "serve": "fabric.io.api",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'fabric' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
