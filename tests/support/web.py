"""A web server on this machine: one answer for everything, or a folder of static files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def _silent(*words: object) -> None:
    """In place of a line on standard error for every request."""
    del words


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server that calls `answer` for every GET."""

    class Serve(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        log_message = _silent

    with _running(Serve) as url:
        yield url


@contextmanager
def serving_folder(folder: Path) -> Iterator[str]:
    """The address of Python's own static server over `folder`."""

    class Serve(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(folder))  # type: ignore[arg-type]  # as its base passes them

        log_message = _silent

    with _running(Serve) as url:
        yield url


@contextmanager
def _running(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
