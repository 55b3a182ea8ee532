"""What people see: long lines on a terminal, and nothing cut or wrapped in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

SCRIPT = """
from statelog.cli.common import say
say("cluster    " + "word " * 30, "  + path: " + "word " * 30, "plain " * 30, "short", "a\\nb" + "c" * 150)
"""


def printed(columns: int) -> list[str]:
    """What the script prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=theirs, env=environment) as process:
        os.close(theirs)
        chunks = []
        while True:
            try:
                chunk = os.read(ours, 65_536)
            except OSError:  # the other side is closed and everything was read
                break
            if not chunk:
                break
            chunks.append(chunk)
    os.close(ours)
    assert process.returncode == 0
    return b"".join(chunks).decode().replace("\r", "").splitlines()


def test_long_lines_go_on_under_their_own_text() -> None:
    lines = printed(60)
    assert max(len(line) for line in lines if "c" * 10 not in line) <= 60
    (label,) = [at for at, line in enumerate(lines) if line.startswith("cluster")]
    assert lines[label + 1].startswith(" " * 11 + "word")
    (mark,) = [at for at, line in enumerate(lines) if line.startswith("  + path")]
    assert lines[mark + 1].startswith(" " * 4 + "word")
    (free,) = [at for at, line in enumerate(lines) if line.startswith("plain") and "short" in lines[at + 3]]
    assert lines[free + 1].startswith("plain")
    assert "a" in lines
    assert "b" + "c" * 150 in lines


def test_nothing_is_wrapped_in_a_pipe() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert len(out.splitlines()) == 6
