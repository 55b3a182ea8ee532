"""The server's patience with those who read no answer."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from statelog import limits
from tests.support.https import https_served

PIECE, PIECES = bytes(1 << 16), 512


class Large:
    """Answers everything with 32 MiB, piece by piece; `ended` is set when the answer is over for it."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(PIECES):
            piece: Message = {
                "type": "http.response.body",
                "body": PIECE,
                "more_body": number + 1 < PIECES,
            }
            await send(piece)
        self.ended.set()


def test_a_reader_that_takes_nothing_is_hung_up_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTPS_DRAIN_S", 0.2)
    app = Large()
    with https_served(app, tmp_path) as site, site.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert app.ended.wait(10)  # and the task that answered is free
        assert _read_all(client) < len(PIECE) * PIECES


def test_a_reader_that_takes_its_time_gets_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HTTPS_DRAIN_S", 10.0)
    with https_served(Large(), tmp_path) as site, site.connect() as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert _read_all(client) > len(PIECE) * PIECES


def _read_all(client: socket.socket) -> int:
    """How many bytes came before the other side hung up."""
    total = 0
    while True:
        try:
            piece = client.recv(1 << 16)
        except ConnectionResetError:
            return total
        if not piece:
            return total
        total += len(piece)
