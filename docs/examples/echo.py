"""A service and a client of it: bytes both ways, each direction ended by itself.

python docs/examples/echo.py
"""

import asyncio
import os

import fabric

CLUSTER = "example.aaaaaaaaaaaaaaaaaaaaaaaaaa"


async def echo(stream: fabric.Stream, connection: fabric.Connection) -> None:
    """Called for each stream that somebody opens to "echo"."""
    print(f"{stream.peer_node_id[:8]} opened {stream.service} from {connection.remote[0]}")
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def main() -> None:
    server, client = (fabric.NodeIdentity.from_seed(os.urandom(32)) for _ in range(2))
    async with (
        fabric.serve({"echo": echo}, identity=server, cluster_id=CLUSTER, host="127.0.0.1") as endpoint,
        # Who it must be is known beforehand; the address proves nothing.
        fabric.connect(endpoint.url, identity=client, cluster_id=CLUSTER, node_id=server.node_id) as session,
    ):
        print(f"round trip {await session.ping() * 1000:.1f} ms")
        async with await session.open("echo", fabric.TrafficClass.INTERACTIVE) as stream:
            stream.write(b"hello")
            await stream.end()
            print((await stream.readexactly(5)).decode())
            assert await stream.read() == b"", "the other end has ended its direction too"


if __name__ == "__main__":
    asyncio.run(main())
