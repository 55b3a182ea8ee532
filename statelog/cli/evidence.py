"""`statelog evidence`: who signed two things, and the files that prove it to anyone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from statelog.cli.common import (
    Form,
    OutputOption,
    RootOption,
    StoreOption,
    now,
    print_json,
    print_table,
    say,
)
from statelog.cli.opened import opened
from statelog.errors import UsageError
from statelog.io.evidence import Evidence, KeptRollback, KeptSplitView
from statelog.io.evidence_files import rollback_files, split_view_files, write_evidence
from statelog.io.files import write_new
from statelog.io.store import Store
from statelog.times import format_time
from statelog.wording import plain, short

SCHEMA = "statelog.evidence.v1"

Views = list[tuple[str, KeptSplitView]]  # each with the name of its log
Backs = list[tuple[str, KeptRollback]]


def evidence(
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write everything as files into a new folder.")
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Alarm no more about a rollback of SOURCE, which will not come back; it stays as evidence.",
        ),
    ] = None,
    store: StoreOption = None,
    root: RootOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Show, or export, what this store keeps as proof that somebody signed two things.

    Equivocation: two rightly signed records of one subject and epoch. Split view: two signed heads that no
    single history has, with the root and the consistency proof that show it (RFC 6962). `statelog verify`
    checks both. Rollback: a replica that had shown a final head, and then an older one. Of all logs that the
    store holds.

    Examples:

      statelog evidence --store node.db

      statelog evidence --store node.db --out proof

      statelog evidence --store node.db --over https://gone.example
    """
    with opened(store, root) as log_:
        logs = [log_.store.of(name) for name in log_.store.logs()]
        if over is not None:
            _settle(logs, over)
        records = list(log_.store.evidence())
        views = [(one.log, view) for one in logs for view in one.split_views()]
        backs = [(one.log, back) for one in logs for back in one.rollbacks()]
    if out is not None:
        _export(out, records, views, backs)
    if output is Form.JSON:
        print_json(_document(records, views, backs, out))
        return
    _print(records, views, backs)
    if out is not None:
        say(f"written to {out}")


def _settle(logs: list[Store], source: str) -> None:
    """A rollback of the source, in whichever logs it is behind, is over."""
    concerned = [one for one in logs if one.rollback_from(source) is not None]
    if not concerned:
        under_way = (back.source for one in logs for back in one.rollbacks() if back.over_at is None)
        behind = ", ".join(dict.fromkeys(under_way))
        raise UsageError(f"no rollback of {source} is under way; of these one is: {behind or 'none'}")
    for one in concerned:
        one.rollback_over(source, now())


def _print(records: list[Evidence], views: Views, backs: Backs) -> None:
    if not records and not views and not backs:
        say("nothing: nobody is known to have signed two things, or to have gone back")
    if records:
        say("equivocation")
        print_table(
            ("subject", "epoch", "record", "seen"),
            (
                (plain(one.subject), one.epoch, short(one.record_id), format_time(one.seen_at))
                for one in records
            ),
        )
    if views:
        say("split views")
        print_table(
            ("log", "size", "its root", "root in the larger", "larger size", "shown by", "seen"),
            (
                (
                    plain(log),
                    one.size,
                    short(one.root.hex()),
                    short(one.found.root.hex()),
                    one.larger_size,
                    plain(one.source),
                    format_time(one.seen_at),
                )
                for log, one in views
            ),
        )
    if backs:
        say("rollbacks")
        print_table(
            ("log", "shown by", "showed", "then", "seen", "back"),
            (
                (
                    plain(log),
                    plain(one.source),
                    one.earlier_size,
                    one.size,
                    format_time(one.seen_at),
                    "not yet" if one.over_at is None else format_time(one.over_at),
                )
                for log, one in backs
            ),
        )


def _document(records: list[Evidence], views: Views, backs: Backs, out: Path | None) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "equivocations": [one.document() for one in records],
        "split_views": [one.document(log) for log, one in views],
        "rollbacks": [one.document(log) for log, one in backs],
        "folder": None if out is None else str(out),
    }


def _export(out: Path, records: list[Evidence], views: Views, backs: Backs) -> None:
    """One file a record and a note, and for a split view the proof between its two, as bytes."""
    try:
        out.mkdir(parents=True)
    except FileExistsError as error:
        raise UsageError(f"{out} exists already; give a new folder") from error
    except OSError as error:
        raise UsageError(f"{out}: {(error.strerror or str(error)).lower()}") from error
    for number, record in enumerate(records):
        # Names are made of numbers and hex: nothing that a record says becomes a path.
        write_new(out / f"record-{number:03}-{_hex(record.record_id)}.json", record.data, 0o644)
    for number, (_, view) in enumerate(views):  # a note names its log
        stem = f"split-{number:03}-{view.size}"
        write_evidence(out, split_view_files(stem, view.size, view.found))
    for number, (_, back) in enumerate(backs):
        stem = f"rollback-{number:03}-{back.earlier_size}-{back.size}"
        write_evidence(out, rollback_files(stem, back.found))


def _hex(record_id: str) -> str:
    return "".join(char for char in record_id if char in "0123456789abcdef")[:12]
