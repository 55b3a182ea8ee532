"""Partition logs on whole node daemons: a lease in one carries traffic, and its writer may die."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from fabric.errors import StreamError
from fabric.io.node import Node
from fabric.io.status import status
from statelog.canonical import encode
from statelog.io.database import open_database
from statelog.io.sequencers import Sequencers
from statelog.signing import encode_base64, record_id_of
from tests.support.aio import run, until
from tests.support.authority import NODES, node_id, sequencer_entry, signer
from tests.support.farm import CONTROL, ROLES, Farm, echo_server
from tests.support.partitions import EMPTY_ROOT

LOG = "routes-eu-1"
SERVICE = "web-admin"
HOPS = ("phone-a", "relay-1", "node-9")
WRITER = "phone-a"  # no witness: a node never cosigns what it writes
OTHERS = tuple(name for name in NODES if name != WRITER)


class Site:
    """A farm with a service on node-9, and a log of partition eu-1."""

    def __init__(self, farm: Farm) -> None:
        self.farm = farm

    async def open(self, key: str, node: str, start: int = 0, root: str = EMPTY_ROOT) -> None:
        """The next term of the log, in the authority log."""
        cluster = self.farm.cluster
        entry = sequencer_entry(key, node, cluster.cluster_id)
        await self.farm.log(cluster.log_term(LOG, start_size=start, start_root=root, sequencers=[entry]))

    def lease(self, route: str, **changes: Any) -> dict[str, Any]:
        changes = {
            "service": SERVICE,
            "allowed_services": [SERVICE],
            "issued_at": int(time.time()),
            **changes,
        }
        return self.farm.cluster.lease(f"eu-1/{route}", *HOPS, **changes)

    async def deliver(self, name: str, record: dict[str, Any]) -> str:
        judgement = await self.farm.nodes[name].desk.deliver(encode(record))
        assert judgement.state == "pending", judgement
        return record_id_of(record)

    async def until_size(self, size: int, names: tuple[str, ...] | None = None) -> None:
        def there(node: Node) -> bool:
            status = node.update.status_of(LOG)
            return status is not None and status.final_size >= size

        await self.farm.until(there, names)

    def status(self, name: str) -> tuple[int, int]:
        """(final size, term) of the log as the node has it."""
        status = self.farm.nodes[name].update.status_of(LOG)
        assert status is not None
        return status.final_size, status.term


def scenario(tmp_path: Path, play: Callable[[Site], Awaitable[None]]) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            server, target = await echo_server(b"<node-9>")
            stack.callback(server.close)
            farm = Farm(tmp_path, services={"node-9": {SERVICE: target}}, writers={WRITER: "sequencer-eu"})
            await stack.enter_async_context(farm)
            await farm.begin()
            for name in HOPS:
                await farm.log(farm.cluster.certificate(name, ROLES[name]))
            site = Site(farm)
            await site.open("sequencer-eu", WRITER)
            await play(site)

    run(main, timeout_s=90)


def test_a_lease_in_a_partition_log_carries_traffic_until_the_authority_fences_a_node(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        farm = site.farm
        phone = farm.nodes["phone-a"]
        await site.until_size(0)
        await site.deliver("node-9", site.lease("a"))
        await site.until_size(1)
        lease = phone.snapshot.lease("eu-1/a")
        assert lease is not None
        assert (lease.log, lease.log_index) == (LOG, 0)
        for name in farm.nodes:
            assert site.status(name) == (1, 1)
        log = phone.replica.held(LOG)
        assert log.final.verify_head(log.head_note() or b"")[0].origin == f"{farm.cluster.cluster_id}/{LOG}"

        (told,) = status(phone)["log"]["partitions"]
        assert (told["log"], told["final_size"], told["term"]) == (LOG, 1, 1)
        assert told["sequencers"] == [node_id(WRITER)]
        stream = await phone.reach.open_route(SERVICE, "eu-1/a", tuple(node_id(one) for one in HOPS))
        assert await stream.readexactly(8) == b"<node-9>"
        farm.cluster.now = int(time.time())
        await farm.log(farm.cluster.fence({"node_id": node_id("relay-1")}))
        with pytest.raises(StreamError) as caught:
            await stream.read()
        assert caught.value.code == "fenced"
        await farm.until(lambda node: node.snapshot.lease("eu-1/a") is None)

        refused = await farm.nodes["phone-a"].desk.deliver(
            encode(site.lease("b", issued_at=int(time.time()) - 60))
        )
        assert refused.refusal is not None
        assert refused.refusal.code == "SL-FENCED"

    scenario(tmp_path, play)


def test_heads_of_a_partition_log_are_exchanged_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(site: Site) -> None:
        farm = site.farm
        phone, other = farm.nodes["phone-a"], farm.nodes["node-9"]
        await site.until_size(0)
        for size, route in enumerate("ab", 1):
            await site.deliver("node-9", site.lease(route))
            await site.until_size(size)
        connection = await phone.peers.session(other.node_id)
        newest, old = other.replica.head_note(LOG), phone.replica.held(LOG).store.checkpoint(1)
        assert old is not None
        shown = []
        client = phone.sync_clients[LOG]
        for note in (newest, old, newest):
            with monkeypatch.context() as patched:
                patched.setattr(other.replica, "head_note", lambda log, said=note: said)
                await client.compare(connection)
            await until(lambda: phone.replica.held(LOG).final.size == 2)
            (told,) = [one for one in phone.update.partitions if one.log == LOG]
            shown.append([one.code for one in told.alarms(phone.clock())])
        assert shown == [[], ["SL-ROLLBACK"], []]
        assert phone.update.log is not None
        assert phone.update.log.alarms(phone.clock()) == []
        (kept,) = phone.replica.store.of(LOG).rollbacks()
        assert (kept.source, kept.earlier_size, kept.size) == (other.node_id, 2, 1)
        assert phone.replica.store.rollbacks() == []

    scenario(tmp_path, play)


def test_a_node_holds_only_the_logs_that_it_is_told_to(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        farm = site.farm
        await farm.stop("home-1")
        await farm.start("home-1", partitions=("us-1",))
        await site.deliver("node-9", site.lease("a"))
        await site.until_size(1, tuple(name for name in NODES if name != "home-1"))
        await farm.until_size(farm.cluster.log.size)
        other = farm.nodes["home-1"]
        assert other.update.status_of(LOG) is None
        assert other.replica.logs() == ["authority"]
        assert other.snapshot.lease("eu-1/a") is None

    scenario(tmp_path, play)


def test_a_second_sequencer_takes_over_by_a_signed_term(tmp_path: Path) -> None:
    """What the dead one appended alone is dropped and sequenced again, and it never writes again."""

    async def play(site: Site) -> None:
        farm = site.farm
        await site.deliver("node-9", site.lease("a"))
        await site.until_size(1)
        root = encode_base64(farm.nodes["node-9"].replica.held(LOG).final.root())
        await farm.stop(WRITER)

        # The dead sequencer had taken one more record, and told nobody.
        engine = open_database(f"sqlite:///{tmp_path / WRITER / 'node.db'}")
        alone = Sequencers(engine, farm.cluster.anchor, signer("sequencer-eu"))
        lost = site.lease("lost")
        store = alone.authority.store
        store.outbox_put(record_id_of(lost), encode(lost), int(time.time()))
        placed = alone.submit(encode(lost), int(time.time()))
        store.of(LOG).outbox_sequenced(placed.record_id, placed.log_index)
        assert (placed.log, placed.log_index) == (LOG, 1)
        engine.dispose()

        waiting = await site.deliver("node-9", site.lease("b"))
        await site.open("sequencer-1", CONTROL, 1, root)
        await site.until_size(2, OTHERS)
        for name in OTHERS:
            assert site.status(name) == (2, 2)
            assert farm.nodes[name].replica.held(LOG).store.find(waiting) == 1

        await farm.start(WRITER)
        await site.until_size(3)  # the lost record went in behind, through its new writer
        for name in farm.nodes:
            assert farm.nodes[name].replica.held(LOG).store.find(record_id_of(lost)) == 2
        old = farm.nodes[WRITER]
        assert old.sequencing is not None
        late = await old.sequencing.submit(encode(site.lease("late")))
        assert (late.state, late.code) == ("unavailable", "elsewhere")
        row = old.replica.store.outbox_row(record_id_of(lost))
        assert row is not None
        assert (row.state, row.log, row.log_index) == ("final", LOG, 2)

    scenario(tmp_path, play)


def test_the_authority_log_too_changes_hands(tmp_path: Path) -> None:
    async def play(site: Site) -> None:
        farm = site.farm
        size = farm.cluster.log.size
        await farm.until_size(size)
        await farm.stop(CONTROL)
        taking = farm.nodes[WRITER]
        farm.cluster.now = int(time.time())
        term = farm.cluster.log_term(
            start_size=size,
            start_root=encode_base64(taking.replica.final.root()),
            sequencers=[sequencer_entry("sequencer-eu", WRITER, farm.cluster.cluster_id)],
        )
        # Whoever gets the record takes it to the node that it names: only that one may append it.
        delivered = await farm.nodes["node-9"].desk.deliver(encode(term))
        assert delivered.state == "pending"
        await farm.until_size(size + 1)
        assert {node.update.log.term for node in farm.nodes.values() if node.update.log} == {2}

        await farm.start(CONTROL)
        await farm.until_size(size + 1)
        old = farm.nodes[CONTROL]
        assert old.sequencing is not None
        late = await old.sequencing.submit(encode(farm.cluster.policy("late")))
        assert (late.state, late.code) == ("unavailable", "elsewhere")
        delivered = await old.desk.deliver(encode(farm.cluster.policy("next")))
        assert delivered.state == "pending"
        await farm.until_size(size + 2)
        await until(lambda: old.snapshot.policy("next") is not None)

    scenario(tmp_path, play)
