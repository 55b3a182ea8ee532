"""Long-running commands: the daemon and a forwarded port, their signals and their log."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
from pathlib import Path

from fabric.errors import FabricError
from fabric.identity import NodeIdentity
from fabric.io.admin import AdminClient, AdminServer
from fabric.io.config import ConfigError, NodeConfig, parse_listen
from fabric.io.metrics import CONTENT_TYPE, metrics_text
from fabric.io.metricsport import MetricsPort
from fabric.io.node import Node
from statelog.cli.common import LogLines

_log = logging.getLogger(__name__)

LEVELS = {name: getattr(logging, name.upper()) for name in ("debug", "info", "warning", "error")}


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        body = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["error"] = self.formatException(record.exc_info)
        return json.dumps(body)


def set_up_logging(level: str, form: str) -> None:
    """Log to stderr. Raises ConfigError for a level or form that is not known."""
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r}: one of {', '.join(LEVELS)}")
    if form not in ("text", "json"):
        raise ConfigError(f"log format {form!r}: text or json")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if form == "json" else LogLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for package in ("fabric", "statelog", "projections"):
        logging.getLogger(package).setLevel(LEVELS[level])


async def run_node(config: NodeConfig, identity: NodeIdentity) -> None:
    """The daemon, until SIGTERM or SIGINT. Raises FabricError when it cannot start."""
    stop = _stop_on_signals()
    node = Node(config, identity)
    admin = AdminServer(node, config.admin_socket)
    await admin.start()
    try:
        await node.start()
    except BaseException:
        await admin.close()
        raise
    metrics = None
    try:
        metrics = await _serve_metrics(config, node)
        _set_aside_what_lives()
        print(json.dumps({"ready": True, "node_id": node.node_id, "address": node.address}), flush=True)
        await stop.wait()
    finally:  # also when nobody can be told that it is ready
        if metrics is not None:
            await metrics.close()
        await admin.close()
        await node.close()


def _set_aside_what_lives() -> None:
    """Take what the start has built out of the garbage collector's sight.

    It lives as long as the process does or until its last reference goes, and most of it is the state of the
    log: walking that of 10,000 subjects takes a tenth of a second, in which no packet moves.
    """
    gc.collect()
    gc.freeze()


async def _serve_metrics(config: NodeConfig, node: Node) -> MetricsPort | None:
    """The HTTP port for metrics, where node.toml asks for one. Without it the node is as good as with it."""
    if config.metrics_listen is None:
        return None
    host, port = parse_listen(config.metrics_listen)
    metrics = MetricsPort(host, port, lambda: metrics_text(node), CONTENT_TYPE)
    try:
        await metrics.start()
    except FabricError as error:
        _log.error("%s", error)
        return None
    _log.info("metrics are at http://%s:%d/metrics", host, metrics.port)
    return metrics


async def run_forward(socket: Path, port: int, service: str, traffic_class: str) -> None:
    """Hold a forwarded port open, until a signal or the end of the daemon. Raises AdminError."""
    stop = _stop_on_signals()
    async with AdminClient(socket) as client:
        opened = await client.call("forward", port=port, service=service, **{"class": traffic_class})
        print(json.dumps({"ready": True, **opened}), flush=True)
        tasks = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(client.gone())]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    if not stop.is_set():
        raise ConfigError("the daemon has gone, and the port with it")


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop
