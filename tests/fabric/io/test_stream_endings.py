"""How sealed streams end on real sockets: ends, failures, cancellation, refusals, bad paths."""

# Long on purpose: every way in which a stream ends, told by both of its ends.
from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import pytest

from fabric import limits
from fabric.classes import Mode, TrafficClass
from fabric.errors import FabricError, StreamError
from fabric.io.connection import Connection
from fabric.io.streams import Stream
from fabric.wire import OpenStream, RouteRef
from tests.support.aio import run, until
from tests.support.endpoints import (
    SERVICES,
    bind,
    dial,
    engines,
    linked,
    pair,
    send_and_hash,
)
from tests.support.udp_link import UdpLink

MIB = 1 << 20

# -- endings --


@engines
def test_the_sealed_end_reaches_the_other_side_before_aclose_returns(engines: tuple[str, str]) -> None:
    async def main() -> None:
        whole: list[bytes] = []

        async def keep(stream: Stream, connection: Connection) -> None:
            parts = []
            while data := await stream.read():
                parts.append(data)
            whole.append(b"".join(parts))

        async with pair(engines, services={"keep": keep}) as (_, _, connection):
            data = os.urandom(500_000)
            async with await connection.open("keep", TrafficClass.RELIABLE) as stream:
                stream.write(data)
                await stream.end()
                assert await stream.read() == b""
            assert whole == [data]

    run(main)


@pytest.mark.parametrize("reads", [True, False])
def test_what_a_service_leaves_behind_waits_for_a_reader_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, reads: bool
) -> None:
    monkeypatch.setattr(limits, "SERVICE_END_S", 1.0)
    size = 16 << 20

    async def main() -> None:
        async def gives(stream: Stream, connection: Connection) -> None:
            stream.write(bytes(size))

        async with pair(services={"gives": gives}) as (_, b, connection):
            stream = await connection.open("gives", TrafficClass.BULK)
            if reads:
                came = 0
                while came < size:
                    came += len(await stream.readexactly(1 << 19))
                    await asyncio.sleep(0.1)  # a slow reader, which is no silent one
                assert await stream.read() == b""
                await stream.aclose()
            else:
                await until(lambda: b.counters["services_not_read"] == 1)
                await until(lambda: stream.over)
                await stream.read()
                with pytest.raises(StreamError, match="cancelled"):
                    await stream.read()
            await until(lambda: not b._serving._tasks)
            assert b.counters["services_not_read"] == (not reads)

    run(main)


def test_an_exception_inside_resets_the_stream() -> None:
    async def main() -> None:
        ended: list[str] = []

        async def watch(stream: Stream, connection: Connection) -> None:
            try:
                while await stream.read():
                    pass
                ended.append("end")
            except StreamError as error:
                ended.append(error.code)

        async with pair(services={"watch": watch}) as (_, _, connection):

            async def give_up_halfway() -> None:
                async with await connection.open("watch", TrafficClass.RELIABLE) as stream:
                    stream.write(b"half")
                    raise RuntimeError("the user gives up")

            with pytest.raises(RuntimeError):
                await give_up_halfway()
            await until(lambda: ended == ["cancelled"])
            async with await connection.open("watch", TrafficClass.RELIABLE) as stream:
                stream.write(b"whole")
                await stream.end()
                assert await stream.read() == b""
            await until(lambda: ended == ["cancelled", "end"])

    run(main)


def test_a_reset_reaches_the_reader_and_the_writer() -> None:
    async def main() -> None:
        async def refuse(stream: Stream, connection: Connection) -> None:
            assert await stream.readexactly(4) == b"work"
            stream.reset("refused", "no such work")

        async with pair(services={"refuse": refuse}) as (_, _, connection):
            stream = await connection.open("refuse", TrafficClass.RELIABLE)
            stream.write(b"work")
            with pytest.raises(StreamError) as failed:
                await stream.read()
            assert failed.value.code == "refused"
            assert failed.value.sentence == "no such work"
            with pytest.raises(StreamError, match="refused"):
                stream.write(b"more")
            for use in (stream.drain, stream.end, stream.read):
                with pytest.raises(StreamError, match="refused"):
                    await use()
            await stream.aclose()
            stream.reset()

    run(main)


def test_a_peer_that_takes_nothing_holds_a_service_that_is_done_only_so_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "SERVICE_END_S", 0.8)

    async def main() -> None:
        async def speak(stream: Stream, connection: Connection) -> None:
            stream.write(bytes(12 * MIB))

        async with pair(services={"speak": speak}) as (_, b, connection):
            deaf = await connection.open("speak", TrafficClass.BULK)
            slow = await connection.open("speak", TrafficClass.BULK)
            for count in range(12):
                assert len(await slow.readexactly(MIB)) == MIB, count
                await asyncio.sleep(0.1)  # a slow reader takes longer in all than one may be silent
            assert await slow.read() == b""
            await until(lambda: not b._serving._tasks)
            with pytest.raises(StreamError, match="cancelled"):
                await deaf.readexactly(12 * MIB)

    run(main)


def test_leaving_a_stream_that_is_cancelled_gives_it_up_even_after_the_peers_end() -> None:
    async def main() -> None:
        async def end_and_stay(stream: Stream, connection: Connection) -> None:
            await stream.end()
            await asyncio.Event().wait()

        async with pair(services={"stay": end_and_stay}) as (_, b, connection):
            stream = await connection.open("stay", TrafficClass.BULK)
            assert await stream.read() == b""
            stream.write(bytes(12 * MIB))
            leaving = asyncio.ensure_future(stream.aclose())
            await until(lambda: stream.machine.moved[0] > 0)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            assert stream.over
            assert connection.streams() == []
            await until(lambda: b.connections()[0].streams() == [])

    run(main)


def test_writing_after_the_end_is_a_mistake() -> None:
    async def main() -> None:
        async with (
            pair() as (_, _, connection),
            await connection.open("echo", TrafficClass.RELIABLE) as stream,
        ):
            stream.write(b"last")
            await stream.end()
            with pytest.raises(StreamError):
                stream.write(b"after")
            assert await stream.readexactly(4) == b"last"
            assert await stream.read() == b""

    run(main)


def test_bytes_that_came_before_a_failure_can_still_be_read() -> None:
    async def main() -> None:
        async def speak_and_fail(stream: Stream, connection: Connection) -> None:
            stream.write(b"so far so good")
            await stream.drain()
            await stream.readexactly(3)
            stream.reset("cancelled")

        async with pair(services={"speak": speak_and_fail}) as (_, _, connection):
            stream = await connection.open("speak", TrafficClass.RELIABLE)
            assert await stream.readexactly(3) == b"so "
            stream.write(b"bye")
            await until(lambda: stream.over)
            assert await stream.read() == b"far so good"
            with pytest.raises(StreamError):
                await stream.read()

    run(main)


@engines
def test_the_end_of_the_session_fails_its_streams(engines: tuple[str, str]) -> None:
    async def main() -> None:
        async with pair(engines) as (_, b, connection):
            stream = await connection.open("echo", TrafficClass.RELIABLE)
            reading = asyncio.ensure_future(stream.read())
            await asyncio.sleep(0)
            b.connections()[0].close("revoked")
            with pytest.raises(StreamError) as failed:
                await reading
            assert failed.value.code == "route_failed"
            assert await connection.closed == "revoked"
            with pytest.raises(FabricError) as refused:
                await connection.open("echo", TrafficClass.RELIABLE)
            assert refused.value.code == "revoked"

    run(main)


def test_a_failing_service_resets_its_stream_and_nothing_else() -> None:
    async def main() -> None:
        async def broken(stream: Stream, connection: Connection) -> None:
            raise ValueError("a defect")

        async with pair(services=SERVICES | {"broken": broken}) as (_, b, connection):
            stream = await connection.open("broken", TrafficClass.RELIABLE)
            with pytest.raises(StreamError) as failed:
                await stream.read()
            assert failed.value.code == "cancelled"
            await until(lambda: b.counters["service_errors"] == 1)
            assert await send_and_hash(connection, 10_000, TrafficClass.RELIABLE)

    run(main)


# -- cancellation --


def test_cancelled_reads_and_writes_leave_the_stream_usable() -> None:
    async def main() -> None:
        async with (
            pair() as (_, _, connection),
            await connection.open("echo", TrafficClass.RELIABLE) as stream,
        ):
            for _ in range(3):
                reading = asyncio.ensure_future(stream.read())
                await asyncio.sleep(0)
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
            stream.write(b"still here")
            assert await stream.readexactly(10) == b"still here"
            assert stream._waiters is None
            await stream.end()
            assert await stream.read() == b""

    run(main)


def test_a_cancelled_open_leaves_nothing() -> None:
    async def main() -> None:
        async with linked() as (_, b, connection, link):
            link.silent = True
            opening = asyncio.ensure_future(connection.open("echo", TrafficClass.RELIABLE))
            await until(lambda: connection.streams() != [])
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert connection.streams() == []
            link.silent = False
            assert await send_and_hash(connection, 10_000, TrafficClass.RELIABLE)
            await until(lambda: b.connections()[0].streams() == [])

    run(main)


def test_closing_the_endpoint_cancels_its_services() -> None:
    async def main() -> None:
        cancelled = asyncio.Event()

        async def forever(stream: Stream, connection: Connection) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        async with pair(services={"forever": forever}) as (_, b, connection):
            stream = await connection.open("forever", TrafficClass.RELIABLE)
            stream.write(b"x")
            await until(lambda: len(b._serving._tasks) == 1)
            await b.aclose()
            assert cancelled.is_set()
            with pytest.raises(StreamError):
                await stream.read()

    run(main)


def test_a_service_that_does_not_end_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(limits, "SERVICE_STOP_S", 0.05)

    async def main() -> None:
        leave = asyncio.Event()

        async def stubborn(stream: Stream, connection: Connection) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await leave.wait()

        async with pair(services={"stubborn": stubborn}) as (_, b, connection):
            stream = await connection.open("stubborn", TrafficClass.RELIABLE)
            stream.write(b"x")
            await until(lambda: len(b._serving._tasks) == 1)
            await b.aclose()
            assert b.addresses == []
            assert b.counters["services_stuck"] == 1
            leave.set()
            await until(lambda: not b._serving._tasks)

    run(main)
    assert "service stubborn was cancelled and does not end" in caplog.text


def test_whoever_is_cancelled_while_closing_an_endpoint_has_closed_it() -> None:
    """At its first wait, for attempts to resume, or at its second, for services."""

    async def main(attempt_waits: bool) -> None:
        leave = asyncio.Event()

        async def slow() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await leave.wait()

        async def serve(stream: Stream, connection: Connection) -> None:
            await slow()

        async with pair(services={"slow": serve}) as (_, b, connection):
            stream = await connection.open("slow", TrafficClass.RELIABLE)
            stream.write(b"x")
            await until(lambda: len(b._serving._tasks) == 1)
            if attempt_waits:
                resuming: Any = b.resuming
                resuming._tasks["stream"] = asyncio.create_task(slow())
                await asyncio.sleep(0)
            closing = asyncio.ensure_future(b.aclose())
            await asyncio.sleep(0)
            assert (b.connections() == []) is not attempt_waits
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            assert closing.cancelled()
            assert b.addresses == []
            assert (b._timers, b._table.by_cid, b.resuming._streams) == ({}, {}, {})
            with pytest.raises(StreamError):
                await stream.read()
            leave.set()
            await until(lambda: not b._serving._tasks)

    run(lambda: main(attempt_waits=True))
    run(lambda: main(attempt_waits=False))


# -- refusals --


def test_an_unknown_service_is_refused() -> None:
    async def main() -> None:
        async with pair() as (_, _, connection):
            with pytest.raises(StreamError) as refused:
                await connection.open("nothing", TrafficClass.RELIABLE)
            assert refused.value.code == "unknown_service"
            assert await send_and_hash(connection, 1_000, TrafficClass.RELIABLE)

    run(main)


def test_authorize_refuses_with_its_own_reason() -> None:
    async def main() -> None:
        asked: list[tuple[str, str]] = []

        def only_digest(connection: Connection, body: OpenStream, initiator: str) -> str | None:
            asked.append((body.service, initiator))
            return None if body.service == "digest" else "not_approved"

        async with pair(authorize=only_digest) as (a, _, connection):
            with pytest.raises(StreamError) as refused:
                await connection.open("echo", TrafficClass.RELIABLE)
            assert refused.value.code == "not_approved"
            assert await send_and_hash(connection, 1_000, TrafficClass.RELIABLE)
            assert asked == [("echo", a.identity.node_id), ("digest", a.identity.node_id)]

    run(main)


def test_a_leased_stream_without_a_lease_is_refused() -> None:
    async def main() -> None:
        async with pair() as (_, _, connection):
            with pytest.raises(StreamError) as refused:
                await connection.open(
                    "echo", TrafficClass.RELIABLE, route=RouteRef(route_id="r1", epoch=1, position=1)
                )
            assert refused.value.code == "no_lease"
            assert await send_and_hash(connection, 1_000, TrafficClass.RELIABLE)

    run(main)


def test_another_target_than_the_peer_is_found_out() -> None:
    async def main() -> None:
        async with pair() as (_, _, connection):
            with pytest.raises(StreamError) as refused:
                await connection.open("echo", TrafficClass.RELIABLE, target_node_id="f" * 64)
            assert refused.value.code.startswith("seal_")
            assert await send_and_hash(connection, 1_000, TrafficClass.RELIABLE)

    run(main)


def test_a_probe_ends_with_acceptance() -> None:
    async def main() -> None:
        called: list[str] = []

        async def service(stream: Stream, connection: Connection) -> None:
            called.append(stream.service)

        async with pair(services={"svc": service}) as (_, b, connection):
            probe = await connection.open("svc", TrafficClass.CONTROL, mode=Mode.PROBE)
            assert probe.over
            with pytest.raises(StreamError):
                probe.write(b"x")
            with pytest.raises(StreamError) as refused:
                await connection.open("nothing", TrafficClass.CONTROL, mode=Mode.PROBE)
            assert refused.value.code == "unknown_service"
            await until(lambda: b.connections()[0].streams() == [])
            assert called == []

    run(main)


# -- paths --


@engines
@pytest.mark.parametrize("seed", [3])
def test_streams_survive_loss_jitter_and_duplicates(engines: tuple[str, str], seed: int) -> None:
    async def main() -> None:
        async with (
            await bind(1, engine=engines[0]) as a,
            await bind(2, engine=engines[1], services=SERVICES) as b,
            UdpLink(
                b.local_address, delay_s=0.002, jitter_s=0.002, loss=0.03, duplicate=0.03, seed=seed
            ) as link,
        ):
            connection = await dial(a, b, link.url)
            assert all(
                await asyncio.gather(
                    send_and_hash(connection, 400_000, TrafficClass.BULK),
                    send_and_hash(connection, 50_000, TrafficClass.INTERACTIVE),
                )
            )
            assert link.lost > 0
            assert link.duplicated > 0

    run(main, timeout_s=90)


@pytest.mark.parametrize("listener", ["qh3", "aioquic"])
def test_a_stream_goes_on_through_a_new_address(listener: str) -> None:
    async def main() -> None:
        async with (
            linked(("qh3", listener), delay_s=0.002) as (_, _, connection, link),
            await connection.open("echo", TrafficClass.RELIABLE) as stream,
        ):
            for number in range(6):
                data = os.urandom(20_000)
                stream.write(data)
                assert await stream.readexactly(len(data)) == data
                if number in {1, 3}:
                    link.rebind()
            await stream.end()
            assert await stream.read() == b""

    run(main)


def test_a_flood_of_small_writes_is_batched() -> None:
    async def main() -> None:
        async with (
            pair() as (_, _, connection),
            await connection.open("digest", TrafficClass.RELIABLE) as stream,
        ):
            expected = hashlib.sha256()
            for number in range(20_000):
                data = number.to_bytes(8, "big")
                expected.update(data)
                stream.write(data)
            await stream.drain()
            await stream.end()
            assert await stream.readexactly(32) == expected.digest()

    run(main)
