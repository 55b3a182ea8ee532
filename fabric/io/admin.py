"""The local admin socket: commands of the `fabric` tool to the running daemon, one JSON object a line.

    {"do": "status"}                        -> {"ok": true, "result": {…}}
    {"do": "deliver", "record": "<base64>"} -> {"ok": false, "error": {"code": "SL-QUORUM", "sentence": "…"}}

A Unix socket in the node's folder, mode 0600: who may open it may command the node. What a connection asked
to keep open (a forwarded port) lives as long as the connection.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from statistics import pstdev
from typing import Any, Self

from fabric import limits
from fabric.classes import CLASS_NAMES, TrafficClass
from fabric.errors import FabricError
from fabric.heartbeat import heartbeat
from fabric.io.metrics import CONTENT_TYPE, metrics_text
from fabric.io.node import Node
from fabric.io.smoke import Smoke
from fabric.io.status import status, versions
from fabric.services.io.forward import LocalPort
from statelog.errors import StatelogError

_log = logging.getLogger(__name__)

MAX_SOCKET_PATH_BYTES = 107

Request = dict[str, Any]
Result = dict[str, Any]


class AdminError(FabricError):
    """A command cannot be done. `code` is stable: `bad_request`, `not_running`, `not_permitted` (the socket
    is another user's), or the cause's own.
    """


class AdminServer:
    """Serves the socket at `path`."""

    def __init__(self, node: Node, path: Path) -> None:
        self._node = node
        self._path = path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._commands: dict[str, Callable[[Request, list[LocalPort]], Awaitable[Result]]] = {
            "status": self._status,
            "wait": self._wait,
            "ping": self._ping,
            "deliver": self._deliver,
            "forward": self._forward,
            "open-test": self._open_test,
            "smoke": self._smoke,
            "metrics": self._metrics,
            "heartbeat": self._heartbeat,
        }

    async def start(self) -> None:
        """Raises AdminError when the socket cannot be made, or another daemon answers there, or may."""
        await self._require_free()
        try:
            self._path.unlink(missing_ok=True)
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            old = os.umask(0o177)
            try:
                with _reachable(self._path) as path:
                    sock.bind(path)
            finally:
                os.umask(old)
            self._server = await asyncio.start_unix_server(
                self._accepted, sock=sock, limit=limits.ADMIN_LINE_BYTES
            )
        except OSError as error:
            raise AdminError("bad_config", f"{self._path}: {error.strerror or error}") from error

    async def _require_free(self) -> None:
        try:
            async with AdminClient(self._path):
                pass
        except AdminError as error:
            if error.code == "not_running":
                return
            raise
        raise AdminError("already_running", f"another daemon serves {self._path.parent}")

    async def close(self) -> None:
        """End every admin connection, with what it kept open, and remove the socket."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ports: list[LocalPort] = []
        try:
            while line := await reader.readline():
                answer = await self._answer(line, ports)
                data = json.dumps(answer).encode() + b"\n"
                if len(data) > limits.ADMIN_ANSWER_BYTES:
                    sentence = f"the answer has {len(data)} bytes of at most {limits.ADMIN_ANSWER_BYTES}"
                    data = json.dumps(_error("too_large", sentence)).encode() + b"\n"
                writer.write(data)
                await writer.drain()
        except (OSError, ValueError) as error:
            _log.info("an admin connection ended: %s", error)
        finally:
            for port in ports:
                await port.close()
            writer.close()

    async def _answer(self, line: bytes, ports: list[LocalPort]) -> Result:
        try:
            request = json.loads(line)
            command = self._commands[request["do"]]
        except (ValueError, KeyError, TypeError):
            return _error("bad_request", f"commands are {', '.join(self._commands)}")
        try:
            return {"ok": True, "result": await command(request, ports)}
        except FabricError as error:
            return _error(error.code, error.sentence)
        except StatelogError as error:
            return _error("store", str(error))
        except (ValueError, TypeError) as error:
            return _error("bad_request", str(error))

    # -- commands --------------------------------------------------------------------------------------------

    async def _status(self, request: Request, ports: list[LocalPort]) -> Result:
        del request, ports
        return status(self._node)

    async def _metrics(self, request: Request, ports: list[LocalPort]) -> Result:
        """Prometheus text."""
        del request, ports
        return {"content_type": CONTENT_TYPE, "text": metrics_text(self._node)}

    async def _heartbeat(self, request: Request, ports: list[LocalPort]) -> Result:
        del request, ports
        return heartbeat(status(self._node), at=self._node.clock(), versions=versions())

    async def _wait(self, request: Request, ports: list[LocalPort]) -> Result:
        """Return once what the node knows is newer than `version`; ask with -1 for the present version."""
        del ports
        return {"version": await self._node.changed.beyond(int(request.get("version", -1)))}

    async def _ping(self, request: Request, ports: list[LocalPort]) -> Result:
        """`peer`: a node id, the beginning of one, or a display name; or `service`: from end to end, by the
        route that a stream to it takes. `count` times.
        """
        del ports
        count = int(request.get("count", 1))
        if not 1 <= count <= limits.PING_COUNT:
            raise AdminError("bad_request", f"count {count}: from 1 to {limits.PING_COUNT}")
        if request.get("service"):
            stream = await self._node.reach.open(str(request["service"]), TrafficClass.INTERACTIVE)
            route = None if stream.route is None else stream.route.route_id
            try:
                found = await _times(stream.ping, count)
            finally:
                stream.reset("cancelled", "pinged")
            return {**found, "node_id": stream.peer_node_id, "end_to_end": True, "route_id": route}
        node_id = self._resolve(str(request.get("peer", "")))
        try:
            async with asyncio.timeout(limits.DIAL_TIMEOUT_S + limits.OPEN_TIMEOUT_S):
                connection = await self._node.peers.session(node_id)
        except TimeoutError:
            raise AdminError("timeout", f"node {node_id} does not answer") from None
        found = await _times(connection.ping, count)
        return {**found, "node_id": node_id, "end_to_end": False, "remote": str(connection.remote[0])}

    async def _smoke(self, request: Request, ports: list[LocalPort]) -> Result:
        """A smoke run against `peer`, or a neighbour if none is named; `kill` it too unless told not to."""
        del ports
        name = str(request.get("peer") or "")
        peer = self._resolve(name) if name else next(iter(sorted(self._node.peers.sessions())), "")
        if not peer or peer == self._node.node_id:
            raise AdminError("unknown_node", "name another node to smoke-test with: fabric smoke PEER")
        return await Smoke(self._node, peer).run(kill=bool(request.get("kill", True)))

    async def _deliver(self, request: Request, ports: list[LocalPort]) -> Result:
        del ports
        try:
            data = base64.b64decode(str(request.get("record", "")), validate=True)
        except binascii.Error as error:
            raise AdminError("bad_request", f"record is not base64: {error}") from error
        judgement = await self._node.desk.deliver(data)
        if judgement.refusal is not None:
            code = judgement.refusal.code
            raise AdminError(code, judgement.sentence.removeprefix(code).removeprefix(": ").strip())
        return {"record_id": judgement.record_id, "kind": judgement.kind, "state": judgement.state}

    async def _forward(self, request: Request, ports: list[LocalPort]) -> Result:
        """A local TCP port that leads to a service while this admin connection lives."""
        service, traffic_class = str(request.get("service", "")), _class_of(request)

        async def open_service(name: str) -> Any:
            return await self._node.reach.open(name, traffic_class)

        port = LocalPort(service, open_service)
        await port.listen(int(request.get("port", 0)), str(request.get("host", "127.0.0.1")))
        ports.append(port)
        return {"service": service, "port": port.port}

    async def _open_test(self, request: Request, ports: list[LocalPort]) -> Result:
        """Open a stream, over one route if `route` names it, and close it: does the way work, if not, why?"""
        del ports
        service, traffic_class = str(request.get("service", "")), _class_of(request)
        route_id = request.get("route")
        reach = self._node.reach
        if route_id is None:
            stream = await reach.open(service, traffic_class)
        else:
            hops = tuple(self._resolve(str(hop)) for hop in request.get("hops", ()))
            stream = await reach.open_route(service, str(route_id), hops, traffic_class)
        route, peer = stream.route, stream.peer_node_id
        stream.reset("cancelled", "tested")
        return {"service": service, "peer": peer, "route_id": None if route is None else route.route_id}

    def _resolve(self, name: str) -> str:
        """A node id from an id, the beginning of one, or a display name. Raises AdminError unknown_node."""
        node = self._node
        known = {*node.snapshot.nodes, *node.peers.sessions(), node.node_id}
        named = [one.node_id for one in node.snapshot.nodes.values() if one.display_name == name]
        if name in known:
            return name
        found = named or [node_id for node_id in known if name and node_id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if len(name) == 64:  # a whole id that nobody here has heard of may still be dialed by seed
            return name
        sentence = "no node has that name or id" if not found else "several nodes have that name"
        raise AdminError("unknown_node", f"{name!r}: {sentence}")


class AdminClient:
    """One connection to a running daemon. Use as an async context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def __aenter__(self) -> Self:
        try:
            with _reachable(self._path) as path:
                self._reader, self._writer = await asyncio.open_unix_connection(
                    path, limit=limits.ADMIN_ANSWER_BYTES
                )
        except PermissionError as error:
            sentence = (
                f"{self._path} may be opened by the node's user and root alone; run this as one of them"
            )
            raise AdminError("not_permitted", sentence) from error
        except OSError as error:
            folder = self._path.parent
            sentence = f"no daemon runs in {folder}; start it: fabric node run --dir {folder}"
            raise AdminError("not_running", sentence) from error
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def call(self, do: str, **fields: Any) -> Result:
        """The command's result. Raises AdminError with the daemon's code and sentence; `not_running` when it
        goes away before it has answered, `bad_answer` when what it says is no answer.
        """
        try:
            self._writer.write(json.dumps({"do": do, **fields}).encode() + b"\n")
            await self._writer.drain()
            line = await self._reader.readline()
        except OSError as error:
            raise AdminError("not_running", f"the daemon has gone: {error.strerror or error}") from error
        except ValueError as error:  # the reader's limit
            raise AdminError("bad_answer", f"more than {limits.ADMIN_ANSWER_BYTES} bytes") from error
        if not line.endswith(b"\n"):
            raise AdminError("not_running", "the daemon has gone")
        try:
            answer = json.loads(line)
            if answer["ok"]:
                return dict(answer["result"])
            code, sentence = str(answer["error"]["code"]), str(answer["error"]["sentence"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise AdminError("bad_answer", "the daemon's answer is not one of this version") from error
        raise AdminError(code, sentence)

    async def gone(self) -> None:
        """Return when the daemon has closed the connection."""
        await self._reader.read()


async def _times(ping: Callable[[], Awaitable[float]], count: int) -> Result:
    """`count` round trips one after the other, and what they have in common."""
    times: list[float] = []
    for _ in range(count):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limits.OPEN_TIMEOUT_S):
                times.append(await ping() * 1000)
    if not times:
        raise AdminError("timeout", "no ping was answered")
    return {
        "schema": "fabric.ping.v1",
        "rtt_ms": round(times[-1], 3),
        "sent": count,
        "answered": len(times),
        "min_ms": round(min(times), 3),
        "avg_ms": round(sum(times) / len(times), 3),
        "max_ms": round(max(times), 3),
        "stddev_ms": round(pstdev(times), 3),
    }


def _class_of(request: Request) -> TrafficClass:
    name = str(request.get("class", "reliable"))
    if name not in CLASS_NAMES:
        raise AdminError("bad_request", f"class {name!r}: one of {', '.join(CLASS_NAMES)}")
    return CLASS_NAMES[name]


def _error(code: str, sentence: str) -> Result:
    return {"ok": False, "error": {"code": code, "sentence": sentence}}


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """An address of the socket that the kernel takes: it bounds one to 108 bytes, and folders may be deep."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
