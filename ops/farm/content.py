"""What the farm's service hosts serve: a 64 MiB file and the host's name, by an ordinary HTTP server."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILE_NAME = "image.bin"
FILE_BYTES = 64 << 20
BLOCK_BYTES = 1 << 20
FETCH_TIMEOUT_S = 60.0


class QuietHandler(SimpleHTTPRequestHandler):
    """The standard library's static files, without a line for each request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Say nothing: the farm's own steps report what was fetched."""
        return


class ContentServer:
    """Serves one folder on one loopback port, from a thread of the farm."""

    def __init__(self, folder: Path, port: int) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", port), partial(QuietHandler, directory=str(folder)))
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        # The main thread waits for these two; between two looks the kernel would hand them to any thread
        # that lets them in, and Python would make a KeyboardInterrupt of that.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        self.server.serve_forever()

    def close(self) -> None:
        """Stop serving and free the port."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def make_content(folder: Path, host: str) -> str:
    """Write the host's name and its file (random, so every host's differs) unless there; its SHA-256, hex."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "whoami").write_text(f"{host}\n")
    target = folder / FILE_NAME
    if not target.exists() or target.stat().st_size != FILE_BYTES:
        with target.open("wb") as sink:
            for _ in range(FILE_BYTES // BLOCK_BYTES):
                sink.write(os.urandom(BLOCK_BYTES))
    with target.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def fetch(port: int, path: str) -> tuple[int, str, int, bytes]:
    """GET from a loopback port with the standard HTTP client: (status, SHA-256, length, first 64 bytes)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=FETCH_TIMEOUT_S)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        digest, length, head = hashlib.sha256(), 0, b""
        while block := answer.read(BLOCK_BYTES):
            digest.update(block)
            length += len(block)
            head = (head + block)[:64]
        return answer.status, digest.hexdigest(), length, head
    finally:
        connection.close()
