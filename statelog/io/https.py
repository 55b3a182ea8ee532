"""Bounded HTTPS exchanges: verified TLS, a limit on the answer's bytes, a limit on its whole duration.

httpx limits the wait for each piece of an answer; a hostile server sends one byte at a time. Here the clock
runs from the first packet to the last byte.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from statelog.errors import SourceUnreadable, UsageError
from statelog.io.client import tls_context
from statelog.limits import HTTPS_IDLE_S


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer: status, content type as sent, whole body."""

    status: int
    content_type: str
    body: bytes


class HttpsSite:
    """Everything under one `https://` address. Use as an async context manager, within one event loop."""

    def __init__(self, base_url: str, ca_file: Path | str | None = None) -> None:
        self.base_url = base_url.rstrip("/")
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise UsageError(f"{base_url!r} is not an https:// address") from error
        if url.scheme != "https" or not url.host:
            raise UsageError(f"{base_url!r} is not an https:// address")
        self._http = httpx.AsyncClient(
            verify=tls_context(ca_file),
            headers={"accept-encoding": "identity"},  # a compressed answer has no honest bound
            timeout=None,  # noqa: S113 - `exchange` bounds the whole, which no timeout of httpx does
            follow_redirects=False,
            trust_env=False,
            limits=httpx.Limits(keepalive_expiry=HTTPS_IDLE_S),
        )

    async def exchange(
        self, method: str, path: str, *, max_bytes: int, timeout_s: float, content: bytes | None = None
    ) -> Answer:
        """One request to `<base address>/<path>`, any status. Raises SourceUnreadable when there is no whole
        answer within the bounds.
        """
        url = f"{self.base_url}/{path}"
        headers = {} if content is None else {"content-type": "text/plain; charset=utf-8"}
        body = bytearray()
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._http.stream(method, url, content=content, headers=headers) as answer,
            ):
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > max_bytes:
                        raise SourceUnreadable(f"{url} answered more than {max_bytes} bytes")
        except TimeoutError as error:
            raise SourceUnreadable(f"{url} did not answer within {timeout_s:g} s") from error
        except httpx.HTTPError as error:
            raise SourceUnreadable(f"{url} cannot be reached: {error}") from error
        return Answer(answer.status_code, answer.headers.get("content-type", ""), bytes(body))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
