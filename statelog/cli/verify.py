"""`statelog verify`: the whole log replayed from the pinned anchor, and what else the database claims."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer

from statelog.audit import LogSource
from statelog.cli.auditing import Audited, run_audit, show_audit
from statelog.cli.common import AnchorOption, Form, LogOption, OutputOption, anchor_of, store_url
from statelog.errors import SourceUnreadable, UsageError
from statelog.findings import Finding
from statelog.io.database import open_database
from statelog.io.resources import is_address
from statelog.io.sources import open_resources, open_source
from statelog.state import AUTHORITY_LOG
from statelog.tilelog import tile_logs

CHECKS_GROUP = "statelog.checks"

Check = Callable[[sa.Engine], Iterable[Finding]]


def verify(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A database URL, the path of a SQLite store, or a log in tiles: its folder or address.",
        ),
    ],
    root: AnchorOption,
    log: LogOption = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", envvar="STATELOG_CA", help="PEM certificate to trust for an https:// source."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=0, max=256, help="Processes that verify signatures; 0: as many as cores.")
    ] = 0,
    output: OutputOption = Form.TABLE,
) -> None:
    """Audit logs from their first entry: every rule, every signature, every checkpoint, every stored row.

    A source is audited with all the logs that it holds: the authority log, and the logs of partitions on
    what was found sound of it. With --log, the authority log and that one.

    Exit: 0 clean, 1 findings, 2 usage, 3 source unreadable.

    Examples:

      statelog verify node.db --root anchor

      statelog verify postgresql://…/farm --root 3f9a… -o json

      statelog verify tiles/ --root anchor

      statelog verify https://log.example/authority --root anchor
    """
    anchor, audited = anchor_of(root), Audited()
    with _source(source, ca, log) as (logs, size):
        run_audit(logs, size, anchor, audited, jobs)
    if _is_database(source):
        ran, found = run_checks(store_url(source), installed_checks())
        audited.checks += ran
        audited.extra += found
    show_audit(source, audited, output)


# -- checks that other packages bring --


def installed_checks() -> dict[str, Check]:
    """What else can judge a database, by name: entry points of group `statelog.checks`.

    Each is a function of a SQLAlchemy engine that returns findings. This package knows none of them, so
    that whoever reads the log may depend on it and not the other way round.
    """
    found: dict[str, Check] = {}
    for point in metadata.entry_points(group=CHECKS_GROUP):
        try:
            found[point.name] = point.load()
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"the installed check {point.name!r} ({point.value}) does not load: {error}"
            ) from error
    return found


def run_checks(url: str, checks: dict[str, Check]) -> tuple[list[str], list[Finding]]:
    """The names of the checks that ran, and what they found."""
    if not checks:
        return [], []
    engine = open_database(url, distrusted=True)
    try:
        return list(checks), [finding for check in checks.values() for finding in check(engine)]
    finally:
        engine.dispose()


# -- the source --


def _is_database(source: str) -> bool:
    return not is_address(source) and ("://" in source or not Path(source).is_dir())


@contextmanager
def _source(source: str, ca: Path | None, log: str | None) -> Iterator[tuple[dict[str, LogSource], int]]:
    """The logs to audit, by name, and how many entries they say to have."""
    with ExitStack() as stack:
        if _is_database(source):
            try:
                stored = stack.enter_context(open_source(store_url(source)))
            except UsageError as error:
                raise SourceUnreadable(str(error)) from error
            names = stored.logs_with_rows()
            _require_log(source, log, names)
            logs = {name: stored.of(name) for name in names if log in {None, name}}
            heads = [one.head() for one in logs.values()]
            yield {AUTHORITY_LOG: stored, **logs}, sum(head.size for head in heads if head is not None)
        else:
            found = tile_logs(stack.enter_context(open_resources(source, ca)))
            _require_log(source, log, list(found))
            tiles = {name: one for name, one in found.items() if log in {None, name} or name == AUTHORITY_LOG}
            yield dict(tiles), sum(one.size for one in tiles.values())


def _require_log(source: str, log: str | None, names: list[str]) -> None:
    if log is not None and log not in names:
        raise UsageError(f"{source} holds no log {log!r}; it holds {', '.join(names) or 'none'}")
