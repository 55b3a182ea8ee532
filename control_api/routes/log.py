"""The log as static files, for auditors, witnesses and mirrors (C2SP tlog-tiles)."""

from __future__ import annotations

import hashlib
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from control_api import limits
from control_api.problems import problem
from control_api.services import matches, services_of
from statelog.errors import UsageError
from statelog.io.store import Store
from statelog.io.tiles import read_checkpoint, read_tile
from statelog.state import AUTHORITY_LOG
from statelog.tiles import LOGS_PATH, encode_logs, encode_sizes, parse_tile

router = APIRouter(prefix="/log", tags=["log"])

_BELOW = f"{AUTHORITY_LOG}/"
Name = Annotated[
    str,
    Path(
        pattern=f"^({_BELOW})?[a-z0-9.-]{{1,128}}$",
        description=f"the log's name, such as {AUTHORITY_LOG}; other logs stand below that one too",
    ),
]

_NO_CACHE = {"Cache-Control": "public, no-cache"}
_TEXT = "text/plain; charset=utf-8"


@router.get(
    "/{name:path}/checkpoint",
    summary="The newest final checkpoint",
    responses={200: {"content": {"text/plain": {}}}},
    response_class=Response,
)
async def checkpoint(request: Request, name: Name) -> Response:
    """A signed note with all cosignatures; everything under it is final."""
    return await _note(request, name, final=True)


@router.get(
    "/{name:path}/head",
    summary="The newest checkpoint, final or not",
    responses={200: {"content": {"text/plain": {}}}},
    response_class=Response,
)
async def head(request: Request, name: Name) -> Response:
    """What witnesses are asked to cosign next. Nodes do not act on it."""
    return await _note(request, name, final=False)


@router.get(
    "/{name:path}/history/sizes",
    summary="The sizes of the kept checkpoints",
    responses={200: {"content": {"text/plain": {}}}},
    response_class=Response,
)
async def history_sizes(request: Request, name: Name) -> Response:
    """The heads that cover a change of the witness set: ascending decimals, one a line."""
    data = encode_sizes(await _kept(request, name))
    return Response(data, 200, _NO_CACHE, _TEXT)


@router.get(
    "/{name:path}/history/{size}",
    summary="A kept checkpoint",
    responses={200: {"content": {"text/plain": {}}}},
    response_class=Response,
)
async def history_note(request: Request, name: Name, size: Annotated[int, Path(ge=1)]) -> Response:
    """The signed note of that size with the cosignatures that made it final."""
    note = (await _kept(request, name)).get(size)
    if note is None:
        raise problem("API-FOUND", "no checkpoint of that size is kept", path="size", found=str(size))
    return Response(note, 200, _NO_CACHE, _TEXT)


@router.get(
    f"/{AUTHORITY_LOG}/{LOGS_PATH}",
    summary="The logs below the authority log",
    responses={200: {"content": {"text/plain": {}}}},
    response_class=Response,
)
async def logs(request: Request) -> Response:
    """The partitions' logs that are final here, one name a line, for whoever audits or mirrors them all."""
    services = services_of(request)
    names = await services.read(lambda connection: _final_logs(services.store, connection))
    return Response(encode_logs(names), 200, _NO_CACHE, _TEXT)


@router.get(
    "/{name:path}/tile/{path:path}",
    summary="A hash tile or an entry bundle",
    responses={200: {"content": {"application/octet-stream": {}}}},
    response_class=Response,
)
async def tile(request: Request, name: Name, path: Annotated[str, Path(max_length=64)]) -> Response:
    """`<L>/<N>[.p/<W>]` and `entries/<N>[.p/<W>]`. What is final may be cached for ever."""
    services = services_of(request)
    store = await _log(request, name)
    found = parse_tile(f"tile/{path}")
    if found is None:
        raise problem("API-FOUND", "this is not the path of a tile", path="path", found=path)
    content = await services.read(lambda connection: read_tile(connection, store, found))
    if content is None:
        raise problem("API-FOUND", "the log does not reach that far", path="path", found=path)
    cache = f"public, max-age={limits.TILE_MAX_AGE_S}, immutable" if content.final else "no-store"
    return Response(content.data, 200, {"Cache-Control": cache}, "application/octet-stream")


async def _kept(request: Request, name: str) -> dict[int, bytes]:
    services = services_of(request)
    store = await _log(request, name)
    try:
        return await services.read(lambda connection: services.history.kept(store, connection))
    except UsageError as error:
        raise problem("API-FOUND", str(error), path="name", found=name) from error


async def _note(request: Request, name: str, *, final: bool) -> Response:
    services = services_of(request)
    store = await _log(request, name)
    note = await services.read(lambda connection: read_checkpoint(connection, store, final=final))
    if note is None:
        raise problem("API-FOUND", "the log has no such checkpoint yet", path="name", found=name)
    tag = f'"{hashlib.sha256(note).hexdigest()[:32]}"'
    headers = {**_NO_CACHE, "ETag": tag}
    if matches(request, tag):
        return Response(None, 304, headers)
    return Response(note, 200, headers, _TEXT)


async def _log(request: Request, name: str) -> Store:
    """A log that this replica holds."""
    services, name = services_of(request), name.removeprefix(_BELOW)
    if name not in await services.read(services.store.logs):
        raise problem("API-FOUND", "there is no such log here", path="name", found=name)
    return services.store.of(name)


def _final_logs(store: Store, connection: sa.Connection) -> list[str]:
    heads = {name: store.of(name).head(connection) for name in store.logs(connection)}
    return [name for name, head in heads.items() if head and head.final_size and name != AUTHORITY_LOG]
