"""The examples of docs/examples run as they stand there."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from tests.support.aio import run

EXAMPLES = Path(__file__).resolve().parents[3] / "docs" / "examples"
NAMES = sorted(path.name for path in EXAMPLES.glob("*.py"))


def test_there_are_examples() -> None:
    assert NAMES == ["backpressure.py", "datagrams.py", "echo.py"]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = runpy.run_path(str(EXAMPLES / name))
    run(module["main"], timeout_s=90)
    assert capsys.readouterr().out.count("\n") >= 2
