"""Sources of another's making, through every command that reads one: they answer otherwise when asked
again, hide a log, or never come to an end. A command shows what a steady source would have shown, or says no.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from statelog.cli import verify
from statelog.io import resources
from statelog.limits import MAX_NOTE_BYTES
from statelog.tiles import decode_logs
from tests.statelog.cli.conftest import Farm, Ran, Run
from tests.statelog.cli.test_partitions import LOG, Operator
from tests.support.tiles import read_folder
from tests.support.web import serving


@dataclass
class Source:
    """Files on the web; `lie(path, which request of it, bytes)` is what is sent instead."""

    files: dict[str, bytes]
    url: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    lie: Callable[[str, int, bytes | None], bytes | None] = lambda path, count, data: data
    piece_s: float = 0.0  # between two pieces of a body

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix("/")
        self.asked[path] += 1
        data = self.lie(path, self.asked[path], self.files.get(path))
        request.send_response(404 if data is None else 200)
        request.send_header("Content-Type", "application/octet-stream")
        request.send_header("Content-Length", str(len(data or b"")))
        request.end_headers()
        if not self.piece_s:
            request.wfile.write(data or b"")
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its reader has left, as it should
            for byte in data or b"":
                request.wfile.write(bytes([byte]))
                time.sleep(self.piece_s)  # the dripping itself


@dataclass
class World:
    farm: Farm
    run: Run
    folder: Path
    source: Source
    request: Path
    behind: Path

    def call(self, command: str) -> Ran:
        url, root = self.source.url, ("--root", self.farm.anchor)
        own = ("--store", self.behind)
        return self.run(
            *{
                "verify": ("verify", url, *root, "-o", "json"),
                "mirror": ("mirror", url, self.folder / "copy", *root, "-o", "json"),
                "status": ("status", *own, *root, "--compare", url, "-o", "json"),
                "diff": ("diff", self.request, "--store", url, *root, "-o", "json"),
                "sign": ("sign", self.request, "--key", "env:KEY_CONTROL_1", "--store", url, *root),
            }[command],
            stdin="y\n",
        )

    def shown(self, command: str) -> tuple[int, str]:
        """Its exit code, and what it says of the source."""
        said = self.call(command)
        if command == "status" and said.code == 0:
            return said.code, said.json["compared"]
        return said.code, said.out + said.err


COMMANDS = ("verify", "mirror", "status", "diff", "sign")


@dataclass(frozen=True)
class Prepared:
    """A farm's final heads in tiles, a store that is behind them, and a request."""

    tiles: dict[str, bytes]
    behind: bytes
    request: bytes


_prepared: dict[str, Prepared] = {}  # by anchor: the farm is the same for a whole session


def prepared(farm: Farm, run: Run, folder: Path) -> Prepared:
    """With a partition's log beside the authority log."""
    if farm.anchor not in _prepared:
        (folder / "operator").mkdir()
        operator, behind = Operator(farm, run, folder / "operator"), folder / "earlier.db"
        assert run("backup", behind, "--store", farm.path, "--root", farm.anchor).code == 0
        operator.open()
        assert "accepted" in operator.submit(operator.lease("eu-1/a"), "ROUTE")
        farm.finalize(log=LOG)
        assert run("export", "--store", farm.path, "--root", farm.anchor, folder / "tiles").code == 0
        enrolled = operator.enrolled("sequencer-2")
        request = operator.propose("log.term", "--log", "routes-us-1", "--sequencer", enrolled)
        made = Prepared(read_folder(folder / "tiles"), behind.read_bytes(), request.read_bytes())
        _prepared[farm.anchor] = made
    return _prepared[farm.anchor]


@pytest.fixture
def world(farm: Farm, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(verify.metadata, "entry_points", lambda group: [])
    made = prepared(farm, run, tmp_path)
    request, behind, source = tmp_path / "r.sigreq", tmp_path / "behind.db", Source(made.tiles)
    request.write_bytes(made.request)
    behind.write_bytes(made.behind)
    with serving(source.answer) as source.url:
        yield World(farm, run, tmp_path, source, request, behind)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_honest_source_is_read(world: World, command: str) -> None:
    said = world.call(command)
    assert said.code == 0, said.err


KINDS = ("checkpoint", "logs", "history/sizes", "history/12", "tile/0/", "tile/entries/")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_comes_at_a_second_look_is_not_used(world: World, command: str, kind: str) -> None:
    def later(path: str, count: int, data: bytes | None) -> bytes | None:
        if count == 1 or kind not in path or data is None:
            return data
        return data[:-2] + bytes([data[-2] ^ 1]) + data[-1:] if data else b"1\n"

    unsigned = world.request.read_bytes()
    before = world.shown(command)
    assert before[0] == 0
    world.request.write_bytes(unsigned)
    shutil.rmtree(world.folder / "copy", ignore_errors=True)
    world.source.asked.clear()
    world.source.lie = later
    code, said = world.shown(command)
    assert (code, said) == before or (code == 1 and "SL-TILE" in said)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_may_change_is_asked_for_once(world: World, command: str) -> None:
    assert world.call(command).code == 0
    asked = {path: count for path, count in world.source.asked.items() if "tile/" not in path}
    assert asked["checkpoint"] == 1
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_source_that_turns_back_while_it_is_read_fails(world: World, command: str) -> None:
    """What stood under the head that it showed is not there any more."""
    world.source.lie = lambda path, count, data: None if "tile/" in path else data
    said = world.call(command)
    assert (said.code, "is not there" in said.err) == (3, True)


def test_a_hidden_log_is_named(world: World) -> None:
    world.source.lie = lambda path, count, data: b"" if path == "logs" else data
    said = world.call("verify")
    assert (said.code, said.json["logs_not_shown"]) == (0, [LOG])
    said = world.call("mirror")  # nobody has seen it there: an audited log without that one
    assert (said.code, said.json["logs_not_shown"]) == (0, [LOG])
    assert decode_logs((world.folder / "copy" / "logs").read_bytes()) == []
    world.source.lie = lambda path, count, data: data
    assert world.call("mirror").code == 0
    world.source.lie = lambda path, count, data: b"" if path == "logs" else data
    said = world.call("mirror")
    assert (said.code, "SL-ROLLBACK" in said.err, LOG in said.err) == (1, True, True)


@pytest.mark.parametrize("command", COMMANDS)
def test_one_that_drips_is_left(world: World, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    init = resources.WebResources.__init__.__kwdefaults__
    monkeypatch.setitem(init, "timeout_s", 0.3)
    world.source.piece_s = 0.01
    assert len(world.source.files["checkpoint"]) * world.source.piece_s > 1.0
    assert len(world.source.files["checkpoint"]) < MAX_NOTE_BYTES
    said = world.call(command)
    assert (said.code, '"unreadable"' in said.out) == (
        3,
        command != "sign",
    )  # which asks, and so prints no JSON
    assert sum(world.source.asked.values()) <= 2
