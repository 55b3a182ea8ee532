"""Files of a log from a folder and from servers, hostile ones included."""

from __future__ import annotations

import gzip
import os
import threading
from collections.abc import AsyncIterator, Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

from statelog.errors import SourceUnreadable, UsageError
from statelog.io.resources import FolderResources, WebResources, is_address
from tests.support.web import serving

Handler = Callable[[httpx.Request], httpx.Response]
URL = "https://logs.example/farm/"


def get(handler: Handler, max_bytes: int = 5) -> bytes | None:
    with WebResources(URL, transport=httpx.MockTransport(handler)) as resources:
        return resources.get("x", max_bytes)


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def answering(status: int = 200, body: bytes = b"12345", **headers: str) -> Handler:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, content=pieces(body), headers=named)


# --- folders ---


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "tile").mkdir()
    (tmp_path / "tile" / "x").write_bytes(b"12345")
    folder = FolderResources(tmp_path)
    assert folder.get("tile/x", 5) == b"12345"
    assert folder.get("tile/y", 5) is None
    assert folder.get("tile/x/y", 5) is None
    with pytest.raises(SourceUnreadable, match="longer than the 4 bytes"):
        folder.get("tile/x", 4)
    with pytest.raises(SourceUnreadable):
        folder.get("tile", 5)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(SourceUnreadable, match="is not a file"):
            FolderResources(tmp_path).get(name, 5)


# --- the web ---

# A gzip head, and then stored blocks of length 0: bytes that stand for nothing, as many as one likes.
NOTHING = bytes.fromhex("1f8b0800000000000003") + bytes.fromhex("000000ffff") * 20_000


def test_what_is_asked_and_answered() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return answering(content_type="application/octet-stream")(request)

    with WebResources(URL, transport=httpx.MockTransport(handler)) as resources:
        assert resources.get("tile/0/000", 5) == b"12345"
    assert str(seen[0].url) == "https://logs.example/farm/tile/0/000"
    assert seen[0].headers["accept-encoding"] == "gzip, identity"
    assert "authorization" not in seen[0].headers


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there(status: int) -> None:
    assert get(answering(status)) is None


@pytest.mark.parametrize("media_type", ["text/plain; charset=utf-8", "application/octet-stream"])
def test_plain_answers(media_type: str) -> None:
    assert get(answering(content_type=media_type)) == b"12345"
    assert get(answering()) == b"12345"


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (answering(302, location="https://elsewhere.example/"), "redirects elsewhere"),
        (answering(301, location="file:///etc/passwd"), "redirects elsewhere"),
        (answering(206), "answered 206"),
        (answering(401), "answered 401"),
        (answering(500), "answered 500"),
        (answering(content_type="text/html"), "'text/html'"),
        (answering(content_type="application/json"), "'application/json'"),
        (answering(content_encoding="br"), "encoded as 'br'"),
        (answering(body=b"123456"), "more than 5 bytes"),
        (answering(body=b"x" * 1_000_000), "more than 5 bytes"),
        (answering(body=b"no gzip", content_encoding="gzip"), "not the gzip"),
        (answering(body=gzip.compress(b"12345")[:-9], content_encoding="gzip"), "middle of its gzip"),
        (
            answering(body=gzip.compress(bytes(10_000_000)), content_encoding="gzip"),
            "more than 5 bytes",
        ),
        (answering(body=gzip.compress(b"12345") + b"x", content_encoding="gzip"), "goes on after its gzip"),
        (answering(body=NOTHING, content_encoding="gzip"), "more than 5 bytes"),
    ],
)
def test_answers_that_no_log_gives(handler: Handler, said: str) -> None:
    with pytest.raises(SourceUnreadable, match=said):
        get(handler)


def test_gzip_is_undone() -> None:
    assert get(answering(body=gzip.compress(b"12345"), content_encoding="gzip")) == b"12345"


@pytest.mark.parametrize("whole_head", [True, False])
def test_an_answer_that_drips_is_given_up(whole_head: bool) -> None:
    """It goes on, and would for ever, in its body or still in its headers."""
    over = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if whole_head:
            request.end_headers()
        else:
            request.flush_headers()
        while not over.wait(0.01):
            try:
                request.wfile.write(b"x" if whole_head else b"X-More: x\r\n")
            except OSError:
                return

    with serving(drip) as url, WebResources(url, timeout_s=0.3) as resources:
        with pytest.raises(SourceUnreadable, match=r"within 0\.3 s"):
            resources.get("x", 1_000_000)
        over.set()


def test_an_endless_body_is_left() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield bytes(1_000)

    with pytest.raises(SourceUnreadable, match="more than"):
        get(lambda _: httpx.Response(200, content=endless()), 5_000)
    assert sent <= 10


def test_a_connection_that_breaks() -> None:
    def half(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"12345")

    with (
        serving(half) as url,
        WebResources(url) as resources,
        pytest.raises(SourceUnreadable, match="reached"),
    ):
        resources.get("x", 1_000)
    with (
        WebResources("http://127.0.0.1:1") as nobody,
        pytest.raises(SourceUnreadable, match="cannot be reached"),
    ):
        nobody.get("x", 5)


@pytest.mark.parametrize(
    "url",
    [
        *("http://logs.example/farm", "http://127.0.0.1.example/", "https://", "ftp://logs.example/farm"),
        *("https://logs.example/farm?x=1", "https://me:secret@logs.example/", "https://logs.example/#x"),
        *("http://192.168.0.1/", "https://[::1"),
    ],
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        WebResources(url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000", "http://[::1]/", "http://localhost/log", URL])
def test_addresses(url: str) -> None:
    with WebResources(url) as resources:
        assert not resources.where.endswith("/")
    assert is_address(url)
    assert not is_address("node.db")
