"""Acting ahead of the log, and the undoing when the log refuses: registry records, revocations, fences.

Each record is signed by two control keys while the control host is down, and acts on every node. Meanwhile
the log has replaced those keys, which the nodes learn when the host is back: the log's word wins, the record
ends everywhere, and what it displaced is there again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fabric.io.node import Node
from fabric.io.status import status
from statelog.canonical import encode
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer
from statelog.io.store import Store
from statelog.signing import record_id_of
from tests.fabric.io.test_node import HOPS, ROUTE, SERVICE, greeting, moved_to, scenario
from tests.support.aio import until
from tests.support.authority import key_entry, node_id, signer
from tests.support.farm import CONTROL, Farm
from tests.support.logs import outbox_state

OTHERS = ("home-1", "node-9", "usa-los-1", "relay-1")
PHONE = node_id("phone-a")


def new_control(farm: Farm) -> dict[str, Any]:
    """A descriptor whose control keys are others."""
    names = ("control-4", "control-5", "control-6")
    cluster = farm.cluster
    keys = [key_entry(f"root-{n}", cluster_id=cluster.cluster_id, custody="offline") for n in (1, 2, 3)]
    keys += [key_entry(name, cluster_id=cluster.cluster_id) for name in names]
    return cluster.descriptor(keys=keys, control=cluster.holders(*names, threshold=2))


def sequence_unseen(farm: Farm, record: dict[str, Any]) -> None:
    """Into the store of the control host, which is down."""
    engine = open_database(f"sqlite:///{farm.folder / CONTROL / 'node.db'}")
    sequencer = Sequencer(Store(engine), farm.cluster.anchor, signer("sequencer-1"))
    sequencer.submit(encode(farm.apply(record)), farm.cluster.now)
    engine.dispose()


async def act_and_undo(
    farm: Farm,
    record: dict[str, Any],
    acts: Callable[[Node], bool],
    check: Callable[[], Awaitable[None]],
    names: tuple[str, ...] = OTHERS,
) -> None:
    """Deliver to one node, wait until all act on it, let the log refuse it, wait until none does."""
    record_id = record_id_of(record)
    assert not any(acts(farm.nodes[name]) for name in names)
    await farm.stop(CONTROL)
    judged = await farm.nodes["usa-los-1"].desk.deliver(encode(record))
    assert judged.state == "candidate", judged
    await farm.until(acts, names)
    await check()
    sequence_unseen(farm, new_control(farm))
    size = farm.cluster.log.size
    await farm.start(CONTROL)
    await farm.until_size(size, names)
    await farm.until(lambda node: not acts(node), names)
    for name in (*names, CONTROL):
        node = farm.nodes[name]
        assert record_id not in node.replica._ahead
        assert not node.gossip.machine.holds(record_id)
        assert node.update.log is not None
        assert node.update.log.final_size == size  # the refused record was never logged
    deliverer = farm.nodes["usa-los-1"].replica
    state, index, code = outbox_state(deliverer.store, record_id)
    assert (state, index) == ("refused", None)
    assert code in ("SL-SIG", "SL-REVOKED", "SL-QUORUM")
    assert sum(farm.nodes[n].counters[f"dropped_{code}"] for n in names) == len(names)


def test_a_registry_record_that_the_log_refuses_gives_way_to_the_one_before_it(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        before = await farm.log(moved_to(farm, "home-1"))
        await farm.until_active(SERVICE, before)
        moved = moved_to(farm, "node-9")

        async def check() -> None:
            await farm.until_active(SERVICE, record_id_of(moved), OTHERS)
            (row,) = [one for one in status(farm.nodes["relay-1"])["registry"] if one["service"] == SERVICE]
            assert {one["unlogged"] for one in row["records"]} == {True, False}
            assert row["fallback"] == [before]

        def knows(node: Node) -> bool:
            view = node.snapshot.registry_view(SERVICE)
            return record_id_of(moved) in {r.record_id for r in (view.active, *view.candidates) if r}

        await act_and_undo(farm, moved, knows, check)
        await farm.until_active(SERVICE, before)
        async with await farm.nodes["phone-a"].reach.open(SERVICE) as stream:
            assert await greeting(stream, 8) == b"<home-1>"

    scenario(tmp_path, "qh3", play)


def test_a_revocation_that_the_log_refuses_lets_the_node_back_in(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        async def check() -> None:
            await farm.until(lambda node: PHONE not in node.peers.sessions(), OTHERS)
            unlogged = status(farm.nodes["home-1"])["unlogged"]
            assert (unlogged["revoked_nodes"], unlogged["bootstrap"]) == ([PHONE], False)

        revocation = farm.cluster.revocation({"node_id": PHONE})
        await act_and_undo(farm, revocation, lambda node: node.snapshot.revoked(PHONE), check)
        assert status(farm.nodes["home-1"])["unlogged"]["revoked_nodes"] == []
        # The phone is as welcome as before: a session comes up again without anybody's help.
        await until(lambda: any(PHONE in farm.nodes[n].peers.sessions() for n in OTHERS), timeout_s=40)

    scenario(tmp_path, "qh3", play)


def test_a_fence_that_the_log_refuses_gives_the_lease_back(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "node-9")))
        await farm.log(farm.cluster.lease(ROUTE, *HOPS, service=SERVICE, allowed_services=[SERVICE]))
        await farm.until_size(farm.cluster.log.size)
        phone, hops = farm.nodes["phone-a"], tuple(node_id(name) for name in HOPS)
        stream = await phone.reach.open_route(SERVICE, ROUTE, hops)
        assert await stream.readexactly(8) == b"<node-9>"

        def fenced(node: Node) -> bool:
            return not node.snapshot.stands(node.snapshot.leases[ROUTE], now=node.clock())

        async def check() -> None:
            await until(lambda: stream.bound and stream.route is None)
            fences = status(phone)["unlogged"]["fences"]
            assert fences == [{"target": "node_id", "value": node_id("relay-1")}]

        fence = farm.cluster.fence({"node_id": node_id("relay-1")})
        await act_and_undo(farm, fence, fenced, check, (*OTHERS, "phone-a"))
        async with await phone.reach.open_route(SERVICE, ROUTE, hops) as again:
            assert await greeting(again, 8) == b"<node-9>"

    scenario(tmp_path, "qh3", play)
