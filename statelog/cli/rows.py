"""`statelog prove-row` and `statelog check-row`: one row of a read model, for whoever has only the anchor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from statelog.cli.common import (
    EXIT_FINDINGS,
    AnchorOption,
    Form,
    LogOption,
    OutputOption,
    RootOption,
    StoreOption,
    anchor_of,
    now,
    print_json,
    say,
)
from statelog.cli.opened import opened
from statelog.cli.proofs import (
    AtOption,
    OutOption,
    at_or_now,
    bootstrap_lines,
    document,
    lines,
    read_proof,
    report,
)
from statelog.io.files import write_replacing
from statelog.io.snapshots import prove_row as prove
from statelog.lightclient import Proved, check_proof
from statelog.rowproofs import ShownRow, Standing
from statelog.rowproofs import check_row as check
from statelog.times import format_time
from statelog.wording import plain, span

SCHEMA = "statelog.check-row.v1"


def prove_row(
    projection: Annotated[str, typer.Argument(metavar="ROWS", help="Which rows, such as route_lease.")],
    key: Annotated[list[str], typer.Argument(metavar="KEY…", help="The row's key, such as a route id.")],
    store: StoreOption = None,
    root: RootOption = None,
    log: LogOption = None,
    out: OutOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Write the proof of one row, or that there is none, as of the newest final snapshot of the log.

    Examples:

      statelog prove-row route_lease eu-1/a --store node.db --log routes-eu-1 --out lease.tlog-proof

      statelog prove-row node 3f9a12cc… --store node.db
    """
    with opened(store, root, log=log) as log_:
        data = prove(log_.store, log_.anchor, projection, tuple(key), now())
        path = out or Path(f"{projection}.tlog-proof")
        write_replacing(path, data)
        proved = check_proof(data, log_.anchor, now())
    report(path, data, proved, _bootstrap(proved, check(proved)), output)


def check_row(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof that `prove-row` wrote.")],
    root: AnchorOption,
    at: AtOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Check the proof of a row with the anchor alone: no store, no network, no replay.

    Exit: 0 the row is proved and in force at the time of the check, or proved to be absent; 1 refused, or
    proved and expired, ended or not yet in force; 2 usage.

    Examples:

      statelog check-row lease.tlog-proof --root anchor
    """
    when = at_or_now(at)
    proved = check_proof(read_proof(file), anchor_of(root), when)
    shown = check(proved)
    standing = shown.standing(when)
    if output is Form.JSON:
        print_json(
            {
                "schema": SCHEMA,
                **document(proved),
                "snapshot_size": shown.size,
                "rows": shown.projection,
                "key": list(shown.key),
                "bootstrap": _bootstrap(proved, shown),
                "at": format_time(when),
                "standing": standing,
                "present": shown.row is not None,
                "row": shown.row,
            }
        )
    else:
        _print(proved, shown, standing, when)
    if standing not in (Standing.IN_FORCE, Standing.ABSENT):
        raise typer.Exit(EXIT_FINDINGS)


def _print(proved: Proved, shown: ShownRow, standing: Standing, when: int) -> None:
    if shown.row is None:
        row = "there is none"
    else:
        row = orjson.dumps(shown.row, option=orjson.OPT_INDENT_2).decode()
    key = " ".join(plain(part) for part in shown.key)
    marked = [] if proved.bootstrap else bootstrap_lines(_bootstrap(proved, shown))
    say(
        *lines(proved, when),
        *marked,
        f"row        {key} of {plain(shown.projection)}, as of {shown.size} entries",
        f"standing   {_worth(shown, standing, when)}",
        row,
    )


def _worth(shown: ShownRow, standing: Standing, when: int) -> str:
    row = shown.row or {}
    at = f"at {format_time(when)}"
    if standing is Standing.ENDED:
        return f"ENDED by {plain(str(row['ended_by']))}"
    if standing is Standing.EXPIRED:
        return f"EXPIRED {span(when - row['expires_at'])} before {format_time(when)}"
    if standing is Standing.NOT_YET:
        return f"NOT YET in force {at}, from {format_time(row['issued_at'])} on"
    return f"{standing} {at}"


def _bootstrap(proved: Proved, shown: ShownRow) -> bool:
    """Whether development mode accepted the snapshot, or the record that wrote the row."""
    return proved.bootstrap or (shown.row or {}).get("bootstrap") is True
