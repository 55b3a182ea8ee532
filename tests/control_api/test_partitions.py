"""Partition logs over the API: a record goes to its own log, and final means final there."""

from __future__ import annotations

from typing import Any

import pytest

from statelog.audit_logs import audit_logs
from statelog.io.evidence import KeptRollback
from statelog.rollback import Rollback
from statelog.tilelog import tile_logs
from statelog.tiles import encode_sizes, history_path, tiles_between
from tests.control_api.replica import WITNESSES, Replica, get, play, post
from tests.support.authority import node_id
from tests.support.logs import finalize
from tests.support.tiles import OTHERS, MemoryResources

LOG = "routes-eu-1"


def opened(replica: Replica, key: str) -> None:
    """A term that opens the partition's log for a sequencer key, final."""
    replica.sequence(replica.cluster.opening(LOG, key))
    replica.finalize()


def lease(replica: Replica, route: str = "eu-1/a") -> dict[str, Any]:
    return replica.cluster.lease(route)


def test_a_lease_is_final_when_its_own_log_is(replica: Replica) -> None:
    opened(replica, "sequencer-1")

    async def main() -> None:
        async with replica.api() as client:
            first = await post(client, lease(replica), prefer="respond-async")
            assert (first.status_code, first.json()["log"], first.json()["log_index"]) == (202, LOG, 0)
            # The authority log is final far beyond index 0; that says nothing about this one.
            again = await post(client, lease(replica), prefer="respond-async")
            assert (again.status_code, again.json()["state"], again.json()["duplicate"]) == (
                202,
                "pending",
                True,
            )
            replica.finalize(LOG)
            done = await post(client, lease(replica))
            assert (done.status_code, done.json()["final"]) == (200, True)
            found = (await get(client, f"/v1/records/{first.json()['record_id']}")).json()
            assert (found["state"], found["log"], found["log_index"]) == ("final", LOG, 0)
            policy = await post(client, replica.cluster.policy(), prefer="respond-async")
            assert policy.json()["log"] == "authority"

    play(main)


def test_whoever_waits_is_woken_by_its_own_log(replica: Replica) -> None:
    opened(replica, "sequencer-1")
    replica.sequence(replica.cluster.policy())

    async def main() -> None:
        async with replica.api() as client:
            await post(client, lease(replica), prefer="respond-async")
            replica.finalize(LOG)
            told = await post(client, lease(replica, "eu-1/a"), prefer="wait=5")
            assert told.json()["final"]
            early = await post(client, lease(replica, "eu-1/b"), prefer="wait=0.2")
            assert (early.status_code, early.json()["state"]) == (202, "pending")

    play(main)


@pytest.mark.parametrize("sequences", [True, False])
def test_what_another_node_writes_waits_in_the_outbox(replica: Replica, sequences: bool) -> None:
    opened(replica, "sequencer-2")

    async def main() -> None:
        async with replica.api(sequences=sequences) as client:
            told = await post(client, lease(replica), prefer="respond-async")
            assert (told.status_code, told.json()["state"], told.json()["log"]) == (202, "pending", None)
            assert [row.record_id for row in replica.store.outbox_pending(5)] == [told.json()["record_id"]]
            wrong = await post(client, lease(replica, "route-a"), prefer="respond-async")
            assert (wrong.status_code, wrong.json()["code"]) == (403, "SL-SCOPE")

    play(main)


def test_each_log_has_its_files(replica: Replica) -> None:
    opened(replica, "sequencer-1")

    async def main() -> None:
        async with replica.api() as client:
            assert (await get(client, f"/log/{LOG}/checkpoint")).status_code == 404
            await post(client, lease(replica), prefer="respond-async")
            replica.finalize(LOG)
            head = await get(client, f"/log/{LOG}/checkpoint")
            assert head.text.splitlines()[:2] == [f"{replica.cluster.cluster_id}/{LOG}", "1"]
            bundle = await get(client, f"/log/{LOG}/tile/entries/000.p/1")
            assert b'{"authority_size":' in bundle.content
            assert (await get(client, f"/log/{LOG}/history/sizes")).content == b""

    play(main)


def test_an_auditor_reads_all_logs_at_once(replica: Replica) -> None:
    """The witness set changes under the partition's log too: its own history shows who vouched for whom."""
    cluster = replica.cluster
    opened(replica, "sequencer-1")

    async def main() -> None:
        async with replica.api() as client:
            assert (await get(client, "/log/authority/logs")).content == b""
            await post(client, lease(replica), prefer="respond-async")
            first = replica.finalize(LOG)
            replica.sequence(cluster.descriptor(witnesses=cluster.witness_set(*OTHERS)))
            finalize(replica.store, (*WITNESSES, *OTHERS[1:]))
            await post(client, lease(replica, "eu-1/b"), prefer="respond-async")
            finalize(replica.store.of(LOG), (*WITNESSES, *OTHERS[1:]))
            await post(client, lease(replica, "eu-1/c"), prefer="respond-async")
            finalize(replica.store.of(LOG), OTHERS)
            assert (await get(client, "/log/authority/logs")).content == f"{LOG}\n".encode()
            for where in (LOG, f"authority/{LOG}"):
                sizes = (await get(client, f"/log/{where}/history/sizes")).content
                assert sizes == encode_sizes((first, first + 1))
            head = replica.store.head()
            assert head is not None
            paths = ["checkpoint", "history/sizes", "logs"]
            paths += [history_path(size) for size in range(1, head.size)]
            paths += [tile.path for tile in tiles_between(0, head.size)]
            paths += [f"{LOG}/{path}" for path in ("checkpoint", "history/sizes")]
            paths += [f"{LOG}/{history_path(size)}" for size in (first, first + 1)]
            paths += [f"{LOG}/{tile.path}" for tile in tiles_between(0, first + 2)]
            found = {path: await get(client, f"/log/authority/{path}") for path in paths}
            files = {path: answer.content for path, answer in found.items() if answer.status_code == 200}
            reports = list(audit_logs(tile_logs(MemoryResources(files)), cluster.anchor))
            assert [(report.findings, report.final_size) for report in reports] == [
                ((), head.size),
                ((), first + 2),
            ]

    play(main)


@pytest.mark.parametrize(
    "path", ["routes-us-1/checkpoint", "authority/routes-us-1/checkpoint", "authority/routes-us-1/logs"]
)
def test_what_is_not_here_is_not_found(replica: Replica, path: str) -> None:
    async def main() -> None:
        async with replica.api() as client:
            assert (await get(client, f"/log/{path}")).status_code == 404
            assert (await get(client, "/log/authority/checkpoint")).status_code == 200
            assert (await get(client, "/log/authority/authority/checkpoint")).status_code == 200

    play(main)


def test_a_lease_shows_what_another_log_ended(replica: Replica) -> None:
    opened(replica, "sequencer-1")

    async def main() -> None:
        async with replica.api() as client:
            await post(client, lease(replica), prefer="respond-async")
            replica.finalize(LOG)
            (row,) = (await get(client, "/v1/leases")).json()["rows"]
            assert (row["log"], row["log_index"], row["ended_by"]) == (LOG, 0, "")
            (fence,) = replica.sequence(replica.cluster.fence({"node_id": node_id("relay-1")}))
            replica.finalize()
            (row,) = (await get(client, "/v1/leases")).json()["rows"]
            assert row["ended_by"] == fence.record_id

    play(main)


def test_a_change_in_a_partitions_log_changes_every_tag(replica: Replica) -> None:
    opened(replica, "sequencer-1")

    async def main() -> None:
        async with replica.api() as client:
            await post(client, lease(replica), prefer="respond-async")
            replica.finalize(LOG)
            first = await get(client, "/v1/leases")
            tag = first.headers["etag"]
            assert (await get(client, "/v1/leases", if_none_match=tag)).status_code == 304
            await post(client, lease(replica, "eu-1/b"), prefer="respond-async")
            replica.finalize(LOG)
            second = await get(client, "/v1/leases", if_none_match=tag)
            assert second.status_code == 200
            assert [row["route_id"] for row in second.json()["rows"]] == ["eu-1/a", "eu-1/b"]
            again = await get(client, "/v1/leases", if_none_match=second.headers["etag"])
            assert again.status_code == 304

    play(main)


def test_a_partitions_log_that_grows_old_is_an_alarm(replica: Replica) -> None:
    opened(replica, "sequencer-1")

    async def alarms() -> list[tuple[str, str]]:
        async with replica.api() as client:
            found = (await get(client, "/v1/status")).json()["alarms"]
            return [(one["code"], one["sentence"].partition(":")[0]) for one in found]

    async def main() -> None:
        async with replica.api() as client:
            await post(client, lease(replica), prefer="respond-async")
        replica.clock.now += 601
        replica.cosign()
        assert await alarms() == []  # nothing of it is final: there is no head to grow old
        replica.finalize(LOG)
        assert await alarms() == []
        replica.clock.now += 601
        replica.cosign()
        assert await alarms() == [("SL-FRESHNESS", LOG)]
        replica.cosign(log=LOG)
        assert await alarms() == []

    play(main)


def test_evidence_about_a_partitions_log_is_told(replica: Replica) -> None:
    opened(replica, "sequencer-1")

    async def main() -> None:
        async with replica.api() as client:
            for route in ("eu-1/a", "eu-1/b"):
                await post(client, lease(replica, route), prefer="respond-async")
            replica.finalize(LOG)
            held = replica.store.of(LOG)
            later, earlier = (held.checkpoint(size) or b"" for size in (1, 2))
            held.rollback_keep(KeptRollback("peer", 1, 2, Rollback(earlier, later), replica.cluster.now))
            (alarm,) = (await get(client, "/v1/status")).json()["alarms"]
            assert (alarm["code"], alarm["sentence"].startswith(f"{LOG}: ")) == ("SL-ROLLBACK", True)
            (back,) = (await get(client, "/v1/evidence")).json()["rollbacks"]
            assert (back["log"], back["note"].encode(), back["over_at"]) == (LOG, later, None)

    play(main)
