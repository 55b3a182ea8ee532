"""All projections, and folding them together.

Every projection sees the rows as they were before the fact, its own and the others': entry i is judged by
the state after i - 1, so what a development descriptor admits is marked `bootstrap`, its production
successor included.
"""

from __future__ import annotations

from collections.abc import Iterable

from projections.base import Change, Fact, MemoryRows, Projection, Rows, Table
from projections.cluster import ClusterProjection
from projections.directory import DirectoryProjection
from projections.fences import FencesProjection
from projections.leases import LeasesProjection
from projections.members import MembersProjection
from projections.nodes import NodesProjection
from projections.policies import PoliciesProjection
from projections.recovery import RecoveryProjection
from projections.registry import RegistryProjection
from projections.relays import RelaysProjection
from projections.releases import ReleasesProjection
from projections.roles import RolesProjection
from projections.seeds import SeedsProjection
from projections.services import ServicesProjection
from projections.shards import ShardsProjection
from projections.snapshots import SnapshotsProjection

ALL: tuple[Projection, ...] = (
    RegistryProjection(),
    NodesProjection(),
    RolesProjection(),
    LeasesProjection(),
    FencesProjection(),
    PoliciesProjection(),
    MembersProjection(),
    ClusterProjection(),
    RecoveryProjection(),
    ServicesProjection(),
    RelaysProjection(),
    DirectoryProjection(),
    ReleasesProjection(),
    ShardsProjection(),
    SeedsProjection(),
    SnapshotsProjection(),
)
TABLES: tuple[Table, ...] = tuple(projection.table for projection in ALL)

FOLD_VERSION = (
    3  # raise with every change of a fold or a column: stored rows of another version are folded anew
)


# schema_version -> the projections that it concerns, in the order of `ALL`
CONCERNED: dict[str, tuple[Projection, ...]] = {
    schema: tuple(one for one in ALL if schema in one.schemas)
    for schema in {schema for projection in ALL for schema in projection.schemas}
}


def fold(rows: Rows, fact: Fact) -> list[Change]:
    """What one fact means for all read models. Each table is written by one projection only."""
    concerned = CONCERNED.get(fact.record["schema_version"], ())
    if len(concerned) == 1:
        return concerned[0].fold(rows, fact)
    return [change for projection in concerned for change in projection.fold(rows, fact)]


def fold_all(facts: Iterable[Fact]) -> MemoryRows:
    """A fresh fold of logs from their beginnings, in memory: the authority log first, then the others."""
    rows = MemoryRows(TABLES)
    for fact in facts:
        rows.apply(fold(rows, fact))
    return rows
