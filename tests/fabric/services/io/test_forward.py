"""TCP forwarding end to end: two endpoints on real sockets, a TCP server behind one, clients before one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.streams import Stream
from fabric.services.io.forward import ForwardError, LocalPort, TcpService, abort
from tests.support.aio import run, until
from tests.support.endpoints import bind, dial

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
NAME = "web"


@asynccontextmanager
async def forwarded(serve: Serve) -> AsyncIterator[tuple[LocalPort, TcpService]]:
    """client -> LocalPort -> stream -> TcpService -> `serve`."""

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        with contextlib.suppress(OSError):
            await serve(reader, writer)
        writer.close()

    serving: set[asyncio.Task[None] | None] = set()
    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    service = TcpService(NAME, "127.0.0.1", server.sockets[0].getsockname()[1])
    async with await bind(1) as near, await bind(2, services={NAME: service.serve}) as far:
        connection = await dial(near, far)

        async def open_service(name: str) -> Stream:
            return await connection.open(name, TrafficClass.RELIABLE)

        port = LocalPort(NAME, open_service)
        await port.listen(0)
        try:
            yield port, service
        finally:
            await port.close()
            server.close()
            await asyncio.gather(*(task for task in serving if task is not None))


async def connect(port: LocalPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port.port)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


def test_bytes_go_both_ways_and_ends_are_ends() -> None:
    async def main() -> None:
        async with forwarded(echo) as (port, service):
            reader, writer = await connect(port)
            data = bytes(range(256)) * 4_000
            writer.write(data)
            writer.write_eof()
            assert await reader.read(-1) == data
            writer.close()
            assert service.counters["streams"] == port.counters["connections"] == 1

    run(main)


def test_a_client_that_has_sent_everything_still_gets_its_answer() -> None:
    async def main() -> None:
        async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked = await reader.read(-1)
            writer.write(b"answer to " + asked)
            writer.write_eof()

        async with forwarded(answer_at_the_end) as (port, _):
            reader, writer = await connect(port)
            writer.write(b"question")
            writer.write_eof()
            assert await reader.read(-1) == b"answer to question"
            writer.close()

    run(main)


def test_a_server_that_has_sent_everything_still_hears_its_client() -> None:
    async def main() -> None:
        heard = asyncio.get_running_loop().create_future()

        async def greet_then_listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.write_eof()
            heard.set_result(await reader.read(-1))

        async with forwarded(greet_then_listen) as (port, _):
            reader, writer = await connect(port)
            assert await reader.read(-1) == b"hello"
            writer.write(b"late")
            writer.write_eof()
            assert await heard == b"late"
            writer.close()

    run(main)


def test_a_reader_that_does_not_read_stops_the_writer() -> None:
    """Backpressure over TCP, stream and TCP: what is under way is bounded, not the sender's whole data."""

    async def main() -> None:
        sent = 0

        async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            while True:
                writer.write(bytes(65_536))
                await writer.drain()
                sent += 65_536

        async with forwarded(flood) as (port, _):
            reader, writer = await connect(port)
            assert await reader.readexactly(10) == bytes(10)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.3)  # stopped is: nothing written for so long
            assert sent < 64 << 20
            taken = 0
            while sent == before and taken < before:  # buffers on the way refill before the writer goes on
                assert await reader.readexactly(1 << 20) == bytes(1 << 20)
                taken += 1 << 20
            await until(lambda: sent > before)
            writer.transport.abort()

    run(main)


def test_a_broken_stream_is_a_reset_and_never_an_end() -> None:
    async def main() -> None:
        async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"half")
            await writer.drain()
            assert await reader.readexactly(2) == b"go"
            abort(writer)

        async with forwarded(break_off) as (port, _):
            reader, writer = await connect(port)
            assert await reader.readexactly(4) == b"half"
            writer.write(b"go")
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
            await until(lambda: any(name.startswith("broke_") for name in port.counters))

    run(main)


def test_nothing_behind_the_service_is_a_refusal() -> None:
    async def main() -> None:
        async with forwarded(echo) as (port, service):
            service.port = 9  # discard: nobody listens there
            reader, writer = await connect(port)
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
            assert service.counters["unreachable"] == 1
            assert port.counters["broke_refused"] == 1

    run(main)


def test_no_way_to_the_service_ends_the_client_at_once() -> None:
    async def main() -> None:
        async def nowhere(name: str) -> Stream:
            raise FabricError("no_route", name)

        port = LocalPort(NAME, nowhere)
        await port.listen(0)
        reader, writer = await connect(port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(-1) == b""
        await until(lambda: port.counters["failed_no_route"] == 1)
        writer.close()
        await port.close()

    run(main)


def test_a_taken_port_is_said() -> None:
    async def main() -> None:
        async with forwarded(echo) as (port, _):
            other = LocalPort(NAME, lambda _: asyncio.Future())
            with pytest.raises(ForwardError) as caught:
                await other.listen(port.port)
            assert caught.value.code == "port_taken"
            await other.close()

    run(main)
