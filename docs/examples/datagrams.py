"""Packets that may be lost but never wait for each other, and a stream that outlives its session.

python docs/examples/datagrams.py
"""

import asyncio
import os

import fabric

CLUSTER = "example.aaaaaaaaaaaaaaaaaaaaaaaaaa"


async def voice(stream: fabric.Stream, connection: fabric.Connection) -> None:
    """Send every packet back."""
    while (packet := await stream.receive()) is not None:
        stream.send(packet)


async def count(stream: fabric.Stream, connection: fabric.Connection) -> None:
    """Answer with the number of bytes that came."""
    total = 0
    while data := await stream.read():
        total += len(data)
    stream.write(str(total).encode())


async def main() -> None:
    server, client = (fabric.NodeIdentity.from_seed(os.urandom(32)) for _ in range(2))
    services = {"voice": voice, "count": count}
    async with (
        fabric.serve(services, identity=server, cluster_id=CLUSTER, host="127.0.0.1") as endpoint,
        fabric.connect(endpoint.url, identity=client, cluster_id=CLUSTER, node_id=server.node_id) as session,
    ):
        call = await session.open("voice", fabric.TrafficClass.INTERACTIVE, mode=fabric.Mode.DATAGRAM)
        for number in range(5):
            call.send(b"frame %d" % number)
            print(await call.receive())
        print(f"up to {call.datagram_room} bytes each")
        await call.aclose()

        async with await session.open("count", fabric.TrafficClass.RELIABLE) as stream:
            stream.write(bytes(100_000))
            session.connection.lose()  # what a network does: the session is gone, without a word
            stream.write(bytes(100_000))
            await stream.end()
            answer = await stream.read()
            print(f"{answer.decode()} bytes over two sessions")
            assert answer == b"200000"


if __name__ == "__main__":
    asyncio.run(main())
