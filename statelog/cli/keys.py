"""`statelog key`: making key files, showing their public part, entering one into a cluster."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from statelog.cli.common import EXIT_FINDINGS, Form, OutputOption, in_words, print_json, print_table, say
from statelog.errors import Refused, UsageError
from statelog.genesis import key_entry
from statelog.io.files import is_taken, write_new
from statelog.io.held import CUSTODIES, KeyInfo
from statelog.io.keyfiles import COSTS, create_key_file, passphrase_from_environment, read_key_info
from statelog.io.signers import SOURCES, is_source, load_signer
from statelog.signing import encode_base64

app = typer.Typer(no_args_is_help=True, help="Make, list and show keys.")

KEY_SCHEMA = "statelog.key.v1"
KEYS_SCHEMA = "statelog.keys.v1"
ENROLL_SCHEMA = "statelog.enroll.v1"


def ask_passphrase(question: str) -> str:
    """Ask on the terminal, without echo. Raises `UsageError` where nobody is there to answer."""
    _require_terminal(question)
    answer: str = typer.prompt(question, hide_input=True, err=True)
    return answer


def new_passphrase(what: str) -> str:
    """The passphrase for a new key: from the environment, else asked twice on the terminal."""
    given = passphrase_from_environment()
    if given is not None:
        return given
    question = f"New passphrase for {what}"
    _require_terminal(question)
    typed: str = typer.prompt(question, hide_input=True, confirmation_prompt=True, err=True)
    return typed


def _require_terminal(question: str) -> None:
    """A passphrase that is piped in would be echoed, logged or kept in a history: it has its own ways in."""
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question}: nobody is here to ask; set STATELOG_PASSPHRASE or STATELOG_PASSPHRASE_FILE"
        )


@app.command()
def new(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="The key file to make; never replaced.")],
    name: Annotated[str, typer.Option(help="What people call the key; the file's name by default.")] = "",
    issuer: Annotated[str, typer.Option(help="Who holds it: a quorum counts issuers, not keys.")] = "",
    custody: Annotated[str, typer.Option(help=f"One of {', '.join(CUSTODIES)}.")] = "offline",
    cost: Annotated[str, typer.Option(help=f"What a guess costs: {', '.join(COSTS)}.")] = "moderate",
    output: OutputOption = Form.TABLE,
) -> None:
    """Make a key in an encrypted file of mode 0600.

    The passphrase comes from STATELOG_PASSPHRASE or STATELOG_PASSPHRASE_FILE, or is asked for.

    Examples:

      statelog key new alice.key --issuer alice

      STATELOG_PASSPHRASE_FILE=/run/pass statelog key new seq.key --custody online --cost interactive
    """
    if cost not in COSTS:
        raise UsageError(f"--cost is one of {', '.join(COSTS)}; not {cost!r}")
    if is_taken(path):
        raise UsageError(f"{path} exists already; give another name or move it away")
    info = create_key_file(
        path, new_passphrase(str(path)), name=name, issuer_id=issuer, custody=custody, cost=COSTS[cost]
    )
    _print_key(info, path, output)


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to look for *.key files.")] = Path(),
    output: OutputOption = Form.TABLE,
) -> None:
    """List the key files of a folder; needs no passphrase.

    Exit: 1 when a file was left out, because it cannot be read or is no key file.

    Example:

      statelog key list keys/
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    found, odd = [], []
    for path in sorted(folder.glob("*.key")):
        try:
            found.append((path, read_key_info(path)))
        except (Refused, UsageError) as error:
            sentence = error.finding.sentence if isinstance(error, Refused) else str(error)
            odd.append((path, sentence))
    if output is Form.JSON:
        keys = [_as_json(info, path) for path, info in found]
        unreadable = [{"file": str(path), "sentence": sentence} for path, sentence in odd]
        print_json({"schema": KEYS_SCHEMA, "keys": keys, "unreadable": unreadable})
    else:
        print_table(
            ("file", "name", "issuer", "custody", "key id"),
            ((path.name, info.name, info.issuer_id, info.custody, info.key_id) for path, info in found),
        )
        say(*(f"left out   {sentence}" for _, sentence in odd))
    if odd:
        raise typer.Exit(EXIT_FINDINGS)


@app.command()
def show(
    source: Annotated[str, typer.Argument(metavar="PATH|SOURCE", help=f"A key file, or {SOURCES}.")],
    output: OutputOption = Form.TABLE,
) -> None:
    """Show the public part of a key; a key file needs no passphrase for that, a token its PIN.

    Examples:

      statelog key show alice.key -o json

      statelog key show agent:alice@desk

      statelog key show 'pkcs11:token=alice;object=authority'
    """
    if is_source(source) and not source.startswith("file:"):
        _print_key(load_signer(source, ask=ask_passphrase).info, source, output)
        return
    path = source.removeprefix("file:")
    _print_key(read_key_info(path), path, output)


@app.command()
def enroll(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help=f"{SOURCES}.")],
    cluster: Annotated[str, typer.Option("--cluster-id", help="The cluster that the key enters.")],
    out: Annotated[Path, typer.Option("--out", help="The enrollment file to write.")],
    issuer: Annotated[str, typer.Option(help="The issuer; the key's own by default.")] = "",
    custody: Annotated[str, typer.Option(help="How the key is kept; the key's own by default.")] = "",
    name: Annotated[str, typer.Option(help="A witness's name in its signature lines.")] = "",
    output: OutputOption = Form.TABLE,
) -> None:
    """Write the public entry of a key with its proof of possession, for a descriptor or members record.

    The owner runs this and hands the file over; the key itself stays where it is.

    Examples:

      statelog key enroll file:alice.key --cluster-id farm.abc… --out alice.enroll.json

      statelog key enroll agent:bob@desk --cluster-id farm.abc… --issuer bob --custody offline --out bob.json
    """
    signer = load_signer(source, ask=ask_passphrase)
    holder = issuer or signer.info.issuer_id
    if not holder:
        raise UsageError(f"{signer.info.name} names no issuer; give --issuer")
    kept = custody or signer.info.custody
    if kept not in CUSTODIES:
        raise UsageError(f"how is {signer.info.name} kept? give --custody, one of {', '.join(CUSTODIES)}")
    entry = key_entry(signer, cluster, holder, kept, name=name or None)
    write_new(out, orjson.dumps(entry, option=orjson.OPT_INDENT_2) + b"\n", 0o644)
    if output is Form.JSON:
        print_json({"schema": ENROLL_SCHEMA, "file": str(out), "cluster_id": cluster, "entry": entry})
        return
    say(f"{out}: key {signer.info.key_id} of {holder}, proved for {cluster}")


def _as_json(info: KeyInfo, where: Path | str) -> dict[str, str]:
    return {
        "file": str(where),
        "name": info.name,
        "key_id": info.key_id,
        "public": encode_base64(info.public),
        "issuer_id": info.issuer_id,
        "custody": info.custody,
    }


def _print_key(info: KeyInfo, where: Path | str, output: Form) -> None:
    body = _as_json(info, where)
    if output is Form.JSON:
        print_json({"schema": KEY_SCHEMA, **body})
        return
    for label, value in body.items():
        say(f"{label.replace('_', ' '):10} {value}")
    say(*in_words(info.key_id))
