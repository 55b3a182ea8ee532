"""The command `statelog`: ceremonies, reading and auditing of a state log."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Any, cast

import typer

from statelog.cli import (
    backup,
    evidence,
    export,
    init,
    inspection,
    keys,
    mirror,
    proofs,
    propose,
    reading,
    renewal,
    requests,
    rows,
    status,
    submit,
    transport,
    upgrade,
    verify,
    witness,
)
from statelog.cli.common import EXIT_FINDINGS, EXIT_OK, EXIT_UNREADABLE, EXIT_USAGE
from statelog.errors import Refused, SourceUnreadable, StatelogError, UsageError
from statelog.wording import plain

CEREMONIES, READING, AUDITING, HOSTS = "Ceremonies", "Reading and proving", "Auditing and copies", "Hosts"

app = typer.Typer(
    name="statelog",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Sign, submit, read and audit the records of a witnessed log.",
    epilog="Exit codes: 0 done and clean, 1 refused or findings, 2 usage, 3 source unreadable.",
)
app.command("init", rich_help_panel=CEREMONIES)(init.init)
app.add_typer(keys.app, name="key", rich_help_panel=CEREMONIES)
app.add_typer(propose.app, name="propose", rich_help_panel=CEREMONIES)
app.command("diff", rich_help_panel=CEREMONIES)(requests.diff)
app.command("inspect", rich_help_panel=CEREMONIES)(inspection.inspect_file)
app.command("sign", rich_help_panel=CEREMONIES)(requests.sign)
app.command("merge", rich_help_panel=CEREMONIES)(requests.merge)
app.add_typer(transport.app, name="request", rich_help_panel=CEREMONIES)
app.command("submit", rich_help_panel=CEREMONIES)(submit.submit)
app.command("status", rich_help_panel=CEREMONIES)(status.status)
app.command("needs-renewal", rich_help_panel=CEREMONIES)(renewal.needs_renewal)
app.command("log", rich_help_panel=READING)(reading.log)
app.command("show", rich_help_panel=READING)(reading.show)
app.command("export", rich_help_panel=AUDITING)(export.export)
app.command("mirror", rich_help_panel=AUDITING)(mirror.mirror)
app.command("prove", rich_help_panel=READING)(proofs.prove)
app.command("check-proof", rich_help_panel=READING)(proofs.check_proof)
app.command("prove-row", rich_help_panel=READING)(rows.prove_row)
app.command("check-row", rich_help_panel=READING)(rows.check_row)
app.command("verify", rich_help_panel=AUDITING)(verify.verify)
app.command("evidence", rich_help_panel=AUDITING)(evidence.evidence)
app.add_typer(witness.app, name="witness", rich_help_panel=HOSTS)
app.command("backup", rich_help_panel=HOSTS)(backup.backup)
app.command("restore", rich_help_panel=HOSTS)(backup.restore)
app.command("upgrade", rich_help_panel=HOSTS)(upgrade.upgrade)


# The base of what typer says is wrong with a command line; it exports only the errors derived from it.
_CommandLineError = cast("type[Exception]", typer.BadParameter.__mro__[2])


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error is one line that says what to do, and an exit code."""
    code, line = _usable_streams(), ""
    try:
        if code == EXIT_OK:
            try:
                ended = app(arguments, prog_name="statelog", standalone_mode=False)
                code = ended if isinstance(ended, int) else EXIT_OK
            finally:
                sys.stdout.flush()  # here, where somebody can still say that it failed
    except Refused as refusal:
        where = "" if refusal.finding.log_index is None else f" (entry {refusal.finding.log_index})"
        code, line = EXIT_FINDINGS, f"refused: {refusal}{where}"
    except UsageError as error:
        code, line = EXIT_USAGE, str(error)
    except _CommandLineError as error:
        code, line = EXIT_USAGE, _of_command_line(error)
    except typer.Abort:
        code, line = EXIT_FINDINGS, "stopped: nothing was answered"
    except SourceUnreadable as error:
        code, line = EXIT_UNREADABLE, str(error)
    except BrokenPipeError:
        # The reader of our output has gone (`statelog log | head`): nothing is left to say to it.
        _forget_stdout()
        code = EXIT_UNREADABLE
    except StatelogError as error:
        code, line = EXIT_UNREADABLE, str(error)
    except OSError as error:
        _forget_stdout()
        where = "" if error.filename is None else f": {error.filename}"
        code, line = EXIT_UNREADABLE, f"{error.strerror or error}{where}"
    except SystemExit as ended:
        # Completion ends like this; typer and rich do, with 1, when the reader has gone in the middle.
        code = EXIT_UNREADABLE if ended.code else EXIT_OK
    if line:
        # What others wrote may be quoted in it, and a terminal obeys control characters.
        with contextlib.suppress(BrokenPipeError):  # nobody reads that either
            sys.stderr.write(f"statelog: {plain(line)}\n")
    sys.exit(code)


def _usable_streams() -> int:
    """Exit code: a command without a standard output would do its work and say nothing of it."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process lives
    if sys.stdout is None:
        sys.stderr.write("statelog: there is no standard output to write to\n")
        return EXIT_UNREADABLE
    return EXIT_OK


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


if __name__ == "__main__":
    main()
