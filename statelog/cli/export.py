"""`statelog export`: what is final of a store's log, as files for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import orjson
import typer

from statelog.cli.common import (
    Form,
    LogOption,
    OutputOption,
    RootOption,
    StoreOption,
    note,
    print_json,
    print_table,
    progress,
    say,
    say_command,
)
from statelog.cli.opened import opened
from statelog.dsse import envelope_of
from statelog.errors import UsageError
from statelog.io.export import export_logs
from statelog.io.files import replacing
from statelog.leaf import decode_leaf

SCHEMA = "statelog.export.v1"
DSSE_SCHEMA = "statelog.export-dsse.v1"


def export(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER|FILE", help="Where the tiles go; made if need be.")
    ],
    store: StoreOption = None,
    root: RootOption = None,
    log: LogOption = None,
    dsse: Annotated[
        bool, typer.Option("--dsse", help="Write the records of one log as DSSE envelopes, one a line.")
    ] = False,
    output: OutputOption = Form.TABLE,
) -> None:
    """Write what is final of the store's logs as static files (C2SP tlog-tiles) that any web server can host.

    The authority log stands in FOLDER itself, the log of a partition in the folder of its name. Run it again
    to add what is new: a tile that is there is compared with the store and written again only when it is
    damaged; the checkpoint comes last.

    With --dsse, FILE gets the final records of one log as DSSE envelopes for other people's verifiers.

    Examples:

      statelog export --store node.db tiles/

      statelog export --store node.db --dsse records.jsonl

      statelog verify tiles/ --root anchor
    """
    if dsse:
        _export_envelopes(folder, store, root, log, output)
        return
    if log is not None:
        raise UsageError("tiles are written of all logs; --log belongs to --dsse")
    with opened(store, root) as log_, progress("exporting", log_.head.final_size) as advance:
        done = export_logs(log_.store, log_.anchor, folder, advance)
    for one in done:
        if one.mended:
            note(f"{one.mended} tiles of {one.origin} in {folder} were damaged, and are written again")
    if output is Form.JSON:
        logs = [
            {
                "log": one.log,
                "origin": one.origin,
                "size": one.size,
                "root": one.root.hex(),
                "tiles_written": one.written,
                "tiles_mended": one.mended,
                "history": list(one.history),
            }
            for one in done
        ]
        print_json({"schema": SCHEMA, "anchor": log_.anchor, "folder": str(folder), "logs": logs})
        return
    print_table(
        ("log", "final entries", "new files", "kept heads"),
        ((one.origin, one.size, one.written, len(one.history)) for one in done),
    )
    say_command("next", "statelog", "verify", folder, root=log_.anchor)


def _export_envelopes(file: Path, store: str | None, root: str | None, log: str | None, output: Form) -> None:
    with (
        opened(store, root, log=log) as log_,
        progress("exporting", log_.head.final_size) as advance,
        replacing(file) as copy,
        copy.open("wb") as lines,
    ):
        for stored in log_.store.entries(0, log_.head.final_size):
            envelope = envelope_of(decode_leaf(stored.leaf).record)
            lines.write(orjson.dumps(envelope, option=orjson.OPT_APPEND_NEWLINE))
            if advance is not None:
                advance(stored.index + 1)
    if output is Form.JSON:
        count = log_.head.final_size
        print_json({"schema": DSSE_SCHEMA, "log": log_.store.log, "file": str(file), "envelopes": count})
        return
    say(f"{file}: {log_.head.final_size} envelopes of {log_.head.origin}")
