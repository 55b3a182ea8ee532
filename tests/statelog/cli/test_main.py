"""The command line as a whole: help with examples, one line per error, exit codes, pipes, completion."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from statelog.cli.main import AUDITING, CEREMONIES, HOSTS, READING, app
from statelog.errors import StatelogError
from tests.statelog.cli.conftest import Farm, Run


def commands_of(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every command that help lists."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, (*path, name))
        elif not command.hidden:
            yield (*path, name)


COMMANDS = tuple(commands_of(typer.main.get_command(app)))


def test_help_lists_every_command(run: Run) -> None:
    said = run("--help")
    assert said.code == 0
    assert {"init", "sign", "verify"} <= {path[0] for path in COMMANDS}
    for path in COMMANDS:
        assert f" {path[0]} " in said.out
    assert "Exit codes" in said.out
    for panel in (CEREMONIES, READING, AUDITING, HOSTS):
        assert panel in said.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_an_example(run: Run, command: tuple[str, ...]) -> None:
    said = run(*command, "--help")
    assert said.code == 0
    assert f"statelog {' '.join(command)}" in " ".join(said.out.split())


@pytest.mark.parametrize(
    "arguments",
    [("unheard-of",), ("log", "--colour"), ("show",), ("propose", "route.leese"), ("log", "-o", "xml")],
)
def test_mistakes_are_usage(run: Run, arguments: tuple[str, ...]) -> None:
    said = run(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert said.err


def test_the_old_name_of_a_kind_works_too(run: Run) -> None:
    assert run("propose", "registry.gossip_record", "--help").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a file that is always full")
@pytest.mark.parametrize("arguments", [("log", "-o", "json"), ("--help",)])
def test_output_that_cannot_be_written_is_said_in_one_line(farm: Farm, arguments: tuple[str, ...]) -> None:
    """And is no finding: exit code 1 would say that the log is not sound."""
    store = ("--store", str(farm.path)) if arguments[0] == "log" else ()
    command = [sys.executable, "-m", "statelog.cli.main", *arguments, *store]
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert ran.returncode == 3
    assert ran.stderr == "statelog: No space left on device\n"


def test_a_worker_that_ends_is_no_finding(farm: Farm, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise StatelogError("a process that verifies signatures ended")

    monkeypatch.setattr("statelog.io.verify_pool.VerifyPool.submit", gone)
    said = run("verify", farm.path, "--root", farm.anchor, "--jobs", "2")
    assert (said.code, said.err) == (3, "statelog: a process that verifies signatures ended\n")
    assert run("verify", farm.path, "--root", farm.anchor, "--jobs", "100000").code == 2


def test_a_reader_that_goes_away_is_no_error(farm: Farm) -> None:
    command = [sys.executable, "-m", "statelog.cli.main", "log", "--store", str(farm.path), "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """The installed program completes; typer finds the shell in the environment."""
    environment = {"_STATELOG_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "statelog.cli.main"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"statelog" in done.stdout


def test_a_word_is_completed() -> None:
    environment = {
        "_STATELOG_COMPLETE": "complete_bash",
        "COMP_WORDS": "statelog needs",
        "COMP_CWORD": "1",
        "PATH": "/usr/bin:/bin",
    }
    command = [sys.executable, "-m", "statelog.cli.main"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["needs-renewal"], done.stderr


def test_upgrade(farm: Farm, run: Run) -> None:
    assert run("upgrade", "--store", farm.path).code == 0
    absent = run("upgrade", "--store", farm.path.parent / "absent.db")
    assert (absent.code, "no store" in absent.err) == (2, True)
