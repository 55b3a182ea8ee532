"""How the command `fabric` fails: which exit code, one line for people, one document for programs."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fabric.cli.test_main import HEX, fabric, init


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
