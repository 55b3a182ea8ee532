"""``peer_directory.epoch``: how many peers a partition's directory lists, and the root over them.

The directory itself is too large for a log and travels between nodes; the record says which one is true.
``directory_root`` is the RFC 6962 root over the peers' node ids, 32 raw bytes each, in ascending order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from statelog.limits import DIRECTORY_MAX_VALIDITY_S, MAX_INTEGER
from statelog.merkle import EMPTY_ROOT, leaf_hash, root_of
from statelog.records import keys
from statelog.records.base import Form, Kind, Record
from statelog.records.shapes import Fault, fault, integer, partition, sha256_base64
from statelog.state import CONTROL, ROUTE, AuthorityState


class PeerDirectoryEpoch(Kind):
    """``rap.fabric.peer_directory.epoch.v1``."""

    max_validity_s = DIRECTORY_MAX_VALIDITY_S
    ends_with_its_time: ClassVar[bool] = True
    form = Form(
        "rap.fabric.peer_directory.epoch.v1",
        {
            "partition": partition,
            "node_count": integer(0, MAX_INTEGER),
            "directory_root": sha256_base64,
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        empty = keys.bytes_of(record["directory_root"]) == EMPTY_ROOT
        if empty != (record["node_count"] == 0):
            wanted = "the root of nothing exactly when node_count is 0"
            return fault(wanted, record["directory_root"]).under("directory_root")
        return None

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["partition"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        """Route authority of the partition, or control; a draft asks control where nobody is route."""
        asked, where = record["issuer_role"], record["partition"]
        if asked == CONTROL or (asked != ROUTE and state.key_set(ROUTE, where) is None):
            return CONTROL, None
        return ROUTE, where

    def home_partition(self, record: Record, state: AuthorityState) -> str | None:
        partition: str = record["partition"]
        return partition


def directory_of(node_ids: Iterable[bytes]) -> tuple[int, bytes]:
    """(``node_count``, ``directory_root``) of a directory that lists these nodes, in whatever order."""
    listed = sorted(set(node_ids))
    return len(listed), root_of(leaf_hash(node_id) for node_id in listed)
