"""`statelog mirror`: an audited copy of somebody's logs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from statelog.audit import LogSource
from statelog.cli.auditing import Audited, run_audit, show_audit
from statelog.cli.common import AnchorOption, Form, OutputOption, anchor_of, say
from statelog.io.mirror import mirror as mirror_logs
from statelog.io.sources import open_resources


def mirror(
    source: Annotated[
        str, typer.Argument(metavar="URL|FOLDER", help="Logs in tiles: their address, or a folder of them.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The copy; made if need be.")],
    root: AnchorOption,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", envvar="STATELOG_CA", help="PEM certificate to trust for an https:// source."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, max=256, help="Processes that verify signatures; 0: as many as cores.")
    ] = 0,
    output: OutputOption = Form.TABLE,
) -> None:
    """Copy logs in tiles, after an audit of all of them: the copy shows only what was found clean.

    Run it again to follow the source. A transfer that broke goes on where it stopped; a source that is not
    sound, or that does not continue what the copy holds, leaves the copy as it was.

    Exit: 0 clean, 1 findings, 2 usage, 3 source unreadable.

    Examples:

      statelog mirror https://logs.example/farm copy/ --root anchor

      statelog verify copy/ --root anchor
    """
    anchor, audited = anchor_of(root), Audited()

    def audit(logs: Mapping[str, LogSource], size: int) -> bool:
        nonlocal audited
        audited = Audited()
        run_audit(logs, size, anchor, audited, jobs)
        return audited.complete and not audited.findings

    with open_resources(source, ca) as resources:
        mirror_logs(resources, folder, audit)
    show_audit(source, audited, output)
    if output is Form.TABLE:
        say(f"mirrored   {folder}")
