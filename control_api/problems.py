"""The one table from finding codes to HTTP, and refusals as problem details (RFC 9457).

A refusal carries the finding as it is: `code`, `path`, `expected`, `found`, beside the members of RFC 9457.
`type` is a link to the code's explanation at this replica.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from control_api.limits import RETRY_AFTER_S
from statelog.errors import Refused, SourceUnreadable
from statelog.findings import CODES, Finding

MEDIA_TYPE = "application/problem+json"

# The API's own refusals, beside the finding codes of statelog.findings.
API_CODES: Mapping[str, str] = {
    "API-BUSY": "More records wait to be sequenced than this replica takes at once.",
    "API-FOUND": "There is nothing at this address.",
    "API-INTERNAL": "The replica failed; its log says how.",
    "API-METHOD": "This address does not take this method.",
    "API-NOT-READY": "This replica has no log yet, so it cannot judge a record.",
    "API-PARAMETER": "A parameter is missing, unknown or out of bounds.",
    "API-STORE": "The replica's store does not answer.",
    "API-TIMEOUT": "The request's body did not arrive in time.",
    "API-TOKEN": "This replica asks for an access token. It lets you in; it signs nothing.",
    "API-TYPE": "The body is not application/json.",
    "API-UNKNOWN": "The store did not confirm the commit, and the record is not found in it yet: ask again.",
}

BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, METHOD, TIMEOUT, CONFLICT = 400, 401, 403, 404, 405, 408, 409
TOO_LARGE, MEDIA, UNPROCESSABLE, INTERNAL, UNAVAILABLE = 413, 415, 422, 500, 503

STATUS_OF: Mapping[str, int] = {
    # The bytes are not a record.
    "SL-SIZE": TOO_LARGE,
    "SL-CANON": BAD_REQUEST,
    "SL-SCHEMA": BAD_REQUEST,
    "SL-SHAPE": BAD_REQUEST,
    "SL-UNLOGGED": BAD_REQUEST,
    "SL-LEAF": BAD_REQUEST,
    # A record, but not one for here and now.
    "SL-CLUSTER": UNPROCESSABLE,
    "SL-FUTURE": UNPROCESSABLE,
    "SL-EXPIRED": UNPROCESSABLE,
    "SL-VALIDITY": UNPROCESSABLE,
    "SL-KEY": UNPROCESSABLE,
    "SL-THRESHOLD": UNPROCESSABLE,
    "SL-PRODUCTION": UNPROCESSABLE,
    "SL-GENESIS": UNPROCESSABLE,
    "SL-ANCHOR": UNPROCESSABLE,
    "SL-NODE": UNPROCESSABLE,
    # Its signers may not say this.
    "SL-SIG": FORBIDDEN,
    "SL-ROLE": FORBIDDEN,
    "SL-SCOPE": FORBIDDEN,
    "SL-QUORUM": FORBIDDEN,
    "SL-REVOKED": FORBIDDEN,
    "SL-FENCED": FORBIDDEN,
    "SL-DELEGATION": FORBIDDEN,
    # It was right once, or another one was first.
    "SL-STALE": CONFLICT,
    "SL-EPOCH": CONFLICT,
    "SL-EQUIVOCATION": CONFLICT,
    "SL-DUPLICATE": CONFLICT,
    "SL-MODE": CONFLICT,
    "SL-TERM": CONFLICT,
    "SL-RECOVERY": CONFLICT,
    "SL-RELEASE": CONFLICT,
    "SL-SHARDS": CONFLICT,
    "SL-SNAPSHOT": CONFLICT,
    "SL-ORDER": CONFLICT,
    # The API's own.
    "API-PARAMETER": BAD_REQUEST,
    "API-TOKEN": UNAUTHORIZED,
    "API-FOUND": NOT_FOUND,
    "API-METHOD": METHOD,
    "API-TIMEOUT": TIMEOUT,
    "API-TYPE": MEDIA,
    "API-INTERNAL": INTERNAL,
    "API-BUSY": UNAVAILABLE,
    "API-NOT-READY": UNAVAILABLE,
    "API-STORE": UNAVAILABLE,
    "API-UNKNOWN": UNAVAILABLE,
}


class Problem(Exception):  # noqa: N818 - an answer, as RFC 9457 calls it
    """A refusal of the API; `finding` says why, `headers` go with the answer."""

    def __init__(self, finding: Finding, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(str(finding))
        self.finding = finding
        self.headers = dict(headers or {})


def problem(
    code: str, sentence: str, *, path: str = "", expected: object = "", found: object = "", **headers: str
) -> Problem:
    """A `Problem` to raise; keyword `headers` are written with underscores."""
    finding = Finding(code, sentence, path, str(expected), str(found))
    return Problem(finding, {name.replace("_", "-"): value for name, value in headers.items()})


def explanation(code: str) -> str | None:
    """What a code means, None for one that does not exist."""
    return CODES.get(code) or API_CODES.get(code)


def answer_of(finding: Finding, headers: Mapping[str, str] | None = None) -> Response:
    """The finding as problem details."""
    status = STATUS_OF.get(finding.code, UNPROCESSABLE)
    body: dict[str, Any] = {
        "type": f"/v1/errors/{finding.code}",
        "title": explanation(finding.code) or finding.sentence,
        "status": status,
        "detail": finding.sentence,
        "code": finding.code,
        "path": finding.path,
        "expected": finding.expected,
        "found": finding.found,
    }
    if finding.record_id is not None:
        body["record_id"] = finding.record_id
    sent = {"Cache-Control": "no-store", **(headers or {})}
    if status == UNAVAILABLE:
        sent.setdefault("Retry-After", str(RETRY_AFTER_S))
    return Response(orjson.dumps(body), status, sent, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Every error of this application becomes problem details here and nowhere else."""

    async def on_problem(request: Request, error: Exception) -> Response:
        refused = cast("Problem", error)
        return answer_of(refused.finding, refused.headers)

    async def on_refused(request: Request, error: Exception) -> Response:
        return answer_of(cast("Refused", error).finding)

    async def on_store(request: Request, error: Exception) -> Response:
        return answer_of(Finding("API-STORE", str(error)))

    async def on_validation(request: Request, error: Exception) -> Response:
        first = cast("RequestValidationError", error).errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        found = str(first.get("input", ""))[:80]
        return answer_of(Finding("API-PARAMETER", first["msg"], where, found=found))

    async def on_http(request: Request, error: Exception) -> Response:
        known = cast("HTTPException", error)
        code = {NOT_FOUND: "API-FOUND", METHOD: "API-METHOD"}.get(known.status_code, "API-PARAMETER")
        finding = Finding(code, API_CODES[code], found=f"{request.method} {request.url.path}"[:200])
        return answer_of(finding, known.headers)

    async def on_any(request: Request, error: Exception) -> Response:
        return answer_of(Finding("API-INTERNAL", API_CODES["API-INTERNAL"]))

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(Refused, on_refused)
    app.add_exception_handler(SourceUnreadable, on_store)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_any)
