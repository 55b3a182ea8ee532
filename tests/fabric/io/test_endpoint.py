"""The endpoint on real sockets: who gets in, who does not, and what strangers may cost."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import Callable

import pytest

from fabric import limits
from fabric.classes import TrafficClass
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.io.engines import CarrierConfig
from tests.support.aio import run, until
from tests.support.carrier_pair import identity
from tests.support.endpoints import assert_alive, bind, dial, engines, linked, url
from tests.support.udp_link import UdpLink

# -- the way in --


@engines
@pytest.mark.parametrize("batching", ["offload", "plain"])
def test_a_session_opens_and_both_know_each_other(engines: tuple[str, str], batching: str) -> None:
    async def main() -> None:
        met: list[Connection] = []
        async with (
            await bind(1, engine=engines[0], batching=batching) as a,
            await bind(2, engine=engines[1], batching=batching, on_connection=met.append) as b,
        ):
            connection = await dial(a, b)
            assert connection.is_dialer
            assert connection.peer_node_id == b.identity.node_id
            assert connection.peer_public == b.identity.public
            assert 0 < await connection.ping() < 1
            [other] = met
            assert not other.is_dialer
            assert other.peer_node_id == a.identity.node_id
            assert other.peer_public == a.identity.public
            assert a.connection_to(b.identity.node_id) is connection
            assert b.connection_to(a.identity.node_id) is other
            assert b.half_open == 0
            assert await other.ping() > 0
            await connection.aclose("done")
            assert await other.closed == "done"
            assert a.connections() == b.connections() == []
            assert a.connection_to(b.identity.node_id) is None

    run(main)


@engines
def test_the_session_is_ready_two_round_trips_after_the_first_packet(engines: tuple[str, str]) -> None:
    """TLS takes one round trip; HELLO rides in the listener's first flight, AUTH in the dialer's second."""

    async def main() -> None:
        delay = 0.4  # far beyond what a loaded machine may add
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1]) as b,
            UdpLink(b.local_address, delay_s=delay) as link,
        ):
            start = asyncio.get_running_loop().time()
            await dial(a, b, link.url)
            took = asyncio.get_running_loop().time() - start
            # Two round trips; half of one more would show that a flight too many was needed.
            assert 4 * delay <= took < 5 * delay

    run(main)


def test_a_pin_or_a_node_id_is_enough_and_one_is_needed() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            by_pin = await a.dial(url(b), pin=b.identity.certificate_sha256)
            assert by_pin.peer_node_id == b.identity.node_id
            await by_pin.aclose()
            by_id = await a.dial(url(b), node_id=b.identity.node_id)
            assert by_id.peer_public == b.identity.public
            await by_id.aclose()
            with pytest.raises(FabricError) as refused:
                await a.dial(url(b))
            assert refused.value.code == "identity_pin"

    run(main)


@pytest.mark.parametrize(
    ("field", "change", "code"),
    [
        ("pin", lambda text: text.upper(), "identity_pin"),
        ("pin", lambda text: text[:-1], "identity_pin"),
        ("pin", lambda text: "", "identity_pin"),
        ("node_id", lambda text: text + "0", "identity_node"),
    ],
)
def test_a_malformed_pin_or_node_id_is_refused_before_any_packet(
    field: str, change: Callable[[str], str], code: str
) -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            right = {"pin": b.identity.certificate_sha256, "node_id": b.identity.node_id}
            with pytest.raises(FabricError) as refused:
                await a.start_dial(url(b), **(right | {field: change(right[field])}))
            assert refused.value.code == code
            assert a._table.connections() == []
            await (await a.dial(url(b), **right)).aclose()

    run(main)


@engines
@pytest.mark.parametrize(("field", "code"), [("pin", "identity_pin"), ("node_id", "identity_node")])
def test_another_listener_than_expected_gets_nothing(engines: tuple[str, str], field: str, code: str) -> None:
    async def main() -> None:
        met: list[Connection] = []
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1], on_connection=met.append) as b,
        ):
            pin = identity(9 if field == "pin" else 2).certificate_sha256
            node_id = identity(9 if field == "node_id" else 2).node_id
            with pytest.raises(FabricError) as refused:
                await a.dial(url(b), pin=pin, node_id=node_id)
            assert refused.value.code == code
            # The listener is told at once, long before it would give up by itself.
            await until(lambda: b.half_open == 0, timeout_s=limits.SESSION_HANDSHAKE_TIMEOUT_S / 2)
            assert met == []
            await assert_alive(a, b)
            assert len(met) == 1

    run(main)


@engines
def test_a_thief_of_the_certificate_without_its_key_is_refused(engines: tuple[str, str]) -> None:
    async def main() -> None:
        stolen = dataclasses.replace(identity(3), certificate_der=identity(2).certificate_der)
        async with (
            await bind(1, engine=engines[0]) as a,
            await Endpoint.bind(stolen, "c.test", engine=engines[1]) as thief,
            await bind(2, engine=engines[1]) as b,
        ):
            with pytest.raises(FabricError) as refused:
                await a.dial(url(thief), pin=b.identity.certificate_sha256, node_id=b.identity.node_id)
            assert refused.value.code == "carrier_lost"
            await until(lambda: thief.half_open == 0)
            await assert_alive(a, b)

    run(main)


@engines
def test_another_protocol_is_refused(engines: tuple[str, str]) -> None:
    async def main() -> None:
        other = CarrierConfig(alpn=("other/1",))
        async with (
            await bind(1, engine=engines[0], carrier=other) as stranger,
            await bind(3, engine=engines[0]) as a,
            await bind(2, engine=engines[1]) as b,
        ):
            with pytest.raises(FabricError) as refused:
                await dial(stranger, b)
            assert refused.value.code == "carrier_lost"
            assert "QUIC error 0x1" in refused.value.sentence  # a TLS alert: 0x100 and the alert's number
            await until(lambda: b.half_open == 0)
            await assert_alive(a, b)

    run(main)


@engines
def test_another_cluster_is_refused(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with (
            await bind(1, engine=engines[0], cluster_id="other.cluster") as stranger,
            await bind(3, engine=engines[0]) as a,
            await bind(2, engine=engines[1]) as b,
        ):
            with pytest.raises(FabricError) as refused:
                await dial(stranger, b)
            assert refused.value.code == "wrong_cluster"
            await assert_alive(a, b)

    run(main)


def test_a_node_does_not_talk_to_itself() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            with pytest.raises(FabricError) as refused:
                await dial(a, a)
            assert refused.value.code == "self_connect"
            await assert_alive(a, b)

    run(main)


def test_refused_strangers_do_not_linger() -> None:
    async def main() -> None:
        async with await bind(1, cluster_id="other.cluster") as stranger, await bind(2) as b:
            for _ in range(5):
                with pytest.raises(FabricError):
                    await dial(stranger, b)
                await until(lambda: b.half_open == 0)
                assert not b._table._cids
                assert not b._table.by_cid

    run(main)


def test_nobody_there_is_told_in_time() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
                deaf.bind(("127.0.0.1", 0))
                address = f"quic://127.0.0.1:{deaf.getsockname()[1]}"
                with pytest.raises(FabricError) as refused:
                    await a.dial(address, node_id=b.identity.node_id, timeout_s=0.3)
            assert refused.value.code == "handshake_timeout"
            await assert_alive(a, b)

    run(main)


def test_a_cancelled_dial_leaves_nothing() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            async with UdpLink(b.local_address) as link:
                link.silent = True
                task = asyncio.create_task(a.dial(link.url, node_id=b.identity.node_id))
                await until(lambda: link.lost > 0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert a.connections() == []
            await until(lambda: not a._table._cids)

    run(main)


@pytest.mark.parametrize(
    "address", ["quic://127.0.0.1:0", "https://127.0.0.1:443", "127.0.0.1:443", "quic://no host:1"]
)
def test_only_quic_addresses_are_dialed(address: str) -> None:
    async def main() -> None:
        async with await bind(1) as a:
            with pytest.raises(FabricError) as refused:
                await a.dial(address, node_id=identity(2).node_id)
            assert refused.value.code == "bad_address"

    run(main)


def test_a_host_name_is_resolved() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            connection = await a.dial(f"quic://localhost:{b.local_address[1]}", node_id=b.identity.node_id)
            assert connection.remote == b.local_address

    run(main)


def test_many_sessions_share_one_socket() -> None:
    async def main() -> None:
        others = [await bind(number) for number in range(10, 16)]
        async with await bind(1) as a:
            sessions = await asyncio.gather(*(dial(a, other) for other in others))
            assert {c.peer_node_id for c in sessions} == {o.identity.node_id for o in others}
            for other in others:
                [back] = other.connections()
                assert back.remote == a.local_address
            assert min(await asyncio.gather(*(c.ping() for c in sessions))) > 0
            # Both directions over the same socket: they dial each other too.
            assert (await dial(others[0], others[1])).remote == others[1].local_address
            for other in others:
                await other.aclose()
            assert {await c.closed for c in sessions} == {"done"}

    run(main)


def test_of_two_sessions_dialed_at_once_the_lower_nodes_stays() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            low, high = sorted((a, b), key=lambda endpoint: endpoint.identity.node_id)
            async with (
                UdpLink(a.local_address, delay_s=0.02) as to_a,
                UdpLink(b.local_address, delay_s=0.02) as to_b,
            ):
                await asyncio.gather(dial(a, b, to_b.url), dial(b, a, to_a.url))
                await until(lambda: len(a.connections()) == len(b.connections()) == 1)
                [stays] = low.connections()
                assert stays.is_dialer
                assert low.connection_to(high.identity.node_id) is stays
                assert not high.connections()[0].is_dialer
                assert await stays.ping() > 0

    run(main)


# -- paths --


@engines
@pytest.mark.parametrize("seed", [1, 2])
def test_sessions_open_over_a_lossy_path(engines: tuple[str, str], seed: int) -> None:
    async def main() -> None:
        faults = {"delay_s": 0.005, "loss": 0.2, "duplicate": 0.1, "seed": seed}
        async with linked(engines, **faults) as (_, _, connection, link):
            for _ in range(5):
                assert await connection.ping() > 0
            assert link.lost > 0

    run(main)


@pytest.mark.parametrize("listener", ["qh3", "aioquic"])
def test_a_nat_that_forgets_does_not_end_the_session(listener: str) -> None:
    async def main() -> None:
        async with linked(("qh3", listener), delay_s=0.002) as (_, b, connection, link):
            [other] = b.connections()
            before = other.remote
            link.rebind()
            assert await connection.ping() > 0
            await until(lambda: other.remote != before)
            assert await other.ping() > 0

    run(main)


@engines
def test_a_nat_that_forgets_again_and_again_does_not_end_a_stream(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with linked(engines, delay_s=0.002) as (_, b, connection, link):
            stream = await connection.open("echo", TrafficClass.INTERACTIVE)
            for number in range(6):
                link.rebind()
                stream.write(b"%d" % number)
                async with asyncio.timeout(5):
                    assert await stream.readexactly(1) == b"%d" % number
            assert b.counters["internal_errors"] == 0
            stream.reset()

    run(main)


@engines
def test_silence_is_noticed(engines: tuple[str, str]) -> None:
    async def main() -> None:
        carrier = CarrierConfig(idle_timeout_s=1.5)
        async with (
            await bind(1, engine=engines[0], carrier=carrier) as a,
            await bind(2, engine=engines[1], carrier=carrier) as b,
        ):
            async with UdpLink(b.local_address) as link:
                connection = await dial(a, b, link.url)
                [other] = b.connections()
                link.silent = True
                assert await connection.closed in {"carrier_lost", "idle_timeout"}
                assert await other.closed in {"carrier_lost", "idle_timeout"}
                with pytest.raises(FabricError):
                    await connection.ping()
            await assert_alive(a, b)

    run(main)


# -- the end --


def test_going_away_closes_an_idle_session_and_refuses_new_streams() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            connection = await dial(a, b)
            [other] = b.connections()
            connection.goaway()
            assert a.connection_to(b.identity.node_id) is None
            assert await connection.closed == "going_away"
            assert await other.closed == "going_away"

    run(main)


def test_closing_the_endpoint_tells_every_peer() -> None:
    async def main() -> None:
        async with await bind(1) as a, await bind(2) as b:
            connection = await dial(a, b)
            await b.aclose("going_away")
            await b.aclose()
            assert await connection.closed == "going_away"
            with pytest.raises(FabricError) as refused:
                await b.dial(url(a), node_id=a.identity.node_id)
            assert refused.value.code == "carrier_closed"

    run(main)


@engines
def test_sessions_leave_nothing_behind(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with await bind(1, engine=engines[0]) as a, await bind(2, engine=engines[1]) as b:
            for _ in range(20):
                connection = await dial(a, b)
                await connection.aclose()
            await until(lambda: not a._table._cids and not b._table._cids)
            for endpoint in (a, b):
                assert endpoint._table.by_cid == {}
                assert endpoint._timers == {}
                assert endpoint._table._first == {}
                assert endpoint.half_open == 0

    run(main)
