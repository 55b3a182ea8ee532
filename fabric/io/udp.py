"""The one UDP socket of a bind address: batched, both ways, with the kernel's offloads where there are any.

One system call per datagram costs more than QUIC does, so datagrams move in batches: `recvmmsg` with GRO and
`sendmsg` with GSO through the socket state that the `qh3` library brings, or plain calls where it is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import struct
import sys
from typing import Any, Literal, cast

from fabric import limits
from fabric.errors import FabricError
from fabric.io.engines import Address

Batching = Literal["auto", "offload", "plain"]

_log = logging.getLogger(__name__)

_PLAIN_RECEIVE_BYTES = 65_535

# An ICMP error about one peer surfaces on the next call on the shared socket, whoever that call is for. What
# is too large for the interface itself looks alike, and stays so when it is tried again.
_ANOTHER_PEERS = frozenset(
    (
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EHOSTDOWN,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.EMSGSIZE,
    )
)
# What the kernel says when a segmented send does not fit this path or driver; single sends still may.
_NO_OFFLOAD = frozenset((errno.EIO, errno.EINVAL, errno.EOPNOTSUPP))
# The network stack's own queue is full: the datagram is lost, as on a wire.
_FULL_QUEUE = frozenset((errno.ENOBUFS, errno.ENOMEM))
_RETRIES = 3

# Linux only, and missing from Python's `socket`: linux/in.h, linux/in6.h, linux/errqueue.h.
_IP_RECVERR, _IPV6_RECVERR, _MSG_ERRQUEUE = 11, 25, 0x2000
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE, _IPV6_DONTFRAG = 10, 23, 3, 62
_EXTENDED_ERROR = struct.Struct("=IBBBBII")
_ORIGIN_ICMP = frozenset((2, 3))
_ERRORS_PER_TURN = 64
_QUOTED_BYTES = 64


_ERROR_LEVELS = frozenset(((socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)))
_UNREACHABLE = {
    errno.ECONNREFUSED: "connection_refused",
    errno.EHOSTUNREACH: "no_route_to_host",
    errno.ENETUNREACH: "no_route_to_host",
    errno.EHOSTDOWN: "no_route_to_host",
    errno.EACCES: "no_route_to_host",
}
"""What ICMP says of a peer, in the words of a stream's recovery reasons."""
_HEADERS = {socket.AF_INET: 20 + 8, socket.AF_INET6: 40 + 8}
"""Bytes of an IP packet before the UDP payload."""


class SocketError(FabricError):
    """The socket cannot be made or used so. Codes: `bind_failed`, `offload_missing`, `no_address`."""


class UdpSocket:
    """A bound, non-blocking UDP socket. One per bind address carries listening, dialing and probing."""

    def __init__(self, host: str, port: int, *, batching: Batching = "auto") -> None:
        """Bind to an IPv4 or IPv6 address (an IPv6 socket takes IPv6 alone); port 0 picks a free one.

        `batching`: "offload" asks for GRO/GSO and fails without, "plain" never uses them.
        """
        self.family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.socket(self.family, socket.SOCK_DGRAM)
        except OSError as error:  # no descriptors are left, or the family is missing
            raise SocketError("bind_failed", f"no UDP socket for {host}: {error.strerror}") from error
        try:
            self._socket.setblocking(False)
            if self.family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                # The kernel clamps silently; some refuse. Smaller buffers cost speed in bursts, nothing else.
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(socket.SOL_SOCKET, option, limits.UDP_SOCKET_BUFFER_BYTES)
            self._socket.bind((host, port))
            self._ask_for_errors()
            self.whole = self._forbid_fragments()
            """Whether nobody cuts a datagram into fragments: only then does a probe say anything."""
        except OSError as error:
            self._socket.close()
            raise SocketError(
                "bind_failed", f"cannot bind UDP {host} port {port}: {error.strerror}"
            ) from error
        except BaseException:
            self._socket.close()
            raise
        self.local_address = cast("Address", self._socket.getsockname())
        self._state = None if batching == "plain" else _load_offload(self._socket.fileno())
        if self._state is None and batching == "offload":
            self._socket.close()
            raise SocketError("offload_missing", "batched UDP with GRO/GSO is not available here")
        self.icmp_errors = 0
        self.datagrams_dropped = 0
        self._warned: set[int] = set()

    @property
    def offload(self) -> bool:
        """Whether batches go through GRO/GSO."""
        return self._state is not None

    def fileno(self) -> int:
        """For the event loop."""
        return self._socket.fileno()

    async def resolve(self, host: str, port: int) -> Address:
        """The address of a peer as this socket's family wants it; `SocketError` `no_address`."""
        with contextlib.suppress(OSError):
            socket.inet_pton(self.family, host)
            return (host, port) if self.family == socket.AF_INET else (host, port, 0, 0)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, family=self.family, type=socket.SOCK_DGRAM
            )
        except OSError as error:
            raise SocketError("no_address", f"{host}: {error}") from None
        return cast("Address", found[0][4])

    def recv_batch(self) -> list[tuple[bytes, Address]]:
        """What has arrived; empty when nothing has.

        Stops once `limits.UDP_DATAGRAMS_PER_TURN` datagrams are there; the last batch is taken whole, which
        with GRO may be 2,048 more.
        """
        received: list[tuple[bytes, Address]] = []
        attempts = 0
        while len(received) < limits.UDP_DATAGRAMS_PER_TURN:
            try:
                if self._state is not None:
                    batch = self._state.recv()
                    if not batch:
                        break
                    received += batch
                else:
                    received.append(self._socket.recvfrom(_PLAIN_RECEIVE_BYTES))
            except BlockingIOError:
                break
            except OSError as error:
                attempts += 1
                if error.errno not in _ANOTHER_PEERS or attempts > _RETRIES:
                    raise
                self.icmp_errors += 1
        return received

    def send_batch(self, datagrams: list[tuple[bytes, Address]]) -> int:
        """Send in order; the number taken. Fewer than given means the socket is full: wait until writable.

        A datagram that the network refuses for good (too large, no route) counts as taken and dropped: QUIC
        treats it as lost.
        """
        position = 0
        while position < len(datagrams):
            if self._state is None:
                wanted, taken = 1, self._send_one(*datagrams[position])
            else:
                group, addr = _same_address(datagrams, position)
                wanted, taken = len(group), self._send_group(group, addr)
            position += taken
            if taken < wanted:
                break
        return position

    def take_errors(self) -> list[tuple[Address, str | int]]:
        """Peers about which ICMP said that they cannot be reached, with the name of the error, or that the
        path to them carries UDP payloads of so many bytes at most.

        Anybody on the way may forge one; it is a hint and no proof. Empty where the system has no such queue.
        """
        found: list[tuple[Address, str | int]] = []
        if sys.platform != "linux":
            return found
        for _ in range(_ERRORS_PER_TURN):
            try:
                _, ancillary, _, addr = self._socket.recvmsg(
                    _QUOTED_BYTES, 512, _MSG_ERRQUEUE | socket.MSG_DONTWAIT
                )
            except OSError:
                break  # nothing more; whatever else is wrong shows on receiving
            for level, kind, data in ancillary:
                if (level, kind) not in _ERROR_LEVELS or len(data) < _EXTENDED_ERROR.size:
                    continue
                number, origin, _, _, _, info, _ = _EXTENDED_ERROR.unpack_from(data)
                if origin not in _ORIGIN_ICMP or not addr:
                    continue
                if number in _UNREACHABLE:
                    found.append((cast("Address", addr), _UNREACHABLE[number]))
                elif number == errno.EMSGSIZE:
                    found.append((cast("Address", addr), max(0, info - _HEADERS[self.family])))
        return found

    def close(self) -> None:
        """Give the address back."""
        self._state = None
        self._socket.close()

    def _ask_for_errors(self) -> None:
        """Have the kernel queue ICMP errors with the address they are about."""
        if sys.platform != "linux":
            return
        level, option = (
            (socket.IPPROTO_IPV6, _IPV6_RECVERR)
            if self.family == socket.AF_INET6
            else (socket.IPPROTO_IP, _IP_RECVERR)
        )
        self._socket.setsockopt(level, option, 1)

    def _forbid_fragments(self) -> bool:
        """Have larger datagrams than the way carries dropped, and no size believed that ICMP names."""
        if sys.platform != "linux":
            return False
        try:
            if self.family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
        except OSError as error:
            _log.warning("the path's datagram size is not searched for: %s", error.strerror)
            return False
        return True

    def _send_group(self, group: list[bytes], addr: Address) -> int:
        """Datagrams to one address; how many were taken. The state splits them into segmented sends."""
        sent = attempts = 0
        while sent < len(group):
            state = self._state
            if state is None or attempts > _RETRIES:
                # Offloads were given up on the way, or keep failing: finish one by one.
                if not self._send_one(group[sent], addr):
                    break
                sent += 1
                continue
            try:
                count = state.send(group[sent:] if sent else group, addr)
                if count == 0:
                    break
                sent += count
            except BlockingIOError as error:
                sent += getattr(error, "datagrams_sent", 0)
                break
            except OSError as error:
                attempts += 1
                sent += getattr(error, "datagrams_sent", 0)
                if error.errno in _ANOTHER_PEERS:
                    self.icmp_errors += 1
                elif error.errno in _NO_OFFLOAD and len(group) > 1:
                    state.disable_gso()
                else:
                    attempts = _RETRIES + 1
        return sent

    def _send_one(self, data: bytes, addr: Address) -> int:
        for _ in range(_RETRIES):
            try:
                self._socket.sendto(data, addr)
            except BlockingIOError:
                return 0
            except OSError as error:
                if error.errno in _ANOTHER_PEERS:
                    self.icmp_errors += 1
                    continue
                self._drop(error, addr)
                return 1
            else:
                return 1
        self.datagrams_dropped += 1
        return 1

    def _drop(self, error: OSError, addr: Address) -> None:
        self.datagrams_dropped += 1
        code = error.errno or 0
        if code not in self._warned and code not in _FULL_QUEUE:
            self._warned.add(code)
            _log.warning("datagrams to %s port %d are dropped: %s", addr[0], addr[1], error.strerror)


def source_towards(family: socket.AddressFamily, address: Address) -> str | None:
    """The address that the system's routes choose for datagrams to `address`; None without a route, or
    without a descriptor to ask by.
    """
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect(address)  # chooses a route and sends nothing
            return str(asking.getsockname()[0])
    except OSError:
        return None


def _same_address(datagrams: list[tuple[bytes, Address]], start: int) -> tuple[list[bytes], Address]:
    """The run of datagrams from `start` that go to one address."""
    rest = datagrams[start:] if start else datagrams
    payloads, addresses = zip(*rest, strict=True)
    addr = addresses[0]
    if addresses.count(addr) == len(addresses):  # nearly always
        return list(payloads), addr
    group = []
    for data, other in rest:
        if other is not addr and other != addr:
            break
        group.append(data)
    return group, addr


def _load_offload(fileno: int) -> Any:
    """qh3's socket state, or None where the library or the platform lacks it."""
    try:
        from qh3._hazmat import UdpSocketState  # noqa: PLC0415 - only where installed
    except ImportError:
        return None
    try:
        return UdpSocketState(fileno)
    except OSError:
        return None
