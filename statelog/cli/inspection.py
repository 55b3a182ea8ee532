"""`statelog inspect`: what a file is, its digest, and whether its signatures are right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statelog.cli.common import (
    EXIT_FINDINGS,
    Form,
    OutputOption,
    RootOption,
    anchor_of,
    in_words,
    now,
    print_json,
    say,
)
from statelog.cli.review import STDIN, CaOption, GroundOption, authority_of, read_stdin
from statelog.inspection import DATABASE_MAGIC, Inspection, Known, inspect
from statelog.io.files import file_begins, read_bounded
from statelog.limits import MAX_ENVELOPES_BYTES
from statelog.wording import digest_words

SCHEMA = "statelog.inspect.v1"


def inspect_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Any file of a ceremony or a log; - for stdin.")
    ],
    store: GroundOption = None,
    root: RootOption = None,
    ca: CaOption = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster-id", help="The cluster that a key is to enter, without a store.")
    ] = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Show what a file is: request, record, log entry, checkpoint, proof, envelope, enrollment or key file.

    With --store its signatures are checked by the keys in force there, a proof by the anchor.

    Exit: 0 nothing is wrong with it, 1 something is, 2 it is no such file.

    Examples:

      statelog inspect move.sigreq --store node.db

      statelog inspect checkpoint --store tiles/ --root anchor

      statelog inspect alice.enroll.json --cluster-id farm.abc… -o json
    """
    data = _read(file)
    state = None if store is None else authority_of(store, root, ca)
    anchor = state.anchor if state is not None else anchor_of(root) if root is not None else None
    found = inspect(data, Known(now(), state, anchor, cluster))
    if output is Form.JSON:
        print_json(_document(file, found))
    else:
        _print(found, checked=state is not None)
    if not found.sound:
        raise typer.Exit(EXIT_FINDINGS)


def _read(file: Path) -> bytes:
    """What is to be looked at: of a database, however large, no more than what shows that it is one."""
    if str(file) == STDIN:
        return read_stdin(MAX_ENVELOPES_BYTES)
    if file_begins(file, DATABASE_MAGIC):
        return DATABASE_MAGIC
    return read_bounded(file, MAX_ENVELOPES_BYTES, "SL-SIZE")


def _print(found: Inspection, *, checked: bool) -> None:
    say(
        f"is a       {found.what}",
        f"says       {found.says}",
        *(f"{label:10} {value}" for label, value in found.facts),
        f"digest     {found.digest}",
        *in_words(found.digest),
        f"digest of  {found.digest_of}",
        *(
            f"{one.verdict.upper() if one.verdict == 'wrong' else one.verdict:10} {one.by}"
            for one in found.signatures
        ),
        *(f"wrong      {one}" for one in found.wrong),
    )
    if not checked and any(one.verdict == "unknown key" for one in found.signatures):
        say("next       give --store to check signatures by the keys in force")


def _document(file: Path, found: Inspection) -> dict[str, object]:
    return {
        "schema": SCHEMA,
        "file": str(file),
        "what": found.what,
        "says": found.says,
        "digest": found.digest,
        "digest_of": found.digest_of,
        "in_words": digest_words(bytes.fromhex(found.digest)),
        "facts": _facts(found),
        "signatures": [{"by": one.by, "verdict": one.verdict} for one in found.signatures],
        "sound": found.sound,
        "findings": [{"code": one.code, "sentence": str(one)} for one in found.wrong],
    }


def _facts(found: Inspection) -> dict[str, str]:
    """By name; what has one name several times stands in one text."""
    facts: dict[str, str] = {}
    for name, value in found.facts:
        facts[name] = f"{facts[name]}, {value}" if name in facts else value
    return facts
