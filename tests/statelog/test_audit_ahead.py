"""Records that act ahead of the log, as the audit of a store judges them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from statelog.audit import audit
from statelog.audit_store import StoredAhead
from statelog.canonical import encode
from statelog.records import KINDS
from statelog.signing import encode_base64, record_id_of
from statelog.times import parse_time
from tests.statelog.test_audit_store import CLUSTER, sound
from tests.support.authority import node_id

FORGED = {"value": encode_base64(b"\x01" * 64)}


def row_of(record: dict[str, Any], received_at: int = CLUSTER.now) -> StoredAhead:
    kind = KINDS[record["schema_version"]]
    subject = "/".join((kind.name, *kind.subject(record)))
    expires_at, data = parse_time(record["expires_at"]), encode(record)
    record_id = record_id_of(record)
    return StoredAhead(record_id, kind.schema, subject, record["epoch"], expires_at, received_at, data)


def found(*rows: StoredAhead) -> list[tuple[str, str]]:
    store = sound()
    store.before = list(rows)
    return [(one.code, one.path.partition("]")[2]) for one in audit(store, CLUSTER.anchor).findings]


RECORD = CLUSTER.registry("web-admin")
REVOKED = CLUSTER.revocation({"node_id": node_id("home-1")})
FENCE = CLUSTER.fence({"route_id": "route-1"})


@pytest.mark.parametrize("record", [RECORD, REVOKED, FENCE])
def test_what_acts_rightly_is_sound(record: dict[str, Any]) -> None:
    assert found(row_of(record)) == []
    signed = [{**record["signatures"][0], **FORGED}, *record["signatures"][1:]]
    assert found(row_of({**record, "signatures": signed})) == [("SL-SIG", ".signatures[0]")]


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda: CLUSTER.sign(RECORD, ["control-1"]), "SL-QUORUM"),
        (lambda: CLUSTER.sign(RECORD, ["root-1", "root-2"]), "SL-SIG"),
        (lambda: CLUSTER.sign({**RECORD, "cluster_id": "elsewhere." + "b" * 26}), "SL-CLUSTER"),
        (lambda: {**RECORD, "more": 1}, "SL-SHAPE"),
        (lambda: CLUSTER.lease("route-1"), "SL-UNLOGGED"),
        (lambda: CLUSTER.registry("web-admin", issued_at=CLUSTER.now - 9_000), "SL-EXPIRED"),
    ],
)
def test_what_must_not_act_is_found(wrong: Callable[[], dict[str, Any]], code: str) -> None:
    assert [one for one, _ in found(row_of(RECORD), row_of(wrong()))] == [code]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("record_id", "f" * 64),
        ("schema_version", "rap.fabric.route.fence.v1"),
        ("subject", "registry.gossip_record/other/cluster/"),
        ("epoch", 7),
        ("expires_at", 9),
        ("received_at", "yesterday"),
    ],
)
def test_a_column_that_is_not_the_records_is_found(column: str, value: object) -> None:
    assert found(replace(row_of(RECORD), **{column: value})) == [("SL-STORED", f".{column}")]  # type: ignore[arg-type]  # any column


def test_what_the_log_has_gone_beyond_does_not_act_and_is_no_finding() -> None:
    old = CLUSTER.sign({**RECORD, "epoch": 2_000})
    assert found(row_of(old)) == []


def test_bytes_that_are_no_record_are_found() -> None:
    assert [code for code, _ in found(replace(row_of(RECORD), data=b"{"))] == ["SL-CANON"]
