"""The processes that session benchmarks are made of: a node, a slow path to it, dialers with one task each.

Every process prints JSON lines: first `{"port": …}` where it listens, then what it was asked for. `Child`
starts one and talks to it; the roles are below it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self

from fabric.classes import TrafficClass
from fabric.identity import NodeIdentity, format_quic_address
from fabric.io.connection import Connection
from fabric.io.endpoint import Endpoint
from fabric.io.engines import CarrierConfig
from fabric.io.streams import Stream
from fabric.io.worker import Worker
from fabric.sessionpolicy import SessionPolicy
from ops.benchmarks.cluster import MeasuredCluster
from statelog.leaf import frame_leaf
from statelog.replay import Replay
from tests.support.udp_link import UdpLink

CLUSTER = "bench.aaaaaaaaaaaaaaaaaaaaaaaaaa"
WRITE_BYTES = 256 << 10
CHUNK = os.urandom(WRITE_BYTES)
"""What is sent: made once, for no stream is to be slower because others need random bytes too."""
ECHO_BYTES = 64
ECHO_PAUSE_S = 0.004
DIALS_AT_ONCE = 40
"""Below what one address may have half open at a node."""


class Child:
    """One process of a benchmark; ends with the block."""

    def __init__(self, role: str, **options: object) -> None:
        command = [sys.executable, "-m", "ops.benchmarks.session_node", role]
        command += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.role = role

    def read(self) -> dict[str, Any]:
        """The next line it prints."""
        if self._process.stdout is None:
            raise RuntimeError("the process has no output")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the {self.role} process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def tell(self, word: str) -> None:
        """Say one word to it."""
        if self._process.stdin is None:
            raise RuntimeError("the process has no input")
        self._process.stdin.write(word + "\n")

    def ask(self, word: str) -> dict[str, Any]:
        """Say one word to it and read what it prints."""
        self.tell(word)
        return self.read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()


# -- the node ----------------------------------------------------------------------------------------------


ONE_KEY_FOR_ALL = 1_000_000
"""Sessions that an endpoint keeps with one node: here one stands for the thousand that would dial."""


def identity(number: int) -> NodeIdentity:
    """The benchmark's own nodes; the one that serves is 2."""
    return NodeIdentity.from_seed(bytes([number]) * 32)


async def sink(stream: Stream, connection: Connection) -> None:
    """Read to the end and answer with the count."""
    total = 0
    while data := await stream.read():
        total += len(data)
    stream.write(total.to_bytes(8, "big"))
    await stream.end()


async def echo(stream: Stream, connection: Connection) -> None:
    """Send back what comes."""
    while data := await stream.read():
        stream.write(data)
        await stream.drain()


async def deaf(stream: Stream, connection: Connection) -> None:
    """Read nothing."""
    await asyncio.Event().wait()


SERVICES = {"sink": sink, "echo": echo, "deaf": deaf}


async def node(options: argparse.Namespace) -> None:
    """Serve; `report` says what it holds, `admit` admits a batch on the worker thread."""
    if options.core >= 0:
        os.sched_setaffinity(0, {options.core})
    words = await _words()
    worker, admit = Worker("admission"), _admission(options.records)
    async with await bind(options, 2, services=SERVICES) as endpoint:
        say(port=endpoint.local_address[1])
        while word := await words.get():
            if word == "admit":
                start = time.perf_counter()
                await worker.run(admit)
                say(seconds=time.perf_counter() - start)
            else:
                say(**usage(), sessions=len(endpoint.connections()))
    await worker.close()


def _admission(records: int) -> Callable[[], None]:
    """A call that admits `records` records of two signatures; they are made now, not while it runs."""
    cluster = MeasuredCluster()
    batch = list(cluster.records(records))

    def admit() -> None:
        replay = Replay(cluster.anchor)
        for number, record in enumerate((*cluster.beginning, *batch)):
            replay.append(frame_leaf(record, cluster.now, 1 if number else 0))

    return admit


async def link(options: argparse.Namespace) -> None:
    """A path to `--port` that takes `--delay-ms` each way."""
    async with UdpLink(("127.0.0.1", options.port), delay_s=options.delay_ms / 1000) as path:
        say(port=path.address[1])
        await asyncio.Event().wait()


# -- the dialers -------------------------------------------------------------------------------------------


async def bulk(options: argparse.Namespace) -> None:
    """`--megabytes` over `--streams` open streams to `sink`; seconds until every count is back."""
    async with await bind(options, 1) as endpoint:
        connection = await dial(endpoint, options)
        opened = [await open_stream(connection, "sink", TrafficClass.BULK) for _ in range(options.streams)]
        start, cpu = time.perf_counter(), time.process_time()
        each = options.megabytes * 1_000_000 // options.streams
        await asyncio.gather(*(send(stream, each) for stream in opened))
        say(seconds=time.perf_counter() - start, cpu_s=time.process_time() - cpu)


async def soak(options: argparse.Namespace) -> None:
    """Bulk for ever beside `--streams` idle streams; at every word, what was sent and used so far."""
    words = await _words()
    async with await bind(options, 1) as endpoint:
        connection = await dial(endpoint, options)
        idle = [await open_stream(connection, "echo", TrafficClass.RELIABLE) for _ in range(options.streams)]
        stream = await open_stream(connection, "sink", TrafficClass.BULK)
        sent = 0
        say(streams=len(idle), **usage())
        while True:
            stream.write(CHUNK)
            await stream.drain()
            sent += len(CHUNK)
            if not words.empty():
                if not await words.get():
                    return
                say(sent=sent, **usage())


async def latency(options: argparse.Namespace) -> None:
    """Echoes on an interactive stream while nothing else goes on, then while `--bulk` streams saturate the
    session, until told to stop; milliseconds, sorted.
    """
    words = await _words()
    async with await bind(options, 1) as endpoint:
        connection = await dial(endpoint, options)
        stream = await open_stream(connection, "echo", TrafficClass.INTERACTIVE)
        await echoes(stream, lambda done: done < options.echoes // 4)
        idle = await echoes(stream, lambda done: done < options.echoes)
        tasks = [asyncio.create_task(saturate(connection)) for _ in range(options.bulk)]
        await echoes(stream, lambda done: done < options.echoes // 4)
        say(idle=idle)
        stopped = asyncio.create_task(words.get())
        busy = await echoes(stream, lambda done: done < options.echoes or not stopped.done())
        say(busy=busy)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def unread(options: argparse.Namespace) -> None:
    """Bulk alone, then beside `--bulk` streams whose readers never read; seconds of each."""
    async with await bind(options, 1) as endpoint:
        connection = await dial(endpoint, options)
        seconds = []
        for stuck in (0, options.bulk):
            tasks = [asyncio.create_task(saturate(connection, "deaf")) for _ in range(stuck)]
            if stuck:
                await asyncio.wait(tasks, timeout=0.5)  # time enough to fill every window
            start = time.perf_counter()
            await send(
                await open_stream(connection, "sink", TrafficClass.BULK), options.megabytes * 1_000_000
            )
            seconds.append(time.perf_counter() - start)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        say(alone=seconds[0], beside=seconds[1])


async def first_byte(options: argparse.Namespace) -> None:
    """Seconds from the beginning of a dial until its first application byte may go, and until an answer to it
    is back. The first dial of a process, which loads libraries, does not count.
    """
    async with await bind(options, 1) as endpoint:
        for _ in range(2):
            start = time.perf_counter()
            connection = await start_dial(endpoint, options)
            stream = await open_stream(connection, "echo", TrafficClass.INTERACTIVE)
            stream.write(b"x")
            sent = time.perf_counter() - start
            await stream.readexactly(1)
            answered = time.perf_counter() - start
            round_trip = min([await connection.ping() for _ in range(5)])
            await connection.aclose()
        say(sent=sent, answered=answered, round_trip=round_trip)


async def sessions(options: argparse.Namespace) -> None:
    """`--sessions` sessions, and an answer on each. One endpoint stands for a thousand here, so no more are
    busy at once than it may wait for: it would take every other session for a way around a slow one.
    """
    words = await _words()
    async with await bind(options, 1) as endpoint:
        gate = asyncio.Semaphore(DIALS_AT_ONCE)

        async def one() -> Connection:
            async with gate:
                connection = await start_dial(endpoint, options)
                await connection.ready()
                return connection

        say(**usage())
        start = time.perf_counter()
        connections = await asyncio.gather(*(one() for _ in range(options.sessions)))
        say(seconds=time.perf_counter() - start, **usage())
        await words.get()
        start = time.perf_counter()

        async def asked(connection: Connection) -> None:
            async with gate:
                stream = await open_stream(connection, "echo", TrafficClass.RELIABLE)
                await echoes(stream, lambda done: done < 1)

        served = await asyncio.gather(*(asked(connection) for connection in connections))
        say(seconds=time.perf_counter() - start, served=len(served))
        await words.get()


async def streams(options: argparse.Namespace) -> None:
    """`--streams` idle open streams over `--sessions` sessions; what this end holds before and after."""
    words = await _words()
    async with await bind(options, 1) as endpoint:
        connections = []
        for _ in range(options.sessions):
            connection = await start_dial(endpoint, options)
            await connection.ready()
            connections.append(connection)
            await open_stream(connection, "echo", TrafficClass.RELIABLE)
        say(**usage())
        await words.get()
        opened: list[Stream] = []
        while len(opened) < options.streams:
            connection = connections[len(opened) // 50 % len(connections)]
            opened += await asyncio.gather(
                *(open_stream(connection, "echo", TrafficClass.RELIABLE) for _ in range(50))
            )
        say(streams=len(opened), **usage())
        await words.get()


# -- parts -------------------------------------------------------------------------------------------------


async def bind(options: argparse.Namespace, number: int, **more: Any) -> Endpoint:
    """An endpoint of the node `number` with the engine and datagram size asked for."""
    carrier = CarrierConfig(max_datagram_bytes=options.datagram, probe_datagram_bytes=options.datagram)
    return await Endpoint.bind(
        identity(number),
        CLUSTER,
        engine=options.engine,
        carrier=carrier,
        sessions=SessionPolicy(per_node=ONE_KEY_FOR_ALL),
        **more,
    )


async def dial(endpoint: Endpoint, options: argparse.Namespace) -> Connection:
    """A ready session with the node at `--port`."""
    return await endpoint.dial(
        format_quic_address("127.0.0.1", options.port), pin=identity(2).certificate_sha256
    )


async def start_dial(endpoint: Endpoint, options: argparse.Namespace) -> Connection:
    """A session of its own with the node at `--port`, ready or not; `dial` would give the one there is."""
    return await endpoint.start_dial(
        format_quic_address("127.0.0.1", options.port), pin=identity(2).certificate_sha256
    )


async def open_stream(connection: Connection, service: str, traffic_class: TrafficClass) -> Stream:
    """An open stream to the node at the other end."""
    return await connection.open(service, traffic_class)


async def send(stream: Stream, total: int) -> None:
    """`total` bytes to `sink`, until its count is back."""
    chunk = CHUNK[:total]
    async with stream:
        for sent in range(0, total, len(chunk)):
            stream.write(chunk if total - sent >= len(chunk) else chunk[: total - sent])
            await stream.drain()
        await stream.end()
        received = int.from_bytes(await stream.readexactly(8), "big")
        await stream.read()
    if received != total:
        raise RuntimeError(f"{received} of {total} bytes arrived")


async def saturate(connection: Connection, service: str = "sink") -> None:
    """Write bulk until cancelled."""
    stream = await open_stream(connection, service, TrafficClass.BULK)
    try:
        while True:
            stream.write(CHUNK)
            await stream.drain()
    finally:
        stream.reset()


async def echoes(stream: Stream, more: Callable[[int], bool]) -> list[float]:
    """Round trips of small messages, one after the other with pauses, in sorted milliseconds."""
    taken: list[float] = []
    while more(len(taken)):
        start = time.perf_counter()
        stream.write(bytes(ECHO_BYTES))
        await stream.readexactly(ECHO_BYTES)
        taken.append((time.perf_counter() - start) * 1000)
        await asyncio.sleep(ECHO_PAUSE_S)  # a person types, and samples spread over the load
    return sorted(taken)


def usage() -> dict[str, float]:
    """What this process holds and has used: resident bytes and CPU seconds."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {"resident": pages * os.sysconf("SC_PAGE_SIZE"), "cpu_s": time.process_time()}


def say(**fields: object) -> None:
    """One line for who started this process."""
    print(json.dumps(fields), flush=True)


async def _words() -> asyncio.Queue[str]:
    """What is said to this process, a word a line; the empty word at the end."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        line = sys.stdin.readline()
        queue.put_nowait(line.strip())
        if not line:
            loop.remove_reader(sys.stdin.fileno())

    loop.add_reader(sys.stdin.fileno(), read)
    return queue


ROLES: dict[str, Callable[[argparse.Namespace], Coroutine[Any, Any, None]]] = {
    "node": node,
    "link": link,
    "bulk": bulk,
    "soak": soak,
    "latency": latency,
    "unread": unread,
    "first-byte": first_byte,
    "sessions": sessions,
    "streams": streams,
}


def main() -> None:
    """One process of a benchmark."""
    parser = argparse.ArgumentParser(prog="python -m ops.benchmarks.session_node")
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--engine", default="qh3")
    parser.add_argument("--datagram", type=int, default=1200)
    for name, default in (
        ("port", 0),
        ("megabytes", 100),
        ("streams", 1),
        ("sessions", 1),
        ("bulk", 0),
        ("echoes", 200),
        ("delay-ms", 0),
        ("records", 0),
        ("core", -1),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    asyncio.run(ROLES[options.role](options))


if __name__ == "__main__":
    main()
