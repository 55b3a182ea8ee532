"""``storage.shard_manifest``: where the shards of one stored object are, and how to make it whole again.

Signed by the storage quorum.  An object is enciphered, cut into k shards with m for repair, and each shard is
held by ``replication_factor`` nodes.  Within one ``recovery_epoch`` only the places of shards change; other
bytes need the next one, which never goes back, so that shards of two encodings are never mixed.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from itertools import pairwise
from typing import Any

from statelog.canonical import encode
from statelog.changes import PlaceShards
from statelog.errors import Refused
from statelog.limits import (
    MANIFEST_MAX_VALIDITY_S,
    MAX_CODED_SHARDS,
    MAX_INTEGER,
    MAX_REPLICATION_FACTOR,
    MAX_SHARD_COPIES,
)
from statelog.precedents import ShardSet
from statelog.records.base import Concerns, Context, Form, Kind, Record, require_role
from statelog.records.shapes import Fault, fault, fields, integer, list_of, name, one_of, sha256_hex, time
from statelog.state import STORAGE, AuthorityState, Edit, Target


class ShardManifest(Kind):
    """``rap.fabric.storage.shard_manifest.v1``."""

    max_validity_s = MANIFEST_MAX_VALIDITY_S
    form = Form(
        "rap.fabric.storage.shard_manifest.v1",
        {
            "shard_set_id": name,
            "object": fields({"length": integer(0, MAX_INTEGER), "sha256": sha256_hex}),
            "cipher": one_of("aes-256-gcm", "chacha20-poly1305"),
            "code": fields(
                {
                    "scheme": name,
                    "k": integer(1, MAX_CODED_SHARDS),
                    "m": integer(0, MAX_CODED_SHARDS - 1),
                }
            ),
            "replication_factor": integer(1, MAX_REPLICATION_FACTOR),
            "shards": list_of(
                fields(
                    {
                        "index": integer(0, MAX_CODED_SHARDS - 1),
                        "node_id": sha256_hex,
                        "length": integer(0, MAX_INTEGER),
                        "sha256": sha256_hex,
                    }
                ),
                1,
                MAX_SHARD_COPIES,
            ),
            "retention_until": time,
            "recovery_epoch": integer(1, MAX_INTEGER),
        },
    )

    def coherence(self, record: Record) -> Fault | None:
        if record["retention_until"] < record["issued_at"]:  # times of the fixed form sort as text
            return fault("not before issued_at", record["retention_until"]).under("retention_until")
        return _placement(record)

    def subject(self, record: Record) -> tuple[str, ...]:
        return (record["shard_set_id"],)

    def signer_role(self, record: Record, state: AuthorityState) -> tuple[str, str | None]:
        return STORAGE, None

    def concerns(self, record: Record, record_id: str) -> Concerns:
        return _holders(record)

    def judge(self, record: Record, state: AuthorityState, ctx: Context) -> tuple[Edit, ...]:
        for holder, path in _holders(record):
            require_role(state, holder.id, "storage", ctx.now, path)
        new = ShardSet(record["recovery_epoch"], _content(record))
        last = state.shard_sets.get(record["shard_set_id"])
        fault = None if last is None else new.fault_after(last)
        if fault is not None:
            raise Refused(fault)
        return (PlaceShards(record["shard_set_id"], new),)


def _placement(record: Record) -> Fault | None:
    """Every shard of the code on its number of nodes, sorted by index and node; copies agree."""
    count, copies = record["code"]["k"] + record["code"]["m"], record["replication_factor"]
    if count > MAX_CODED_SHARDS:
        return fault(f"k + m of at most {MAX_CODED_SHARDS}", count).under("code")
    shards: list[Mapping[str, Any]] = record["shards"]
    if [shard["index"] for shard in shards] != [index for index in range(count) for _ in range(copies)]:
        wanted = f"each index below {count} in order, {copies} time(s)"
        return fault(wanted, [shard["index"] for shard in shards]).under("shards")
    for position, (before, after) in enumerate(pairwise(shards), 1):
        if before["index"] != after["index"]:
            continue
        where = f"shards[{position}]"
        if before["node_id"] >= after["node_id"]:
            return fault("another node, in ascending order", after["node_id"]).under(f"{where}.node_id")
        for part in ("length", "sha256"):
            if before[part] != after[part]:
                return fault(f"the other copy's {part}", after[part]).under(f"{where}.{part}")
    return None


def _content(record: Record) -> bytes:
    """The hash of all that a recovery epoch fixes: everything but the places."""
    bytes_of_shards = {str(shard["index"]): [shard["length"], shard["sha256"]] for shard in record["shards"]}
    fixed = {part: record[part] for part in ("object", "cipher", "code")}
    return sha256(encode({**fixed, "shards": bytes_of_shards})).digest()


def _holders(record: Record) -> Concerns:
    return tuple(
        (Target("node_id", shard["node_id"]), f"shards[{position}].node_id")
        for position, shard in enumerate(record["shards"])
    )
