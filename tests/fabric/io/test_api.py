"""The short way in, as a program would use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fabric
from fabric.identity import format_quic_address
from tests.support.aio import run
from tests.support.carrier_pair import identity
from tests.support.endpoints import CLUSTER

CLIENT, SERVER = identity(1), identity(2)


async def echo(stream: fabric.Stream, connection: fabric.Connection) -> None:
    while data := await stream.read():
        stream.write(data)
        await stream.drain()
    await stream.end()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_connect_and_serve(host: str) -> None:
    async def main() -> None:
        async with fabric.serve({"echo": echo}, identity=SERVER, cluster_id=CLUSTER, host=host) as endpoint:
            address = format_quic_address(host, endpoint.local_address[1])
            async with (
                fabric.connect(
                    address, identity=CLIENT, cluster_id=CLUSTER, pin=SERVER.certificate_sha256
                ) as peer,
                await peer.open("echo", fabric.TrafficClass.RELIABLE) as stream,
            ):
                assert peer.peer_node_id == SERVER.node_id
                stream.write(b"hello")
                await stream.end()
                assert await stream.readexactly(5) == b"hello"
                assert await stream.read() == b""
            assert peer.connection.closed.done()

    run(main)


def test_a_session_is_dialed_anew_when_something_is_to_be_opened() -> None:
    async def main() -> None:
        async with (
            fabric.serve({"echo": echo}, identity=SERVER, cluster_id=CLUSTER, host="127.0.0.1") as endpoint,
            fabric.connect(
                endpoint.url, identity=CLIENT, cluster_id=CLUSTER, node_id=SERVER.node_id
            ) as session,
        ):
            first = session.connection
            await first.aclose()
            assert await session.ping() > 0
            assert session.connection is not first
            async with await session.open("echo", fabric.TrafficClass.RELIABLE) as stream:
                stream.write(b"again")
                assert await stream.readexactly(5) == b"again"

    run(main)


def test_a_client_may_serve_over_its_own_session() -> None:
    async def main() -> None:
        async def ask(stream: fabric.Stream, connection: fabric.Connection) -> None:
            async with await connection.open("echo", fabric.TrafficClass.RELIABLE) as back:
                back.write(b"who are you?")
                stream.write(await back.readexactly(12))

        async with (
            fabric.serve({"ask": ask}, identity=SERVER, cluster_id=CLUSTER, host="127.0.0.1") as endpoint,
            fabric.connect(
                endpoint.url,
                identity=CLIENT,
                cluster_id=CLUSTER,
                node_id=SERVER.node_id,
                services={"echo": echo},
            ) as session,
            await session.open("ask", fabric.TrafficClass.RELIABLE) as stream,
        ):
            assert await stream.readexactly(12) == b"who are you?"

    run(main)


def test_whom_to_expect_must_be_known() -> None:
    async def main() -> None:
        async with fabric.serve({}, identity=SERVER, cluster_id=CLUSTER, host="127.0.0.1") as endpoint:
            address = format_quic_address("127.0.0.1", endpoint.local_address[1])
            with pytest.raises(fabric.FabricError) as refused:
                await fabric.connect(address, identity=CLIENT, cluster_id=CLUSTER).__aenter__()
            assert refused.value.code == "identity_pin"

    run(main)


def test_every_public_name_is_there() -> None:
    assert {name for name in fabric.__all__ if getattr(fabric, name) is not None} == set(dir(fabric))
    with pytest.raises(AttributeError):
        _ = fabric.nothing


def test_the_pure_machines_do_not_load_the_event_loop() -> None:
    code = "import sys, fabric.session, fabric.stream, fabric.relay; sys.exit('asyncio' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
