"""Bounded HTTPS exchanges: verified TLS, no redirects, limits on an answer's bytes and its whole duration.

The other side may be hostile. httpx limits the wait for each piece of an answer; a server that drips sends
one byte at a time, so here the clock runs from the first packet to the last byte, with the upload and all
headers. Answers are read in pieces. A small gzip body may stand for a huge one, so it is unpacked only as far
as there is room; a huge one may stand for nothing, so what arrives is counted too.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from statelog.errors import SourceUnreadable, UsageError
from statelog.io.files import require_file
from statelog.limits import HTTPS_CONNECT_S, HTTPS_IDLE_S, HTTPS_WASTE_BYTES

_GZIP_WINDOW = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; the body is whole, or empty where nobody wanted it."""

    status: int
    reason: str
    headers: httpx.Headers
    body: bytes

    @property
    def content_type(self) -> str:
        """As it was sent."""
        return str(self.headers.get("content-type", ""))


class HttpsSite:
    """Everything under one `https://` address. Use as an async context manager, within one event loop.

    `ca_file` is a PEM file with the certificates that prove it, None for the system's roots. With `gzip` an
    answer may be packed. `stall_s` limits the silence between two pieces too. `loopback` admits plain http to
    this machine. Raises UsageError.
    """

    def __init__(
        self,
        base_url: str,
        ca_file: Path | str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        gzip: bool = False,
        stall_s: float | None = None,
        loopback: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.base_url = _checked(base_url, loopback=loopback).rstrip("/")
        self._codings = ("gzip", "identity") if gzip else ("identity",)
        self._http = httpx.AsyncClient(
            verify=tls_context(ca_file),
            headers={"accept-encoding": ", ".join(self._codings), **(headers or {})},
            timeout=httpx.Timeout(stall_s, connect=HTTPS_CONNECT_S),  # `exchange` bounds the whole
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(keepalive_expiry=HTTPS_IDLE_S),
            transport=transport,
        )

    async def exchange(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int,
        timeout_s: float,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        bodies: bool = True,
    ) -> Answer:
        """One request to `<base address>/<path>`, any status. Without `bodies` only that of a 200 is read.

        Raises SourceUnreadable when there is no whole answer within the bounds.
        """
        url = f"{self.base_url}/{path}"
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.stream(method, url, content=content, headers=headers) as answer,
            ):
                wanted = bodies or answer.status_code == httpx.codes.OK
                body = await self._body(answer, max_bytes, url) if wanted else b""
        except TimeoutError as error:
            raise SourceUnreadable(f"{url} did not answer within {timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise SourceUnreadable(
                f"{url} cannot be reached: {str(error) or type(error).__name__}"
            ) from error
        return Answer(answer.status_code, answer.reason_phrase, answer.headers, body)

    async def _body(self, answer: httpx.Response, max_bytes: int, url: str) -> bytes:
        coding = answer.headers.get("content-encoding", "identity").strip().lower()
        if coding not in self._codings:
            raise SourceUnreadable(f"{url} is encoded as {coding[:40]!r}, which was not asked for")
        pieces = _InPieces(max_bytes, gzip=coding == "gzip")
        async for chunk in answer.aiter_raw():
            pieces.add(chunk)
            if pieces.fault:
                break  # and raised from outside, so that no traceback keeps half an answer
        pieces.end()
        if pieces.fault:
            raise SourceUnreadable(f"{url} {pieces.fault}")
        return bytes(pieces.body)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _InPieces:
    """A body of at most `max_bytes`, unpacked piece by piece."""

    def __init__(self, max_bytes: int, *, gzip: bool) -> None:
        self.body = bytearray()
        self._max_bytes = max_bytes
        self._unpack = zlib.decompressobj(_GZIP_WINDOW) if gzip else None
        self._arrived = 0
        self.fault = ""
        """What is wrong with it, if anything."""

    def end(self) -> None:
        """There are no more pieces."""
        if not self.fault and self._unpack is not None and not self._unpack.eof:
            self.fault = "ends in the middle of its gzip"

    def add(self, chunk: bytes) -> None:
        """The next piece; none after a fault."""
        room = self._max_bytes + 1 - len(self.body)
        self._arrived += len(chunk)
        try:
            self.body += chunk[:room] if self._unpack is None else self._unpack.decompress(chunk, room)
        except zlib.error:
            self.fault = "is not the gzip that it says it is"
            return
        if len(self.body) > self._max_bytes or self._arrived > self._max_bytes + HTTPS_WASTE_BYTES:
            self.fault = f"answered more than {self._max_bytes} bytes"
        elif self._unpack is not None and self._unpack.unused_data:
            self.fault = "goes on after its gzip"


class Waiting:
    """An `HttpsSite` for code that waits: a loop of its own, for use where none runs. A context manager."""

    def __init__(self, site: HttpsSite) -> None:
        self.site = site
        self._runner = asyncio.Runner()

    def wait(self, asked: Coroutine[Any, Any, Answer]) -> Answer:
        """The answer of an exchange of the site."""
        return self._runner.run(asked)

    def close(self) -> None:
        """Close the connections."""
        self._runner.run(self.site.aclose())
        self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tls_context(ca_file: Path | str | None) -> ssl.SSLContext:
    """TLS that verifies: against the system's roots, or one named certificate file. Raises UsageError."""
    if ca_file is not None:
        require_file(Path(ca_file))
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{ca_file} is not a readable PEM certificate file") from error


def _checked(address: str, *, loopback: bool) -> str:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise UsageError(f"{address!r} is not an https:// address") from error
    if not url.host or (url.scheme != "https" and not (loopback and _is_plain_loopback(url))):
        also = ", or http:// to this machine" if loopback else ""
        raise UsageError(f"{address!r} is not an https:// address{also}")
    if url.query or url.fragment or url.userinfo:
        raise UsageError(f"{address!r}: give the https:// address alone, without query, fragment or user")
    return address


def _is_plain_loopback(url: httpx.URL) -> bool:
    try:
        return url.scheme == "http" and ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost"
