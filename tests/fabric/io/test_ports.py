"""Several bind addresses, addresses that come and go, and what ICMP says of a peer."""

from __future__ import annotations

import asyncio
import socket
import sys

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.identity import format_quic_address
from fabric.io.connection import Connection
from fabric.io.engines import Address
from fabric.io.port import Port
from fabric.io.udp import UdpSocket
from tests.support.aio import run, until
from tests.support.carrier_pair import identity
from tests.support.endpoints import SERVICES, assert_alive, bind, dial, engines, linked, send_and_hash, url


@engines
def test_a_node_listens_and_dials_on_several_addresses(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1], services=SERVICES) as b,
        ):
            second, sixth = b.add_address("127.0.0.2"), b.add_address("::1")
            a.add_address("::1")
            assert b.addresses == [b.local_address, second, sixth]
            for host, port, *_ in b.addresses:
                connection = await dial(a, b, format_quic_address(str(host), int(port)))
                assert await send_and_hash(connection, 100_000, TrafficClass.RELIABLE)
                await connection.aclose()

    run(main)


def test_an_address_of_no_bound_family_cannot_be_dialed() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2, host="::1") as b:
            with pytest.raises(FabricError) as refused:
                await dial(a, b)
            assert refused.value.code == "no_address"
            a.add_address("::1")
            assert await (await dial(a, b)).ping() > 0

    run(main)


def test_of_several_addresses_the_one_is_dialed_from_that_the_system_would_choose() -> None:
    async def main() -> None:
        met: list[Connection] = []
        async with await bind(1, host="127.0.0.2") as a, await bind(2, on_connection=met.append) as b:
            assert (await dial(a, b)).is_ready
            a.add_address("127.0.0.1")
            await dial(a, b)
            await until(lambda: len(met) == 2)
            assert [str(one.remote[0]) for one in met] == ["127.0.0.2", "127.0.0.1"]

    run(main)


@engines
def test_a_transfer_goes_on_when_the_dialers_address_goes(engines: tuple[str, str]) -> None:
    async def main() -> None:
        met: list[Connection] = []
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1], services=SERVICES, on_connection=met.append) as b,
        ):
            gone, kept = a.local_address, a.add_address("127.0.0.3")
            connection = await dial(a, b)
            await until(lambda: bool(met))
            assert met[0].remote == gone
            transfer = asyncio.create_task(send_and_hash(connection, 3_000_000, TrafficClass.BULK))
            await until(lambda: bool(met[0].streams()))
            a.drop_address(gone)
            assert a.addresses == [kept]
            assert await transfer
            assert await connection.ping() > 0
            assert met[0].remote == kept, "the new address was proved, and is used"

    run(main, timeout_s=90)


def test_sessions_accepted_at_an_address_end_with_it() -> None:
    async def main() -> None:
        met: list[Connection] = []
        async with await bind(1) as a, await bind(2, services=SERVICES, on_connection=met.append) as b:
            second = b.add_address("127.0.0.2")
            connection = await dial(a, b, format_quic_address(second[0], second[1]))
            await until(lambda: bool(met))
            stream = await connection.open("echo", TrafficClass.RELIABLE)
            await until(lambda: bool(met[0].streams()))
            b.drop_address(second)
            b.drop_address(second)
            assert await met[0].closed == "carrier_lost"
            assert len(b.resuming.held()) == 1, "its streams wait for the peer to find another way"
            stream.reset()
            connection.close()
            await assert_alive(a, b)

    run(main)


def test_icmp_makes_one_peer_suspect_and_ends_nothing() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b, await bind(3) as c:
            to_b, to_c = await dial(a, b), await dial(a, c)
            a._on_unreachable(to_b.remote, "no_route_to_host")
            assert (to_b.suspected, to_c.suspected) == ("no_route_to_host", "")
            # The ping that followed at once finds the peer alive.
            await until(lambda: not to_b.suspected)
            assert to_b.is_ready
            assert a.counters["icmp_unreachable"] == 1

    run(main)


@engines
def test_a_forged_size_changes_nothing_and_a_true_one_is_only_tried(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1], services=SERVICES) as b,
        ):
            connection = await dial(a, b)
            await until(lambda: connection.carrier.datagram_bytes() >= 1452)
            for size in (0, 68, 1199, 1200, 1300):
                a._on_unreachable(connection.remote, size)
            assert a.counters["icmp_too_big"] == 5
            assert not connection.suspected, "too large is not unreachable"
            assert await send_and_hash(connection, 300_000, TrafficClass.BULK)
            assert connection.carrier.datagram_bytes() >= 1452

    run(main)


@engines
def test_where_datagrams_may_be_cut_no_probe_would_prove_anything(
    engines: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UdpSocket, "_forbid_fragments", lambda _: False)

    async def main() -> None:
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1], services=SERVICES) as b,
        ):
            connection = await dial(a, b)
            for _ in range(3):
                assert await send_and_hash(connection, 300_000, TrafficClass.BULK)
            assert connection.carrier.datagram_bytes() == limits.CARRIER_DATAGRAM_BYTES

    run(main)


@engines
def test_a_link_that_carries_less_is_found_and_one_that_shrinks_is_survived(
    engines: tuple[str, str],
) -> None:
    async def main() -> None:
        carries = [1410]
        async with linked(engines, drop=lambda data, _: len(data) > carries[0]) as (_, _, connection, _):
            await until(lambda: connection.carrier.datagram_bytes() >= 1350)
            assert await send_and_hash(connection, 300_000, TrafficClass.BULK)
            assert 1350 <= connection.carrier.datagram_bytes() <= 1400
            carries[0] = 1250
            assert await send_and_hash(connection, 300_000, TrafficClass.BULK)
            assert connection.carrier.datagram_bytes() <= 1250

    run(main, timeout_s=90)


@pytest.mark.skipif(
    sys.platform != "linux",
    reason="only Linux queues ICMP errors with their cause",
)
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_dial_to_a_closed_port_is_suspect_until_somebody_answers(host: str) -> None:
    async def main() -> None:
        async with await bind(1, host=host) as a:
            b = await bind(2, host=host)
            address, port = url(b), b.local_address[1]
            await b.aclose()
            connection = await a.start_dial(address, pin=identity(2).certificate_sha256)
            await until(lambda: connection.suspected == "connection_refused")
            assert not connection.closed.done(), "anybody may forge an ICMP error"
            async with await bind(2, host=host, port=port):
                await connection.ready()
                assert not connection.suspected

    run(main)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has an error queue")
def test_icmp_is_heard_while_others_send_without_a_pause() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        udp = UdpSocket("127.0.0.1", 0)
        told: list[str | int] = []
        arrived = 0

        def arrival(_port: Port, batch: list[tuple[bytes, Address]]) -> None:
            nonlocal arrived
            arrived += len(batch)
            steady.sendto(b"more", udp.local_address)  # so that something is always there to be read

        port = Port(udp, arrival, lambda: None, lambda: None, lambda _addr, reason: told.append(reason))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as steady:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
                gone.bind(("127.0.0.1", 0))
                nobody = gone.getsockname()
            steady.sendto(b"first", udp.local_address)
            await until(lambda: arrived > 10)
            began = loop.time()
            port.send([(b"anybody?", nobody)])
            await until(lambda: bool(told))
            assert told == ["connection_refused"]
            assert loop.time() - began < 20 * limits.UDP_ERRORS_S
            await until(lambda: arrived > 100)
        port.close()

    run(main)
