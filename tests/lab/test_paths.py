"""Real interfaces: addresses that go and come under a transfer, and links of several sizes."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.interfaces import EVERY, Rule
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.io.interfaces import Follower, machine_addresses
from tests.support.aio import run, until
from tests.support.endpoints import SERVICES, bind, dial, send_and_hash
from tests.support.farm import CONTROL, Farm
from tests.support.netns import Lab, lab

pytestmark = pytest.mark.lab
ENGINES = ["qh3", "aioquic"]


@contextlib.asynccontextmanager
async def follow(endpoint: Endpoint, port: int) -> AsyncIterator[tuple[Follower, list[str]]]:
    """The endpoint, bound to the machine's only address, follows every address; what was published."""
    published: list[str] = []
    [host] = [one for one in machine_addresses() if one == endpoint.local_address[0]]

    def changed() -> None:
        published.append(" ".join(host for host, _ in follower.reachable()))

    follower = Follower(endpoint, Rule({EVERY: port}), {host: endpoint.local_address}, changed)
    try:
        yield follower, published
    finally:
        follower.close()


async def send_until(connection: Connection, done: Callable[[], bool]) -> bool:
    """Stream random bytes until `done()`, then a megabyte more; whether the hash of all is right."""
    expected = hashlib.sha256()
    async with await connection.open("digest", TrafficClass.BULK) as stream:
        left = 1 << 20
        while left > 0:
            data = os.urandom(1 << 16)
            expected.update(data)
            stream.write(data)
            await stream.drain()
            if done():
                left -= len(data)
        await stream.end()
        return await stream.readexactly(32) == expected.digest()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("order", ["remove first", "add first"])
def test_a_transfer_goes_on_when_the_address_under_it_changes(engine: str, order: str) -> None:
    async def main(net: Lab) -> None:
        met: list[Connection] = []
        with net.inside("b"):
            b = await bind(2, engine=engine, host="10.9.1.2", services=SERVICES, on_connection=met.append)
        async with b, await bind(1, engine=engine, host="10.9.1.1") as a, follow(a, 7400) as (_, published):
            connection = await dial(a, b)
            await until(lambda: bool(met))
            assert met[0].remote[0] == "10.9.1.1"
            seen = asyncio.Event()
            sending = asyncio.create_task(send_until(connection, seen.is_set))
            await until(lambda: bool(met[0].streams()))
            # Another net, since the kernel takes the second address of a net away with the first.
            if order == "add first":
                net.ip("a", "addr", "add", "10.9.2.1/24", "dev", "to-b")
                await until(lambda: "10.9.2.1" in {host for host, *_ in a.addresses})
            net.ip("a", "addr", "del", "10.9.1.1/24", "dev", "to-b")
            if order == "remove first":
                await until(lambda: published == [""])
                assert connection.is_ready, "its sessions wait for another address"
                net.ip("a", "addr", "add", "10.9.2.1/24", "dev", "to-b")
            net.ip("a", "route", "replace", "10.9.1.0/24", "dev", "to-b")
            await until(lambda: met[0].remote[0] == "10.9.2.1", timeout_s=30)
            seen.set()
            assert await sending
            await until(lambda: [host for host, *_ in a.addresses] == ["10.9.2.1"])
            await until(lambda: published[-1] == "10.9.2.1")

    with lab("a", "b") as net:
        net.link("a", "b", "10.9.1")
        net.ip("b", "route", "add", "10.9.2.0/24", "dev", "to-a")
        with net.inside("a"):
            run(lambda: main(net), timeout_s=90)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_link_that_goes_down_takes_its_addresses_with_it(engine: str) -> None:
    async def main(net: Lab) -> None:
        met: list[Connection] = []
        with net.inside("b"):
            b = await bind(2, engine=engine, host="10.9.9.9", services=SERVICES, on_connection=met.append)
        async with b, await bind(1, engine=engine, host="10.9.1.1") as a, follow(a, 7400) as (_, published):
            connection = await dial(a, b)
            await until(lambda: bool(met))
            net.link("a", "c", "10.9.2")
            net.link("c", "b", "10.9.3")
            net.ip("b", "route", "add", "10.9.2.0/24", "via", "10.9.3.1")
            net.ip("c", "route", "add", "10.9.9.9/32", "via", "10.9.3.2")
            await until(lambda: published == ["10.9.1.1 10.9.2.1"])
            seen = asyncio.Event()
            sending = asyncio.create_task(send_until(connection, seen.is_set))
            await until(lambda: bool(met[0].streams()))
            net.ip("b", "link", "set", "to-a", "down")  # our end has no carrier any more
            net.ip("a", "route", "replace", "10.9.9.9/32", "via", "10.9.2.2")
            await until(lambda: met[0].remote[0] == "10.9.2.1", timeout_s=30)
            seen.set()
            assert await sending
            await until(lambda: published[-1] == "10.9.2.1")

    with lab("a", "b", "c") as net:
        net.link("a", "b", "10.9.1")
        net.ip("b", "addr", "add", "10.9.9.9/32", "dev", "lo")
        net.ip("a", "route", "add", "10.9.9.9/32", "via", "10.9.1.2")
        with net.inside("a"):
            run(lambda: main(net), timeout_s=90)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_node_publishes_where_it_is_now(tmp_path: Path, engine: str) -> None:
    async def main(net: Lab) -> None:
        async with Farm(tmp_path, engine) as farm:
            await farm.begin()
            await farm.log(farm.cluster.certificate("home-1", "service-host"))
            port = farm.ports["home-1"]
            await farm.stop("home-1")
            node = await farm.start("home-1", listen_host=EVERY, listen_port=port)
            assert node.address == f"quic://10.9.1.1:{port}"
            control = farm.nodes[CONTROL]

            def known() -> set[str]:
                found = control.peers.machine.addresses(node.node_id)
                return {one.address.removeprefix("quic://").partition(":")[0] for one in found}

            await until(lambda: "10.9.1.1" in known())
            net.ip("a", "addr", "del", "10.9.1.1/24", "dev", "to-b")
            net.ip("a", "addr", "add", "10.9.1.9/24", "dev", "to-b")
            await until(lambda: "10.9.1.9" in known() and "10.9.1.1" not in known(), timeout_s=30)
            await until(lambda: node.address == f"quic://10.9.1.9:{port}")
            assert await (await node.peers.session(control.node_id)).ping() > 0

    with lab("a", "b") as net:
        net.link("a", "b", "10.9.1")
        with net.inside("a"):
            run(lambda: main(net), timeout_s=90)


def test_the_list_of_addresses_is_what_the_machine_has() -> None:
    with lab("a", "b") as net:
        net.link("a", "b", "10.9.1")
        net.ip("a", "addr", "add", "2001:db8:9::1/64", "dev", "to-b", "nodad")
        with net.inside("a"):
            assert {"127.0.0.1", "::1", "10.9.1.1", "2001:db8:9::1"} <= machine_addresses()
            net.ip("a", "addr", "del", "10.9.1.1/24", "dev", "to-b")
            net.ip("a", "addr", "change", "2001:db8:9::1/64", "dev", "to-b", "preferred_lft", "0")
            assert not {"10.9.1.1", "2001:db8:9::1"} & machine_addresses(), "gone, and deprecated"


def row(net: Lab, middle: int) -> None:
    """a - r - s - b, where the link in the middle carries packets of `middle` bytes."""
    net.link("a", "r", "10.9.1")
    net.link("r", "s", "10.9.2", mtu=middle)
    net.link("s", "b", "10.9.3")
    net.ip("a", "route", "add", "default", "via", "10.9.1.2")
    net.ip("r", "route", "add", "10.9.3.0/24", "via", "10.9.2.2")
    net.ip("s", "route", "add", "10.9.1.0/24", "via", "10.9.2.1")
    net.ip("b", "route", "add", "default", "via", "10.9.3.1")
    for number, (one, other) in enumerate((("a", "r"), ("r", "s"), ("s", "b")), 1):
        for name, far, last in ((one, other, 1), (other, one, 2)):
            six = f"2001:db8:10:9:{number}::{last}/80"
            net.ip(name, "addr", "add", six, "dev", f"to-{far}", "nodad")
    net.ip("a", "-6", "route", "add", "default", "via", "2001:db8:10:9:1::2")
    net.ip("r", "-6", "route", "add", "2001:db8:10:9:3::/80", "via", "2001:db8:10:9:2::2")
    net.ip("s", "-6", "route", "add", "2001:db8:10:9:1::/80", "via", "2001:db8:10:9:2::1")
    net.ip("b", "-6", "route", "add", "default", "via", "2001:db8:10:9:3::1")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("middle", [1300, 1500])
@pytest.mark.parametrize("hosts", [("10.9.1.1", "10.9.3.2"), ("2001:db8:10:9:1::1", "2001:db8:10:9:3::2")])
def test_datagrams_are_as_large_as_the_narrowest_link_carries(
    engine: str, middle: int, hosts: tuple[str, str]
) -> None:
    carries = middle - (48 if ":" in hosts[0] else 28)  # the headers of IP and UDP

    async def main(net: Lab) -> None:
        met: list[Connection] = []
        with net.inside("b"):
            b = await bind(2, engine=engine, host=hosts[1], services=SERVICES, on_connection=met.append)
        async with b, await bind(1, engine=engine, host=hosts[0]) as a:
            connection = await dial(a, b)
            if middle == 1500:
                await until(lambda: connection.carrier.datagram_bytes() >= 1452)
            assert await send_and_hash(connection, 3_000_000, TrafficClass.BULK)
            size, back = connection.carrier.datagram_bytes(), met[0].carrier.datagram_bytes()
            assert limits.CARRIER_DATAGRAM_BYTES <= size <= carries
            assert limits.CARRIER_DATAGRAM_BYTES <= back <= carries
            if engine == "aioquic" and middle == 1300:
                # The router said what it carries; a probe of just that size then proved it.
                await until(lambda: connection.carrier.datagram_bytes() == carries)
                assert a.counters["icmp_too_big"] > 0
            assert a.counters["icmp_unreachable"] == a.counters["receive_errors"] == 0

    with lab("a", "r", "s", "b") as net:
        row(net, middle)
        with net.inside("a"):
            run(lambda: main(net), timeout_s=90)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_link_that_narrows_under_a_transfer_does_not_end_it(engine: str) -> None:
    async def main(net: Lab) -> None:
        with net.inside("b"):
            b = await bind(2, engine=engine, host="10.9.3.2", services=SERVICES)
        async with b, await bind(1, engine=engine, host="10.9.1.1") as a:
            connection = await dial(a, b)
            await until(lambda: connection.carrier.datagram_bytes() >= 1452)
            seen = asyncio.Event()
            sending = asyncio.create_task(send_until(connection, seen.is_set))
            await until(lambda: bool(connection.streams()))
            for name, far in (("r", "s"), ("s", "r")):
                net.ip(name, "link", "set", f"to-{far}", "mtu", "1300")
            await until(lambda: connection.carrier.datagram_bytes() <= 1272, timeout_s=30)
            seen.set()
            assert await sending

    with lab("a", "r", "s", "b") as net:
        row(net, 1500)
        with net.inside("a"):
            run(lambda: main(net), timeout_s=90)


def test_a_forged_icmp_error_lowers_nothing_and_a_true_one_only_guides() -> None:
    async def main(net: Lab) -> None:
        with net.inside("b"):
            b = await bind(2, engine="aioquic", host="10.9.3.2", services=SERVICES)
        async with b, await bind(1, engine="aioquic", host="10.9.1.1") as a:
            connection = await dial(a, b)
            await until(lambda: connection.carrier.datagram_bytes() == 1452)
            with net.inside("r"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
                for mtu in (68, 576, 1228, 1300):
                    raw.sendto(fragmentation_needed(a, b, mtu), ("10.9.1.1", 0))
            await until(lambda: a.counters["icmp_too_big"] == 4)
            assert await send_and_hash(connection, 300_000, TrafficClass.BULK)
            assert connection.carrier.datagram_bytes() == 1452
            assert not connection.suspected
            assert a.counters["receive_errors"] == 0, (
                "what an error says of one path is no failure of the socket"
            )

    with lab("a", "r", "s", "b") as net:
        row(net, 1500)
        with net.inside("a"):
            run(lambda: main(net), timeout_s=90)


def fragmentation_needed(a: Endpoint, b: Endpoint, mtu: int) -> bytes:
    """ICMP as a router would send it about a datagram from a to b (RFC 792, RFC 1191)."""
    source, target = (socket.inet_aton(str(one.local_address[0])) for one in (a, b))
    quoted = bytes((0x45, 0, 5, 200, 0, 0, 0x40, 0, 64, 17, 0, 0)) + source + target
    quoted += a.local_address[1].to_bytes(2) + b.local_address[1].to_bytes(2) + (1452).to_bytes(2) + b"\0\0"
    body = bytes((3, 4, 0, 0, 0, 0)) + mtu.to_bytes(2) + quoted
    total = sum(int.from_bytes(body[at : at + 2]) for at in range(0, len(body), 2))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return body[:2] + total.to_bytes(2) + body[4:]
