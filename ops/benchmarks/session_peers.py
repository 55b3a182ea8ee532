"""What sealed sessions are measured against, each between two processes that print one JSON line.

`loop_*`: qh3's connection and its batched socket with segmentation offload, driven by the shortest loop that
is still correct. `aioquic_*`: aioquic's asyncio client and server as its authors ship them. `http_*`: the way
of the past, each packet as base64 in a JSON envelope in a POST of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import http.client
import json
import os
import select
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration as AioquicConfiguration
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from qh3._hazmat import UdpSocketState
from qh3.quic import events as qh3_events
from qh3.quic.configuration import QuicConfiguration
from qh3.quic.connection import QuicConnection
from qh3.tls import SignatureAlgorithm

from fabric.identity import NodeIdentity

ALPN = "bench/1"
BLOCK = 256 << 10
WINDOW = 64 << 20
SOCKET_BUFFER = 8 << 20
UNSENT = 4 << 20


def certificate_and_key() -> tuple[bytes, bytes]:
    """A self-signed Ed25519 certificate and its key as PEM."""
    identity = NodeIdentity.from_seed(bytes([2]) * 32)
    body = base64.encodebytes(identity.certificate_der)
    key = Ed25519PrivateKey.from_private_bytes(identity.seed)
    return (
        b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n",
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


# -- a plain loop over qh3 ---------------------------------------------------------------------------------


class Loop:
    """One connection on one socket; `turn` receives, handles timers and sends."""

    def __init__(self, options: argparse.Namespace, *, is_client: bool) -> None:
        self.configuration = QuicConfiguration(is_client=is_client, alpn_protocols=[ALPN])
        self.configuration.max_data, self.configuration.max_stream_data = WINDOW, WINDOW // 2
        self.configuration.max_datagram_size = options.datagram
        self.configuration.probe_datagram_size = False
        if is_client:
            self.configuration.verify_mode = ssl.CERT_NONE
            self.configuration.signature_algorithms = [SignatureAlgorithm.ED25519]
        else:
            self.configuration.load_cert_chain(*certificate_and_key())
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            self.sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BUFFER)
        self.sock.bind(("127.0.0.1", 0))
        self.state = UdpSocketState(self.sock.fileno())
        self.quic: QuicConnection | None = None

    def turn(self) -> list[Any]:
        """Wait for packets or the timer, act, and return the events."""
        timer = self.quic.get_timer() if self.quic is not None else None
        wait = 1.0 if timer is None else max(0.0, timer - time.monotonic())
        readable, _, _ = select.select([self.sock], [], [], wait)
        now = time.monotonic()
        if readable:
            packets = self.state.recv()
            if packets and self.quic is None:
                first = packets[0][0]
                self.quic = QuicConnection(
                    configuration=self.configuration,
                    original_destination_connection_id=first[6 : 6 + first[5]],
                )
            if packets and self.quic is not None:
                self.quic.receive_many_datagrams([data for data, _ in packets], packets[0][1], now)
        if self.quic is None:
            return []
        if timer is not None and timer <= now:
            self.quic.handle_timer(now)
        events = []
        while (event := self.quic.next_event()) is not None:
            events.append(event)
        return events

    def flush(self) -> None:
        """Send what the connection has."""
        if self.quic is None:
            return
        out = self.quic.datagrams_to_send(time.monotonic())
        if out:
            pending, address = [data for data, _ in out], out[0][1]
            while pending:
                sent = self.state.send(pending, address)
                del pending[:sent]
                if pending:
                    select.select([], [self.sock], [], 1.0)


def loop_receiver(options: argparse.Namespace) -> None:
    """Receive one stream to its end and answer."""
    loop = Loop(options, is_client=False)
    print(json.dumps({"port": loop.sock.getsockname()[1]}), flush=True)
    while True:
        for event in loop.turn():
            if isinstance(event, qh3_events.StreamDataReceived) and event.end_stream and loop.quic:
                loop.quic.send_stream_data(event.stream_id, b"received", end_stream=True)
        loop.flush()


def loop_sender(options: argparse.Namespace) -> None:
    """Send one stream and stop the clock at the answer."""
    loop = Loop(options, is_client=True)
    quic = loop.quic = QuicConnection(configuration=loop.configuration)
    quic.connect(("127.0.0.1", options.port), now=time.monotonic())
    block, left = os.urandom(BLOCK), options.megabytes * 1_000_000
    stream_id, start, cpu = None, 0.0, 0.0
    loop.flush()
    while True:
        for event in loop.turn():
            if isinstance(event, qh3_events.HandshakeCompleted):
                stream_id, start = quic.get_next_available_stream_id(), time.perf_counter()
                cpu = time.process_time()
            elif isinstance(event, qh3_events.StreamDataReceived) and event.end_stream:
                print(json.dumps({"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}))
                return
        while stream_id is not None and left and quic.get_send_buffer_size(stream_id) < UNSENT:
            size = min(left, BLOCK)
            left -= size
            quic.send_stream_data(stream_id, block[:size], end_stream=not left)
        loop.flush()


# -- aioquic as shipped ------------------------------------------------------------------------------------


def _aioquic(options: argparse.Namespace, *, is_client: bool) -> AioquicConfiguration:
    made = AioquicConfiguration(is_client=is_client, alpn_protocols=[ALPN])
    made.max_data, made.max_stream_data, made.max_datagram_size = WINDOW, WINDOW // 2, options.datagram
    if is_client:
        made.verify_mode = ssl.CERT_NONE
    else:
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / name for name in ("certificate.pem", "key.pem")]
            for path, content in zip(paths, certificate_and_key(), strict=True):
                path.write_bytes(content)
            made.load_cert_chain(str(paths[0]), str(paths[1]))
    return made


async def aioquic_server(options: argparse.Namespace) -> None:
    """Receive one stream to its end and answer."""
    tasks = set()

    async def drain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 20):
            pass
        writer.write(b"received")
        writer.write_eof()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(drain(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    await serve("127.0.0.1", port, configuration=_aioquic(options, is_client=False), stream_handler=on_stream)
    print(json.dumps({"port": port}), flush=True)
    await asyncio.Event().wait()


class _Client(QuicConnectionProtocol):
    """The shipped protocol, and how much it still has to send."""

    def unacknowledged(self) -> int:
        return sum(len(stream.sender._buffer) for stream in self._quic._streams.values())  # noqa: SLF001 - no method


async def aioquic_client(options: argparse.Namespace) -> None:
    """Send one stream and stop the clock at the answer."""
    block, total = os.urandom(64 << 10), options.megabytes * 1_000_000
    async with connect(
        "127.0.0.1",
        options.port,
        configuration=_aioquic(options, is_client=True),
        create_protocol=_Client,
    ) as client:
        if not isinstance(client, _Client):
            raise TypeError("aioquic made another protocol")
        reader, writer = await client.create_stream()
        start, cpu, sent = time.perf_counter(), time.process_time(), 0
        while sent < total:
            size = min(len(block), total - sent)
            writer.write(block[:size])
            sent += size
            while client.unacknowledged() > UNSENT // 2:  # noqa: ASYNC110 - its writer has no backpressure
                await asyncio.sleep(0.001)  # there is no event for it
        writer.write_eof()
        await reader.read()
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(json.dumps({"seconds": seconds, "cpu": cpu}))
        with contextlib.suppress(ConnectionError):
            client.close()


# -- packets in JSON in HTTP -------------------------------------------------------------------------------


async def _forward_packet(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Take one envelope, decode its packet, answer."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    envelope = json.loads(body)
    size = len(base64.b64decode(envelope["packet"]))
    answer = json.dumps({"stream": envelope["stream"], "accepted": size}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def http_receiver(options: argparse.Namespace) -> None:
    """Serve one endpoint that takes a packet a request."""
    # With its protocol named, as asyncio wants it to be to switch Nagle's algorithm off.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        config = uvicorn.Config(_forward_packet, log_level="warning", access_log=False, lifespan="off")
        uvicorn.Server(config).run(sockets=[listener])


def http_sender(options: argparse.Namespace) -> None:
    """POST packets one after the other over one connection and stop the clock at the last answer."""
    packet, left = os.urandom(options.datagram), options.megabytes * 1_000_000
    connection = http.client.HTTPConnection("127.0.0.1", options.port)
    connection.connect()
    # Headers and body leave in two writes; the second would wait for a delayed acknowledgement.
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    headers = {"Content-Type": "application/json"}
    start, sequence = time.perf_counter(), 0
    while left > 0:
        encoded = base64.b64encode(packet).decode()
        body = json.dumps({"stream": "bulk", "sequence": sequence, "packet": encoded})
        connection.request("POST", "/mesh/v1/forward-packet", body, headers)
        left -= int(json.loads(connection.getresponse().read())["accepted"])
        sequence += 1
    print(json.dumps({"seconds": time.perf_counter() - start}))


ROLES: dict[str, Callable[[argparse.Namespace], Any]] = {
    "loop-receiver": loop_receiver,
    "loop-sender": loop_sender,
    "aioquic-receiver": lambda options: asyncio.run(aioquic_server(options)),
    "aioquic-sender": lambda options: asyncio.run(aioquic_client(options)),
    "http-receiver": http_receiver,
    "http-sender": http_sender,
}


def main() -> None:
    """One side of one transfer, in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m ops.benchmarks.session_peers")
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--megabytes", type=int, default=400)
    parser.add_argument("--datagram", type=int, default=1200)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    ROLES[options.role](options)


if __name__ == "__main__":
    main()
