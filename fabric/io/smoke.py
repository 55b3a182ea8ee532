"""`fabric smoke`: a short proof, on a running node, that its data plane does what it promises.

Bulk and interactive traffic are mixed in one session with a peer's `fabric.echo/1`. Every step says what was
seen and whether that is what must be seen; nothing here is compared with how fast another machine would be.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

from fabric import limits
from fabric.classes import Mode, TrafficClass
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.node import Node
from fabric.io.streams import Stream
from fabric.lanes import DATAGRAM_SHARD
from fabric.services.io.echoing import SERVICE

SCHEMA = "fabric.smoke.v1"

KEY = b"key pressed"
KEYS = 20
BULK_BYTES = 4 << 20
FAN_OUT = 16
DATAGRAMS = 32
MIX_S = 1.5
SLACK_S = 0.25
"""What a machine that does other things as well may add to an echo."""

Detail = dict[str, Any]


class Smoke:
    """One run against one peer."""

    def __init__(self, node: Node, peer: str) -> None:
        self._node = node
        self._peer = peer
        self._idle_s = 0.0

    async def run(self, *, kill: bool = True) -> Detail:
        """The report, schema `fabric.smoke.v1`. Without `kill` the session is left alone."""
        steps: list[tuple[str, Callable[[], Awaitable[tuple[bool, Detail]]]]] = [
            ("session", self._session),
            ("interactive", self._interactive),
            ("blocked_bulk", self._blocked_bulk),
            ("fan_out", self._fan_out),
            ("datagrams", self._datagrams),
            ("pressure", self._pressure),
        ]
        if kill:
            steps.append(("resumption", self._resumption))
        loop = asyncio.get_running_loop()
        report: list[Detail] = []
        for name, step in steps:
            began = loop.time()
            try:
                async with asyncio.timeout(limits.SMOKE_STEP_S):
                    ok, detail = await step()
            except (FabricError, TimeoutError, EOFError) as error:
                ok, detail = False, {"error": str(error) or "timeout"}
            report.append(
                {"name": name, "ok": ok, "seconds": round(loop.time() - began, 3), "detail": detail}
            )
            if name == "session" and not ok:
                break
        return {
            "schema": SCHEMA,
            "ok": len(report) == len(steps) and all(step["ok"] for step in report),
            "node_id": self._node.node_id,
            "peer": self._peer,
            "steps": report,
        }

    # -- steps ---------------------------------------------------------------------------------------------

    async def _session(self) -> tuple[bool, Detail]:
        connection = await self._connection()
        rtt_s = await connection.ping()
        return True, {"rtt_ms": _ms(rtt_s), "remote": connection.remote[0], "dialed": connection.is_dialer}

    async def _interactive(self) -> tuple[bool, Detail]:
        async with await self._open(TrafficClass.INTERACTIVE) as stream:
            times = [await _echo(stream) for _ in range(KEYS)]
        self._idle_s = median(times)
        return True, {"echoes": KEYS, "p50_ms": _ms(self._idle_s), "max_ms": _ms(max(times))}

    async def _blocked_bulk(self) -> tuple[bool, Detail]:
        """A bulk stream that nobody reads stands still by itself, and loses nothing."""
        bulk, sent, written = await self._open(TrafficClass.BULK), hashlib.sha256(), 0
        most = 4 * limits.E2E_WINDOW_BYTES_MAX + 2 * limits.E2E_SEND_BUFFER_BYTES
        blocked = False
        while written < most and not blocked:
            data = os.urandom(limits.RECORD_BYTES)
            bulk.write(data)
            sent.update(data)
            written += len(data)
            try:
                async with asyncio.timeout(SLACK_S):
                    await bulk.drain()
            except TimeoutError:
                blocked = True
        async with await self._open(TrafficClass.INTERACTIVE) as stream:
            times = [await _echo(stream) for _ in range(KEYS)]
        ending = asyncio.ensure_future(bulk.end())
        back = hashlib.sha256()
        while data := await bulk.read():
            back.update(data)
        await ending
        whole = back.digest() == sent.digest()
        bound = 5 * self._idle_s + SLACK_S
        return blocked and whole and max(times) <= bound, {
            "blocked": blocked,
            "written_bytes": written,
            "nothing_lost": whole,
            "echo_max_ms": _ms(max(times)),
            "echo_bound_ms": _ms(bound),
        }

    async def _fan_out(self) -> tuple[bool, Detail]:
        """Many streams of a class spread over its lanes, and never over more than there are."""
        connection = await self._connection()
        detail: Detail = {}
        ok = True
        for one in (TrafficClass.BULK, TrafficClass.INTERACTIVE):
            streams = await asyncio.gather(*(self._open(one) for _ in range(FAN_OUT)))
            await asyncio.gather(*map(_echo, streams))
            await asyncio.gather(*(stream.aclose() for stream in streams))
            shards = connection.session.config.shards.get(one, 1)
            lanes = sum(
                key.traffic_class is one and key.shard != DATAGRAM_SHARD for key in connection.session.lanes()
            )
            detail[one.name.lower()] = {"streams": FAN_OUT, "lanes": lanes, "shards": shards}
            # Sixteen random uids all on one of several shards: once in 4^15 times.
            ok = ok and min(2, shards) <= lanes <= shards
        return ok, detail

    async def _datagrams(self) -> tuple[bool, Detail]:
        stream = await self._open(TrafficClass.INTERACTIVE, mode=Mode.DATAGRAM)
        back = 0
        for number in range(DATAGRAMS):
            stream.send(b"%d" % number)
            try:
                async with asyncio.timeout(SLACK_S + 5 * self._idle_s):
                    back += await stream.receive() is not None
            except TimeoutError:
                continue
        room = stream.datagram_room
        await stream.aclose()
        return back > 0, {"sent": DATAGRAMS, "back": back, "room_bytes": room}

    async def _pressure(self) -> tuple[bool, Detail]:
        """Bulk gives way while somebody types, the node says so, and it is over when it is over."""
        loop = asyncio.get_running_loop()
        watch, stop = self._node.pressure, loop.time() + MIX_S
        streams = [await self._open(TrafficClass.BULK) for _ in range(2)]
        seen: set[str] = set()
        worst = watch.current

        async def load(stream: Stream) -> None:
            reading = asyncio.ensure_future(_discard(stream))
            while loop.time() < stop:
                stream.write(bytes(limits.RECORD_BYTES))
                await stream.drain()
            await stream.end()
            await reading

        times: list[float] = []
        loads = [asyncio.ensure_future(load(stream)) for stream in streams]
        try:
            async with await self._open(TrafficClass.INTERACTIVE) as typing:
                while loop.time() < stop:
                    times.append(await _echo(typing))
                    found = watch.look()
                    seen.update(found.reasons)
                    worst = max(worst, found, key=lambda one: one.score)
            await asyncio.gather(*loads)
        finally:
            for one in loads:
                one.cancel()
            await asyncio.gather(*loads, return_exceptions=True)
            for stream in streams:
                stream.reset()
        await asyncio.sleep(limits.PRESSURE_HOLD_S + limits.PRESSURE_PERIOD_S)  # how long a reason is held
        after = watch.look()
        recovered = "bulk_pressure" not in after.reasons
        return "bulk_pressure" in seen and recovered, {
            "activated": "bulk_pressure" in seen,
            "recovered": recovered,
            "level": worst.level,
            "score": worst.score,
            "reasons": sorted(seen),
            "recommended_action": worst.action,
            "after": after.level,
            "echoes": len(times),
            "echo_p50_ms": _ms(median(times)),
            "echo_max_ms": _ms(max(times)),
            "bulk_window_bytes": worst.recommended_window_bytes(TrafficClass.BULK),
            "interactive_window_bytes": worst.recommended_window_bytes(TrafficClass.INTERACTIVE),
        }

    async def _resumption(self) -> tuple[bool, Detail]:
        """The session is killed under a stream, as a network does it; the stream goes on over the next."""
        loop = asyncio.get_running_loop()
        data = os.urandom(BULK_BYTES)
        async with await self._open(TrafficClass.RELIABLE) as stream:
            reading = asyncio.ensure_future(_digest(stream))
            stream.write(data[: BULK_BYTES // 2])
            await stream.drain()
            first, began = stream.connection, loop.time()
            first.lose()
            stream.write(data[BULK_BYTES // 2 :])
            await stream.end()
            same = await reading == hashlib.sha256(data).digest()
            took = loop.time() - began
            return same and stream.connection is not first, {
                "bytes": BULK_BYTES,
                "nothing_lost": same,
                "records_resent": stream.machine.counters["records_resent"],
                "finished_after_ms": _ms(took),
            }

    # -- parts ---------------------------------------------------------------------------------------------

    async def _connection(self) -> Connection:
        return await self._node.peers.session(self._peer)

    async def _open(self, traffic_class: TrafficClass, *, mode: Mode = Mode.STREAM) -> Stream:
        return await (await self._connection()).open(SERVICE, traffic_class, mode=mode)


async def _echo(stream: Stream) -> float:
    """Seconds from a key to its echo."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    stream.write(KEY)
    await stream.readexactly(len(KEY))
    return loop.time() - began


async def _discard(stream: Stream) -> None:
    while await stream.read():
        continue


async def _digest(stream: Stream) -> bytes:
    seen = hashlib.sha256()
    while data := await stream.read():
        seen.update(data)
    return seen.digest()


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
