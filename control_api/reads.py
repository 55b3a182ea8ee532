"""What the API reads, as plain values; every function takes one read transaction and runs in a worker thread.

Nothing here decides anything: states and rows come from the log, its projections and this node's own tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import sqlalchemy as sa

from control_api import standing
from control_api.limits import MAX_SCANNED_ENTRIES
from projections.all import TABLES
from projections.base import Row
from projections.io.rows import SqlRows, plain_rows, select_rows
from projections.io.tables import SQL_TABLES, projection_cursor, registry_local, registry_record
from projections.leases import ended_by_another
from statelog.io import tables
from statelog.io.store import Head, Store
from statelog.records import KINDS
from statelog.times import format_time

State = Literal["final", "pending", "candidate", "refused"]


@dataclass(frozen=True, slots=True)
class Marks:
    """Where the store stands: sizes that change whenever what is read from the log changes."""

    size: int
    final_size: int
    projected: int
    root: bytes

    @property
    def etag(self) -> str:
        """Sizes, and the root for the case that a new term wrote another end of the same length."""
        return f'W/"{self.size}-{self.root.hex()[:16]}.{self.final_size}.{self.projected}"'


def marks(connection: sa.Connection, store: Store) -> Marks:
    """Where the store stands in this transaction."""
    head = store.head(connection)
    cursor = projection_cursor.c
    projected = connection.execute(sa.select(cursor.size).where(cursor.log == store.log)).scalar() or 0
    if head is None:
        return Marks(0, 0, projected, b"")
    return Marks(head.size, head.final_size, projected, head.root)


def etag(connection: sa.Connection, store: Store) -> str:
    """A tag that changes whenever any log of the store does: rows of all of them stand in one table."""
    names = store.logs(connection)
    found = [marks(connection, store.of(name)).etag for name in names if name != store.log]
    tag = marks(connection, store).etag
    if not found:
        return tag
    return f'{tag[:-1]}.{hashlib.sha256(repr([names, found]).encode()).hexdigest()[:16]}"'


# --- status ---


def status(connection: sa.Connection, store: Store, now: int) -> dict[str, Any]:
    """The replica's own account: cluster, head, finality, freshness, counts."""
    head = store.head(connection)
    clusters = select_rows(connection, "cluster")
    cluster = clusters[0] if clusters else None
    final = standing.finality(connection, store, head, cluster, now)
    return {
        "cluster": None if cluster is None else _cluster(cluster),
        "log": None if head is None else _head(head),
        "projected_size": marks(connection, store).projected,
        "finality": final,
        "alarms": standing.alarms_of(connection, store, cluster, final, now),
        "waiting": _counts(connection),
        "now": now,
    }


def _cluster(row: Row) -> dict[str, Any]:
    return {
        "cluster_id": row["cluster_id"],
        "mode": row["mode"],
        "bootstrap": row["mode"] == "development",
        "descriptor": row["record_id"],
        "epoch": row["epoch"],
        "expires_at": format_time(row["expires_at"]),
        "max_checkpoint_age_s": row["max_checkpoint_age_s"],
    }


def _head(head: Head) -> dict[str, Any]:
    return {
        "origin": head.origin,
        "anchor": head.anchor,
        "size": head.size,
        "root": head.root.hex(),
        "term": head.term,
        "sequenced_at": format_time(head.sequenced_at),
    }


def _counts(connection: sa.Connection) -> dict[str, int]:
    pending = sa.select(sa.func.count()).select_from(tables.outbox).where(tables.outbox.c.state == "pending")
    unlogged = sa.select(sa.func.count()).select_from(tables.ahead_record)
    return {
        "outbox": connection.execute(pending).scalar_one(),
        "unlogged": connection.execute(unlogged).scalar_one(),
    }


# --- authority ---


def authority(connection: sa.Connection) -> dict[str, Any]:
    """Whose signatures count: root, control, witnesses and the delegated roles, by key id, issuer and
    custody.
    """
    cluster = next(iter(select_rows(connection, "cluster")), None)
    members = [shown("members", row) for row in select_rows(connection, "members")]
    recovery = next(iter(select_rows(connection, "recovery")), None)
    if cluster is None or recovery is None:
        return {"descriptor": None, "members": members, "recovery": None}
    return {"descriptor": shown("cluster", cluster), "members": members, "recovery": _recovery(recovery)}


def _recovery(row: Row) -> dict[str, Any]:
    """The recovery sets with the times from which they hold, and the recovery under way, if one is."""
    sets = [{**one, "since": format_time(one["since"])} for one in row["sets"]]
    under_way = None
    if row["intent"]:
        under_way = {name: row[name] for name in ("intent", "descriptor", "shown")}
        under_way["due_at"] = format_time(row["due_at"])
    return {"sets": sets, "under_way": under_way}


# --- records ---


def record(connection: sa.Connection, store: Store, record_id: str) -> dict[str, Any] | None:
    """One record with its state, its signers and, in the log, its place; None when this replica never saw
    it.
    """
    place = store.locate(record_id, connection)
    if place is not None:
        carrying, index = place
        entry = next(carrying.entries(index, index + 1, connection))
        found = _of_leaf(entry.leaf, carrying.log, index, record_id, final_size(connection, carrying))
        return {**found, "quorum": quorum(connection, found["record"], admitted=True)}
    row = store.outbox_row(record_id, connection)
    ahead = _ahead(connection, record_id)
    if row is not None and (row.state == "refused" or ahead is None):
        state: State = "refused" if row.state == "refused" else "pending"
        refusal = {"code": row.code, "sentence": row.sentence} if row.state == "refused" else None
        return _waiting(connection, record_id, row.data, row.received_at, state, refusal)
    if ahead is not None:
        return _waiting(connection, record_id, ahead.data, ahead.received_at, "candidate", None)
    return None


def final_size(connection: sa.Connection, store: Store) -> int:
    """Up to where the log is final; 0 without a log."""
    head = store.head(connection)
    return head.final_size if head is not None else 0


def logged(
    connection: sa.Connection, store: Store, before: int | None, limit: int, kind: str | None
) -> dict[str, Any]:
    """A page of the log, newest first, from below index `before`; `next_before` continues, None at the
    beginning.

    Looking for one kind reads at most MAX_SCANNED_ENTRIES entries, so a page may be short and still go on.
    """
    head = store.head(connection)
    size, final = (head.size, head.final_size) if head is not None else (0, 0)
    end = size if before is None else min(before, size)
    lowest = max(0, end - MAX_SCANNED_ENTRIES)
    items: list[dict[str, Any]] = []
    while end > lowest and len(items) < limit:
        start = max(lowest, end - limit)
        for entry in reversed(list(store.entries(start, end, connection))):
            end = entry.index
            item = _of_leaf(entry.leaf, store.log, entry.index, entry.record_id, final)
            if kind is None or item["kind"] == kind:
                items.append(item)
                if len(items) == limit:
                    break
        else:
            end = start
    return {"records": items, "size": size, "final_size": final, "next_before": end if end > 0 else None}


def waiting(connection: sa.Connection, state: State, limit: int) -> list[dict[str, Any]]:
    """Records that are not in the log: pending or refused ones of the outbox, candidates that act ahead of
    it.
    """
    if state == "candidate":
        table = tables.ahead_record
        rows = connection.execute(sa.select(table).order_by(table.c.received_at.desc()).limit(limit)).all()
        return [_waiting(connection, row.record_id, row.data, row.received_at, state, None) for row in rows]
    table = tables.outbox
    query = sa.select(table).where(table.c.state == state, table.c.log_index.is_(None))
    rows = connection.execute(query.order_by(table.c.received_at.desc()).limit(limit)).all()
    return [
        _waiting(
            connection,
            row.record_id,
            row.data,
            row.received_at,
            state,
            {"code": row.code, "sentence": row.sentence} if state == "refused" else None,
        )
        for row in rows
    ]


def quorum(connection: sa.Connection, signed: Mapping[str, Any], *, admitted: bool) -> dict[str, Any]:
    """Who signed for which role, against the set of that role now in force.

    `threshold` and `missing` are None when no set of the role is known. A record that the log admitted had
    its quorum then, whatever the set is now: `met` says so, and `missing` is 0.
    """
    role = signed["issuer_role"]
    partition = str(signed.get("partition", ""))
    threshold, issuers = _key_set(connection, role, partition)
    signers = [
        {"key_id": one["key_id"], "issuer_id": one["issuer_id"], "role": one["role"]}
        for one in signed["signatures"]
    ]
    counted = {issuers[one["key_id"]] for one in signers if one["key_id"] in issuers}
    missing = None if threshold is None else max(0, threshold - len(counted))
    return {
        "role": role,
        "partition": partition or None,
        "threshold": threshold,
        "signers": signers,
        "missing": 0 if admitted else missing,
        "met": admitted or missing == 0,
    }


def _key_set(connection: sa.Connection, role: str, partition: str) -> tuple[int | None, dict[str, str]]:
    """Threshold and {key_id: issuer_id} of a role in a partition, or of the whole cluster where it has no
    own set.
    """
    cluster = next(iter(select_rows(connection, "cluster")), None)
    names = {"root-authority": "root", "control-authority": "control"}
    if cluster is not None and role in names:
        chosen = cluster[names[role]]
        held = {key["key_id"]: key["issuer_id"] for key in cluster["keys"]}
        return chosen["threshold"], {key_id: held[key_id] for key_id in chosen["key_ids"] if key_id in held}
    for where in (partition, ""):
        for row in select_rows(connection, "members", {"role": role, "partition": where}):
            return row["threshold"], {key["key_id"]: key["issuer_id"] for key in row["keys"]}
    return None, {}


def _of_leaf(leaf: bytes, log: str, index: int, record_id: str, final: int) -> dict[str, Any]:
    fields = orjson.loads(leaf)
    return {
        **_described(fields["record"], record_id),
        "state": "final" if index < final else "pending",
        "log": log,
        "log_index": index,
        "sequenced_at": fields["sequenced_at"],
        "term": fields["term"],
        "received_at": None,
        "refusal": None,
    }


def _waiting(
    connection: sa.Connection,
    record_id: str,
    data: bytes,
    received_at: int,
    state: State,
    refusal: dict[str, Any] | None,
) -> dict[str, Any]:
    signed = orjson.loads(data)
    return {
        **_described(signed, record_id),
        "state": state,
        "log": None,
        "log_index": None,
        "sequenced_at": None,
        "term": None,
        "received_at": format_time(received_at),
        "refusal": refusal,
        "quorum": quorum(connection, signed, admitted=False),
    }


def _described(signed: dict[str, Any], record_id: str) -> dict[str, Any]:
    kind = KINDS.get(signed["schema_version"])
    return {
        "record_id": record_id,
        "kind": kind.name if kind is not None else signed["schema_version"],
        "subject": list(kind.subject(signed)) if kind is not None else [],
        "epoch": signed["epoch"],
        "issued_at": signed["issued_at"],
        "expires_at": signed["expires_at"],
        "issuer_role": signed["issuer_role"],
        "record": signed,
    }


def _ahead(connection: sa.Connection, record_id: str) -> sa.Row[Any] | None:
    table = tables.ahead_record
    return connection.execute(sa.select(table).where(table.c.record_id == record_id)).first()


# --- read models ---

# What a page goes on after: the key, or the record's id where the key is of several columns.
_KEYS = {table.name: table.key[0] if len(table.key) == 1 else "record_id" for table in TABLES}


def model(
    connection: sa.Connection, store: Store, name: str, equal: Mapping[str, str], after: str, limit: int
) -> dict[str, Any]:
    """A page of a projection's rows in the order of their keys, after the key `after`."""
    table = SQL_TABLES[name]
    key = _KEYS[name]
    query = sa.select(table).where(table.c[key] > after).order_by(table.c[key]).limit(limit + 1)
    for column, value in equal.items():
        query = query.where(table.c[column] == value)
    rows = plain_rows(connection, name, query)
    page = rows[:limit]
    if name == "route_lease":
        known = SqlRows(connection)
        page = [{**row, "ended_by": row["ended_by"] or ended_by_another(known, row)} for row in page]
    return {
        "size": marks(connection, store).projected,
        "rows": [shown(name, row) for row in page],
        "next_after": page[-1][key] if len(rows) > limit else None,
    }


def registry(
    connection: sa.Connection, store: Store, equal: Mapping[str, str], after: str, limit: int
) -> dict[str, Any]:
    """Registry records, logged and ahead of the log, with what this node made of them."""
    local = {row.record_id: row for row in connection.execute(sa.select(registry_local))}
    rows = [shown("registry_record", row) for row in select_rows(connection, "registry_record")]
    rows += list(_unlogged_registry(connection))
    rows = [row for row in rows if all(row[column] == value for column, value in equal.items())]
    rows.sort(key=lambda row: row["record_id"])
    rows = [row for row in rows if row["record_id"] > after][: limit + 1]
    for row in rows:
        found = local.get(row["record_id"])
        row["status"] = found.status if found is not None else "candidate"
        verified_at = found.verified_at if found is not None else None
        row["verified_at"] = None if verified_at is None else format_time(verified_at)
    page = rows[:limit]
    return {
        "size": marks(connection, store).projected,
        "rows": page,
        "next_after": page[-1]["record_id"] if len(rows) > limit else None,
    }


def local_mark(connection: sa.Connection) -> str:
    """Changes whenever this node's own findings about registry records do, or what acts ahead of the log."""
    rows = connection.execute(sa.select(registry_local).order_by(registry_local.c.record_id)).all()
    ahead = connection.execute(
        sa.select(tables.ahead_record.c.record_id).order_by(tables.ahead_record.c.record_id)
    ).scalars()
    told = repr([[tuple(row) for row in rows], list(ahead)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _unlogged_registry(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    known = set(connection.execute(sa.select(registry_record.c.record_id)).scalars())
    table = tables.ahead_record
    bootstrap = any(row["mode"] == "development" for row in select_rows(connection, "cluster"))
    for row in connection.execute(sa.select(table).order_by(table.c.record_id)):
        signed = orjson.loads(row.data)
        if not row.schema_version.startswith("rap.fabric.registry.") or row.record_id in known:
            continue
        yield {
            "record_id": row.record_id,
            "service": signed["service"],
            "scope": signed["scope"],
            "organization_id": signed.get("organization_id", ""),
            "epoch": signed["epoch"],
            "generation": str(signed.get("generation", "")),
            "issued_at": signed["issued_at"],
            "expires_at": signed["expires_at"],
            "issuer_node_id": signed["issuer_node_id"],
            "issuer_role": signed["issuer_role"],
            "endpoints": signed["endpoints"],
            "log_index": None,
            "bootstrap": bootstrap,  # as `projections.live` marks what a development cluster lets act
            "unlogged": True,
        }


_TIMES = ("issued_at", "expires_at", "retention_until")


def shown(name: str, row: Row) -> dict[str, Any]:
    """A projected row as the API shows it: times as in records, and whether the log has it."""
    made = {**row, **{column: format_time(row[column]) for column in _TIMES if column in row}}
    if name == "registry_record":
        made["unlogged"] = False
    return made
