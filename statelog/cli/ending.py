"""How a command ends: with what it printed, or with one line that says what to do and, where JSON was asked
for, one document that says the same. All commands of the project end so.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from statelog.cli.common import EXIT_FINDINGS, EXIT_OK, EXIT_USAGE, print_json
from statelog.wording import plain


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a command failed: its exit code, a stable `code` for programs, a sentence for people ("" where
    nobody is left to read it), and `line`, the sentence as it stands on standard error when that says more.
    """

    exit_code: int
    code: str
    sentence: str
    line: str = ""


def run(
    app: typer.Typer,
    name: str,
    arguments: list[str] | None,
    judge: Callable[[Exception], Failure | None],
    unwritable: int,
) -> NoReturn:
    """Run a command line (by default the process's own) and exit.

    `judge` says what an error of the program means, None for one that is a fault in it; `unwritable` is the
    exit code when the output cannot be written.
    """
    words = sys.argv[1:] if arguments is None else arguments
    _flow_help(app)
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process lives
    if sys.stdout is None:  # the work would be done, and nothing said of it
        sys.stderr.write(f"{name}: there is no standard output to write to\n")
        sys.exit(unwritable)
    if sys.stdin is None:  # nobody answers
        sys.stdin = Path(os.devnull).open()  # noqa: SIM115 - same
    if isinstance(sys.stdout, io.TextIOWrapper):  # in a locale without UTF-8 what it lacks is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    code, failure, lost = EXIT_OK, None, False
    try:
        try:
            ended = app(words, prog_name=name, standalone_mode=False)
            code = ended if isinstance(ended, int) else EXIT_OK
        finally:
            sys.stdout.flush()  # here, where somebody can still say that it failed
    except TyperException as error:
        failure = Failure(EXIT_USAGE, "usage", _of_command_line(error))
    except typer.Abort:
        failure = Failure(EXIT_FINDINGS, "stopped", "stopped: nothing was answered")
    except OSError as error:
        # Of a reader that has gone (`statelog log | head`) there is nobody left to say anything to.
        where = "" if error.filename is None else f": {error.filename}"
        said = "" if isinstance(error, BrokenPipeError) else f"{error.strerror or error}{where}"
        failure, lost = Failure(unwritable, "unreadable", said), True
    except SystemExit as exit_:
        # Completion ends like this; typer and rich do, with 1, when the reader has gone in the middle.
        code = unwritable if exit_.code else EXIT_OK
    except Exception as error:
        failure = judge(error)
        if failure is None:
            raise
    if failure is not None:
        code = failure.exit_code
        _tell(name, failure, json=wants_json(words))
    if lost:
        _forget_stdout()
    sys.exit(code)


def wants_json(words: Sequence[str]) -> bool:
    """Whether a command line asks for JSON, also one that is wrong elsewhere."""
    return not {"-ojson", "--output=json"}.isdisjoint(words) or not {
        ("-o", "json"),
        ("--output", "json"),
    }.isdisjoint(pairwise(words))


def _flow_help(app: typer.Typer) -> None:
    """Let each paragraph of the commands' help flow: a terminal is narrower than a line of source."""
    for command in app.registered_commands:
        text = command.help or getattr(command.callback, "__doc__", None) or ""
        paragraphs = inspect.cleandoc(text).split("\n\n")
        command.help = "\n\n".join(re.sub(r"\n\s*", " ", one) for one in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _flow_help(group.typer_instance)


def _tell(name: str, failure: Failure, *, json: bool) -> None:
    if not failure.sentence:
        return
    # What others wrote may be quoted in it, and a terminal obeys control characters.
    with contextlib.suppress(BrokenPipeError):  # nobody reads that either
        sys.stderr.write(f"{name}: {plain(failure.line or failure.sentence)}\n")
    if json:
        error = {"code": failure.code, "sentence": failure.sentence}
        try:
            print_json({"schema": f"{name}.error.v1", "error": error})
            sys.stdout.flush()
        except OSError:  # the line above said why, or says what the document would
            _forget_stdout()


def _of_command_line(error: Any) -> str:
    """What is wrong with the command line, on one line; nothing where the error shows the help by itself."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return ""
    context = getattr(error, "ctx", None)
    said = " ".join(error.format_message().split()).rstrip(".")
    return said if context is None else f"{said}; see `{context.command_path} --help`"


def _forget_stdout() -> None:
    """Nothing can be written there any more: let nobody try at the end of the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
