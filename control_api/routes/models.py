"""The read models, one address each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from control_api import limits, reads, schemas
from control_api.services import tagged
from statelog.io.store import Store

router = APIRouter(prefix="/v1", tags=["read models"])

After = Annotated[
    str, Query(max_length=256, description="continue after this key: `next_after` of the last page")
]
Limit = Annotated[int, Query(ge=1, le=limits.MAX_PAGE_ROWS)]
Filter = Annotated[str | None, Query(max_length=256)]


async def _page(
    request: Request, name: str, filters: Mapping[str, str | None], after: str, limit: int
) -> Response:
    equal = {column: value for column, value in filters.items() if value is not None}
    return await tagged(
        request, lambda connection, store: reads.model(connection, store, name, equal, after, limit)
    )


@router.get("/registry", response_model=schemas.RowsModel, summary="Where services are")
async def registry(
    request: Request,
    service: Filter = None,
    scope: Filter = None,
    organization_id: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """Signed registry records with this host's own findings: `status` candidate, active or fallback, and
    `unlogged` for those that travel ahead of the log.
    """
    filters = {"service": service, "scope": scope, "organization_id": organization_id}
    equal = {column: value for column, value in filters.items() if value is not None}

    def read(connection: sa.Connection, store: Store) -> dict[str, object]:
        return reads.registry(connection, store, equal, after, limit)

    return await tagged(request, read, also=reads.local_mark)


@router.get("/nodes", response_model=schemas.RowsModel, summary="Approved nodes")
async def nodes(
    request: Request, after: After = "", limit: Limit = limits.DEFAULT_PAGE_ROWS, trust_tier: Filter = None
) -> Response:
    """`ended_by` is the record that revoked the node, empty while it is approved."""
    return await _page(request, "node", {"trust_tier": trust_tier}, after, limit)


@router.get("/roles", response_model=schemas.RowsModel, summary="Role certificates")
async def roles(
    request: Request,
    node_id: Filter = None,
    role: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """The newest certificate of each node, role and parent."""
    return await _page(request, "role_certificate", {"node_id": node_id, "role": role}, after, limit)


@router.get("/leases", response_model=schemas.RowsModel, summary="Route leases")
async def leases(
    request: Request,
    partition: Filter = None,
    service: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """The newest lease of each route; `ended_by` is the fence or revocation that killed it."""
    return await _page(request, "route_lease", {"partition": partition, "service": service}, after, limit)


@router.get("/policies", response_model=schemas.RowsModel, summary="Policy documents")
async def policies(request: Request, after: After = "", limit: Limit = limits.DEFAULT_PAGE_ROWS) -> Response:
    """The newest document of each policy."""
    return await _page(request, "policy", {}, after, limit)


@router.get("/services", response_model=schemas.RowsModel, summary="Service leases")
async def services(
    request: Request,
    mode: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """The newest lease of each service; `leader` is empty where all replicas are equal."""
    return await _page(request, "service_lease", {"mode": mode}, after, limit)


@router.get("/relays", response_model=schemas.RowsModel, summary="Relay assignments")
async def relays(
    request: Request,
    partition: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """Which nodes relay in each partition, and where nodes meet."""
    return await _page(request, "relay_assignment", {"partition": partition}, after, limit)


@router.get("/directories", response_model=schemas.RowsModel, summary="Peer directories")
async def directories(
    request: Request,
    partition: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """The newest directory of each partition: how many peers, and the root over them."""
    return await _page(request, "peer_directory", {"partition": partition}, after, limit)


@router.get("/releases", response_model=schemas.RowsModel, summary="Releases")
async def releases(
    request: Request,
    product: Filter = None,
    channel: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """The release in force of each channel of each product."""
    return await _page(request, "update_release", {"product": product, "channel": channel}, after, limit)


@router.get("/shards", response_model=schemas.RowsModel, summary="Shard manifests")
async def shards(
    request: Request,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """Where the shards of stored objects are."""
    return await _page(request, "shard_manifest", {}, after, limit)


@router.get("/seeds", response_model=schemas.RowsModel, summary="Seed sets")
async def seeds(
    request: Request,
    platform: Filter = None,
    site: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """Where new nodes find their first peers."""
    return await _page(request, "seed_set", {"platform": platform, "site": site}, after, limit)


@router.get("/snapshots", response_model=schemas.RowsModel, summary="Log snapshots")
async def snapshots(
    request: Request,
    log: Filter = None,
    after: After = "",
    limit: Limit = limits.DEFAULT_PAGE_ROWS,
) -> Response:
    """The newest snapshot of each log: what its read models came to at a size."""
    return await _page(request, "log_snapshot", {"log": log}, after, limit)
