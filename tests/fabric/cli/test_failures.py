"""How the command `fabric` fails: which exit code, one line for people, one document for programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fabric.cli.test_main import HEX, daemon, fabric, init


def test_nobody_waits_for_a_pipe_that_nobody_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    fixed = ("--dir", str(tmp_path / "other"), "--name", "n", "--cluster", "farm.abc")
    init(tmp_path / "n")
    capsys.readouterr()
    for command in (
        ("deliver", str(pipe), "--dir", str(tmp_path / "n")),
        ("node", "init", *fixed, "--anchor", str(pipe)),
    ):
        assert fabric(*command) == 2
        said = capsys.readouterr().err
        assert (f"{pipe} is not a regular file" in said, said.count("\n")) == (True, 1)
    anchor = tmp_path / "anchor"
    anchor.write_text(HEX)
    assert fabric("node", "init", *fixed, "--anchor", str(anchor)) == 0
    (tmp_path / "n" / "node.toml").unlink()
    os.mkfifo(tmp_path / "n" / "node.toml")
    assert fabric("status", "--dir", str(tmp_path / "n")) == 2
    assert "is not a regular file" in capsys.readouterr().err


ASKING = ["status", "ping x", "smoke", "top", "open-test web", f"deliver {__file__}"]
ASKED_FOR_JSON = [("-o", "json"), ("-ojson",), ("--output", "json"), ("--output=json",)]


@pytest.mark.parametrize("command", ASKING)
@pytest.mark.parametrize("what", ["no folder", "broken", "no daemon"])
def test_programs_are_told_in_one_shape_what_people_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, what: str
) -> None:
    if what != "no folder":
        init(tmp_path / "n")
    if what == "broken":
        (tmp_path / "n" / "node.toml").write_text("name = [")
    ran = command.split()
    for asked in ASKED_FOR_JSON:
        capsys.readouterr()
        assert fabric(*ran, "--dir", str(tmp_path / "n"), *asked) == 2
        out, err = capsys.readouterr()
        (line,) = out.splitlines()
        document = json.loads(line)
        code = "not_running" if what == "no daemon" else "bad_config"
        assert (document["schema"], document["error"]["code"]) == ("fabric.error.v1", code)
        assert err.removeprefix("fabric: ").removeprefix(f"{code}: ") == document["error"]["sentence"] + "\n"
    assert fabric(*ran, "--dir", str(tmp_path / "n")) == 2
    assert capsys.readouterr() == ("", err)


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (("status",), ("statsu",), ("status", "--bogus"), ("forward", "x", "y", "--dir", "z")):
        assert fabric(*arguments) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n"), "; see `fabric" in err) == ("", 1, True)
        assert fabric(*arguments, "-o", "json") == 2
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "usage"


def test_without_a_standard_output_nothing_is_done() -> None:
    command = [sys.executable, "-m", "fabric.cli.main", "status", "--dir", "/nowhere"]
    ran = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command], stderr=subprocess.PIPE, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (1, "fabric: there is no standard output to write to\n")


def test_top_ends_by_ctrl_c_and_nothing_else_is_said(tmp_path: Path) -> None:
    init(tmp_path / "n")
    command = [sys.executable, "-m", "fabric.cli.main", "top", "--dir", str(tmp_path / "n"), "-o", "json"]
    with (
        daemon(tmp_path / "n"),
        subprocess.Popen(
            [*command, "--interval", "0.1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as top,
    ):
        assert top.stdout is not None
        assert json.loads(top.stdout.readline())["schema"] == "fabric.top.v1"
        top.send_signal(signal.SIGINT)
        _, err = top.communicate(timeout=60)
    assert (top.returncode, err) == (0, "")
