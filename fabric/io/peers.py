"""Shell of `fabric.peering`: dials what the machine says, and tells it and the node what became of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from fabric import peering
from fabric.errors import FabricError
from fabric.io.connection import Connection
from fabric.io.dials import Dials
from fabric.io.endpoint import Endpoint
from fabric.peering import Address

_log = logging.getLogger(__name__)


class Peers:
    """The sessions of a node. `on_up` and `on_down` see each neighbour's session come and go.

    Two sessions with one neighbour may overlap while one of them drains; the neighbour is down when the last
    has ended.
    """

    def __init__(
        self,
        machine: peering.Peering,
        clock: Callable[[], float],
        on_up: Callable[[Connection], None],
        on_down: Callable[[Connection, bool], None],
        is_barred: Callable[[str], bool],
    ) -> None:
        self.machine = machine
        self.endpoint: Endpoint
        self._clock = clock
        self._on_up = on_up
        self._on_down = on_down
        self._is_barred = is_barred
        self._dials = Dials()
        self._sessions: dict[str, list[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def handle(self, event: peering.Event) -> None:
        """Give the machine an event and perform what it answers."""
        if self._closing:
            return
        for effect in self.machine.handle(self._clock(), event):
            if isinstance(effect, peering.Dial):
                task = asyncio.get_running_loop().create_task(self._dial(effect))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                self.hang_up(effect.node_id, effect.reason)
        self._arm()

    def on_connection(self, connection: Connection) -> None:
        """For `Endpoint`: a session is ready, dialed or accepted."""
        node_id = connection.peer_node_id
        if self._closing or self._is_barred(node_id):
            connection.close("revoked")
            return
        self._sessions.setdefault(node_id, []).append(connection)
        connection.closed.add_done_callback(lambda _: self._closed(connection))
        self.handle(peering.Connected(node_id))
        self._on_up(connection)

    def sessions(self) -> dict[str, Connection]:
        """The session in use with each neighbour."""
        found = {node_id: self.endpoint.connection_to(node_id) for node_id in self._sessions}
        return {node_id: connection for node_id, connection in found.items() if connection is not None}

    def hang_up(self, node_id: str, code: str) -> None:
        """End every session with a node at once."""
        for connection in list(self._sessions.get(node_id, ())):
            connection.close(code)

    async def session(self, node_id: str, first: tuple[Address, ...] = ()) -> Connection:
        """A session with a node: the one there is, or a new one to the first of its addresses that answers.

        `first` are addresses to try before those already known. Raises FabricError: `no_address_known`, or
        why the last address failed.
        """
        connection = self.endpoint.connection_to(node_id)
        if connection is not None:
            return connection
        if self._is_barred(node_id):
            raise FabricError("revoked", f"node {node_id} is revoked")
        failure = FabricError("no_address_known", f"no address of node {node_id} is known here")
        for address in dict.fromkeys((*first, *self.machine.addresses(node_id))):
            try:
                return await self._dials.dial(
                    self.endpoint, address.address, pin=address.cert_sha256, node_id=node_id
                )
            except FabricError as error:
                failure = error
        raise failure

    async def close(self) -> None:
        """Stop dialing. The endpoint closes the sessions."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._dials.aclose()

    async def _dial(self, effect: peering.Dial) -> None:
        address = effect.address
        try:
            await self._dials.dial(
                self.endpoint, address.address, pin=address.cert_sha256, node_id=effect.node_id
            )
        except FabricError as error:
            _log.info("node %s at %s: %s", effect.node_id[:12], address.address, error)
            self.handle(peering.DialFailed(effect.node_id, address.address, error.code))

    def _closed(self, connection: Connection) -> None:
        node_id = connection.peer_node_id
        remaining = self._sessions.get(node_id, [])
        if connection in remaining:
            remaining.remove(connection)
        if not remaining:
            self._sessions.pop(node_id, None)
            self.handle(peering.Disconnected(node_id))
        self._on_down(connection, not remaining)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        at = self.machine.deadline()
        if at is not None:
            delay = max(0.0, at - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self.handle, peering.Timer())
