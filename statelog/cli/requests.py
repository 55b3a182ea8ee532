"""`statelog diff`, `sign`, `merge` and `status`: a request for signatures on its way through its signers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from statelog import ceremony, wording
from statelog.ceremony import Progress, Request
from statelog.cli.common import Form, OutputOption, RootOption, note, print_json, say, say_command
from statelog.cli.keys import ask_passphrase
from statelog.cli.review import (
    STDIN,
    CaOption,
    GroundOption,
    RequestFile,
    Review,
    is_tiles,
    read_form,
    read_request,
    request_document,
    reviewed,
)
from statelog.cli.transport import show_qr
from statelog.errors import UsageError, refuse
from statelog.io.files import write_new, write_replacing
from statelog.io.held import HeldKey
from statelog.io.signers import SOURCES, load_signer

DIFF_SCHEMA = "statelog.diff.v1"
SIGN_SCHEMA = "statelog.sign.v1"
MERGE_SCHEMA = "statelog.merge.v1"

OfflineOption = Annotated[
    bool, typer.Option("--offline", help="Without a store: what the record says is all that is shown.")
]


def diff(
    request: RequestFile,
    store: GroundOption = None,
    root: RootOption = None,
    ca: CaOption = None,
    offline: OfflineOption = False,
    output: OutputOption = Form.TABLE,
) -> None:
    """Show what a request would change in what is in force now: the same that `sign` shows.

    Examples:

      statelog diff move.sigreq --store node.db

      statelog diff move.sigreq --store node.db -o json
    """
    shown = read_request(request)
    review = reviewed(shown, store, root, ca, offline=offline)
    if output is Form.TABLE:
        say(*review.lines())
        return
    document = request_document(shown, request, review.progress(), review.bootstrap)
    print_json(
        {
            **document,
            "schema": DIFF_SCHEMA,
            "in_words": wording.digest_words(bytes.fromhex(shown.record_id)),
            "compared": review.state is not None or shown.is_genesis,
            "before_epoch": None if review.before is None else review.before["epoch"],
            "changes": [
                {"path": one.path, "before": one.before, "after": one.after} for one in review.differences()
            ],
            "warnings": review.warnings(),
            "risks": [{"name": one.name, "sentence": str(one)} for one in review.risks()],
        }
    )


def sign(
    request: RequestFile,
    key: Annotated[list[str], typer.Option("--key", metavar="SOURCE", help=f"{SOURCES}; repeatable.")],
    store: GroundOption = None,
    root: RootOption = None,
    ca: CaOption = None,
    offline: OfflineOption = False,
    digest: Annotated[
        str | None, typer.Option(help="The digest you agreed to; with it, nothing is asked.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write here instead of into the request.")] = None,
    qr: Annotated[bool, typer.Option("--qr", help="Show the signed request as QR codes too.")] = False,
    output: OutputOption = Form.TABLE,
) -> None:
    """Show what a request changes and sign exactly that.

    -o json is for programs, which read no review: it needs the --digest that was agreed to.

    Examples:

      statelog sign route.lease-r7-2.sigreq --key file:alice.key --store node.db

      statelog sign move.sigreq --key agent:alice@desk --store node.db --qr

      statelog sign move.sigreq --key file:alice.key --offline --digest 3f9a…
    """
    if output is Form.JSON and (digest is None or qr):
        raise UsageError("-o json asks nothing and shows no codes: give --digest, and leave out --qr")
    shown, form = read_form(request)
    if form != "file" and out is None:
        raise UsageError("this request came as text; give --out for the signed one")
    review = reviewed(shown, store, root, ca, offline=offline)
    if output is Form.TABLE:
        say(*review.lines())
    _agree(shown, digest)
    signed, done = shown, []
    for source in key:
        signer = load_signer(source, ask=ask_passphrase)
        issuer, role = _capacity(review, signer)
        signed = ceremony.attach(signed, signer, issuer, role)
        done.append({"issuer_id": issuer, "role": role, "key_id": signer.info.key_id})
        if output is Form.TABLE:
            say(f"signed     as {issuer}, {role}, key {signer.info.key_id}")
    merged = signed if str(request) == STDIN else _onto_file(request, shown, signed)
    write_replacing(out or request, ceremony.encode_request(merged))
    if output is Form.JSON:
        progress = review.progress(merged)
        document = request_document(merged, out or request, progress, review.bootstrap)
        print_json({**document, "schema": SIGN_SCHEMA, "signed": done})
        return
    say(
        *(f"quorum     {line}" for line in review.progress(merged).quorums),
        f"written    {out or request}",
    )
    if qr:
        show_qr(merged)


def merge(
    requests: Annotated[list[Path], typer.Argument(metavar="REQUEST…", help="Copies of one request.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write; never replaced.")],
    store: GroundOption = None,
    root: RootOption = None,
    ca: CaOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Put the signatures of several copies of one request together.

    With a store, signatures that would not count are left out; without one they are only collected.

    Example:

      statelog merge alice.sigreq bob.sigreq --out whole.sigreq --store node.db
    """
    copies = [read_request(path) for path in requests]
    if store is None:
        merged = ceremony.merge(copies)
        write_new(out, ceremony.encode_request(merged), 0o644)
        if output is Form.JSON:
            _print_merged(merged, out, None, [])
            return
        say(f"written    {out}: {len(merged.signatures)} signature(s), not checked: give --store for that")
        return
    review = reviewed(copies[0], store, root, ca)
    left_out = []
    for position, copy in enumerate(copies):
        for key_id in review.progress(copy).wrong:
            note(f"{requests[position]}: the signature of {key_id} does not count and is left out")
            left_out.append({"file": str(requests[position]), "key_id": key_id})
        copies[position] = ceremony.without(copy, review.progress(copy).wrong)
    merged = ceremony.merge(copies)
    write_new(out, ceremony.encode_request(merged), 0o644)
    if output is Form.JSON:
        _print_merged(merged, out, review, left_out)
        return
    say(*(f"quorum     {line}" for line in review.progress(merged).quorums), f"written    {out}")


def _print_merged(merged: Request, out: Path, review: Review | None, left_out: list[dict[str, str]]) -> None:
    """What `merge` wrote; without a store nothing is known of quorums, and `checked` is false."""
    progress = Progress((), ()) if review is None else review.progress(merged)
    document = {
        **request_document(merged, out, progress, None if review is None else review.bootstrap),
        "schema": MERGE_SCHEMA,
        "checked": review is not None,
        "complete": review is not None and progress.complete,
        "signatures": [one["key_id"] for one in merged.signatures],
        "left_out": left_out,
    }
    print_json(document)


def request_status(path: Path, store: str | None, root: str | None, ca: Path | None, output: Form) -> None:
    """Who signed a request and who is missing."""
    request = read_request(path)
    review = reviewed(request, store, root, ca)
    progress = review.progress()
    if output is Form.JSON:
        print_json(request_document(request, path, progress, review.bootstrap))
        return
    say(wording.headline(request.record), f"record id  {request.record_id}")
    say(*review.bootstrap_lines())
    say(*(f"quorum     {line}" for line in progress.quorums))
    say(*(f"wrong      the signature of {key_id} does not count" for key_id in progress.wrong))
    if progress.complete and request.is_genesis:
        say("next       run the `statelog init` that wrote it again")
    elif progress.complete and str(path) != STDIN:
        _say_submit(path, store, root)


def _say_submit(path: Path, store: str | None, root: str | None) -> None:
    """Into the store that was given; whoever has the log only in tiles hands in elsewhere."""
    if store is not None and not is_tiles(store):
        say_command("next", "statelog", "submit", path, store=store, root=root)
    else:
        say_command("next", "statelog", "submit", path, "--api", "https://YOUR.control:8443")


def _onto_file(path: Path, shown: Request, signed: Request) -> Request:
    """The signatures of `signed` and those that came into the file meanwhile.

    Raises `Refused` SL-REQUEST when the file asks for something else now than what was shown.
    """
    on_disk = read_request(path)
    if on_disk.payload != shown.payload:
        raise refuse(
            "SL-REQUEST",
            "the request changed while you looked at it; nothing was written",
            expected=shown.record_id,
            found=on_disk.record_id,
        )
    return ceremony.merge([ceremony.without(on_disk, _ids(signed)), signed])


def _agree(request: Request, digest: str | None) -> None:
    if digest is None:
        if not typer.confirm("Sign this?", err=True):
            raise UsageError("not signed")
    elif digest != request.record_id:
        raise refuse(
            "SL-REQUEST",
            "this is not the request that you agreed to; nothing was signed",
            expected=digest,
            found=request.record_id,
        )


def _capacity(review: Review, signer: HeldKey) -> tuple[str, str]:
    found = ceremony.capacity_of(signer.info.key_id, review.sets)
    if found is not None:
        return found
    if review.sets:
        roles = " or ".join(sorted({one.role for one in review.sets}))
        raise refuse(
            "SL-ROLE",
            f"the signature of {signer.info.name} would not count: it is no key of {roles}",
            found=signer.info.key_id,
        )
    if not signer.info.issuer_id:
        raise UsageError(f"{signer.info.name} names no issuer; sign with --store, which knows it")
    return signer.info.issuer_id, str(review.request.record["issuer_role"])


def _ids(request: Request) -> list[str]:
    return [one["key_id"] for one in request.signatures]
