"""The bind addresses of an endpoint, which may come and go, and which of them a connection uses."""

from __future__ import annotations

import socket
from collections.abc import Callable

from fabric.io.connection import Connection
from fabric.io.engines import Address
from fabric.io.port import Datagrams, Port
from fabric.io.udp import SocketError, UdpSocket, source_towards


class Ports:
    """At least one port, and by which of them each connection sends."""

    def __init__(
        self,
        on_arrival: Callable[[Port, Datagrams], None],
        on_room: Callable[[], None],
        on_error: Callable[[], None],
        on_unreachable: Callable[[Address, str | int], None],
    ) -> None:
        """See `Port`."""
        self._callbacks = on_arrival, on_room, on_error, on_unreachable
        self._ports: list[Port] = []
        self._via: dict[Connection, Port] = {}

    @property
    def addresses(self) -> list[Address]:
        """Where the sockets are bound, the first one first."""
        return [port.local_address for port in self._ports]

    def add(self, udp: UdpSocket) -> Port:
        """Listen on one more socket."""
        port = Port(udp, *self._callbacks)
        self._ports.append(port)
        return port

    def remove(self, address: Address) -> tuple[list[Connection], list[Connection]]:
        """Close the socket bound to `address`; returns its connections: those that moved, and the stranded.

        A dialer goes on from another address of the same family. An accepted connection cannot: its peer
        takes nothing from an address that it did not dial.
        """
        port = next((port for port in self._ports if port.local_address == address), None)
        if port is None:
            return [], []
        self._ports.remove(port)
        port.close()
        moved: list[Connection] = []
        stranded: list[Connection] = []
        for connection in [one for one, via in self._via.items() if via is port]:
            other = self._towards(port.udp.family, connection.remote)
            if connection.is_dialer and other is not None:
                self._via[connection] = other
                moved.append(connection)
            else:
                del self._via[connection]
                stranded.append(connection)
        return moved, stranded

    async def resolve(self, host: str, number: int) -> tuple[Port, Address]:
        """A port to dial `host` from, and the peer's address for it; `SocketError` `no_address`."""
        reasons = []
        firsts: dict[socket.AddressFamily, Port] = {}
        for port in self._ports:
            firsts.setdefault(port.udp.family, port)
        for family, first in firsts.items():
            try:
                address = await first.udp.resolve(host, number)
            except SocketError as error:
                reasons.append(str(error))
                continue
            best = self._towards(family, address)  # the ports may have changed meanwhile
            if best is not None:
                return best, address
        raise SocketError("no_address", "; ".join(reasons) or f"{host}: no socket is bound")

    def attach(self, connection: Connection, port: Port) -> None:
        """The connection sends by this port."""
        self._via[connection] = port

    def detach(self, connection: Connection) -> None:
        """The connection sends nothing more."""
        self._via.pop(connection, None)

    def via(self, connection: Connection) -> Port | None:
        """The port by which a connection sends; None when its address is gone."""
        return self._via.get(connection)

    def close(self) -> None:
        """Close every socket."""
        for port in self._ports:
            port.close()
        self._ports.clear()
        self._via.clear()

    def _towards(self, family: socket.AddressFamily, address: Address) -> Port | None:
        """Of the ports of a family, the one that the system itself would send from; else the first."""
        ports = [port for port in self._ports if port.udp.family == family]
        if len(ports) > 1:
            source = source_towards(family, address)
            ports.sort(key=lambda port: port.local_address[0] != source)
        return ports[0] if ports else None
