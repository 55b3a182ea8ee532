"""What people see: long lines on a terminal, and nothing cut or wrapped in a pipe."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from statelog.cli.common import note, print_table, say

SCRIPT = """
from statelog.cli.common import say
say("cluster    " + "word " * 30, "  + path: " + "word " * 30, "plain " * 30, "short", "a\\nb" + "c" * 150)
say(" " * 11 + "babab " * 12)
"""


TABLE = """
from statelog.cli.common import print_table
heads = ("index", "sequenced at", "kind", "subject", "epoch", "record id", "")
row = (7, "2026-11-30T21:00:13Z", "registry.gossip_record", "#" * 64 + " " + "=" * 128, 1, "0123abcd", "")
print_table(heads, [row])
"""


def printed(columns: int, script: str = SCRIPT) -> list[str]:
    """What a script prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", script], stdout=theirs, env=environment) as process:
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
    words = [line for line in lines if "babab" in line]
    assert len(words) == 2
    assert all(line.startswith(" " * 11 + "babab") for line in words)
    assert "a" in lines
    assert "b" + "c" * 150 in lines


def test_nothing_is_wrapped_in_a_pipe() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True).stdout
    assert len(out.splitlines()) == 7


@pytest.mark.parametrize("columns", [30, 80, 132])
def test_a_table_loses_nothing_on_a_terminal_and_keeps_a_time_whole_where_there_is_room(columns: int) -> None:
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in printed(columns, TABLE)]
    assert max(map(len, lines)) <= columns
    assert any("2026-11-30T21:00:13Z" in line for line in lines) == (columns >= 80)
    assert ("".join(lines).count("#"), "".join(lines).count("=")) == (64, 128)


def test_names_are_folded_where_they_have_a_joint() -> None:
    """The widths of `statelog needs-renewal`."""
    script = """
from statelog.cli.common import print_table
when = "2026-12-15T23:47:36Z  in 199 d 23 h"
rows = [("authority.descriptor", "939d0608 service-host", 1, when, "666f197c")]
print_table(("kind", "subject", "epoch", "expires", "record"), rows)
"""
    lines = [re.sub(r"\x1b\[\d*m", "", line).split("  ") for line in printed(80, script)[1:]]
    assert [line[0].strip() for line in lines] == ["authority.descriptor", ""]
    assert [next(filter(None, line[1:])).strip() for line in lines] == ["939d0608 service-", "host"]


def test_a_row_is_one_line_in_a_pipe() -> None:
    out = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, check=True).stdout
    assert len(out.splitlines()) == 2
    assert "=" * 128 in out


def test_what_others_wrote_is_text_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[red] [/] :smile: \x1b[2J\x9b"
    shown = r"[red] [/] :smile: \x1b[2J\x9b"
    say(f"title      {hostile}", "{\n  1\n}")
    print_table(("one",), [(hostile,)])
    note(f"{hostile}\nmore")
    said = capsys.readouterr()
    title, *record, head, cell = (line.rstrip() for line in said.out.splitlines())
    assert (title, record, head, cell) == (f"title      {shown}", ["{", "  1", "}"], "one", shown)
    assert said.err == f"statelog: {shown}\\nmore\n"
