"""Whole node daemons on real sockets: genesis, replication, a service that moves, a relayed fetch, an end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import FabricError, StreamError
from fabric.heartbeat import heartbeat
from fabric.io.node import Node
from fabric.io.status import status
from fabric.io.streams import Stream
from statelog import admission
from statelog.canonical import encode
from statelog.signing import record_id_of
from tests.support.aio import run, until
from tests.support.authority import DAY_S, node_id
from tests.support.farm import CONTROL, ROLES, Farm, echo_server
from tests.support.statements import each_statement

engines = pytest.mark.parametrize("engine", ["qh3", "aioquic"])
SERVICE = "web-admin"
ROUTE = "phone-to-node-9"
HOPS = ("phone-a", "relay-1", "node-9")


async def greeting(stream: Stream, length: int) -> bytes:
    """What the service says first; then one echo, so that both directions are seen to work."""
    said = await stream.readexactly(length)
    stream.write(b"ping")
    await stream.end()
    assert await stream.readexactly(4) == b"ping"
    assert await stream.read() == b""
    return said


def scenario(
    tmp_path: Path, engine: str, play: Callable[[Farm], Awaitable[None]], *, policy: bool = True
) -> None:
    """A farm with two hosts of the service, begun, its nodes certified."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            services = {}
            for name in ("home-1", "node-9"):
                server, target = await echo_server(f"<{name}>".encode())
                stack.callback(server.close)
                services[name] = {SERVICE: target}
            farm = await stack.enter_async_context(Farm(tmp_path, engine, services=services))
            await farm.begin()
            for name, role in ROLES.items():
                await farm.log(farm.cluster.certificate(name, role))
            if policy:
                await farm.log(farm.loopback_policy())
            await play(farm)

    run(main, timeout_s=90)


def moved_to(farm: Farm, name: str) -> dict[str, object]:
    return farm.cluster.registry(SERVICE, endpoints=[farm.endpoint(name)])


async def refusal(opening: Awaitable[Stream]) -> str:
    with pytest.raises(FabricError) as caught:
        await opening
    return caught.value.code


@engines
def test_every_node_ends_on_the_final_log(tmp_path: Path, engine: str) -> None:
    async def main() -> None:
        async with Farm(tmp_path, engine) as farm:
            await farm.begin()
            roots = {node.update.log.final_root for node in farm.nodes.values() if node.update.log}
            assert roots == {farm.cluster.log.tree.root()}

    run(main, timeout_s=90)


@engines
def test_a_service_moves_while_the_control_host_is_down(tmp_path: Path, engine: str) -> None:
    async def play(farm: Farm) -> None:
        phone = farm.nodes["phone-a"]
        first = await farm.log(moved_to(farm, "home-1"))
        await farm.until_active(SERVICE, first)
        async with await phone.reach.open(SERVICE) as stream:
            assert await greeting(stream, 8) == b"<home-1>"

        moved = farm.apply(moved_to(farm, "node-9"))
        await farm.stop(CONTROL)
        judgement = await farm.nodes["usa-los-1"].desk.deliver(encode(moved))
        assert (judgement.state, judgement.refusal) == ("candidate", None)
        await farm.until_active(SERVICE, record_id_of(moved))
        for node in farm.nodes.values():
            view = node.snapshot.registry_view(SERVICE)
            assert view.active is not None
            assert view.active.unlogged
            assert [one.record_id for one in view.fallbacks] == [first]
        async with await phone.reach.open(SERVICE) as stream:
            assert await greeting(stream, 8) == b"<node-9>"

        await farm.start(CONTROL)
        await farm.until_size(farm.cluster.log.size)
        await farm.until_active(SERVICE, record_id_of(moved))  # who was away has to probe it first
        for node in farm.nodes.values():
            view = node.snapshot.registry_view(SERVICE)
            assert view.active is not None
            assert view.active.log_index == farm.cluster.log.size - 1
            assert not node.gossip.machine.holds(record_id_of(moved))

    scenario(tmp_path, engine, play)


def test_a_stream_leaves_a_lease_before_it_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(farm: Farm) -> None:
        phone = farm.nodes["phone-a"]
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "node-9")))
        await farm.log(farm.cluster.lease(ROUTE, *HOPS, service=SERVICE, allowed_services=[SERVICE]))
        await farm.until_size(farm.cluster.log.size)
        stream = await phone.reach.open(SERVICE)
        assert await stream.readexactly(8) == b"<node-9>"
        await phone._expire()
        assert phone.endpoint.resuming._tasks == {}, "a lease that has time left is kept"
        assert stream.route is not None
        monkeypatch.setattr(limits, "ROUTE_LEASE_END_S", 1e9)
        await phone._expire()
        await until(lambda: stream.bound and stream.route is None)
        assert stream.last_switch is not None
        assert stream.last_switch.reason == "fenced"
        (row,) = [one for one in status(phone)["streams"] if one["service"] == SERVICE]
        assert (row["switches"], row["switch_reason"]) == (1, "fenced")
        assert status(phone)["resumption"]["switches"]["fenced"] == 1
        stream.write(b"goes on")
        assert await stream.readexactly(7) == b"goes on"
        await stream.aclose()

    scenario(tmp_path, "qh3", play)


@engines
def test_a_leased_route_is_relayed_counted_and_fenced(tmp_path: Path, engine: str) -> None:
    async def play(farm: Farm) -> None:
        phone, relay = farm.nodes["phone-a"], farm.nodes["relay-1"]
        active = await farm.log(moved_to(farm, "node-9"))
        await farm.until_active(SERVICE, active)
        hops = tuple(node_id(name) for name in HOPS)
        assert await refusal(phone.reach.open_route(SERVICE, ROUTE, hops)) == "no_lease"

        lease = farm.cluster.lease(ROUTE, *HOPS, service=SERVICE, allowed_services=[SERVICE])
        await farm.log(lease)
        await farm.until_size(farm.cluster.log.size)
        stream = await phone.reach.open(SERVICE)
        assert stream.route is not None
        assert stream.route.route_id == ROUTE
        assert stream.peer_node_id == node_id("node-9")
        stream.write(bytes(200_000))
        assert await stream.readexactly(8) == b"<node-9>"
        assert await stream.readexactly(200_000) == bytes(200_000)
        assert relay.endpoint.relaying.machine is not None
        (account,) = relay.endpoint.relaying.machine.accounts.values()
        assert min(account.bytes_forward, account.bytes_back) > 200_000
        said = status(relay)["relaying"]["by_class"]["reliable"]
        assert (said["streams"], said["bytes_back"]) == (1, account.bytes_back)
        assert status(relay)["relay"][0].items() >= said.items()
        report = heartbeat(status(relay), at=0.0, versions={})
        assert report["relayed"]["by_class"]["reliable"] == said

        await farm.log(farm.cluster.fence({"route_id": ROUTE}))
        # The stream leaves the route as soon as the fence is known, and goes on to the same node directly.
        await until(lambda: stream.bound and stream.route is None)
        assert stream.last_switch is not None
        assert stream.last_switch.reason == "fenced"
        stream.write(b"goes on")
        assert await stream.readexactly(7) == b"goes on"
        await farm.until_size(farm.cluster.log.size)
        assert await refusal(phone.reach.open_route(SERVICE, ROUTE, hops)) == "fenced"
        async with await phone.reach.open(SERVICE) as direct:
            assert direct.route is None
            assert await greeting(direct, 8) == b"<node-9>"

    scenario(tmp_path, engine, play)


def test_only_a_node_with_the_role_relays(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        phone = farm.nodes["phone-a"]
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "node-9")))
        through = ("phone-a", "usa-los-1", "node-9")
        await farm.log(farm.cluster.lease("wrong", *through, service=SERVICE, allowed_services=[SERVICE]))
        await farm.log(farm.cluster.lease(ROUTE, *HOPS, service=SERVICE, allowed_services=[SERVICE]))
        await farm.until_size(farm.cluster.log.size)
        assert await refusal(phone.reach.open_route(SERVICE, "wrong")) == "not_permitted"
        stream = await phone.reach.open_route(SERVICE, ROUTE)
        assert await stream.readexactly(8) == b"<node-9>"
        stream.reset()

    scenario(tmp_path, "qh3", play)


def test_a_relay_dials_the_next_hop_itself(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        phone, relay = farm.nodes["phone-a"], farm.nodes["relay-1"]
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "node-9")))
        await farm.log(farm.cluster.lease(ROUTE, *HOPS, service=SERVICE, allowed_services=[SERVICE]))
        await farm.until_size(farm.cluster.log.size)
        relay.peers.hang_up(node_id("node-9"), "done")
        stream = await phone.reach.open(SERVICE)
        assert await stream.readexactly(8) == b"<node-9>"
        stream.reset()
        await farm.until_connected("relay-1", "node-9")
        stream = await phone.reach.open(SERVICE)
        assert stream.route is not None
        stream.reset()

    scenario(tmp_path, "qh3", play)


def test_a_revoked_node_is_out_at_once_wherever_it_is_heard_of(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "home-1")))
        home, phone = farm.nodes["home-1"], farm.nodes["phone-a"]
        stream = await phone.reach.open(SERVICE)
        assert await stream.readexactly(8) == b"<home-1>"
        revocation = farm.cluster.revocation({"node_id": node_id("phone-a")})
        others = [name for name in farm.nodes if name != "phone-a"]
        connection = phone.endpoint.connection_to(node_id("home-1"))
        assert connection is not None

        await farm.nodes["usa-los-1"].desk.deliver(encode(farm.apply(revocation)))
        assert await connection.closed == "revoked"
        with pytest.raises(StreamError):
            await stream.read()
        await farm.until(lambda node: node_id("phone-a") not in node.peers.sessions(), others)
        await farm.until_size(farm.cluster.log.size, others)
        assert home.snapshot.revoked(node_id("phone-a"))
        dialed = await refusal(_session(phone, "home-1"))
        assert dialed in ("revoked", "carrier_lost", "handshake_timeout")

    async def _session(node: Node, name: str) -> Stream:
        connection = await node.peers.session(node_id(name))
        await connection.closed
        raise FabricError(await connection.closed)

    scenario(tmp_path, "qh3", play)


def test_a_node_that_is_not_approved_learns_the_log_and_no_more(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "home-1")))
        guest = await farm.start("guest")
        await farm.until_size(farm.cluster.log.size, ["guest"])
        connection = await guest.peers.session(node_id("home-1"), (farm.seed("home-1").address,))
        assert await refusal(connection.open(SERVICE, TrafficClass.RELIABLE)) == "not_approved"
        await farm.log(farm.cluster.approval("guest"))
        await farm.until_size(farm.cluster.log.size)
        async with await connection.open(SERVICE, TrafficClass.RELIABLE) as stream:
            assert await greeting(stream, 8) == b"<home-1>"

    scenario(tmp_path, "qh3", play)


def test_refusals_tell_the_deliverer_the_code_and_change_nothing(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        good = moved_to(farm, "home-1")
        node = farm.nodes["home-1"]
        one_signature = farm.cluster.sign(good, ["control-1"])
        expired = farm.cluster.registry(SERVICE, issued_at=farm.cluster.now - DAY_S, lifetime_s=60)
        forged = {**good, "epoch": 7}
        before = node.snapshot.registry
        for record, code in ((one_signature, "SL-QUORUM"), (expired, "SL-EXPIRED"), (forged, "SL-SIG")):
            judgement = await node.desk.deliver(encode(record))
            assert judgement.refusal is not None
            assert judgement.refusal.code == code
        assert node.desk.refused == {"SL-QUORUM": 1, "SL-EXPIRED": 1, "SL-SIG": 1}
        assert node.snapshot.registry is before
        assert (await node.desk.deliver(encode(good))).state == "candidate"
        await farm.until_active(SERVICE, record_id_of(good))

    scenario(tmp_path, "qh3", play)


def test_loopback_is_not_probed_unless_the_signed_policy_says_so(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        node = farm.nodes["phone-a"]
        record_id = await farm.log(moved_to(farm, "home-1"))
        await farm.until(lambda n: n.promoter.counters["failed_address_forbidden"] > 0, ["phone-a"])
        assert node.snapshot.active(SERVICE) is None
        await farm.log(farm.loopback_policy())
        await farm.until_active(SERVICE, record_id, ["phone-a"])

    scenario(tmp_path, "qh3", play, policy=False)


def test_nothing_on_the_data_plane_thread_reads_sql_or_judges_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are done, by other threads: a thousand records judged inline would stall packets for 77 ms."""
    loop_thread = threading.current_thread()
    threads: dict[str, set[threading.Thread]] = {"sql": set(), "admission": set()}

    def on_sql(*_: object) -> None:
        threads["sql"].add(threading.current_thread())

    def judged(*arguments: object, **options: object) -> admission.Admitted:
        threads["admission"].add(threading.current_thread())
        return admit(*arguments, **options)  # type: ignore[arg-type] # passed on as they came

    async def play(farm: Farm) -> None:
        for found in threads.values():
            found.clear()
        first = await farm.log(moved_to(farm, "home-1"))
        await farm.until_active(SERVICE, first)
        await farm.nodes["usa-los-1"].desk.deliver(encode(moved_to(farm, "node-9")))
        await farm.until_active(SERVICE, record_id_of(moved_to(farm, "node-9")))
        assert threads["sql"]
        assert threads["admission"]
        assert loop_thread not in threads["sql"]
        assert loop_thread not in threads["admission"]

    admit = admission.admit
    monkeypatch.setattr(admission, "admit", judged)
    with each_statement(sa.engine.Engine, on_sql):
        scenario(tmp_path, "qh3", play)


def test_of_two_conflicting_records_the_log_picks_one_and_the_other_is_dropped(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        one, other = moved_to(farm, "home-1"), moved_to(farm, "node-9")
        assert one["epoch"] == other["epoch"]
        await farm.stop(CONTROL)
        await farm.nodes["home-1"].desk.deliver(encode(one))
        await farm.nodes["node-9"].desk.deliver(encode(other))
        ids = {record_id_of(one), record_id_of(other)}
        await farm.until(lambda n: all(n.gossip.machine.holds(i) for i in ids))
        size = farm.cluster.log.size
        await farm.start(CONTROL)
        await farm.until_size(size + 1)
        logged = set()
        for node in farm.nodes.values():
            view = node.snapshot.registry_view(SERVICE)
            known = [r for r in (view.active, *view.fallbacks, *view.candidates) if r is not None]
            assert len(known) == 1
            assert known[0].log_index == size
            logged.add(known[0].record_id)
        assert len(logged) == 1
        evidence = [len(list(n.replica.store.evidence())) for n in farm.nodes.values()]
        assert max(evidence) == 2

    scenario(tmp_path, "qh3", play)


def test_a_restarted_node_works_from_its_store_when_nobody_answers(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        record_id = await farm.log(moved_to(farm, "home-1"))
        await farm.until_active(SERVICE, record_id)
        await farm.until_size(farm.cluster.log.size)
        moved = farm.apply(moved_to(farm, "node-9"))
        await farm.stop(CONTROL)
        await farm.nodes["phone-a"].desk.deliver(encode(moved))
        await farm.until_active(SERVICE, record_id_of(moved), ["phone-a"])
        for name in list(farm.nodes):
            await farm.stop(name)
        phone = await farm.start("phone-a")
        view = phone.snapshot.registry_view(SERVICE)
        assert view.active is not None
        assert view.active.record_id == record_id_of(moved)
        assert [one.record_id for one in view.fallbacks] == [record_id]
        assert phone.gossip.machine.holds(record_id_of(moved))
        assert len(phone.forwarder) == 1

    scenario(tmp_path, "qh3", play)


def test_following_falls_over_to_another_source(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        phone = farm.nodes["phone-a"]
        await farm.until(lambda n: n.sync_client.sources.main is not None, ["phone-a"])
        main = phone.sync_client.sources.main
        assert main is not None
        phone.peers.hang_up(main, "done")
        await until(lambda: phone.sync_client.sources.main not in (None, main))
        await farm.log(farm.cluster.policy("other", {"cidrs": []}))
        await farm.until_size(farm.cluster.log.size, ["phone-a"])

    scenario(tmp_path, "qh3", play)


def test_the_last_streams_of_a_node_that_stops_are_told(tmp_path: Path) -> None:
    async def play(farm: Farm) -> None:
        await farm.until_active(SERVICE, await farm.log(moved_to(farm, "home-1")))
        stream = await farm.nodes["phone-a"].reach.open(SERVICE)
        assert await stream.readexactly(8) == b"<home-1>"
        async with asyncio.timeout(40):
            await farm.stop("home-1")
            with pytest.raises(StreamError) as caught:
                await stream.read()
        assert caught.value.code == "route_failed"

    scenario(tmp_path, "qh3", play)
