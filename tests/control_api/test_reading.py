"""Status, error codes, read models: what is served is what the log says."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from control_api import problems, schemas
from projections.io.reader import read_live
from projections.io.writer import Writer
from statelog.audit_store import StoredAhead
from statelog.canonical import encode
from statelog.findings import CODES
from statelog.io.comparing import compare_head
from statelog.io.database import write_transaction
from statelog.io.evidence import Evidence, KeptRollback
from statelog.io.loading import load_replay
from statelog.rollback import Rollback
from statelog.signing import record_id_of
from tests.control_api.replica import Replica, get, play, post
from tests.support.authority import STORES, node_id
from tests.support.logs import forked, head_note, replay_of


class TestStatus:
    def test_the_replicas_account(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                found = schemas.StatusModel.model_validate((await get(client, "/v1/status")).json())
            head = replica.store.head()
            assert head is not None
            assert found.cluster is not None
            assert (found.cluster.mode, found.cluster.bootstrap) == ("production", False)
            assert found.log is not None
            assert (found.log.size, found.log.anchor) == (head.size, replica.cluster.anchor)
            assert found.projected_size == found.finality.size == head.size
            assert (found.finality.threshold, len(found.finality.cosigned)) == (3, 3)
            assert (found.finality.age_s, found.finality.stale) == (0, False)

        play(main)

    def test_the_age_counts_from_the_cosignature_after_the_faulty_ones(self, replica: Replica) -> None:
        async def main() -> None:
            then = replica.clock.now
            async with replica.api() as client:
                replica.clock.now = then + 600
                found = (await get(client, "/v1/status")).json()["finality"]
                assert (found["age_s"], found["stale"]) == (600, False)
                replica.clock.now = then + 601
                assert (await get(client, "/v1/status")).json()["finality"]["stale"] is True
                # One witness of f = 1 that claims to be fresh does not make the head fresh.
                await asyncio.to_thread(replica.cosign, ("witness-1",))
                assert (await get(client, "/v1/status")).json()["finality"]["stale"] is True
                await asyncio.to_thread(replica.cosign, ("witness-2",))
                found = (await get(client, "/v1/status")).json()["finality"]
                assert (found["age_s"], found["stale"]) == (0, False)

        play(main)

    def test_alarms_and_the_evidence_behind_them(self, replica: Replica) -> None:
        async def main() -> None:
            cluster = replica.cluster
            async with replica.api() as client:
                assert (await get(client, "/v1/status")).json()["alarms"] == []
                note = head_note(replay_of(forked(cluster)))
                replay = load_replay(replica.store, cluster.anchor)
                await asyncio.to_thread(compare_head, replica.store, replay, note, "peer", cluster.now)
                for number in range(2):
                    one = cluster.policy("p", {"allow": [str(number)]})
                    item = Evidence("policy.epoch/p", 1, record_id_of(one), encode(one), cluster.now)
                    await asyncio.to_thread(replica.store.evidence_add, item)
                old = head_note(replay_of(cluster, cluster.log.size - 1))
                found_back = Rollback(head_note(replay_of(cluster)), old)
                kept = KeptRollback("peer", cluster.log.size - 1, cluster.log.size, found_back, cluster.now)
                await asyncio.to_thread(replica.store.rollback_keep, kept)
                replica.clock.now += 601
                status = schemas.StatusModel.model_validate((await get(client, "/v1/status")).json())
                codes = [one.code for one in status.alarms]
                assert codes == ["SL-FRESHNESS", "SL-SPLIT", "SL-ROLLBACK", "SL-EQUIVOCATION"]
                found = schemas.EvidenceModel.model_validate((await get(client, "/v1/evidence")).json())
                assert len(found.equivocations) == 2
                assert found.split_views[0].note.encode() == note
                assert (found.rollbacks[0].note.encode(), found.rollbacks[0].over_at) == (old, None)
                for code in codes:
                    assert (await get(client, f"/v1/errors/{code}")).status_code == 200

        play(main)

    @pytest.mark.parametrize("mode", ["development", "production"])
    def test_what_acts_ahead_of_the_log_is_marked_likewise(
        self, mode: str, development: Replica, replica: Replica
    ) -> None:
        chosen = development if mode == "development" else replica
        record = chosen.cluster.registry()
        row = (record_id_of(record), record["schema_version"], "x", 1, 2**40, chosen.cluster.now)
        chosen.store.ahead_put(StoredAhead(*row, encode(record)))

        async def main() -> None:
            async with chosen.api() as client:
                (found,) = (await get(client, "/v1/registry")).json()["rows"]
            assert (found["unlogged"], found["bootstrap"]) == (True, mode == "development")

        play(main)

    def test_a_development_cluster_is_marked(self, development: Replica) -> None:
        async def main() -> None:
            async with development.api() as client:
                status = (await get(client, "/v1/status")).json()
                nodes = (await get(client, "/v1/nodes")).json()["rows"]
            assert status["cluster"]["bootstrap"] is True
            assert nodes
            assert all(row["bootstrap"] for row in nodes)

        play(main)

    def test_an_empty_store_is_served_and_says_so(self, empty: Replica) -> None:
        async def main() -> None:
            async with empty.api(sequences=False) as client:
                found = schemas.StatusModel.model_validate((await get(client, "/v1/status")).json())
                assert (found.log, found.cluster, found.finality.stale) == (None, None, True)
                refused = await post(client, empty.cluster.registry())
                assert (refused.status_code, refused.json()["code"]) == (503, "API-NOT-READY")
                assert (await get(client, "/log/authority/checkpoint")).status_code == 404
                assert (await get(client, "/v1/records")).json()["records"] == []
                nobody = {"descriptor": None, "members": [], "recovery": None}
                assert (await get(client, "/v1/authority")).json() == nobody
                assert (await get(client, "/healthz")).json() == {"status": "ok"}

        play(main)

    def test_authority_names_keys_and_shows_no_more_than_who_holds_them(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                found = schemas.AuthorityModel.model_validate((await get(client, "/v1/authority")).json())
            assert found.descriptor is not None
            assert found.descriptor["control"]["threshold"] == 2
            roles = {row["role"] for row in found.members}
            assert roles == {"route-authority", "update-authority", "storage-authority", "observer-authority"}
            assert all(key.keys() == {"key_id", "issuer_id", "custody"} for key in found.members[0]["keys"])
            assert found.recovery is not None
            assert found.recovery["under_way"] is None
            (in_force,) = found.recovery["sets"]
            assert in_force["since"] == cluster_began(replica)

        play(main)

    def test_a_recovery_under_way_is_there_for_all_to_see(self, replica: Replica) -> None:
        intent = replica.cluster.recovery_intent(replica.cluster.descriptor())
        replica.sequence(intent)
        replica.finalize()

        async def main() -> None:
            async with replica.api() as client:
                found = (await get(client, "/v1/authority")).json()["recovery"]["under_way"]
            assert (found["intent"], found["descriptor"]) == (record_id_of(intent), intent["descriptor"])
            assert [key["issuer_id"] for key in found["shown"]] == [
                "keeper-of-recovery-1",
                "keeper-of-recovery-2",
            ]
            assert found["due_at"].endswith("Z")

        play(main)


def cluster_began(replica: Replica) -> str:
    issued_at: str = replica.cluster.genesis["issued_at"]
    return issued_at


class TestErrors:
    def test_one_table_explains_every_code(self, replica: Replica) -> None:
        assert problems.STATUS_OF.keys() <= CODES.keys() | problems.API_CODES.keys()
        assert problems.API_CODES.keys() <= problems.STATUS_OF.keys()
        assert all(400 <= status < 600 for status in problems.STATUS_OF.values())

        async def main() -> None:
            async with replica.api() as client:
                listed = (await get(client, "/v1/errors")).json()
                assert {one["code"] for one in listed} == problems.STATUS_OF.keys()
                one = schemas.ErrorCodeModel.model_validate(
                    (await get(client, "/v1/errors/SL-QUORUM")).json()
                )
                assert (one.status, one.explanation) == (403, CODES["SL-QUORUM"])
                assert (await get(client, "/v1/errors/SL-NONE")).status_code == 404

        play(main)

    def test_a_failing_store_is_503_and_a_defect_500_both_behind_the_shield(
        self, replica: Replica, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def main() -> None:
            async with replica.api() as client:
                with write_transaction(replica.engine) as connection:
                    connection.exec_driver_sql("ALTER TABLE log_head RENAME TO gone")
                answer = await get(client, "/healthz")
                assert (answer.status_code, answer.json()["code"]) == (503, "API-STORE")
                assert (await post(client, replica.cluster.registry())).json()["code"] == "API-STORE"
                monkeypatch.setattr("control_api.reads.authority", lambda connection: 1 // 0)
                with write_transaction(replica.engine) as connection:
                    connection.exec_driver_sql("ALTER TABLE gone RENAME TO log_head")
                answer = await get(client, "/v1/authority")
                assert (answer.status_code, answer.json()["code"]) == (500, "API-INTERNAL")
                assert "ZeroDivision" not in answer.text
                assert answer.headers["x-content-type-options"] == "nosniff"
                assert (await get(client, "/healthz")).status_code == 200

        play(main)


LATEST = ("services", "relays", "directories", "releases", "shards", "seeds", "snapshots")


class TestModels:
    def test_nodes_roles_leases_and_policies(self, replica: Replica) -> None:
        cluster = replica.cluster
        replica.sequence(
            cluster.certificate("relay-1", "relay"), cluster.lease(), cluster.policy(), cluster.registry()
        )
        replica.finalize()

        async def rows(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
            answer = await get(client, path)
            return schemas.RowsModel.model_validate(answer.json()).rows

        async def main() -> None:
            async with replica.api() as client:
                assert len(await rows(client, "/v1/nodes")) == 6
                (role,) = await rows(client, f"/v1/roles?node_id={node_id('relay-1')}")
                assert role["role"] == "relay"
                assert await rows(client, "/v1/roles?role=exit") == []
                (lease,) = await rows(client, "/v1/leases?partition=eu-1")
                assert lease["hops"] == [node_id(name) for name in ("phone-a", "relay-1", "home-1")]
                assert await rows(client, "/v1/leases?partition=us-1") == []
                (policy,) = await rows(client, "/v1/policies")
                assert policy["document"] == {"allow": []}
                (service,) = await rows(client, "/v1/registry?service=control-api")
                assert (service["status"], service["verified_at"]) == ("candidate", None)
                assert await rows(client, "/v1/registry?service=web-admin") == []
                assert service["expires_at"].endswith("Z")

        play(main)

    def test_services_relays_releases_and_the_rest(self, replica: Replica) -> None:
        cluster = replica.cluster
        replica.sequence(
            cluster.certificate("relay-1", "relay"),
            *(cluster.certificate(node, "storage") for node in STORES),
            *(cluster.service_lease(), cluster.assignment(), cluster.directory(), cluster.release()),
            *(cluster.release(channel="beta"), cluster.manifest(), cluster.seeds(), cluster.snapshot()),
        )
        replica.finalize()

        async def main() -> None:
            async with replica.api() as client:
                found = {path: (await get(client, f"/v1/{path}")).json()["rows"] for path in LATEST}
                assert {path: len(rows) for path, rows in found.items()} == {
                    **dict.fromkeys(LATEST, 1),
                    "releases": 2,
                }
                assert found["services"][0]["leader"] == node_id("home-1")
                assert found["shards"][0]["retention_until"].endswith("Z")
                assert found["snapshots"][0]["size"] == cluster.log.size
                beta = (await get(client, "/v1/releases?channel=beta")).json()["rows"]
                assert [row["channel"] for row in beta] == ["beta"]
                first = (await get(client, "/v1/releases?limit=1")).json()
                second = (await get(client, f"/v1/releases?limit=1&after={first['next_after']}")).json()
                assert {one["rows"][0]["channel"] for one in (first, second)} == {"stable", "beta"}
                assert second["next_after"] is None

        play(main)

    def test_pages_go_on_where_the_last_one_ended(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                seen: list[str] = []
                after: str | None = ""
                while after is not None:
                    page = (await get(client, f"/v1/nodes?limit=2&after={after}")).json()
                    seen += [row["node_id"] for row in page["rows"]]
                    after = page["next_after"]
                assert seen == sorted(
                    node["node_id"] for node in (await get(client, "/v1/nodes")).json()["rows"]
                )
                assert len(seen) == 6
                assert (await get(client, "/v1/nodes?limit=0")).json()["code"] == "API-PARAMETER"

        play(main)


class TestTags:
    def test_a_copy_of_the_same_log_size_is_not_sent_again(self, replica: Replica) -> None:
        async def main() -> None:
            async with replica.api() as client:
                for path in (
                    "/v1/nodes",
                    "/v1/roles",
                    "/v1/leases",
                    "/v1/policies",
                    "/v1/records",
                    "/v1/authority",
                ):
                    first = await get(client, path)
                    again = await get(client, path, if_none_match=first.headers["etag"])
                    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
                    assert again.headers["etag"] == first.headers["etag"]
                tag = (await get(client, "/v1/records")).headers["etag"]
                await post(client, replica.cluster.registry())
                pending = await get(client, "/v1/records", if_none_match=tag)
                assert pending.status_code == 200
                await asyncio.to_thread(replica.finalize)
                final = await get(client, "/v1/records", if_none_match=pending.headers["etag"])
                assert final.json()["records"][0]["state"] == "final"

        play(main)

    def test_the_registry_changes_with_the_hosts_own_findings_too(self, replica: Replica) -> None:
        record = replica.cluster.registry()
        replica.sequence(record)
        replica.finalize()

        async def main() -> None:
            async with replica.api() as client:
                first = await get(client, "/v1/registry")
                tag = first.headers["etag"]
                assert (await get(client, "/v1/registry", if_none_match=tag)).status_code == 304
                told = read_live(replica.engine, replica.clock.now).verified(
                    record_id_of(record), replica.clock.now
                )
                Writer(replica.engine).save_statuses(told)
                again = await get(client, "/v1/registry", if_none_match=tag)
                assert again.status_code == 200
                assert again.json()["rows"][0]["status"] == "active"

        play(main)
