"""Dials under way: whoever wants a session with the same node at the same address waits for the same dial."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fabric import limits
from fabric.errors import FabricError

if TYPE_CHECKING:
    from fabric.io.connection import Connection
    from fabric.io.endpoint import Endpoint

_log = logging.getLogger(__name__)

_Key = tuple[str, str, str | None]


class Dials:
    """One dial a node and address at a time: hundreds of streams that lost one session ask for one."""

    def __init__(self) -> None:
        self._running: dict[_Key, asyncio.Task[Connection]] = {}

    async def dial(
        self, endpoint: Endpoint, address: str, *, node_id: str, pin: str | None = None
    ) -> Connection:
        """As `Endpoint.dial` within `DIAL_TIMEOUT_S`. It goes on when the caller is cancelled, since others
        may wait for it.
        """
        key = (node_id, address, pin)
        task = self._running.get(key)
        if task is None:
            task = asyncio.get_running_loop().create_task(
                endpoint.dial(address, pin=pin, node_id=node_id, timeout_s=limits.DIAL_TIMEOUT_S),
                name=f"dial {address}",
            )
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):  # by `aclose`
                raise FabricError("carrier_closed", f"the dial of {address} was given up") from None
            raise

    async def aclose(self) -> None:
        """Give up what is under way."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _ended(self, key: _Key, task: asyncio.Task[Connection]) -> None:
        del self._running[key]
        # Perhaps nobody waits any more; what is no answer of the network must be seen all the same.
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, FabricError):
            _log.error("a dial failed", exc_info=error)
