"""Exchanges with servers that keep no rules: each ends within its bounds, and closing waits for nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from statelog.errors import SourceUnreadable
from statelog.io.https import HttpsSite
from tests.support.aio import run

Act = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
CLOSES_IN_S = 5.0  # far more than closing takes, far less than for ever


@asynccontextmanager
async def site(act: Act) -> AsyncIterator[HttpsSite]:
    """A site whose server does `act` with each connection and then never closes it."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await act(reader, writer)
            await over.wait()
        except OSError:
            return  # the client hung up, as it should
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = HttpsSite(f"http://127.0.0.1:{port}", loopback=True)
    try:
        yield client
    finally:
        async with asyncio.timeout(CLOSES_IN_S):
            await client.aclose()
            over.set()
            server.close()
            await server.wait_closed()
            while left := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(
                    left
                )  # the server's, and httpx's generators, which end one after the other


async def goes_on(writer: asyncio.StreamWriter, piece: bytes) -> None:
    while True:
        writer.write(piece)
        await writer.drain()


async def takes_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The upload fills all buffers and goes nowhere."""
    writer.transport.pause_reading()


async def endless_headers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    await goes_on(writer, b"X-More: x\r\n" * 1_000)


async def endless_hints(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await goes_on(writer, b"HTTP/1.1 103 Early Hints\r\n\r\n")


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await goes_on(writer, bytes(1_000))


async def endless_error(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 500 No\r\n\r\n")
    await goes_on(writer, bytes(1_000))


async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (takes_nothing, r"within 0\.5 s"),
        (endless_headers, "cannot be reached"),
        (endless_hints, r"within 0\.5 s"),
        (endless_body, "more than 1000 bytes"),
    ],
)
def test_every_exchange_ends(act: Act, said: str) -> None:
    upload = bytes(32 << 20) if act is takes_nothing else None

    async def main() -> None:
        async with site(act) as client:
            with pytest.raises(SourceUnreadable, match=said):
                await client.exchange("POST", "x", max_bytes=1_000, timeout_s=0.5, content=upload)

    run(main)


def test_a_body_that_nobody_wants_is_not_read_to_its_end() -> None:
    async def main() -> None:
        async with site(endless_error) as client:
            answer = await client.exchange("GET", "x", max_bytes=1_000, timeout_s=60.0, bodies=False)
            assert (answer.status, answer.body) == (500, b"")
        async with site(good) as client:
            answer = await client.exchange("GET", "x", max_bytes=2, timeout_s=60.0)
            assert (answer.status, answer.body) == (200, b"ok")

    run(main)
