"""Child processes of the farm: awaited until ready, stopped in reverse order, never left behind."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

READY_TIMEOUT_S = 30.0  # a cold interpreter on a busy two-core machine imports for a few seconds
STOP_TIMEOUT_S = 10.0  # a daemon says GOAWAY, closes its sessions and its store


class ProcessError(Exception):
    """A child did not become ready, or ended by itself; the sentence carries the end of its log."""


@dataclass
class Child:
    """One running program: its name, its log file and what its ready line said."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    ready: dict[str, Any] = field(default_factory=dict)

    def stop(self) -> None:
        """SIGTERM, wait, and SIGKILL only when it does not end by itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def tail(self, lines: int = 12) -> str:
        """The last lines of its log, for an error a person can act on."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Processes:
    """Everything the farm started, by name. Leaving the context stops it all, newest first."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.children: dict[str, Child] = {}

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        for name in reversed(list(self.children)):
            self.stop(name)

    def start(self, name: str, *arguments: str) -> None:
        """Start `python -m arguments`; `await_ready` returns once it said that it is ready.

        The child gets its own process group, so that Ctrl-C reaches the farm alone, which then stops
        its children in order.
        """
        log = self.logs / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                start_new_session=True,
            )
        self.children[name] = Child(name, process, log)

    def await_ready(self) -> None:
        """Return once every child has printed its first line. Raises `ProcessError`."""
        for child in self.children.values():
            if not child.ready:
                child.ready = self._await_ready(child)

    def stop(self, name: str) -> None:
        """Stop one child; a name that is not running is no error."""
        child = self.children.pop(name, None)
        if child is not None:
            child.stop()

    def check(self) -> None:
        """Raise `ProcessError` when a child ended by itself."""
        for child in self.children.values():
            if (code := child.process.poll()) is not None:
                raise ProcessError(f"{child.name} ended by itself with exit code {code}\n{child.tail()}")

    def _await_ready(self, child: Child) -> dict[str, Any]:
        assert child.process.stdout is not None  # noqa: S101 - Popen was given PIPE above
        deadline = time.monotonic() + READY_TIMEOUT_S
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(child.process.stdout, selectors.EVENT_READ)
            while time.monotonic() < deadline:
                if not selector.select(deadline - time.monotonic()):
                    break
                chunk = os.read(child.process.stdout.fileno(), 65_536)
                received += chunk
                line, newline, _ = received.partition(b"\n")
                if newline:
                    return dict(json.loads(line)) if line.startswith(b"{") else {"said": line.decode()}
                if not chunk:
                    code = child.process.wait()
                    raise ProcessError(
                        f"{child.name} ended with exit code {code} before it was ready\n{child.tail()}"
                    )
        raise ProcessError(f"{child.name} was not ready within {READY_TIMEOUT_S:.0f} s\n{child.tail()}")
