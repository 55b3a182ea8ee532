"""Records: submitting, following, listing."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from control_api import limits, reads, schemas
from control_api.desk import Receipt
from control_api.problems import API_CODES, problem
from control_api.services import Services, json_answer, services_of, tagged
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.io.serving import BodyTooLongError, BodyTooSlowError, read_body

router = APIRouter(prefix="/v1/records", tags=["records"])

_PREFERENCE = re.compile(r"\s*(respond-async|wait)\s*(?:=\s*\"?([0-9]+(?:\.[0-9]+)?)\"?)?\s*", re.ASCII)
_PROBLEM = {"model": schemas.ProblemDetails, "content": {"application/problem+json": {}}}
_BODY = {
    "requestBody": {
        "required": True,
        "description": "The signed record in its canonical bytes (RFC 8785), at most 60,000 of them.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}

RecordId = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="the record id, 64 hex digits")]


@router.post(
    "",
    summary="Submit a signed record",
    response_model=schemas.ReceiptModel,
    status_code=201,
    openapi_extra=_BODY,
    responses={
        200: {"model": schemas.ReceiptModel, "description": "It was final before this request"},
        201: {"model": schemas.ReceiptModel, "description": "It is final"},
        202: {"model": schemas.ReceiptModel, "description": "It is kept and not final yet; ask at Location"},
        **dict.fromkeys((400, 401, 403, 408, 409, 413, 415, 422, 503), _PROBLEM),
    },
)
async def submit(
    request: Request,
    wait_s: Annotated[
        float | None, Query(ge=0, le=limits.MAX_WAIT_S, description="seconds to wait for finality")
    ] = None,
) -> Response:
    """201 says final: cosigned by the witness quorum. 202 says kept, and where to ask. Anything else
    changed nothing.

    The signatures on the record are the only authority. `Prefer: respond-async` answers as soon as the
    record is durable, `Prefer: wait=N` waits up to N seconds. The same record may be submitted again at any
    time.
    """
    services = services_of(request)
    data = await _body(request)
    patience, applied = _patience(request, wait_s, services)
    receipt = await services.desk.receipt(data)
    headers = {"Location": f"/v1/records/{receipt.record_id}"}
    if applied:
        headers["Preference-Applied"] = applied
    if receipt.duplicate and await _is_final(services, receipt):
        return _answer(receipt.record_id, "final", (receipt.log, receipt.log_index), True, 200, headers)
    await services.watch.settled(receipt.record_id, patience)
    found = await services.read(
        lambda connection: reads.record(connection, services.store, receipt.record_id)
    )
    if found is None:  # the term that sequenced it ended before it was final, and dropped it
        return _answer(receipt.record_id, "pending", (None, None), receipt.duplicate, 202, headers)
    if found["state"] == "refused":
        why = found["refusal"]
        raise Refused(Finding(why["code"], why["sentence"], record_id=receipt.record_id))
    status = 201 if found["state"] == "final" else 202
    place = (found["log"], found["log_index"])
    return _answer(receipt.record_id, found["state"], place, receipt.duplicate, status, headers)


@router.get(
    "/{record_id}",
    summary="One record and its state",
    response_model=schemas.RecordModel,
    responses={404: _PROBLEM},
)
async def record(request: Request, record_id: RecordId) -> Response:
    """`final`, `pending` (kept, or in the log and not final), `candidate` (acts ahead of the log) or
    `refused`.
    """
    services = services_of(request)
    found = await services.read(lambda connection: reads.record(connection, services.store, record_id))
    if found is None:
        raise problem("API-FOUND", "this replica does not know the record", path="record_id", found=record_id)
    return json_answer(found)


@router.get(
    "",
    summary="Records of the log, newest first",
    response_model=schemas.RecordsModel | schemas.WaitingRecordsModel,
    responses={400: _PROBLEM},
)
async def records(
    request: Request,
    before: Annotated[int | None, Query(ge=0, description="only entries below this log index")] = None,
    limit: Annotated[int, Query(ge=1, le=limits.MAX_PAGE_ROWS)] = limits.DEFAULT_PAGE_ROWS,
    kind: Annotated[str | None, Query(max_length=64, description="such as route.lease")] = None,
    state: Annotated[
        Literal["pending", "candidate", "refused"] | None, Query(description="what is not in the log")
    ] = None,
) -> Response:
    """Pages go on at `next_before`. With `state` pending, candidate or refused: what this replica holds
    outside the log.
    """
    if state is not None:
        services = services_of(request)
        waiting = await services.read(lambda connection: reads.waiting(connection, state, limit))
        return json_answer({"records": waiting})
    return await tagged(
        request, lambda connection, store: reads.logged(connection, store, before, limit, kind)
    )


async def _body(request: Request) -> bytes:
    """The body, counted while it arrives. Raises Problem."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        raise problem("API-TYPE", API_CODES["API-TYPE"], expected="application/json", found=media[:80])
    too_large = problem("SL-SIZE", "the body is too large", expected=f"at most {limits.MAX_BODY_BYTES} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:20]) > limits.MAX_BODY_BYTES:
        raise too_large
    try:
        return await read_body(request, limits.MAX_BODY_BYTES, limits.BODY_TIMEOUT_S)
    except BodyTooLongError as error:
        raise too_large from error
    except BodyTooSlowError as error:
        raise problem("API-TIMEOUT", API_CODES["API-TIMEOUT"]) from error


def _patience(request: Request, wait_s: float | None, services: Services) -> tuple[float, str]:
    """Seconds to wait and the preference that was applied (RFC 7240); the query parameter goes first."""
    chosen, applied = services.settings.wait_s, ""
    for part in ",".join(request.headers.getlist("prefer")).split(","):
        match = _PREFERENCE.fullmatch(part.partition(";")[0])
        if match is None:
            continue
        if match[1] == "respond-async":
            chosen, applied = 0.0, "respond-async"
            break
        if match[2] is not None:
            chosen = min(float(match[2]), limits.MAX_WAIT_S)
            applied = f"wait={match[2]}"
    return (chosen, applied) if wait_s is None else (wait_s, "")


async def _is_final(services: Services, receipt: Receipt) -> bool:
    log, index = receipt.log, receipt.log_index
    if log is None or index is None:
        return False
    store = services.store.of(log)
    return index < await services.read(lambda connection: reads.final_size(connection, store))


def _answer(
    record_id: str,
    state: str,
    place: tuple[str | None, int | None],
    duplicate: bool,
    status: int,
    headers: dict[str, str],
) -> Response:
    body: dict[str, Any] = {
        "record_id": record_id,
        "state": state,
        "final": state == "final",
        "log": place[0],
        "log_index": place[1],
        "duplicate": duplicate,
        "status_url": headers["Location"],
    }
    return json_answer(body, status, **headers)
