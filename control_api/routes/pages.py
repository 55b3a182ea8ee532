"""The console and the API's own documentation: static pages without external hosts, which read the API in
the browser.
"""

from __future__ import annotations

import hashlib
from importlib import resources

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from control_api.problems import problem
from control_api.services import matches

router = APIRouter(include_in_schema=False)

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
}
_PAGES = {
    name: (resources.files("control_api") / "console" / name).read_bytes()
    for name in ("index.html", "docs.html", "console.css", "console.js", "docs.js", "api.js")
}


@router.get("/")
async def root() -> Response:
    """To the console."""
    return RedirectResponse("/console/")


@router.get("/console")
async def console() -> Response:
    """To the console's own folder, so that its links resolve."""
    return RedirectResponse("/console/")


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The documentation, drawn from /openapi.json."""
    return _page(request, "docs.html")


@router.get("/console/{name:path}")
async def page(request: Request, name: str) -> Response:
    """A file of the console."""
    return _page(request, name or "index.html")


def _page(request: Request, name: str) -> Response:
    data = _PAGES.get(name)
    if data is None:
        raise problem("API-FOUND", "there is no such page", found=name[:80])
    tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
    headers = {"Cache-Control": "no-cache", "ETag": tag}
    if matches(request, tag):
        return Response(None, 304, headers)
    return Response(data, 200, headers, _TYPES[name.rpartition(".")[2]])
