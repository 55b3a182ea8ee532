"""`fabric`: make and run a node, and ask a running one.

Exit codes: 0 done, 1 refused or unreachable, 2 a command or configuration that cannot be used, 130 Ctrl-C.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from fabric import interfaces
from fabric.cli import run as running
from fabric.cli import show
from fabric.cli import top as watching
from fabric.errors import FabricError
from fabric.io import config as settings
from fabric.io.admin import AdminClient
from fabric.io.config import ConfigError, NodeConfig, Seed
from fabric.io.interfaces import machine_addresses
from statelog.ceremony import decode_request
from statelog.cli import ending
from statelog.errors import Refused, UsageError
from statelog.io.files import read_bounded
from statelog.io.signers import is_source
from statelog.limits import ANCHOR_FILE_MAX_BYTES

EXIT_FAILED, EXIT_USAGE = 1, 2
USAGE_CODES = frozenset(
    (
        "bad_config",
        "bad_request",
        "bad_store",
        "bind_failed",
        "port_taken",
        "engine_missing",
        "already_running",
        "not_running",
        "not_permitted",
    )
)
MAX_RECORD_FILE_BYTES = 64 << 10

app = typer.Typer(
    help=__doc__,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with: fabric node init --help",
)
node_app = typer.Typer(help="Make a node's folder, and run its daemon.", no_args_is_help=True)
app.add_typer(node_app, name="node")

Dir = Annotated[Path, typer.Option("--dir", help="The node's folder.")]


def _form(output: str) -> str:
    """An output that can be made; asked before anything is done, for a ping or a delivery is not undone."""
    show.is_json(output)
    return output


Output = Annotated[str, typer.Option("-o", "--output", callback=_form, help="table or json")]


@node_app.command(
    "init",
    epilog="Example: fabric node init --dir home-1 --name home-1 --cluster farm.abc… --anchor 9f2c… "
    "--listen 127.0.0.1:7401 --seed 'quic://127.0.0.1:7402#<node_id>:<cert_sha256>' "
    "--service web-admin=tcp://127.0.0.1:8080",
)
def node_init(
    folder: Dir,
    name: Annotated[str, typer.Option(help="A name for people.")],
    cluster: Annotated[str, typer.Option(help="The cluster id.")],
    anchor: Annotated[str, typer.Option(help="Record id of the log's entry 0, or a file that holds it.")],
    listen: Annotated[str, typer.Option(help="host:port of the UDP socket.")] = "0.0.0.0:7400",
    seed: Annotated[
        list[str] | None, typer.Option(help="What another node's init printed as `seed`; repeatable.")
    ] = None,
    advertise: Annotated[list[str] | None, typer.Option(help="quic://host:port others may dial.")] = None,
    witness_key: Annotated[str | None, typer.Option(help="A witness's key: file or key source.")] = None,
    witness_name: Annotated[str | None, typer.Option(help="The witness's name in the descriptor.")] = None,
    sequencer_key: Annotated[str | None, typer.Option(help="A sequencer's key: file or source.")] = None,
    service: Annotated[list[str] | None, typer.Option(help="name=tcp://host:port served here.")] = None,
    engine: Annotated[str, typer.Option(help="auto, qh3 or aioquic")] = "auto",
    role: Annotated[
        list[str] | None, typer.Option(help="Roles it is meant for; certificates decide.")
    ] = None,
    store: Annotated[str | None, typer.Option(help="Database URL; default: node.db in the folder.")] = None,
    probe_jitter_s: Annotated[float | None, typer.Option(help="Random wait before a probe.")] = None,
    output: Output = "table",
) -> None:
    """Write a node's key (once) and its node.toml, and print what others need to know of it.

    `seed` is for the others' --seed: the first address of --advertise, or of this machine where the node
    listens.
    """
    folder = folder.expanduser().absolute()
    table: dict[str, Any] = {
        "name": name,
        "cluster": cluster,
        "anchor": _anchor(anchor),
        "listen": listen,
        "engine": engine,
        "advertise": advertise or [],
        "roles": role or [],
        "services": dict(_service(one) for one in service or ()),
        "seeds": [_seed_table(Seed.parse(one)) for one in seed or ()],
        "store": store,
        "witness_key": _key(witness_key),
        "witness_name": witness_name,
        "sequencer_key": _key(sequencer_key),
        "probe_jitter_s": probe_jitter_s,
    }
    config: NodeConfig = settings.from_table(folder, {k: v for k, v in table.items() if v is not None})
    settings.make_folder(folder)
    settings.save(config)
    identity = settings.create_node_key(folder)
    seeds = [f"{one}#{identity.node_id}:{identity.certificate_sha256}" for one in _dialable(config)]
    known = {
        "name": name,
        "folder": str(folder),
        "node_id": identity.node_id,
        "cert_sha256": identity.certificate_sha256,
        "public": base64.b64encode(identity.public).decode(),
        "seed": next(iter(seeds), None),
    }
    show.record(known, output)
    if not seeds:
        print("fabric: no address is known that others may dial; say --advertise", file=sys.stderr)


def _dialable(config: NodeConfig) -> tuple[str, ...]:
    """What is advertised, or where the machine's addresses make the node reachable now."""
    rule, present = interfaces.Rule(dict(config.listen)), machine_addresses()
    hosts = rule.reachable(rule.wanted(present), present)
    return settings.advertised(config, [(host, config.listen_port) for host in hosts])


@node_app.command("run", epilog="Example: fabric node run --dir home-1")
def node_run(
    folder: Dir,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error; to stderr")] = "info",
    log_format: Annotated[str, typer.Option(help="text or json")] = "text",
    qlog: Annotated[Path | None, typer.Option(help="Folder for a qlog file of each connection.")] = None,
) -> None:
    """Run the daemon until SIGTERM or SIGINT. Prints one JSON line on stdout once it is bound."""
    config = settings.load(folder)
    if qlog is not None:
        config = replace(config, qlog=str(qlog.expanduser().absolute()))
    identity = settings.load_node_key(config.folder)
    running.set_up_logging(log_level, log_format)
    _run(running.run_node(config, identity))


@app.command(epilog="Example: fabric status --dir home-1 -o json")
def status(folder: Dir, output: Output = "table") -> None:
    """What the running node knows and does. JSON has the schema fabric.status.v1."""
    show.status(_ask(folder, "status"), output)


@app.command(
    epilog="Examples: fabric ping --dir phone-a relay-1 --count 5 · "
    "fabric ping --dir phone-a --service web-admin"
)
def ping(
    folder: Dir,
    peer: Annotated[str, typer.Argument(help="Node id, the beginning of one, or a display name.")] = "",
    service: Annotated[
        str, typer.Option(help="Ping from end to end, by the route a stream to this service takes.")
    ] = "",
    count: Annotated[int, typer.Option("-c", "--count", help="How many, one after the other.")] = 1,
    output: Output = "table",
) -> None:
    """Round-trip time of the session with a node, dialed if need be, or of a stream to a service.

    JSON has the schema fabric.ping.v1.
    """
    if bool(peer) == bool(service):
        raise ConfigError("name a node, or a service with --service")
    show.record(_ask(folder, "ping", peer=peer, service=service, count=count), output)


@app.command(
    epilog="Examples: fabric smoke --dir phone-a relay-1 · fabric smoke --dir phone-a -o json · "
    "fabric smoke --dir phone-a --keep-session"
)
def smoke(
    folder: Dir,
    peer: Annotated[str, typer.Argument(help="The node to talk to; default: a neighbour.")] = "",
    keep_session: Annotated[
        bool, typer.Option("--keep-session", help="Leave out the step that kills the session.")
    ] = False,
    output: Output = "table",
) -> None:
    """Prove on a running node, in about ten seconds, that its data plane does what it promises.

    Bulk and interactive streams are mixed in one session: bulk that nobody reads, streams over all lanes,
    datagrams, pressure that comes and goes, a killed session that streams outlive. JSON has the schema
    fabric.smoke.v1. Exit code 1 when a step fails.
    """
    with show.working("smoke", output):
        report = _ask(folder, "smoke", peer=peer, kill=not keep_session)
    show.smoke(report, output)
    if not report["ok"]:
        raise SystemExit(EXIT_FAILED)


@app.command(epilog="Examples: fabric top --dir home-1 · fabric top --dir home-1 -o json -n 1")
def top(
    folder: Dir,
    interval_s: Annotated[float, typer.Option("--interval", help="Seconds between pictures.", min=0.1)] = 1.0,
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="Pictures; default: until Ctrl-C.", min=1)
    ] = None,
    output: Output = "table",
) -> None:
    """A running node as it lives: pressure, classes, sessions, streams, rates. Ctrl-C ends it.

    JSON is one object a line, schema fabric.top.v1.
    """
    as_json = show.is_json(output)
    with contextlib.suppress(KeyboardInterrupt):  # which is how it is meant to end
        _run(watching.run_top(_socket(folder), interval_s, count, as_json=as_json))


@app.command(epilog="Example: fabric metrics --dir home-1 | grep pressure")
def metrics(folder: Dir) -> None:
    """What the running node measures, as Prometheus text; `metrics_listen` in node.toml serves it by HTTP."""
    print(_ask(folder, "metrics")["text"], end="")


@app.command(epilog="Example: fabric heartbeat --dir home-1")
def heartbeat(folder: Dir) -> None:
    """A short report of the running node for whoever collects them: JSON, schema fabric.heartbeat.v1."""
    print(json.dumps(_ask(folder, "heartbeat")))


@app.command(epilog="Example: fabric deliver --dir usa-los-1 moved.json")
def deliver(
    file: Annotated[Path, typer.Argument(help="A signed record, or the request (.sigreq) it is in.")],
    folder: Dir,
    output: Output = "table",
) -> None:
    """Hand a signed record to this node. It is judged, spread by gossip, and forwarded into the log."""
    data = _signed_record(_read(file, MAX_RECORD_FILE_BYTES).strip(), file)
    show.record(_ask(folder, "deliver", record=base64.b64encode(data).decode()), output)


@app.command(epilog="Example: fabric forward --dir phone-a 8080 web-admin")
def forward(
    port: Annotated[int, typer.Argument(help="Local TCP port; 0 lets the system choose.", min=0, max=65535)],
    service: Annotated[str, typer.Argument(help="Logical service name.")],
    folder: Dir,
    traffic_class: Annotated[str, typer.Option("--class", help="interactive, reliable or bulk")] = "reliable",
) -> None:
    """Open a local TCP port that leads to a service wherever it is, until Ctrl-C. Prints one JSON line."""
    _run(running.run_forward(_socket(folder), port, service, traffic_class))


@app.command(
    "open-test",
    epilog="Examples: fabric open-test --dir phone-a web-admin · "
    "fabric open-test --dir phone-a web-admin --route R --hops phone-a,relay-1,node-9",
)
def open_test(
    service: Annotated[str, typer.Argument(help="Logical service name.")],
    folder: Dir,
    route: Annotated[str | None, typer.Option(help="Insist on this leased route.")] = None,
    hops: Annotated[str, typer.Option(help="Its hops (ids or names), when no lease is known here.")] = "",
    traffic_class: Annotated[str, typer.Option("--class", help="Traffic class of the stream.")] = "reliable",
    output: Output = "table",
) -> None:
    """Open a stream to a service and close it: shows whether the way works, or why it is refused."""
    fields: dict[str, Any] = {"service": service, "class": traffic_class}
    if route is not None:
        fields |= {"route": route, "hops": [hop for hop in hops.split(",") if hop]}
    show.record(_ask(folder, "open-test", **fields), output)


# -- parts --


def _socket(folder: Path) -> Path:
    return settings.load(folder).admin_socket


def _ask(folder: Path, do: str, **fields: Any) -> dict[str, Any]:
    async def call() -> dict[str, Any]:
        async with AdminClient(_socket(folder)) as client:
            return await client.call(do, **fields)

    return asyncio.run(call())


def _run(job: Coroutine[Any, Any, None]) -> None:
    asyncio.run(job)


def _anchor(text: str) -> str:
    if len(text) == 64:
        return text
    try:
        return _read(Path(text), ANCHOR_FILE_MAX_BYTES).decode(errors="replace").strip()
    except ConfigError as error:
        sentence = f"anchor: neither 64 lower-case hex digits nor a file that holds them: {error.sentence}"
        raise ConfigError(sentence) from error


def _read(file: Path, max_bytes: int) -> bytes:
    """The whole of a file. Raises ConfigError."""
    try:
        return read_bounded(file, max_bytes, "SL-SIZE")
    except (UsageError, Refused) as error:
        raise ConfigError(str(error)) from error


def _signed_record(data: bytes, file: Path) -> bytes:
    """The record's bytes; of a signing request, the record with the signatures collected so far."""
    if b'"statelog.sigreq.v1"' not in data:
        return data
    try:
        return decode_request(data).signed_record()
    except Refused as error:
        raise ConfigError(f"{file}: {error.finding}") from error


def _key(value: str | None) -> str | None:
    """A key file named on the command line is meant from where we are, not from the node's folder."""
    if value is None or (is_source(value) and not value.startswith("file:")):
        return value
    return str(Path(value.removeprefix("file:")).expanduser().absolute())


def _service(text: str) -> tuple[str, str]:
    name, equals, target = text.partition("=")
    if not equals:
        raise ConfigError(f"service {text!r}: write name=tcp://host:port")
    return name, target


def _seed_table(seed: Seed) -> dict[str, str]:
    return {
        "address": seed.address.address,
        "node_id": seed.node_id,
        "cert_sha256": seed.address.cert_sha256,
    }


def main(arguments: list[str] | None = None) -> None:
    """The command `fabric`. Every failure is one line on stderr."""
    ending.run(app, "fabric", arguments, _judge, EXIT_FAILED)


def _judge(error: Exception) -> ending.Failure | None:
    if not isinstance(error, FabricError):
        return None
    exit_code = EXIT_USAGE if error.code in USAGE_CODES or isinstance(error, ConfigError) else EXIT_FAILED
    code = "" if error.code in ("bad_config", "bad_request") else f"{error.code}: "
    return ending.Failure(exit_code, error.code, error.sentence or error.code, f"{code}{error.sentence}")


if __name__ == "__main__":
    main()
