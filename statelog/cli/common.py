"""What every command shares: options, the way to a store and its anchor, and the two forms of output."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from textwrap import wrap
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from statelog.errors import Refused, UsageError
from statelog.io.files import read_bounded
from statelog.limits import ANCHOR_FILE_MAX_BYTES
from statelog.wording import digest_words, plain

EXIT_OK, EXIT_FINDINGS, EXIT_USAGE, EXIT_UNREADABLE = 0, 1, 2, 3
_PIPE_WIDTH = 1_000_000  # no row of a table is folded in a pipe: whoever reads it there reads lines
_WHOLE = 20  # columns of a cell that is kept whole on a terminal when there is room: a time, a number, a name
_NARROWEST = 10  # columns that are left to each cell that may be folded: half a time, a piece of an id


class Form(StrEnum):
    """How a command prints: for people, or for programs."""

    TABLE = "table"
    JSON = "json"


StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="STATELOG_STORE",
        metavar="URL|PATH",
        help="The store: sqlite:///PATH, postgresql://…, or just the path of a SQLite file.",
    ),
]
RootOption = Annotated[
    str | None,
    typer.Option(
        "--root",
        envvar="STATELOG_ROOT",
        metavar="ANCHOR|FILE",
        help="The trust anchor, as 64 hex digits or a file that holds them.",
    ),
]
AnchorOption = Annotated[
    str,
    typer.Option(
        "--root",
        envvar="STATELOG_ROOT",
        metavar="ANCHOR|FILE",
        help="The trust anchor: nothing else is trusted.",
    ),
]
LogOption = Annotated[
    str | None,
    typer.Option(
        "--log", metavar="NAME", help="A log of the store, such as routes-eu-1; authority by default."
    ),
]
AcceptRiskOption = Annotated[
    list[str], typer.Option(metavar="NAME", help="A risk that is accepted, by its name; repeatable.")
]
OutputOption = Annotated[
    Form, typer.Option("-o", "--output", help="A table for people, or JSON with a versioned schema.")
]

_LABEL = re.compile(r"[a-zA-Z][a-zA-Z ]{9} | {11}|  [-+~] ")  # what a line begins with: its label or mark
_PIECE = re.compile(r"[^\s._/@-]*[\s._/@-]+|[^\s._/@-]+")  # of a name: up to and with where it may be folded
_ANCHOR = re.compile(r"[0-9a-f]{64}")


def now() -> int:
    """Unix seconds."""
    return int(time.time())


def store_url(store: str | None) -> str:
    """The database URL that `--store` means; a bare path is a SQLite file."""
    if not store:
        raise UsageError("which store? give --store URL or set STATELOG_STORE")
    try:
        store.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{store}: the name of a store must be UTF-8 text") from error
    return store if "://" in store else f"sqlite:///{store}"


def anchor_of(root: str) -> str:
    """The anchor in `--root`: 64 hex digits, or the first line of a file. Raises `UsageError`."""
    if _ANCHOR.fullmatch(root):
        return root
    try:
        text = read_bounded(Path(root), ANCHOR_FILE_MAX_BYTES, "SL-ANCHOR").decode().strip()
    except (UnicodeDecodeError, Refused):  # Refused: larger than any anchor file
        text = ""
    if not _ANCHOR.fullmatch(text):
        raise UsageError(f"{root} holds no trust anchor; that is one line of 64 hex digits")
    return text


def is_number(text: str) -> bool:
    """Whether the text is decimal digits that `int` reads: Python's own test takes more."""
    return text.isascii() and text.isdigit() and len(text) <= 64


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on one line of standard output.

    A file's name that is no UTF-8 stands in it as Python reads it, with lone surrogates, escaped.
    """
    try:
        text = orjson.dumps(document).decode()
    except TypeError:
        text = json.dumps(document, separators=(",", ":"))
    sys.stdout.write(f"{text}\n")


def console(*, stderr: bool = False) -> Console:
    """A console that neither colours nor wraps what goes into a pipe, and interprets no text by itself."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        markup=False,
        emoji=False,
        highlight=False,
        width=None if stream.isatty() else _PIPE_WIDTH,
    )


def say(*lines: str) -> None:
    """Lines for a person, on standard output; on a terminal a long one goes on under its own text.

    What has lines of its own (a record, indented) is printed as it is, and so is everything in a pipe.
    """
    width = console().width if sys.stdout.isatty() else None
    for line in map(_showable, lines):
        if width is None or len(line) <= width or "\n" in line:
            parts = [line]
        else:
            label = _LABEL.match(line)
            indent = " " * (len(label[0]) if label else 0)
            parts = wrap(line, width, subsequent_indent=indent, break_on_hyphens=False)
        sys.stdout.write("\n".join(parts) + "\n")


def say_command(label: str, *words: object, store: str | None = None, root: str | None = None) -> None:
    """A command to copy as it stands: quoted for a shell, never wrapped, and with the options that this one
    was given; what came out of the environment does so next time, too.
    """
    for name, value in (("store", store), ("root", root)):
        if value is not None and value != os.environ.get(f"STATELOG_{name.upper()}"):
            words = (*words, f"--{name}", value)
    sys.stdout.write(_showable(f"{label:10} {shlex.join(map(str, words))}") + "\n")


def _showable(text: str) -> str:
    """The lines of a text with all that is unprintable escaped: others may have written it, a terminal obeys
    control characters, and the bytes of a file's name that are no UTF-8 (lone surrogates) are no text.
    """
    return "\n".join(map(plain, text.split("\n")))


def in_words(digest: str) -> list[str]:
    """A digest as sixteen words to read aloud, on two lines of a table."""
    words = digest_words(bytes.fromhex(digest)).split("-")
    return [f"{'in words' if at == 0 else '':10} {' '.join(words[at : at + 8])}" for at in (0, 8)]


def note(line: str) -> None:
    """A remark beside the result, on standard error."""
    sys.stderr.write(f"statelog: {plain(line)}\n")


class LogLines(logging.Formatter):
    """Messages of a log for people, with the time in UTC and all that is unprintable escaped: what others
    wrote may be quoted in them, and must neither redraw a terminal nor look like a line of its own.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - named by the base class
        """The line without a traceback."""
        return plain(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - same
        """The lines of a traceback."""
        return _showable(super().formatException(ei))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table on standard output; cells are text, never markup. Nothing is cut: on a narrow terminal long
    cells go on in the next line, and short ones stay whole as far as there is room.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    lines, out = [[_showable(str(cell)) for cell in row] for row in rows], console()
    widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
    whole, room = set[int](), out.width - 2 * (len(widths) - 1)  # two spaces stand between columns
    for at in sorted(range(len(widths)), key=lambda at: widths[at]):
        if widths[at] > _WHOLE or room - widths[at] < _NARROWEST * (len(widths) - len(whole) - 1):
            break
        room -= widths[at]
        whole.add(at)
    folded = _shares(room, {at: width for at, width in enumerate(widths) if at not in whole})
    for at, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=at in whole)
    for line in lines:
        cells = (_folded(cell, folded[at]) if at in folded else cell for at, cell in enumerate(line))
        table.add_row(*cells)
    out.print(table)


def _shares(room: int, widths: dict[int, int]) -> dict[int, int]:
    """The columns of the terminal that each cell gets which may be folded: as many for all, and none that
    another one could use.
    """
    shares: dict[int, int] = {}
    for at in sorted(widths, key=lambda at: widths[at]):
        shares[at] = max(1, min(widths[at], room // (len(widths) - len(shares))))
        room -= shares[at]
    return shares


def _folded(text: str, width: int) -> str:
    """`text` in lines of at most `width`, which end where a name has a joint, if there is one."""
    lines, line = [], ""
    for piece in _PIECE.findall(text):
        if line and len(line) + len(piece.rstrip()) > width:
            lines.append(line)
            line = ""
        line += piece
        while len(line.rstrip()) > width:
            lines.append(line[:width])
            line = line[width:]
    return "\n".join(part.rstrip() for part in (*lines, line))


@contextmanager
def progress(what: str, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """A bar on a terminal that is moved by calling with how much is done; None elsewhere. Without a total it
    only shows that something is.
    """
    if not sys.stderr.isatty():
        yield None
        return
    known = (MofNCompleteColumn(), TimeRemainingColumn())
    columns = (TextColumn(what), BarColumn(), *(known if total else (TextColumn("{task.completed}"),)))
    # What is printed meanwhile stays what it is: a redirected stdout would end up among the bars on stderr.
    with Progress(*columns, console=console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)
