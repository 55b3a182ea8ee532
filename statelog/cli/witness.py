"""`statelog witness serve`: a witness that somebody outside the cluster's nodes can run."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from statelog.cli.common import LogLines, RootOption, anchor_of, note, say, store_url
from statelog.cli.keys import ask_passphrase
from statelog.errors import SourceUnreadable, UsageError
from statelog.io.database import open_database
from statelog.io.entries import open_entries
from statelog.io.files import write_new
from statelog.io.resources import is_address
from statelog.io.serving import https_server
from statelog.io.signers import SOURCES, load_signer
from statelog.io.store import Store
from statelog.io.tls import make_certificate
from statelog.io.witness_http import create_app
from statelog.io.witnessing import WitnessHost
from statelog.note import COSIGNATURE_V1, VerifierKey

# The callback keeps `serve` a subcommand while it is the only one.
app = typer.Typer(
    no_args_is_help=True, callback=lambda: None, help="Run a witness: replay what it is shown, and cosign it."
)

CERTIFICATE, CERTIFICATE_KEY, MEMORY = "tls.pem", "tls.key", "witness.db"


@app.command()
def serve(
    folder: Annotated[
        Path, typer.Option("--dir", help="The witness's folder: memory and certificate are made there.")
    ],
    source: Annotated[
        str,
        typer.Option(
            help="Where entries come from: https://HOST:PORT/log/authority of a replica, or a database."
        ),
    ],
    name: Annotated[str, typer.Option(help="The witness's key name, as the descriptor lists it.")],
    key: Annotated[str, typer.Option(help=f"The witness key: {SOURCES}.")],
    root: RootOption = None,
    source_ca: Annotated[
        Path | None, typer.Option(help="PEM certificate that proves the source, instead of the system's.")
    ] = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where to listen.")] = "127.0.0.1:8453",
    tls_name: Annotated[
        list[str] | None, typer.Option(help="More DNS names or addresses for a new certificate.")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Log every refusal on standard error.")] = False,
) -> None:
    """Serve C2SP tlog-witness add-checkpoint over HTTPS until SIGINT or SIGTERM.

    Every new entry is replayed by the rules of the log before its head is cosigned; size and root are stored
    before the answer. The folder keeps that memory: never run two folders with one key. Logs of partitions
    are cosigned too, beside the authority log of the same source.

    Examples:

      statelog witness serve --dir w1 --name w1.example --key file:w1.key --root anchor
      --source https://control.example:8443/log/authority --source-ca control.pem --listen 0.0.0.0:8453
    """
    if root is None:
        raise UsageError("which log? give --root ANCHOR, which the witness pins")
    _set_up_logging(verbose)
    host, port = _listen_at(listen)
    signer = load_signer(key, ask=ask_passphrase)
    VerifierKey(name, COSIGNATURE_V1, signer.public)  # refuses a name that no note can carry
    if not is_address(source):
        source = store_url(source)
    certificate, certificate_key = _prepared(folder, host, tls_name or [])
    with ExitStack() as closing:
        memory = open_database(store_url(str(folder / MEMORY)), create=True)
        closing.callback(memory.dispose)

        async def run() -> bool:
            async with open_entries(source, source_ca) as entries:
                witness = WitnessHost(anchor_of(root), name, signer, Store(memory), entries, time.time)
                server, listener = https_server(create_app(witness), host, port, certificate, certificate_key)
                with listener:
                    await _load(witness)
                    bound = listener.getsockname()
                    say(f"serves     https://{host}:{bound[1]}/add-checkpoint, certificate {certificate}")
                    sys.stdout.flush()
                    await server.serve(sockets=[listener])
            return server.started

        if not asyncio.run(run()):
            raise typer.Exit(1)


async def _load(witness: WitnessHost) -> None:
    """Catch up with the memory, and say where the witness stands."""
    try:
        state = await witness.load()
    except SourceUnreadable as error:
        note(f"{error}; answering 503 until that is mended")
    else:
        say(f"witness    {witness.name} of {state.origin}, cosigned up to {state.size}")


def _set_up_logging(verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogLines())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("statelog").setLevel(logging.INFO if verbose else logging.WARNING)


def _listen_at(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"--listen {text!r}: write HOST:PORT, for example 127.0.0.1:8453")
    return host, int(port)


def _prepared(folder: Path, host: str, more: list[str]) -> tuple[Path, Path]:
    """The certificate and key in the folder, made when there are none."""
    certificate, key = folder / CERTIFICATE, folder / CERTIFICATE_KEY
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    if not certificate.exists() and not key.exists():
        names = list(dict.fromkeys([host, *more, "localhost", "127.0.0.1"]))
        pem, secret = make_certificate(names, dt.datetime.now(dt.UTC))
        write_new(key, secret, 0o600)
        write_new(certificate, pem, 0o644)
    return certificate, key
