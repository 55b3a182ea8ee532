"""What the farm's nodes say and are told, over their admin sockets. Waiting is for their word."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fabric.io.admin import AdminClient, AdminError
from fabric.io.config import SOCKET_NAME

Status = dict[str, Any]
Condition = Callable[[Status], bool]


class NotYetError(Exception):
    """Some nodes did not come to where they were awaited in time; `names` says which."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(", ".join(names))
        self.names = names


def call(folder: Path, do: str, **fields: Any) -> dict[str, Any]:
    """One admin command to the daemon in `folder`. Raises `AdminError`."""

    async def ask() -> dict[str, Any]:
        async with AdminClient(folder / SOCKET_NAME) as client:
            return await client.call(do, **fields)

    return asyncio.run(ask())


def await_status(folders: dict[str, Path], condition: Condition, timeout_s: float) -> None:
    """Return when every daemon's status meets the condition. Raises `NotYetError`."""
    asyncio.run(_await_all(folders, condition, timeout_s))


async def _await_all(folders: dict[str, Path], condition: Condition, timeout_s: float) -> None:
    tasks = {name: asyncio.create_task(_await_one(path, condition)) for name, path in folders.items()}
    _, late = await asyncio.wait(tasks.values(), timeout=timeout_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    names = [name for name, task in tasks.items() if task in late]
    if names:
        raise NotYetError(names)
    for task in tasks.values():
        task.result()


async def _await_one(folder: Path, condition: Condition) -> None:
    async with AdminClient(folder / SOCKET_NAME) as client:
        version = -1
        while True:
            version = (await client.call("wait", version=version))["version"]
            if condition(await client.call("status")):
                return


def deliver(folder: Path, record: bytes) -> dict[str, Any]:
    """Hand a record to one node. Raises `AdminError` with the finding code of a refusal."""
    return call(folder, "deliver", record=base64.b64encode(record).decode())


def refusal_of(folder: Path, do: str, **fields: Any) -> str:
    """The code with which a command is refused, or "accepted"."""
    try:
        call(folder, do, **fields)
    except AdminError as error:
        return error.code
    return "accepted"


def view_of(status: Status, service: str) -> dict[str, Any]:
    """The registry's view of a cluster service in a status."""
    empty: dict[str, Any] = {"active": None, "fallback": [], "candidate": []}
    return next((one for one in status["registry"] if one["service"] == service), empty)


def relayed_bytes(status: Status, route_id: str) -> dict[str, int]:
    """Bytes that a relay counted on a route, by class, both directions."""
    found: dict[str, int] = {}
    for row in status["relay"]:
        if row["route_id"] == route_id:
            found[row["class"]] = found.get(row["class"], 0) + row["bytes_forward"] + row["bytes_back"]
    return found


def positions(statuses: Iterable[tuple[str, Status]], service: str) -> dict[str, Any]:
    """Where each node stands: the size and root of its final log, and its active record."""
    return {
        name: [status["log"]["final_size"], status["log"]["final_root"], view_of(status, service)["active"]]
        for name, status in statuses
    }
