"""The daemon's own part: what it does around a node that it starts and ends."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fabric.cli import run


class OneNode:
    """Stands for a node: its start builds something, and somebody asks it to end as soon as it is ready."""

    node_id = "n"
    address = "quic://127.0.0.1:1"
    done: list[str]
    state: list[list[int]]

    def __init__(self, *_: Any) -> None:
        self.done = OneNode.done = []

    async def start(self) -> None:
        OneNode.state = [[number] for number in range(1_000)]
        self.done.append("started")

    async def close(self) -> None:
        self.done.append("closed")


class NoAdmin:
    """Stands for its admin socket."""

    def __init__(self, *_: Any) -> None:
        self.done = OneNode.done

    async def start(self) -> None:
        self.done.append("admin started")

    async def close(self) -> None:
        self.done.append("admin closed")


def test_what_the_start_built_is_out_of_the_collectors_sight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[bool] = []

    def freeze() -> None:
        real()
        seen.append(any(one is OneNode.state for one in gc.get_objects()))
        os.kill(os.getpid(), signal.SIGTERM)

    real = gc.freeze
    monkeypatch.setattr(run.gc, "freeze", freeze)
    monkeypatch.setattr(run, "Node", OneNode)
    monkeypatch.setattr(run, "AdminServer", NoAdmin)
    config: Any = SimpleNamespace(admin_socket=Path("unused"), metrics_listen=None)
    try:
        asyncio.run(run.run_node(config, None))  # type: ignore[arg-type]  # the node is not one either
    finally:
        gc.unfreeze()
    assert seen == [False]
    assert any(one is OneNode.state for one in gc.get_objects())  # which it was before
    assert OneNode.done == ["admin started", "started", "admin closed", "closed"]
    assert '"ready": true' in capsys.readouterr().out


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """A logger of the daemon; what a test sets up for it is gone afterwards."""
    loggers = [logging.getLogger(name) for name in ("", "fabric", "statelog", "projections")]
    before = [(one, one.level, one.handlers[:]) for one in loggers]
    yield logging.getLogger("fabric.services.io.logsync")
    for one, level, handlers in before:
        one.setLevel(level)
        one.handlers[:] = handlers


def test_what_a_peer_says_is_one_line_of_the_log_and_moves_no_terminal(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "no\x1b[2J\n2026-12-01T00:00:00.000Z INFO fabric all is well"
    for form in ("text", "json"):
        run.set_up_logging("info", form)
        log.info("node %s does not serve the log: %s", "ab12", hostile)
        (line,) = capsys.readouterr().err.splitlines()
        if form == "text":
            kept = r"no\x1b[2J\n2026-12-01T00:00:00.000Z INFO fabric all is well"
            assert line.endswith(f"Z INFO {log.name} node ab12 does not serve the log: {kept}")
        else:
            assert json.loads(line)["message"].endswith(hostile)


def test_a_traceback_has_lines_and_what_it_quotes_moves_no_terminal(
    log: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise ValueError("\x1b[2J")

    run.set_up_logging("error", "text")
    try:
        fail()
    except ValueError:
        log.exception("a service failed")
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.endswith("a service failed")
    assert last == r"ValueError: \x1b[2J"
