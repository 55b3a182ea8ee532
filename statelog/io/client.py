"""HTTPS client of the control API, for the command line and for tests.

The API is a way in, never a source of truth: what it answers is shown, and what matters is verified
elsewhere. TLS is always verified, against the system's roots or against one named certificate file.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import orjson

from statelog import limits
from statelog.errors import Refused, SourceUnreadable, UsageError
from statelog.findings import Finding

CONNECT_TIMEOUT_S = 5.0
READ_MARGIN_S = 10.0  # past the wait that the server was asked for


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """What became of a submitted record.

    `final` is true only after K witnesses cosigned a head that covers it (201, or 200 when it was final
    before). `log_index` is None while the record waits in the outbox; `status_url` is where to ask again.
    """

    record_id: str
    final: bool
    log_index: int | None
    duplicate: bool
    status_url: str


class ControlClient:
    """One control API replica at `base_url` (https only). Use as a context manager, or `close()` it."""

    def __init__(
        self,
        base_url: str,
        ca_file: Path | str | None = None,
        *,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        url = httpx.URL(base_url)
        if url.scheme != "https" or not url.host:
            raise UsageError(f"{base_url!r} is not an https:// address of a control API")
        headers = {"accept": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(
            base_url=self.base_url,
            verify=tls_context(ca_file),
            headers=headers,
            timeout=httpx.Timeout(READ_MARGIN_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def submit(self, data: bytes, wait_s: float = 0.0) -> SubmitResult:
        """POST one signed record; the server may hold the answer up to `wait_s` seconds for finality.

        Raises `Refused` with the server's finding when the record was refused (it is not in the log),
        and `SourceUnreadable` when no answer came (it may be in the log: ask for it by record id).
        """
        answer = self._request(
            "POST",
            "/v1/records",
            content=data,
            headers={"content-type": "application/json", "prefer": f"wait={wait_s:g}"},
            timeout=httpx.Timeout(wait_s + READ_MARGIN_S, connect=CONNECT_TIMEOUT_S),
        )
        body = _json(answer)
        if answer.status_code not in (200, 201, 202) or not isinstance(body.get("record_id"), str):
            raise SourceUnreadable(f"{self.base_url} answered {answer.status_code} with something unexpected")
        index = body.get("log_index")
        return SubmitResult(
            record_id=body["record_id"],
            final=body.get("final") is True and answer.status_code != httpx.codes.ACCEPTED,
            log_index=index if isinstance(index, int) else None,
            duplicate=bool(body.get("duplicate", False)),
            status_url=answer.headers.get("location", f"/v1/records/{body['record_id']}"),
        )

    def record(self, record_id: str) -> dict[str, Any]:
        """What the API says of one record: state (pending, final or refused), index, record."""
        return _json(self._request("GET", f"/v1/records/{quote(record_id, safe='')}"))

    def status(self) -> dict[str, Any]:
        """The replica's own account: cluster, head, final head, role."""
        return _json(self._request("GET", "/v1/status"))

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """Any other JSON answer of the API, by its path below the base address."""
        return _json(self._request("GET", path, params=query))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One exchange with a bounded answer; the API's errors become this package's."""
        try:
            with self._http.stream(method, path, **options) as answer:
                body = b""
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > limits.API_ANSWER_MAX_BYTES:
                        raise SourceUnreadable(
                            f"{self.base_url} answered more than {limits.API_ANSWER_MAX_BYTES} bytes"
                        )
        except httpx.HTTPError as error:
            raise SourceUnreadable(f"{self.base_url} cannot be reached: {error}") from error
        whole = httpx.Response(answer.status_code, headers=_without_coding(answer.headers), content=body)
        if whole.is_error:
            raise _refusal(self.base_url, whole)
        return whole


def _refusal(base_url: str, answer: httpx.Response) -> Refused | SourceUnreadable:
    """The server's problem details (RFC 9457) as an error of ours.

    A refusal of the request is `Refused` with its finding; a server that cannot serve is unreadable.
    """
    try:
        body = _json(answer)
    except SourceUnreadable:
        body = {}
    code, sentence = body.get("code"), str(body.get("detail", ""))
    if isinstance(code, str) and not answer.is_server_error:
        path, expected, found = (str(body.get(name, "")) for name in ("path", "expected", "found"))
        return Refused(Finding(code, sentence, path, expected, found))
    said = f"{answer.status_code} {answer.reason_phrase}".rstrip()
    return SourceUnreadable(f"{base_url} answered {said}" + (f": {sentence}" if sentence else ""))


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = orjson.loads(answer.content)
    except ValueError as error:
        raise SourceUnreadable(f"the answer with status {answer.status_code} is not JSON") from error
    if not isinstance(body, dict):
        raise SourceUnreadable(f"the answer with status {answer.status_code} is not a JSON object")
    return body


def _without_coding(headers: httpx.Headers) -> httpx.Headers:
    kept = httpx.Headers(headers)
    kept.pop("content-encoding", None)
    kept.pop("content-length", None)
    return kept


def tls_context(ca_file: Path | str | None) -> ssl.SSLContext:
    """TLS that verifies: against the system's roots, or one named certificate file. Raises UsageError."""
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"{ca_file} is not a readable PEM certificate file") from error
