"""A replica in the wrong hands: its database, its TLS key and its tokens, and still no record.

Each forgery is refused with its own code by every way in that the replica has, and the state does not move.
The positive twin, signed by the quorum, passes by the same ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from projections.io.check import check_against_fresh_fold
from projections.io.tables import SQL_TABLES
from statelog.canonical import encode
from statelog.findings import Finding
from statelog.io.database import write_transaction
from statelog.io.loading import load_replay
from statelog.io.sequencer import Sequencer, Submitted
from statelog.signing import record_id_of
from tests.control_api.replica import Replica, play, post
from tests.support.authority import Cluster, issuer, key_id, signer

Forge = Callable[[Cluster], dict[str, Any]]


def one_signature(cluster: Cluster) -> dict[str, Any]:
    return cluster.registry(by=["control-1"])


def one_key_under_two_ids(cluster: Cluster) -> dict[str, Any]:
    record = cluster.registry(by=["control-1"])
    again = {**record["signatures"][0], "key_id": key_id("control-2"), "issuer_id": issuer("control-2")}
    both = sorted([record["signatures"][0], again], key=lambda one: str(one["key_id"]))
    return {**record, "signatures": both}


def one_key_twice(cluster: Cluster) -> dict[str, Any]:
    record = cluster.registry(by=["control-1"])
    return {**record, "signatures": record["signatures"] * 2}


def expired(cluster: Cluster) -> dict[str, Any]:
    return cluster.registry(issued_at=cluster.now - 7200, lifetime_s=3600)


def of_another_role(cluster: Cluster) -> dict[str, Any]:
    return cluster.registry(issuer_role="update-authority")


def by_the_replicas_own_keys(cluster: Cluster) -> dict[str, Any]:
    return cluster.sign(cluster.registry(), ["sequencer-1", "node:control-1"])


def changed_after_signing(cluster: Cluster) -> dict[str, Any]:
    record = cluster.registry()
    return {**record, "endpoints": [{**record["endpoints"][0], "address": "quic://203.0.113.66:4433"}]}


def with_signatures_of_another_record(cluster: Cluster) -> dict[str, Any]:
    return {**cluster.registry("web-admin"), "signatures": cluster.registry("control-api")["signatures"]}


FORGERIES: dict[str, tuple[Forge, str]] = {
    "one signature": (one_signature, "SL-QUORUM"),
    "one key under two key ids": (one_key_under_two_ids, "SL-SIG"),
    "one key twice": (one_key_twice, "SL-SHAPE"),
    "expired": (expired, "SL-EXPIRED"),
    "of another role": (of_another_role, "SL-ROLE"),
    "by the replica's own keys": (by_the_replicas_own_keys, "SL-SIG"),
    "changed after signing": (changed_after_signing, "SL-SIG"),
    "signatures of another record": (with_signatures_of_another_record, "SL-SIG"),
}


def position(replica: Replica) -> tuple[Any, ...]:
    head = replica.store.head()
    assert head is not None
    replay = load_replay(replica.store, replica.cluster.anchor)
    return head.size, head.root, head.final_size, dict(replay.state.subjects)


@pytest.mark.parametrize("sequences", [True, False], ids=["sequencing", "outbox"])
@pytest.mark.parametrize(("forge", "code"), FORGERIES.values(), ids=FORGERIES.keys())
def test_a_forgery_is_refused_with_its_own_code_and_its_twin_passes(
    replica: Replica, forge: Forge, code: str, sequences: bool
) -> None:
    forged = forge(replica.cluster)
    before = position(replica)

    async def main() -> None:
        async with replica.api(sequences=sequences) as client:
            answer = await post(client, forged)
            assert answer.json()["code"] == code
            assert answer.status_code >= 400
            assert position(replica) == before
            assert replica.store.outbox_row(record_id_of(forged)) is None
            assert (await post(client, replica.cluster.registry())).status_code == 202, "the positive twin"

    play(main)


@pytest.mark.parametrize(("forge", "code"), FORGERIES.values(), ids=FORGERIES.keys())
def test_writing_a_forgery_into_the_outbox_does_not_help(replica: Replica, forge: Forge, code: str) -> None:
    """The database is the thief's: the row is there as if it was admitted. The sequencer judges again."""
    forged = forge(replica.cluster)
    before = position(replica)
    replica.store.outbox_put(record_id_of(forged), encode(forged), replica.cluster.now)
    (row,) = replica.store.outbox_pending(10)
    sequencer = Sequencer(replica.store, replica.cluster.anchor, signer("sequencer-1"))
    (verdict,) = sequencer.submit_many([row.data], int(replica.clock()))
    assert isinstance(verdict, Finding)
    assert verdict.code == code
    assert position(replica) == before
    (verdict,) = sequencer.submit_many([encode(replica.cluster.registry())], int(replica.clock()))
    assert isinstance(verdict, Submitted)


def test_a_token_opens_the_door_and_signs_nothing(replica: Replica) -> None:
    token = replica.folder / "token"
    token.write_text("let me in\n")
    before = position(replica)

    async def main() -> None:
        async with replica.api(api_token_file=token) as client:
            forged = one_signature(replica.cluster)
            assert (await post(client, forged)).status_code == 401
            answer = await post(client, forged, authorization="Bearer let me in")
            assert answer.json()["code"] == "SL-QUORUM"
            assert position(replica) == before
            good = await post(client, replica.cluster.registry(), authorization="Bearer let me in")
            assert good.status_code == 202

    play(main)


def test_rows_written_into_the_projections_are_shown_by_the_replica_and_found_by_the_audit(
    replica: Replica,
) -> None:
    assert check_against_fresh_fold(replica.engine) == []
    with write_transaction(replica.engine) as connection:
        connection.execute(SQL_TABLES["node"].update().values(trust_tier="trusted"))
    findings = check_against_fresh_fold(replica.engine)
    assert {finding.code for finding in findings} == {"SL-PROJECTION"}
    assert {finding.path.rpartition(".")[2] for finding in findings} == {"trust_tier"}


def test_a_head_that_the_replica_calls_final_without_witnesses_is_not_acknowledged(replica: Replica) -> None:
    """The API acknowledges by the store's final mark; who forges that mark lies to its own callers only.

    So this pins what an honest API does: two of three cosignatures and no mark, and the answer stays 202.
    """

    async def main() -> None:
        async with replica.api() as client:
            record = replica.cluster.registry()
            assert (await post(client, record)).status_code == 202
            await asyncio.to_thread(replica.cosign, ("witness-1", "witness-2"))
            assert (await post(client, record, prefer="wait=0.1")).status_code == 202
            await asyncio.to_thread(replica.finalize)
            assert (await post(client, record, prefer="wait=5")).status_code == 200

    play(main)
