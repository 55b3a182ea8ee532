"""`statelog prove-row` and `statelog check-row`: one row of a read model, for whoever has only the anchor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from statelog.cli.common import (
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
    document,
    lines,
    read_proof,
    report,
)
from statelog.io.files import write_replacing
from statelog.io.snapshots import prove_row as prove
from statelog.lightclient import check_proof
from statelog.rowproofs import check_row as check

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
        index = check_proof(data, log_.anchor, now()).index
    report(path, data, log_.store.log, index, output)


def check_row(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof that `prove-row` wrote.")],
    root: AnchorOption,
    at: AtOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Check the proof of a row with the anchor alone: no store, no network, no replay.

    Exit: 0 the row is proved, or proved to be absent; 1 refused, 2 usage.

    Examples:

      statelog check-row lease.tlog-proof --root anchor
    """
    proved = check_proof(read_proof(file), anchor_of(root), at_or_now(at))
    shown = check(proved)
    if output is Form.JSON:
        print_json(
            {
                "schema": SCHEMA,
                **document(proved),
                "snapshot_size": shown.size,
                "rows": shown.projection,
                "key": list(shown.key),
                "present": shown.row is not None,
                "row": shown.row,
            }
        )
        return
    row = (
        "there is none" if shown.row is None else orjson.dumps(shown.row, option=orjson.OPT_INDENT_2).decode()
    )
    say(
        *lines(proved, at_or_now(at)),
        f"row        {' '.join(shown.key)} of {shown.projection}, as of {shown.size} entries",
        row,
    )
