"""Partition logs over the API: a record goes to its own log, and final means final there."""

from __future__ import annotations

from typing import Any

import pytest

from tests.control_api.replica import Replica, get, play, post
from tests.support.authority import node_id, sequencer_entry
from tests.support.partitions import EMPTY_ROOT

LOG = "routes-eu-1"


def opened(replica: Replica, key: str) -> None:
    """A term that opens the partition's log for a sequencer key, final."""
    cluster = replica.cluster
    entry = sequencer_entry(key, "control-1", cluster.cluster_id)
    term = cluster.log_term(LOG, start_size=0, start_root=EMPTY_ROOT, sequencers=[entry])
    replica.sequence(term)
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
