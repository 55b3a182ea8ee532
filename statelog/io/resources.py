"""Where the files of a log in tiles are read: a folder, or an address on the web (`statelog.tilelog`).

The other side may be hostile. Nothing it says becomes a path or an address; what it sends is read up to a
bound and within a time; and only regular files and plain answers are read at all.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import httpx

from statelog.errors import SourceUnreadable
from statelog.io.https import Answer, HttpsSite, Waiting
from statelog.limits import RESOURCE_STALL_S, RESOURCE_TIMEOUT_S

# Static servers call files without an extension so; anything else, a login page for one, is no log.
_MEDIA_TYPES = frozenset({"", "text/plain", "application/octet-stream", "binary/octet-stream"})
_NON_BLOCKING = getattr(os, "O_NONBLOCK", 0)  # POSIX alone has it
_BINARY = getattr(os, "O_BINARY", 0)  # Windows alone needs it


class FolderResources:
    """The files below `folder`. Satisfies `statelog.tilelog.Resources`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

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


class WebResources(Waiting):
    """The resources below `url`: https, or plain http to this machine. Satisfies `Resources`.

    Raises UsageError for another address.
    """

    def __init__(
        self,
        url: str,
        ca_file: Path | str | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_s: float = RESOURCE_TIMEOUT_S,
    ) -> None:
        super().__init__(
            HttpsSite(url, ca_file, gzip=True, stall_s=RESOURCE_STALL_S, loopback=True, transport=transport)
        )
        self.where = self.site.base_url
        self._timeout_s = timeout_s

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The body of a 200 answer, None for 404 and 410. Raises SourceUnreadable for everything else:
        redirects, other media types, a body that is too long, an answer that is not whole in time.
        """
        answer = self.wait(
            self.site.exchange("GET", path, max_bytes=max_bytes, timeout_s=self._timeout_s, bodies=False)
        )
        if answer.status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
            return None
        _require_plain(answer, f"{self.where}/{path}")
        return answer.body


def is_address(source: str) -> bool:
    """Whether a source is meant as a web address."""
    return source.startswith(("http://", "https://"))


def _require_plain(answer: Answer, where: str) -> None:
    if httpx.codes.is_redirect(answer.status):
        raise SourceUnreadable(f"{where} redirects elsewhere; give the address of the log itself")
    if answer.status != httpx.codes.OK:
        raise SourceUnreadable(f"{where} answered {answer.status} {answer.reason}".rstrip())
    media_type = answer.content_type.partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise SourceUnreadable(f"{where} answered with {media_type[:60]!r}, which no file of a log is")


def _bounded(data: bytes, max_bytes: int, where: str) -> bytes:
    if len(data) > max_bytes:
        raise SourceUnreadable(f"{where} is longer than the {max_bytes} bytes that it can be")
    return data
