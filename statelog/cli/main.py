"""The command `statelog`: ceremonies, reading and auditing of a state log."""

from __future__ import annotations

import typer

from statelog.cli import (
    backup,
    ending,
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
from statelog.cli.common import EXIT_FINDINGS, EXIT_UNREADABLE, EXIT_USAGE
from statelog.errors import Refused, StatelogError, UsageError

CEREMONIES, READING, AUDITING, HOSTS = "Ceremonies", "Reading and proving", "Auditing and copies", "Hosts"

app = typer.Typer(
    name="statelog",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Sign, submit, read and audit the records of a witnessed log.",
    epilog="Exit codes: 0 done and clean, 1 refused or findings, 2 usage, 3 source unreadable, "
    "130 stopped by Ctrl-C.",
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


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; every error is one line that says what to do, and an exit code."""
    ending.run(app, "statelog", arguments, _judge, EXIT_UNREADABLE)


def _judge(error: Exception) -> ending.Failure | None:
    if isinstance(error, Refused):
        finding = error.finding
        where = "" if finding.log_index is None else f" (entry {finding.log_index})"
        sentence = str(finding).removeprefix(finding.code).removeprefix(": ")
        return ending.Failure(EXIT_FINDINGS, finding.code, f"{sentence}{where}", f"refused: {error}{where}")
    if isinstance(error, UsageError):
        return ending.Failure(EXIT_USAGE, "usage", str(error))
    if isinstance(error, StatelogError):
        return ending.Failure(EXIT_UNREADABLE, "unreadable", str(error))
    return None


if __name__ == "__main__":
    main()
