"""`statelog prove` and `statelog check-proof`: one entry, for whoever has only the anchor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    is_number,
    now,
    print_json,
    say,
)
from statelog.cli.opened import Opened, opened
from statelog.errors import UsageError
from statelog.io.files import read_bounded, write_replacing
from statelog.io.proving import prove as prove_entry
from statelog.io.store import Store
from statelog.lightclient import Proved
from statelog.lightclient import check_proof as check
from statelog.limits import MAX_PROOF_FILE_BYTES
from statelog.times import format_time, parse_time
from statelog.wording import headline, span

PROVE_SCHEMA = "statelog.prove.v1"
CHECK_SCHEMA = "statelog.check-proof.v1"
_ID_CHARS = 64

OutOption = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="The proof file; by default named by its entry.")
]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="Judge as of this time (YYYY-MM-DDTHH:MM:SSZ) instead of now."),
]


def prove(
    which: Annotated[str, typer.Argument(metavar="INDEX|RECORD_ID", help="An index, or a whole record id.")],
    store: StoreOption = None,
    root: RootOption = None,
    log: LogOption = None,
    out: OutOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Write the proof of one final entry as a file (C2SP tlog-proof) that needs nothing but the anchor.

    Examples:

      statelog prove 17 --store node.db --out lease.tlog-proof

      statelog prove 3f9a12cc… --store node.db
    """
    with opened(store, root, log=log) as log_:
        where, index = _place(log_, which)
        data = prove_entry(where, log_.anchor, index, now())
        proved = check(data, log_.anchor, now())
        path = out or Path(f"{where.log}-{index}.tlog-proof")
        write_replacing(path, data)
    report(path, data, proved, proved.bootstrap, output)


def report(path: Path, data: bytes, proved: Proved, bootstrap: bool, output: Form) -> None:
    """Say which proof was written."""
    if output is Form.JSON:
        document = {
            "schema": PROVE_SCHEMA,
            "file": str(path),
            "bytes": len(data),
            "log": proved.log,
            "log_index": proved.index,
            "bootstrap": bootstrap,
        }
        print_json(document)
        return
    say(f"{path}: entry {proved.index} of the log {proved.log}, {len(data)} bytes")
    say(*bootstrap_lines(bootstrap))


def bootstrap_lines(bootstrap: bool) -> list[str]:
    """The mark of what development mode accepted, which a reader must not miss."""
    return ["bootstrap  development mode accepted it; a production node refuses it"] if bootstrap else []


def check_proof(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A proof that `prove` wrote.")],
    root: AnchorOption,
    at: AtOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Check a proof with the anchor alone: no store, no network.

    Exit: 0 proved, 1 refused, 2 usage.

    Examples:

      statelog check-proof lease.tlog-proof --root anchor

      statelog check-proof old.tlog-proof --root anchor --at 2026-01-01T00:00:00Z -o json
    """
    proved = check(read_proof(file), anchor_of(root), at_or_now(at))
    if output is Form.JSON:
        print_json({"schema": CHECK_SCHEMA, **document(proved), "record": proved.leaf.record})
        return
    say(
        *lines(proved, at_or_now(at)),
        "",
        orjson.dumps(proved.leaf.record, option=orjson.OPT_INDENT_2).decode(),
    )


def read_proof(file: Path) -> bytes:
    """The file, up to the longest proof that there is. Raises UsageError, Refused SL-PROOF."""
    return read_bounded(file, MAX_PROOF_FILE_BYTES, "SL-PROOF")


def at_or_now(at: str | None) -> int:
    """Unix seconds of `--at`, or the clock's. Raises Refused SL-SHAPE."""
    return now() if at is None else parse_time(at)


def document(proved: Proved) -> dict[str, Any]:
    """What is proved, for programs."""
    return {
        "proved": True,
        "origin": proved.origin,
        "log": proved.log,
        "log_index": proved.index,
        "record_id": proved.record_id,
        "sequenced_at": format_time(proved.leaf.sequenced_at),
        "size": proved.size,
        "root": proved.root.hex(),
        "cosigned_by": list(proved.signed_by),
        "bootstrap": proved.bootstrap,
        "as_of": None if proved.as_of is None else format_time(proved.as_of),
        "good_until": format_time(proved.expires_at),
    }


def lines(proved: Proved, at: int) -> list[str]:
    """What is proved, for people."""
    age = "at an unknown time" if proved.as_of is None else f"{span(max(0, at - proved.as_of))} ago"
    return [
        *bootstrap_lines(proved.bootstrap),
        f"proved     entry {proved.index} of {proved.origin}, final",
        f"record id  {proved.record_id}",
        f"says       {headline(proved.leaf.record)}",
        f"sequenced  {format_time(proved.leaf.sequenced_at)}",
        f"as of      a head of {proved.size} entries, cosigned {age} by {', '.join(proved.signed_by)}",
    ]


def _place(log_: Opened, which: str) -> tuple[Store, int]:
    if is_number(which) and len(which) < _ID_CHARS:
        return log_.store, int(which)
    found = log_.store.locate(which) if len(which) == _ID_CHARS else None
    if found is None:
        raise UsageError(f"no record of this store has the id {which!r}; give an index or a whole record id")
    return found
