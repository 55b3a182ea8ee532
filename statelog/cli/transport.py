"""`statelog request`: a request as text for a mail or as QR codes, and back."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import segno
import typer

from statelog import ceremony, transport, wording
from statelog.cli.common import Form, OutputOption, console, note, print_json, say
from statelog.cli.review import RequestFile, read_request, read_travelling
from statelog.errors import UsageError
from statelog.io.files import write_new

app = typer.Typer(no_args_is_help=True, help="Carry a request as text or as QR codes, and read it back.")

TEXT_SCHEMA = "statelog.request-text.v1"
QR_SCHEMA = "statelog.request-qr.v1"
READ_SCHEMA = "statelog.request-read.v1"

_LEVEL: Final = "m"  # a QR code survives 15 % of damage: enough for a screen or a sheet of paper
_WHITE_ON_BLACK, _PLAIN = "\x1b[97;40m", "\x1b[0m"  # whatever colours the terminal has
_SCALE: Final = 8  # pixels a module of a picture


@app.command("text")
def text(
    request: RequestFile,
    out: Annotated[Path | None, typer.Option("--out", help="Write here instead of printing.")] = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """A request as a block of text for a mail; every command that takes a request reads it as it is.

    Example:

      statelog request text move.sigreq | mail -s "please sign" alice
    """
    asked = read_request(request)
    block = transport.to_text(ceremony.encode_request(asked))
    if out is not None:
        write_new(out, block.encode(), 0o644)
    if output is Form.JSON:
        where = None if out is None else str(out)
        print_json({"schema": TEXT_SCHEMA, "record_id": asked.record_id, "file": where, "text": block})
    elif out is None:
        sys.stdout.write(block)
    else:
        say(f"written    {out}")


@app.command("qr")
def qr(
    request: RequestFile,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="NAME.png|NAME.svg", help="Pictures, not the screen."),
    ] = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """A request as QR codes, on the screen or as pictures; a large one becomes several, which are numbered.

    Examples:

      statelog request qr move.sigreq

      statelog request qr move.sigreq --out move.png
    """
    asked = read_request(request)
    if out is None and output is Form.TABLE:
        show_qr(asked)
        return
    frames = transport.to_frames(ceremony.encode_request(asked))
    paths = [] if out is None else _pictures(out, frames)
    if output is Form.JSON:
        files = [str(path) for path in paths]
        print_json({"schema": QR_SCHEMA, "record_id": asked.record_id, "codes": frames, "files": files})
        return
    say(*(f"written    {path}" for path in paths))


def _pictures(out: Path, frames: Sequence[str]) -> list[Path]:
    """One picture a code, written; with numbers in their names where there are several."""
    if out.suffix not in {".png", ".svg"}:
        raise UsageError(f"{out} is no picture that can be made; name it .png or .svg")
    numbered = [out.with_stem(f"{out.stem}-{number}") for number in range(1, len(frames) + 1)]
    paths = [out] if len(frames) == 1 else numbered
    for path, frame in zip(paths, frames, strict=True):
        write_new(path, _picture(frame, out.suffix[1:]), 0o644)
    return paths


@app.command("read")
def read(
    scanned: Annotated[
        list[str],
        typer.Argument(metavar="FILE…", help="Files with what was scanned or received; - is standard input."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The request file to write; never replaced.")],
    output: OutputOption = Form.TABLE,
) -> None:
    """Put a request together from scanned QR codes, one text a line and in any order, or from a mail's text.

    Examples:

      zbarcam --raw | statelog request read - --out move.sigreq

      statelog request read mail.txt --out move.sigreq
    """
    joined = b"\n".join(read_travelling(path) for path in scanned)
    request = ceremony.decode_request(transport.unpacked(joined)[0])
    write_new(out, ceremony.encode_request(request), 0o644)
    if output is Form.JSON:
        said = {"record_id": request.record_id, "headline": wording.headline(request.record)}
        print_json({"schema": READ_SCHEMA, "file": str(out), **said, "record": dict(request.record)})
        return
    say(wording.headline(request.record), f"record id  {request.record_id}", f"written    {out}")


def show_qr(request: ceremony.Request) -> None:
    """The request's QR codes on the screen, one after the other; on a terminal a key leads to the next."""
    frames, widest = transport.to_frames(ceremony.encode_request(request)), 0
    for number, frame in enumerate(frames, 1):
        drawn = list(_drawn(frame))
        widest = max(widest, *map(len, drawn))
        colour = (_WHITE_ON_BLACK, _PLAIN) if sys.stdout.isatty() else ("", "")
        sys.stdout.writelines(f"{colour[0]}{line}{colour[1]}\n" for line in drawn)  # never wrapped
        say(f"QR code {number} of {len(frames)}")
        if number < len(frames) and sys.stdin.isatty():
            typer.prompt("Enter for the next", default="", show_default=False, err=True)
    if sys.stdout.isatty() and (room := console().width) < widest:
        hint = "make the window wider, or draw pictures with `statelog request qr --out`"
        note(f"a code takes {widest} columns and this terminal has {room}: {hint}")


def _drawn(frame: str) -> Iterator[str]:
    """Lines of half blocks, light on dark: two rows of modules a line."""
    sheet = io.StringIO()
    _code(frame).terminal(sheet, compact=True)
    yield from sheet.getvalue().splitlines()


def _picture(frame: str, kind: str) -> bytes:
    sheet = io.BytesIO()
    _code(frame).save(sheet, kind=kind, scale=_SCALE)
    return sheet.getvalue()


def _code(frame: str) -> segno.QRCode:
    return segno.make_qr(frame, error=_LEVEL, mode="alphanumeric")
