"""The machine's addresses, watched, and an endpoint that follows them.

On Linux a route socket tells of every change; elsewhere, and where a sandbox refuses one, the list is looked
at every `limits.INTERFACES_POLL_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections import Counter
from collections.abc import Callable

from fabric import interfaces, limits, netlink
from fabric.io.endpoint import Endpoint
from fabric.io.engines import Address
from fabric.io.udp import SocketError

_log = logging.getLogger(__name__)

_NETLINK_ROUTE = 0
_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_READ_BYTES = 64 << 10


def machine_addresses() -> frozenset[str]:
    """The addresses of the machine's running links, in their canonical text, loopback included."""
    try:
        with _route_socket(0) as asking:
            asking.settimeout(limits.INTERFACES_ANSWER_S)
            links = {netlink.running_link(one) for one in _dump(asking, netlink.RTM_GETLINK)}
            found = [netlink.address(one) for one in _dump(asking, netlink.RTM_GETADDR)]
    except OSError:
        return _resolved_addresses()
    return frozenset(one[1] for one in found if one is not None and one[0] in links)


class InterfaceWatch:
    """Calls `on_seen` with the machine's addresses whenever they may have changed."""

    def __init__(self, on_seen: Callable[[frozenset[str]], None]) -> None:
        self._on_seen = on_seen
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._socket: socket.socket | None = None
        try:
            self._socket = _route_socket(_GROUPS)
        except OSError as error:
            _log.info("no route socket here (%s): addresses are looked at now and then", error)
            self._poll()
            return
        self._socket.setblocking(False)
        self._loop.add_reader(self._socket.fileno(), self._on_readable)

    def close(self) -> None:
        """Stop watching. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None and self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _on_readable(self) -> None:
        """One look for whatever came, so that a storm of messages costs no more than its first."""
        if self._socket is not None and _changed(self._socket):
            self._on_seen(machine_addresses())

    def _poll(self) -> None:
        self._on_seen(machine_addresses())
        self._timer = self._loop.call_later(limits.INTERFACES_POLL_S, self._poll)


class Follower:
    """Binds and leaves addresses of an endpoint as `fabric.interfaces` says."""

    def __init__(
        self,
        endpoint: Endpoint,
        rule: interfaces.Rule,
        bound: dict[str, Address],
        on_changed: Callable[[], None],
    ) -> None:
        """`bound`: what the endpoint has bound already, by the rule's host. `on_changed` is called when the
        node became reachable elsewhere than before.
        """
        self.counters: Counter[str] = Counter()
        """Addresses `bound`, `refused`, `gone`; sessions that `moved`; `changed` ways to reach the node."""
        self._endpoint = endpoint
        self._rule = rule
        self._bound = bound
        self._on_changed = on_changed
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._machine = interfaces.Interfaces(rule, set(bound), machine_addresses())
        self._watch = InterfaceWatch(self._seen)
        self._handle(interfaces.Timer())  # what the rule wants and is not bound yet

    def reachable(self) -> tuple[tuple[str, int], ...]:
        """Hosts and ports where others may try the node."""
        found: dict[tuple[str, int], None] = {}
        for host in self._machine.reachable():
            at = self._bound.get(host)
            if at is not None:
                found[str(at[0]), int(at[1])] = None
            else:
                ports = [int(one[1]) for name, one in self._bound.items() if interfaces.covers(name, host)]
                found |= dict.fromkeys((host, port) for port in ports)
        return tuple(found)

    def close(self) -> None:
        """Stop following. Idempotent."""
        self._watch.close()
        if self._timer is not None:
            self._timer.cancel()

    def _seen(self, present: frozenset[str]) -> None:
        self._handle(interfaces.Seen(present))

    def _handle(self, event: interfaces.Event) -> None:
        now = self._loop.time()
        for effect in self._machine.handle(now, event):
            match effect:
                case interfaces.Add():
                    self._add(now, effect.host)
                case interfaces.Drop():
                    _log.info("the address %s is gone", effect.host)
                    self.counters["gone"] += 1
                    self._endpoint.drop_address(self._bound.pop(effect.host))
                case interfaces.Moved():
                    self.counters["moved"] += 1
                    self._endpoint.moved()
                case interfaces.Changed():
                    self.counters["changed"] += 1
                    self._on_changed()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self._machine.deadline()
        if at is not None:
            self._timer = self._loop.call_at(at, self._handle, interfaces.Timer())

    def _add(self, now: float, host: str) -> None:
        try:
            self._bound[host] = self._endpoint.add_address(host, self._rule.port(host))
        except SocketError as error:
            _log.info("%s", error)
            self.counters["refused"] += 1
            self._machine.handle(now, interfaces.Refused(host))
        else:
            self.counters["bound"] += 1
            _log.info("bound to %s port %d", host, self._bound[host][1])


def _route_socket(groups: int) -> socket.socket:
    """A route socket that hears of `groups`; OSError where there is none."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
    made = socket.socket(family, socket.SOCK_RAW, _NETLINK_ROUTE)
    try:
        made.bind((0, groups))
    except BaseException:
        made.close()
        raise
    return made


def _dump(asking: socket.socket, kind: int) -> list[netlink.Message]:
    """All links or addresses; OSError when the kernel refuses or does not answer in time."""
    asking.send(netlink.dump_request(kind))
    found: list[netlink.Message] = []
    while True:
        for message in netlink.messages(asking.recv(_READ_BYTES)):
            if message.kind == netlink.NLMSG_DONE:
                return found
            if message.kind == netlink.NLMSG_ERROR:
                raise OSError(errno.EPROTO, "the route socket refuses")
            found.append(message)


def _changed(watching: socket.socket) -> bool:
    """Read what waits; whether any of it says that addresses changed. Lost messages count as such."""
    changed = False
    while True:
        try:
            data = watching.recv(_READ_BYTES)
        except BlockingIOError:
            return changed
        except OSError:
            return True  # ENOBUFS: more came than fitted
        changed |= any(message.kind in netlink.CHANGES for message in netlink.messages(data))


def _resolved_addresses() -> frozenset[str]:
    """What the system's own name resolves to, and where datagrams would leave from: no list, but what can be
    known without one.
    """
    found: set[str] = set()
    with contextlib.suppress(OSError):
        found |= {str(one[4][0]) for one in socket.getaddrinfo(socket.gethostname(), None)}
    for family, far in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((far, 9))  # chooses a route and sends nothing
            found.add(str(asking.getsockname()[0]))
    return frozenset(found)
