"""The command line as a whole: help with examples, one line per error, exit codes, pipes, completion."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from statelog.cli import inspection
from statelog.cli.main import AUDITING, CEREMONIES, HOSTS, READING, app
from statelog.errors import StatelogError
from tests.statelog.cli.conftest import Farm, Ran, Run


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
def test_every_command_has_an_example_and_its_help_flows(
    run: Run, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    said = run(*command, "--help")
    assert said.code == 0
    assert f"statelog {' '.join(command)}" in " ".join(said.out.split())
    text = said.out.partition("╭")[0].splitlines()
    for line, following in pairwise(text):
        if line.strip() and following.strip():  # the first word of the next line found no room
            assert len(line.rstrip()) + 1 + len(following.split()[0]) > 79


@pytest.mark.parametrize(
    "arguments",
    [("unheard-of",), ("log", "--colour"), ("show",), ("propose", "route.leese"), ("log", "-o", "xml")],
)
def test_mistakes_are_usage(run: Run, arguments: tuple[str, ...]) -> None:
    said = run(*arguments)
    assert said.code == 2
    assert said.out == ""
    assert (said.err.startswith("statelog: "), said.err.count("\n")) == (True, 1)
    assert " --help`" in said.err


@pytest.mark.parametrize("arguments", [(), ("key",), ("propose",)])
def test_a_group_alone_shows_its_help(run: Run, arguments: tuple[str, ...]) -> None:
    said = run(*arguments)
    assert said.code == 2
    assert "Usage: statelog" in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("show", "²"), "give an index"),
        (("show", "9" * 70), "no records"),
        (("prove", "²²"), "no record"),
        (("prove", "9" * 60), "is not final"),
        (("log", "--from", "9" * 30), ""),
        (("log", "--last", "9" * 30), ""),
        (("log", "--from", "-1"), "greater than or equal to 0"),
        (("log", "--log", "nowhere"), "holds no entries"),
        (("log", "--kind", "route.leese"), "no kind of record"),
        (("log", "--kind", "route.lease"), ""),
        (("needs-renewal", "--kind", "route.leese"), "no kind of record"),
        (("needs-renewal", "--kind", "route.lease"), ""),
        (("check-proof", __file__), "SL-PROOF"),
        (("inspect", "/dev/zero"), "not a regular file"),
    ],
)
def test_odd_numbers_and_names_are_one_line(
    farm: Farm, run: Run, arguments: tuple[str, ...], said: str
) -> None:
    where = ("--root", farm.anchor)
    store = () if arguments[0] == "check-proof" else ("--store", str(farm.path))
    ran = run(*arguments, *store, *where)
    assert (ran.code == 0) == (not said)
    assert ran.err.count("\n") == bool(said)
    assert said in ran.err


def test_names_that_are_no_utf_8_are_shown_escaped(farm: Farm, run: Run, tmp_path: Path) -> None:
    odd = os.fsdecode(b"r\xe9q.sigreq")
    (tmp_path / "d.json").write_text("{}")
    store = ("--store", farm.path, "--root", farm.anchor)
    draft = ("propose", "policy.epoch", "--policy", "p", "--document", tmp_path / "d.json", *store)
    made = run(*draft, "--out", tmp_path / odd, "-o", "json")
    assert (made.code, made.json_of_python["file"]) == (0, str(tmp_path / odd))
    assert "r\\udce9q.sigreq" in run("request", "text", tmp_path / odd, "--out", tmp_path / f"{odd}.txt").out
    refused = run("status", "--store", tmp_path / odd)
    assert (refused.code, "must be UTF-8" in refused.err, refused.err.count("\n")) == (2, True, 1)


def test_an_anchor_file_that_is_none_is_usage(farm: Farm, run: Run, tmp_path: Path) -> None:
    for data in (b"x" * 5_000, b"\xff", b"", b"ab" * 31):
        (tmp_path / "anchor").write_bytes(data)
        said = run("verify", farm.path, "--root", tmp_path / "anchor")
        assert (said.code, "holds no trust anchor" in said.err) == (2, True)


def test_a_question_that_nobody_answers_stops_the_command(farm: Farm, run: Run, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("{}")
    store, request = ("--store", farm.path, "--root", farm.anchor), tmp_path / "p.sigreq"
    draft = ("propose", "policy.epoch", "--policy", "p", "--document", tmp_path / "d.json", "--out", request)
    assert run(*draft, *store).code == 0
    before = request.read_bytes()
    said = run("sign", request, "--key", "env:KEY_CONTROL_1", *store, stdin="")
    assert (said.code, "stopped" in said.err, request.read_bytes()) == (1, True, before)


@pytest.mark.parametrize("arguments", [("--help",), ("show", "0"), ("log",)])
@pytest.mark.parametrize("how", ["reader gone", "closed"])
def test_output_that_nobody_takes_is_no_finding(farm: Farm, arguments: tuple[str, ...], how: str) -> None:
    store = () if arguments[0] == "--help" else ("--store", str(farm.path))
    command = [sys.executable, "-m", "statelog.cli.main", *arguments, *store]
    if how == "closed":
        ran = subprocess.run(["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, check=False)
        assert (ran.returncode, b"no standard output" in ran.stderr) == (3, True)
        return
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    os.close(write)
    assert (ran.returncode, ran.stderr) == (3, b"")


def test_the_old_name_of_a_kind_works_too(run: Run) -> None:
    assert run("propose", "registry.gossip_record", "--help").code == 0


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="a full disk is played by /dev/full, which Linux alone has"
)
@pytest.mark.parametrize("arguments", [("log", "-o", "json"), ("--help",)])
def test_output_that_cannot_be_written_is_said_in_one_line(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """And is no finding: exit code 1 would say that the log is not sound."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # else nothing is left to be written at the end
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


def test_a_reader_that_goes_away_is_no_error(farm: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # else nothing is left to be written at the end
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
    assert not (farm.path.parent / "absent.db").exists()


def test_ctrl_c_where_nothing_is_asked_is_exit_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_bound: int) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspection, "read_stdin", interrupted)
    assert run("inspect", "-", "-o", "json") == Ran(130, "", "")


def test_only_a_store_is_upgraded(farm: Farm, run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE mine (value TEXT)")
    for path in (tmp_path / "empty.db", tmp_path / "other.db"):
        before = path.read_bytes()
        said = run("upgrade", "--store", path)
        assert (said.code, "is not a store" in said.err, path.read_bytes()) == (2, True, before)
    with closing(sqlite3.connect(farm.path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    said = run("upgrade", "--store", farm.path)
    assert (said.code, "newer version" in said.err) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        ("check-proof", "PIPE", "--root", "0" * 64),
        ("check-row", "PIPE", "--root", "0" * 64),
        ("inspect", "PIPE"),
        ("inspect", __file__, "--root", "PIPE"),
        ("request", "text", "PIPE"),
        ("key", "show", "file:PIPE"),
        ("verify", "https://127.0.0.1:1", "--ca", "PIPE", "--root", "0" * 64),
    ],
    ids=" ".join,
)
def test_nobody_waits_for_a_pipe_that_nobody_writes(
    run: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    said = run(*(word.replace("PIPE", str(pipe)) for word in command))
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert f"{pipe} is not a regular file" in said.err


def test_what_the_shell_pipes_in_is_read(farm: Farm, run: Run, tmp_path: Path) -> None:
    (tmp_path / "anchor").write_text(farm.anchor)
    (tmp_path / "d.json").write_text("{}")
    request, store = tmp_path / "p.sigreq", ("--store", farm.path, "--root", farm.anchor)
    draft = ("propose", "policy.epoch", "--policy", "p", "--document", tmp_path / "d.json", "--out", request)
    assert run(*draft, *store).code == 0
    statelog = f"{sys.executable} -m statelog.cli.main"
    for line in (
        f"{statelog} inspect <(cat {request}) --root <(cat anchor)",
        f"cat {request} | {statelog} inspect /dev/stdin",
        f"{statelog} inspect /dev/stdin < {request}",
    ):
        ran = subprocess.run(
            ["bash", "-c", line],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        assert "is a       signing request" in ran.stdout


def test_a_standard_input_that_is_closed_answers_nothing(farm: Farm, run: Run, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("{}")
    request, store = tmp_path / "p.sigreq", ("--store", farm.path, "--root", farm.anchor)
    draft = ("propose", "policy.epoch", "--policy", "p", "--document", tmp_path / "d.json", "--out", request)
    assert run(*draft, *store).code == 0
    for arguments, exit_code in (
        (("sign", request, "--key", "env:KEY_CONTROL_1", *store), 1),
        (("inspect", "-"), 2),
        (("inspect", request), 0),
    ):
        command = [sys.executable, "-m", "statelog.cli.main", *map(str, arguments)]
        ran = subprocess.run(
            ["sh", "-c", '"$@" <&-', "sh", *command], capture_output=True, text=True, check=False
        )
        assert (ran.returncode, "Traceback" in ran.stderr) == (exit_code, False)


def test_what_a_locale_lacks_is_escaped(farm: Farm, run: Run, tmp_path: Path) -> None:
    (tmp_path / "d.json").write_text("{}")
    request, store = tmp_path / "p.sigreq", ("--store", farm.path, "--root", farm.anchor)
    draft = ("propose", "policy.epoch", "--policy", "p", "--document", tmp_path / "d.json", "--out", request)
    assert run(*draft, *store).code == 0
    for encoding, shown in (("ascii", b"\\u2588"), ("utf-8", "\u2588".encode())):
        command = [sys.executable, "-m", "statelog.cli.main", "request", "qr", str(request)]
        ran = subprocess.run(
            command, capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding}
        )
        assert (ran.returncode, ran.stderr, shown in ran.stdout) == (0, b"", True)
