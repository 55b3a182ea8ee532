"""HTTPS on loopback for tests: the product's own server under a certificate made for the test.

with https_served(app, tmp_path) as site:
    httpx.post(f"{site.url}/add-checkpoint", verify=site.tls())
"""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp

from statelog.io.serving import https_server
from statelog.io.tls import make_certificate

Script = Callable[[bytes], bytes | None]


@dataclass(frozen=True)
class Site:
    """A server: its address, its port, and the certificate that proves it."""

    port: int
    ca_file: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))

    def connect(self) -> ssl.SSLSocket:
        """A raw TLS connection, for clients that keep no rules."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return self.tls().wrap_socket(raw, server_hostname="127.0.0.1")


def certificate_in(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, as files."""
    pem, key = folder / "tls.pem", folder / "tls.key"
    if not pem.exists():
        certificate, secret = make_certificate(["127.0.0.1", "localhost"], dt.datetime.now(dt.UTC))
        pem.write_bytes(certificate)
        key.write_bytes(secret)
    return pem, key


@contextmanager
def https_served(app: ASGIApp, folder: Path) -> Iterator[Site]:
    """`app` on a loop and a thread of its own."""
    pem, key = certificate_in(folder)
    server, listener = https_server(app, "127.0.0.1", 0, pem, key)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined, unused-ignore]  # not the main thread
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
    thread.start()
    try:
        yield Site(listener.getsockname()[1], pem)
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@contextmanager
def scripted_https(script: Script, folder: Path) -> Iterator[Site]:
    """A server that keeps no rules: `script` gets what the client sent first and says what comes back.

    None: nothing ever comes back, and the connection stays open.
    """
    pem, key = certificate_in(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = script(await reader.read(1 << 20))
        if answer is None:
            await reader.read()
        else:
            writer.write(answer)
        writer.close()

    loop = asyncio.new_event_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    started = threading.Event()
    stop = asyncio.Event()

    async def main() -> None:
        server = await asyncio.start_server(serve, sock=listener, ssl=context)
        started.set()
        await stop.wait()
        server.close()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    started.wait()
    try:
        yield Site(listener.getsockname()[1], pem)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
