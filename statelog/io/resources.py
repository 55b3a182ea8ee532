"""Where the files of a log in tiles are read: a folder, or an address on the web (`statelog.tilelog`).

The other side may be hostile. Nothing it says becomes a path or an address; what it sends is read up to a
bound and within a time; and only regular files and plain answers are read at all.
"""

from __future__ import annotations

import asyncio
import os
import stat
import zlib
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from statelog.errors import SourceUnreadable, UsageError
from statelog.io.client import CONNECT_TIMEOUT_S, tls_context
from statelog.limits import RESOURCE_STALL_S, RESOURCE_TIMEOUT_S

# Static servers call files without an extension so; anything else, a login page for one, is no log.
_MEDIA_TYPES = frozenset({"", "text/plain", "application/octet-stream", "binary/octet-stream"})
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
_NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)  # POSIX alone has it
_BINARY = getattr(os, "O_BINARY", 0)  # Windows alone needs it


class FolderResources:
    """The files below `folder`. Satisfies `statelog.tilelog.Resources`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The file's bytes, None when there is none. Raises SourceUnreadable for one that is no plain file,
        too long, or not readable.
        """
        where = self.folder / path
        try:
            # Without blocking: a pipe that somebody put there would otherwise hold an auditor for ever.
            descriptor = os.open(where, os.O_RDONLY | _NON_BLOCKING | _BINARY)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SourceUnreadable(f"{where}: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "rb") as source:
                if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                    raise SourceUnreadable(f"{where} is not a file")
                data = source.read(max_bytes + 1)
        except OSError as error:
            raise SourceUnreadable(f"{where}: {error.strerror}") from error
        return _bounded(data, max_bytes, str(where))


class WebResources:
    """The resources below `url`: https, or plain http to this machine. Satisfies `Resources`.

    A context manager: leaving it closes the connections. Not for use where an event loop runs already.
    """

    def __init__(
        self,
        url: str,
        ca_file: Path | str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = RESOURCE_TIMEOUT_S,
    ) -> None:
        self.url = _checked(url).rstrip("/")
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            verify=tls_context(ca_file),
            headers={"accept-encoding": "gzip, identity"},
            timeout=httpx.Timeout(RESOURCE_STALL_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )
        self._loop = asyncio.Runner()  # only asyncio can bound a whole exchange, its slow headers included

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The body of a 200 answer, None for 404 and 410. Raises SourceUnreadable for everything else:
        redirects, other media types, a body that is too long, an answer that is not whole in time.
        """
        return self._loop.run(self._get(f"{self.url}/{path}", max_bytes))

    async def _get(self, where: str, max_bytes: int) -> bytes | None:
        try:
            async with asyncio.timeout(self._timeout_s), self._http.stream("GET", where) as answer:
                if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
                    return None
                _require_plain(answer, where)
                return _bounded(await _body(answer, max_bytes, where), max_bytes, where)
        except TimeoutError as error:
            raise SourceUnreadable(f"{where} did not come within {self._timeout_s:g} s") from error
        except httpx.HTTPError as error:
            said = str(error) or type(error).__name__
            raise SourceUnreadable(f"{where} cannot be read: {said}") from error

    def close(self) -> None:
        """Close the connections."""
        self._loop.run(self._http.aclose())
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _body(answer: httpx.Response, max_bytes: int, where: str) -> bytes:
    """The decoded body, or as much of it as is one byte too many."""
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip"):
        raise SourceUnreadable(f"{where} is encoded as {coding[:40]!r}, which was not asked for")
    unpack = zlib.decompressobj(_GZIP_WINDOW) if coding == "gzip" else None
    body = bytearray()
    async for chunk in answer.aiter_raw():
        room = max_bytes + 1 - len(body)
        try:
            # Never unpacks more than there is room for: a small body may stand for a huge one.
            body += chunk[:room] if unpack is None else unpack.decompress(chunk, room)
        except zlib.error as error:
            raise SourceUnreadable(f"{where} is not the gzip that it says it is") from error
        if len(body) > max_bytes:
            return bytes(body)
    if unpack is not None and not unpack.eof:
        raise SourceUnreadable(f"{where} ends in the middle of its gzip")
    return bytes(body)


def is_address(source: str) -> bool:
    """Whether a source is meant as a web address."""
    return source.startswith(("http://", "https://"))


def _checked(address: str) -> str:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise UsageError(f"{address!r} is not an address") from error
    if url.query or url.fragment or url.userinfo or not url.host:
        raise UsageError(f"{address!r}: give the log's address alone, without query, fragment or user")
    if url.scheme != "https" and not (url.scheme == "http" and _is_loopback(url.host)):
        raise UsageError(f"{address!r}: https only, or http to this machine")
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_plain(answer: httpx.Response, where: str) -> None:
    if answer.is_redirect:
        raise SourceUnreadable(f"{where} redirects elsewhere; give the address of the log itself")
    if answer.status_code != httpx.codes.OK:
        raise SourceUnreadable(f"{where} answered {answer.status_code} {answer.reason_phrase}".rstrip())
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise SourceUnreadable(f"{where} answered with {media_type[:60]!r}, which no file of a log is")


def _bounded(data: bytes, max_bytes: int, where: str) -> bytes:
    if len(data) > max_bytes:
        raise SourceUnreadable(f"{where} is longer than the {max_bytes} bytes that it can be")
    return data
