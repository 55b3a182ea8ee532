"""`control-api init|serve`: sets a replica up and runs it. Exit code 2, with one line, for what the
operator can mend.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import socket
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn

from control_api.app import create_app, open_store
from control_api.settings import FILE_NAME, Settings, read_settings
from statelog.cli import ending
from statelog.errors import Refused, StatelogError, UsageError
from statelog.io.files import write_new
from statelog.io.serving import https_server
from statelog.io.signers import SOURCES, load_signer
from statelog.io.tls import make_certificate
from statelog.wording import plain

EXIT_USAGE = 2

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: control-api init --help. "
    "Exit codes: 0 ended by a signal, 2 for what the operator can mend, 1 otherwise.",
    help="An access replica of a signed state log: HTTPS and JSON beside a node daemon, on the same store.",
)

Dir = Annotated[Path, typer.Option("--dir", help="the replica's folder: settings and certificate")]
Port = Annotated[int | None, typer.Option(help="TCP port to listen on")]
StoreUrl = Annotated[str | None, typer.Option("--store", help="the store's URL, as the node daemon uses it")]
Anchor = Annotated[str | None, typer.Option(help="record id of entry 0, or a file that holds it")]
SequencerKey = Annotated[
    str | None,
    typer.Option("--sequencer-key", help=f"{SOURCES}; without it records go to the outbox"),
]


@app.command()
def init(
    folder: Dir,
    host: Annotated[
        str, typer.Option(help="address to listen on, and a name in the certificate")
    ] = "127.0.0.1",
    port: Port = None,
    name: Annotated[
        list[str] | None, typer.Option(help="more DNS names or addresses for the certificate")
    ] = None,
    store: StoreUrl = None,
    anchor: Anchor = None,
    sequencer_key: SequencerKey = None,
) -> None:
    """Make the folder, a TLS certificate and the settings. Nothing that exists is replaced.

    Examples:

      control-api init --dir control --port 8443 --store sqlite:///node.db --anchor anchor

      control-api init --dir control --host control.example --port 8443 --store sqlite:///node.db
      --anchor anchor --name 203.0.113.7 --sequencer-key file:sequencer.key
    """
    with _one_line():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        names = list(dict.fromkeys([host, *(name or []), "localhost", "127.0.0.1"]))
        certificate, key = make_certificate(names, dt.datetime.now(dt.UTC))
        write_new(folder / "tls.key", key, 0o600)
        write_new(folder / "tls.pem", certificate, 0o600)
        chosen = {
            "host": host,
            "port": port,
            "store": store,
            "anchor": str(Path(anchor).absolute()) if anchor and Path(anchor).exists() else anchor,
            "sequencer_key": sequencer_key,
        }
        write_new(folder / FILE_NAME, _toml(chosen).encode(), 0o600)
    typer.echo(f"{folder}: {FILE_NAME}, tls.pem, tls.key for {', '.join(names)}")


@app.command()
def serve(
    folder: Dir,
    host: Annotated[str | None, typer.Option(help="address to listen on")] = None,
    port: Port = None,
    store: StoreUrl = None,
    anchor: Anchor = None,
    sequencer_key: SequencerKey = None,
) -> None:
    """Serve until SIGINT or SIGTERM. Options go before the folder's settings.

    Examples:

      control-api serve --dir control

      control-api serve --dir control --host 0.0.0.0 --port 9443
    """
    with _one_line():
        settings = read_settings(
            folder, host=host, port=port, store=store, anchor=anchor, sequencer_key=sequencer_key
        )
        server, listener = prepare(settings)
        typer.echo(f"control-api: https://{settings.host}:{settings.port} serves {settings.store}")
        sys.stdout.flush()
        with listener:
            asyncio.run(server.serve(sockets=[listener]))
    if not server.started:
        raise typer.Exit(1)


def prepare(settings: Settings) -> tuple[uvicorn.Server, socket.socket]:
    """The server and its listening socket.

    What the operator can mend is found here, before anything listens. Raises UsageError (no port, a taken
    port, no usable certificate, no store, another cluster's) and Refused (a key file that does not open).
    """
    if settings.port is None:
        raise UsageError("no port: give --port, or set port in the settings")
    open_store(settings).dispose()
    signer = load_signer(settings.sequencer_key) if settings.sequencer_key is not None else None
    return https_server(
        create_app(settings, signer=signer),
        settings.host,
        settings.port,
        settings.tls_certificate,
        settings.tls_key,
    )


class _one_line:  # noqa: N801 - reads as a statement
    """Errors that the operator can mend become one line on stderr and exit code 2."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refused):
            _fail(str(error.finding))
        if isinstance(error, StatelogError):
            _fail(str(error))
        if isinstance(error, OSError):
            _fail(f"{error.filename or ''}: {(error.strerror or str(error)).lower()}".lstrip(": "))


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"control-api: {plain(' '.join(sentence.split()))}", err=True)
    raise typer.Exit(EXIT_USAGE)


def _toml(values: dict[str, str | int | None]) -> str:
    lines = ["# Settings of one control API replica; docs/control-api.md explains them."]
    for name, value in values.items():
        if value is not None:
            lines.append(f"{name} = {value}" if isinstance(value, int) else f"{name} = {_quoted(value)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in escaped) + '"'


def main() -> None:
    """Entry point of the `control-api` command."""
    os.umask(0o077)
    ending.run(app, "control-api", None, lambda _: None, 1)  # what the operator can mend is said by then


if __name__ == "__main__":
    main()
