"""HTTPS client of the control API, for the command line and for tests.

The API is a way in, never a source of truth: what it answers is shown, and what matters is verified
elsewhere. TLS is always verified, against the system's roots or against one named certificate file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import orjson

from statelog import limits
from statelog.errors import Refused, SourceUnreadable
from statelog.findings import Finding
from statelog.io.https import Answer, HttpsSite, Waiting

ANSWER_S = 30.0  # for a whole answer, past the wait that the server was asked for


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


class ControlClient(Waiting):
    """One control API replica at `base_url` (https only). Use as a context manager, or `close()` it."""

    def __init__(
        self,
        base_url: str,
        ca_file: Path | str | None = None,
        *,
        token: str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        headers = {"accept": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        super().__init__(HttpsSite(base_url, ca_file, headers=headers, transport=transport))
        self.base_url = self.site.base_url

    def submit(self, data: bytes, wait_s: float = 0.0) -> SubmitResult:
        """POST one signed record; the server may hold the answer up to `wait_s` seconds for finality.

        Raises `Refused` with the server's finding when the record was refused (it is not in the log),
        and `SourceUnreadable` when no answer came (it may be in the log: ask for it by record id).
        """
        headers = {"content-type": "application/json", "prefer": f"wait={wait_s:g}"}
        answer = self._request("POST", "v1/records", wait_s + ANSWER_S, content=data, headers=headers)
        body = _json(answer)
        if answer.status not in (200, 201, 202) or not isinstance(body.get("record_id"), str):
            raise SourceUnreadable(f"{self.base_url} answered {answer.status} with something unexpected")
        index = body.get("log_index")
        return SubmitResult(
            record_id=body["record_id"],
            final=body.get("final") is True and answer.status != httpx.codes.ACCEPTED,
            log_index=index if isinstance(index, int) else None,
            duplicate=bool(body.get("duplicate", False)),
            status_url=answer.headers.get("location", f"/v1/records/{body['record_id']}"),
        )

    def record(self, record_id: str) -> dict[str, Any]:
        """What the API says of one record: state (pending, final or refused), index, record."""
        return self.get(f"/v1/records/{quote(record_id, safe='')}")

    def status(self) -> dict[str, Any]:
        """The replica's own account: cluster, head, final head, role."""
        return self.get("/v1/status")

    def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """Any other JSON answer of the API, by its path below the base address."""
        asked = f"?{urlencode(query)}" if query else ""
        return _json(self._request("GET", path.removeprefix("/") + asked, ANSWER_S))

    def _request(
        self,
        method: str,
        path: str,
        timeout_s: float,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One exchange with a bounded answer; the API's errors become this package's."""
        limit = limits.API_ANSWER_MAX_BYTES
        asked = self.site.exchange(
            method, path, max_bytes=limit, timeout_s=timeout_s, content=content, headers=headers
        )
        answer = self.wait(asked)
        if httpx.codes.is_error(answer.status):
            raise _refusal(self.base_url, answer)
        return answer


def _refusal(base_url: str, answer: Answer) -> Refused | SourceUnreadable:
    """The server's problem details (RFC 9457) as an error of ours.

    A refusal of the request is `Refused` with its finding; a server that cannot serve is unreadable.
    """
    try:
        body = _json(answer)
    except SourceUnreadable:
        body = {}
    code, sentence = body.get("code"), str(body.get("detail", ""))
    if isinstance(code, str) and not httpx.codes.is_server_error(answer.status):
        path, expected, found = (str(body.get(name, "")) for name in ("path", "expected", "found"))
        return Refused(Finding(code, sentence, path, expected, found))
    said = f"{answer.status} {answer.reason}".rstrip()
    return SourceUnreadable(f"{base_url} answered {said}" + (f": {sentence}" if sentence else ""))


def _json(answer: Answer) -> dict[str, Any]:
    try:
        body = orjson.loads(answer.body)
    except ValueError as error:
        raise SourceUnreadable(f"the answer with status {answer.status} is not JSON") from error
    if not isinstance(body, dict):
        raise SourceUnreadable(f"the answer with status {answer.status} is not a JSON object")
    return body
