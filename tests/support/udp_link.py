"""A UDP path with loss, delay, jitter, duplication and silence, in user space: what netem would do.

    async with UdpLink(target, delay_s=0.05, loss=0.02, seed=1) as link:
        dial(link.address)

Each client that sends to `link.address` is forwarded to `target` from a socket of its own, and answers go
back the same way, so the target sees what it would see of clients behind a NAT. Every setting is an attribute
that may change while traffic flows; `rebind()` gives every client a new source address, as a NAT that forgot.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable
from typing import Self

from fabric.io.engines import Address
from fabric.io.udp import UdpSocket

Drop = Callable[[bytes, bool], bool]
"""`drop(datagram, to_target)`: whether the link loses it, beside its random loss."""


class UdpLink:
    """One path between clients and a target. Delays are one way, in seconds; shares are 0 to 1."""

    def __init__(
        self,
        target: Address,
        *,
        delay_s: float = 0.0,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        bytes_per_s: float = 0.0,
        queue_bytes: int = 100_000,
        seed: int = 0,
        drop: Drop | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.target = target
        self.delay_s = delay_s
        self.jitter_s = jitter_s
        self.loss = loss
        self.duplicate = duplicate
        self.bytes_per_s = bytes_per_s
        """The bottleneck's rate in each direction; 0 is none."""
        self.queue_bytes = queue_bytes
        """What waits for the bottleneck at most; more is lost, as in a router."""
        self.drop = drop
        self.silent = False
        """A blackhole: everything is lost, both ways, without a word."""
        self.forwarded = 0
        self.lost = 0
        self.duplicated = 0
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._host = host
        self._front = UdpSocket(host, 0)
        self.address = self._front.local_address
        self._back: dict[Address, UdpSocket] = {}
        self._queue: list[tuple[float, int, bytes, UdpSocket, Address]] = []
        self._order = itertools.count()
        self._free_at = {True: 0.0, False: 0.0}
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(self._front.fileno(), self._from_clients)

    @property
    def url(self) -> str:
        """`address` as `quic://host:port`."""
        return f"quic://{self.address[0]}:{self.address[1]}"

    def rebind(self) -> None:
        """From now on the target sees every client at a new address; the old ones are deaf."""
        for sock in self._back.values():
            self._discard(sock)
        self._back.clear()

    def close(self) -> None:
        self._loop.remove_reader(self._front.fileno())
        self._front.close()
        self.rebind()
        if self._timer is not None:
            self._timer.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()

    def _from_clients(self) -> None:
        for data, client in self._front.recv_batch():
            back = self._back.get(client)
            if back is None:
                back = self._back[client] = UdpSocket(self._host, 0)
                self._loop.add_reader(back.fileno(), self._from_target, back, client)
            self._carry(data, back, self.target, to_target=True)
        self._deliver()

    def _from_target(self, back: UdpSocket, client: Address) -> None:
        for data, _ in back.recv_batch():
            self._carry(data, self._front, client, to_target=False)
        self._deliver()

    def _carry(self, data: bytes, via: UdpSocket, to: Address, *, to_target: bool) -> None:
        if (
            self.silent
            or self._random.random() < self.loss
            or (self.drop is not None and self.drop(data, to_target))
        ):
            self.lost += 1
            return
        now = self._loop.time()
        if self.bytes_per_s:
            start = max(now, self._free_at[to_target])
            if (start - now) * self.bytes_per_s + len(data) > self.queue_bytes:
                self.lost += 1
                return
            now = self._free_at[to_target] = start + len(data) / self.bytes_per_s
        copies = 1
        if self._random.random() < self.duplicate:
            copies = 2
            self.duplicated += 1
        for _ in range(copies):
            due = now + self.delay_s + self._random.random() * self.jitter_s
            heapq.heappush(self._queue, (due, next(self._order), data, via, to))

    def _deliver(self) -> None:
        """Send what is due, and wake up for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._loop.time()
        by_socket: dict[UdpSocket, list[tuple[bytes, Address]]] = {}
        while self._queue and self._queue[0][0] <= now:
            _, _, data, via, to = heapq.heappop(self._queue)
            if via is self._front or via in self._back.values():
                by_socket.setdefault(via, []).append((data, to))
        for via, batch in by_socket.items():
            sent = via.send_batch(batch)
            self.forwarded += sent
            self.lost += len(batch) - sent
        if self._queue:
            self._timer = self._loop.call_at(self._queue[0][0], self._deliver)

    def _discard(self, sock: UdpSocket) -> None:
        self._loop.remove_reader(sock.fileno())
        sock.close()
