"""Rights that end while they are in use: a node, a role, an approval."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fabric import gossip, limits
from fabric.errors import StreamError
from statelog.canonical import encode
from tests.fabric.io.test_node import HOPS, ROUTE, SERVICE, moved_to, scenario
from tests.support.aio import until
from tests.support.authority import DAY_S, node_id
from tests.support.farm import Farm


@pytest.mark.alone
def test_a_revoked_nodes_sessions_and_streams_end_within_100_ms_of_admission(tmp_path: Path) -> None:
    """Clocked from before the record is even judged, at the node that admits it, to the end at the other. Of
    three, since all six nodes of the farm run on this one loop and something else may be due on it.
    """

    async def play(farm: Farm) -> None:
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "home-1")))
        home, loop, took = farm.nodes["home-1"], asyncio.get_running_loop(), []
        for name in ("phone-a", "node-9", "relay-1"):
            node = farm.nodes[name]
            await farm.until_connected(name, "home-1")
            streams = [await node.reach.open(SERVICE) for _ in range(20)]
            for stream in streams:
                assert await stream.readexactly(8) == b"<home-1>"
            connection = node.endpoint.connection_to(node_id("home-1"))
            assert connection is not None
            revocation = encode(farm.apply(farm.cluster.revocation({"node_id": node_id(name)})))
            began = loop.time()
            delivery = asyncio.ensure_future(home.desk.deliver(revocation))
            assert await connection.closed == "revoked"
            took.append(loop.time() - began)
            await delivery
            assert all(stream.over for stream in streams)
            assert node_id(name) not in home.peers.sessions()
        assert min(took) < 0.1, took

    scenario(tmp_path, "qh3", play)


def test_a_relays_streams_end_with_its_role(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        phone, relay = farm.nodes["phone-a"], farm.nodes["relay-1"]
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "node-9")))
        await farm.log(farm.cluster.lease(ROUTE, *HOPS, service=SERVICE, allowed_services=[SERVICE]))
        await farm.until_size(farm.cluster.log.size)
        stream = await phone.reach.open(SERVICE)
        assert await stream.readexactly(8) == b"<node-9>"

        async def revoke(name: str) -> None:
            (held,) = relay.snapshot.roles_of(node_id(name), relay.clock())
            await farm.log(farm.cluster.revocation({"certificate": held.record_id}))
            await farm.until_size(farm.cluster.log.size)

        await revoke("home-1")
        stream.write(b"ping")
        assert await stream.readexactly(4) == b"ping"
        assert stream.route is not None
        await revoke("relay-1")
        await until(lambda: stream.bound and stream.route is None)
        assert relay.endpoint.relaying.machine is not None
        assert relay.endpoint.relaying.machine.timer() is None, "no stream is relayed any more"
        stream.write(b"pong")
        assert await stream.readexactly(4) == b"pong"
        stream.reset()

    scenario(tmp_path, "qh3", play)


def test_streams_end_with_the_approval_of_who_opened_them(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "home-1")))
        home, phone = farm.nodes["home-1"], farm.nodes["phone-a"]
        stream = await phone.reach.open(SERVICE)
        assert await stream.readexactly(8) == b"<home-1>"
        await home._expire()
        stream.write(b"ping")
        assert await stream.readexactly(4) == b"ping"
        now = home.clock
        home.clock = lambda: now() + 400 * DAY_S
        await home._expire()
        with pytest.raises(StreamError, match="not_approved"):
            await stream.read()
        assert phone.node_id in home.peers.sessions(), "it may still learn the log"
        home.clock = now

    scenario(tmp_path, "qh3", play)


def test_a_fence_reaches_the_hops_of_its_route_without_a_rumour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(farm: Farm) -> None:
        phone, relay = farm.nodes["phone-a"], farm.nodes["relay-1"]
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "node-9")))
        await farm.log(farm.cluster.lease(ROUTE, *HOPS, service=SERVICE, allowed_services=[SERVICE]))
        await farm.until_size(farm.cluster.log.size)
        await farm.until_connected("relay-1", "phone-a")
        monkeypatch.setattr(limits, "ROUTE_TOLD_S", 0.0)
        heard = phone.routes.counters["compared"]
        # No rumours and no repair from now on: the hop's word is all there is.
        monkeypatch.setattr(gossip.Gossip, "_run_timers", lambda *_: None)
        fence = farm.apply(farm.cluster.fence({"route_id": ROUTE}))
        await relay.desk.deliver(encode(fence))
        await farm.until(lambda node: not node.snapshot.stands(node.snapshot.leases[ROUTE]), HOPS)
        assert relay.routes.counters["told"] >= 2
        assert phone.routes.counters["compared"] > heard

    scenario(tmp_path, "qh3", play)
