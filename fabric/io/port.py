"""One bind address of an endpoint: its socket, and what waits for room in it.

Datagrams are taken from the kernel as many as there are: its queue is one for all peers, and the endpoint can
give each its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fabric import limits
from fabric.io.engines import Address
from fabric.io.udp import UdpSocket

_log = logging.getLogger(__name__)

Datagrams = list[tuple[bytes, Address]]


class Port:
    """A socket in the event loop."""

    def __init__(
        self,
        udp: UdpSocket,
        on_arrival: Callable[[Port, Datagrams], None],
        on_room: Callable[[], None],
        on_error: Callable[[], None],
        on_unreachable: Callable[[Address, str | int], None],
    ) -> None:
        """`on_arrival` gets what arrived; `on_room` is called when a full socket takes datagrams again,
        `on_error` when receiving fails for a reason that is no peer's. `on_unreachable` gets the address that
        an ICMP error is about and what it says, see `UdpSocket.take_errors`.
        """
        self.udp = udp
        self._loop = asyncio.get_running_loop()
        self._on_arrival = on_arrival
        self._on_room = on_room
        self._on_error = on_error
        self._on_unreachable = on_unreachable
        self._backlog: Datagrams = []
        self._errors_at = self._loop.time()
        self._loop.add_reader(udp.fileno(), self._on_readable)

    @property
    def local_address(self) -> Address:
        """Where the socket is bound."""
        return self.udp.local_address

    @property
    def blocked(self) -> bool:
        """Whether the socket is full: nobody should be asked for more."""
        return bool(self._backlog)

    def send(self, datagrams: Datagrams) -> None:
        """Send, or keep for later what the socket does not take; past a bound it is lost, as on a wire."""
        if self._backlog:
            self._backlog += datagrams[: limits.ENDPOINT_SEND_QUEUE_DATAGRAMS - len(self._backlog)]
            return
        taken = self.udp.send_batch(datagrams)
        if taken < len(datagrams):
            self._backlog = datagrams[taken:]
            self._loop.add_writer(self.udp.fileno(), self._on_writable)

    def close(self) -> None:
        """Give the address back. Idempotent."""
        if self.udp.fileno() >= 0:
            self._loop.remove_reader(self.udp.fileno())
            self._loop.remove_writer(self.udp.fileno())
        self.udp.close()

    def _on_readable(self) -> None:
        try:
            arrived = self._read()
        except OSError:
            # Not an ICMP echo of some peer's, which the socket deals with: the machine itself is in need.
            _log.exception("the UDP socket at %s fails on receiving", self.local_address[0])
            self._on_error()
            return
        # Readable, and nothing to read: the error queue has something. It may have when datagrams come, too.
        now = self._loop.time()
        if not arrived or now >= self._errors_at:
            self._errors_at = now + limits.UDP_ERRORS_S
            for addr, reason in self.udp.take_errors():
                self._on_unreachable(addr, reason)
        if arrived:
            self._on_arrival(self, arrived)

    def _read(self) -> Datagrams:
        arrived = batch = self.udp.recv_batch()
        while len(batch) >= limits.UDP_DATAGRAMS_PER_TURN and len(arrived) < limits.UDP_READ_DATAGRAMS:
            batch = self.udp.recv_batch()
            arrived = arrived + batch
        return arrived

    def _on_writable(self) -> None:
        taken = self.udp.send_batch(self._backlog)
        del self._backlog[:taken]
        if not self._backlog:
            self._loop.remove_writer(self.udp.fileno())
            self._on_room()
