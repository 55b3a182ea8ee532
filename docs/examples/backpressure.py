"""A slow reader slows its own writer and nobody else; a cancelled task leaves nothing behind.

python docs/examples/backpressure.py
"""

import asyncio
import os

import fabric

CLUSTER = "example.aaaaaaaaaaaaaaaaaaaaaaaaaa"


class Store:
    """A service that reads when it is told to."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.stored = 0

    async def serve(self, stream: fabric.Stream, connection: fabric.Connection) -> None:
        await self.open.wait()
        while data := await stream.read():
            self.stored += len(data)


async def echo(stream: fabric.Stream, connection: fabric.Connection) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def main() -> None:
    server, client = (fabric.NodeIdentity.from_seed(os.urandom(32)) for _ in range(2))
    store = Store()
    services = {"store": store.serve, "echo": echo}
    async with (
        fabric.serve(services, identity=server, cluster_id=CLUSTER, host="127.0.0.1") as endpoint,
        fabric.connect(endpoint.url, identity=client, cluster_id=CLUSTER, node_id=server.node_id) as session,
    ):
        bulk = await session.open("store", fabric.TrafficClass.BULK)
        sent = 0

        async def upload() -> None:
            nonlocal sent
            for _ in range(64):
                bulk.write(bytes(1 << 20))
                await bulk.drain()  # waits as soon as the reader's window and the buffer are full
                sent += 1 << 20
            await bulk.end()

        uploading = asyncio.create_task(upload())
        # Nobody reads the bulk stream; what a person waits for passes it in the same session.
        async with await session.open("echo", fabric.TrafficClass.INTERACTIVE) as key:
            for number in range(20):
                key.write(b"key %d" % number)
                await key.read()
        print(f"20 keys echoed while bulk stands still at {sent >> 20} MiB")
        assert not uploading.done()

        store.open.set()
        await uploading
        print(f"{store.stored >> 20} MiB stored")
        assert store.stored == 64 << 20

        waiting = asyncio.create_task(session.open("store", fabric.TrafficClass.BULK))
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert session.connection.streams() in ([], [bulk]), "a cancelled open leaves no stream"


if __name__ == "__main__":
    asyncio.run(main())
