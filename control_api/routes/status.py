"""Status, authority, liveness, and what the error codes mean."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from control_api import problems, reads, schemas, standing
from control_api.services import json_answer, services_of, tagged

router = APIRouter(tags=["status"])


@router.get("/healthz", response_model=schemas.HealthModel, summary="Whether this replica serves")
async def healthz(request: Request) -> Response:
    """200 while the process serves and its store answers; needs no token and tells nothing else."""
    services = services_of(request)
    await services.read(lambda connection: reads.final_size(connection, services.store))
    return json_answer({"status": "ok"})


@router.get("/v1/status", response_model=schemas.StatusModel, summary="Cluster, head, finality and freshness")
async def status(request: Request) -> Response:
    """`finality.stale` is true when the newest finality is older than the descriptor allows, or there is
    none.
    """
    services = services_of(request)
    now = int(services.clock())
    found = await services.read(lambda connection: reads.status(connection, services.store, now))
    return json_answer({**found, "sequences": services.settings.sequencer_key is not None})


@router.get("/v1/evidence", response_model=schemas.EvidenceModel, summary="Who signed two things")
async def evidence(request: Request) -> Response:
    """Equivocation and split views that this replica has kept, as anyone can check them without it."""
    services = services_of(request)
    return json_answer(await services.read(lambda connection: standing.evidence(connection, services.store)))


@router.get("/v1/authority", response_model=schemas.AuthorityModel, summary="Whose signatures count")
async def authority(request: Request) -> Response:
    """The descriptor's root, control and witness keys, and the key sets of the delegated roles."""
    return await tagged(request, lambda connection, _: reads.authority(connection))


@router.get("/v1/errors", response_model=list[schemas.ErrorCodeModel], summary="All error codes")
async def errors() -> Response:
    """Every code that a refusal can carry, with its HTTP status."""
    return json_answer([_explained(code) for code in sorted(problems.STATUS_OF)])


@router.get("/v1/errors/{code}", response_model=schemas.ErrorCodeModel, summary="One error code")
async def error(code: Annotated[str, Path(max_length=40)]) -> Response:
    """The page that a refusal's `type` links to."""
    if problems.explanation(code) is None:
        raise problems.problem("API-FOUND", "there is no such code", found=code)
    return json_answer(_explained(code))


def _explained(code: str) -> dict[str, object]:
    status = problems.STATUS_OF.get(code, problems.UNPROCESSABLE)
    return {"code": code, "status": status, "explanation": problems.explanation(code)}
