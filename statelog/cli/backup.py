"""`statelog backup` and `statelog restore`: a store in one audited file, and back."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from statelog.cli.auditing import Audited, run_audit, show_audit
from statelog.cli.common import (
    AnchorOption,
    Form,
    OutputOption,
    RootOption,
    StoreOption,
    anchor_of,
    note,
    progress,
    say,
    store_url,
)
from statelog.cli.opened import opened
from statelog.errors import UsageError
from statelog.io.backup import backup as write_backup
from statelog.io.backup import restore as read_backup
from statelog.io.sources import StoreSource
from statelog.state import AUTHORITY_LOG


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup; an older one is replaced.")],
    store: StoreOption = None,
    root: RootOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Write a store's logs and queues into one file, and audit it before it gets its name.

    The store may be in use. An unsound copy is not kept, and an older backup stays.

    Examples:

      statelog backup node.backup --store node.db
    """
    with opened(store, root) as log_, ExitStack() as bar:

        def judge(copy: StoreSource) -> None:
            bar.close()
            show_audit(str(file), _audit(copy, log_.anchor), output)

        advance = bar.enter_context(progress("copying", log_.head.size))
        write_backup(log_.store.engine, file, judge, advance)
    if output is Form.TABLE:
        say(f"backed up  {file}")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup that `backup` wrote.")],
    root: AnchorOption,
    store: StoreOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Audit a backup and put it into a new store.

    Examples:

      statelog restore node.backup --store restored.db --root anchor
    """
    url, anchor = store_url(store), anchor_of(root)
    if not file.is_file():
        raise UsageError(f"{file}: no such file")

    def judge(copy: StoreSource) -> None:
        bar.close()
        show_audit(str(file), _audit(copy, anchor), output)

    with ExitStack() as bar:
        read_backup(file, url, judge, bar.enter_context(progress("restoring", None)))
    if output is Form.TABLE:
        say(f"restored   {url}")
    note("the memory of a witness is no part of a backup: give this host a new witness key")


def _audit(copy: StoreSource, anchor: str) -> Audited:
    audited = Audited()
    logs = {name: copy.of(name) for name in (AUTHORITY_LOG, *copy.logs_with_rows())}
    heads = [one.head() for one in logs.values()]
    run_audit(dict(logs), sum(head.size for head in heads if head is not None), anchor, audited, 0)
    return audited
