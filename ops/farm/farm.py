"""The farm on disk and its processes: who is in it, where its files lie, how its daemons start and stop.

DIR/anchor                 record id of the log's entry 0, pinned by every node
DIR/farm.json              ports, chosen once
DIR/keys/, DIR/offline/    authority keys and, apart from them, the root and recovery keys
DIR/nodes/NAME/            node.toml, node.key, node.db of each node daemon
DIR/control/               the control API's certificate and key
DIR/content/NAME/          what the service hosts serve
DIR/logs/                  one log for each process
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from fabric.identity import NodeIdentity
from fabric.io import config as node_config
from fabric.peering import Address
from ops.farm.content import ContentServer, make_content
from ops.farm.processes import Processes
from statelog.cli.opened import Opened, opened
from statelog.errors import UsageError
from statelog.state import AuthorityState

CONTROL = "control-1"
SERVICE = "web-admin"
PROBE_JITTER_S = 0.5  # spreads the probes of six nodes; the default is for fleets


class SetupError(Exception):
    """The folder or the machine cannot carry a farm; exit code 2."""


@dataclass(frozen=True)
class Member:
    """One node of the farm: its certificate's role, and whether it runs one of the four witness keys."""

    name: str
    role: str
    witness: bool = False
    serves: bool = False


MEMBERS = (
    Member(CONTROL, "control-plane"),
    Member("home-1", "service-host", witness=True, serves=True),
    Member("node-9", "service-host", witness=True, serves=True),
    Member("usa-los-1", "entry", witness=True),
    Member("relay-1", "relay", witness=True),
    Member("phone-a", "mobile-edge"),
)
WITNESSES = tuple(member for member in MEMBERS if member.witness)
HOSTS = tuple(member for member in MEMBERS if member.serves)


class Farm:
    """A folder, its ports and its running processes. Leaving the context stops every one of them."""

    def __init__(self, folder: Path, engine: str = "auto") -> None:
        self.folder = folder.expanduser().absolute()
        self.engine = engine
        self.processes = Processes(self.folder / "logs")
        self.ports: dict[str, int] = {}
        self.content: dict[str, str] = {}
        self.passphrase_file = self.folder / "keys" / "passphrase"
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        try:
            for part in ("keys", "offline", "control", "nodes"):
                (self.folder / part).mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock()
            self.ports = self._choose_ports()
            if not self.passphrase_file.exists():
                descriptor = os.open(self.passphrase_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "w") as sink:
                    sink.write(secrets.token_urlsafe(24) + "\n")
            os.environ["STATELOG_PASSPHRASE_FILE"] = str(self.passphrase_file)
            self._serve_content()
        except OSError as error:
            self._closing.close()
            raise SetupError(f"{error.filename or self.folder}: {error.strerror or error}") from error
        except SetupError:
            self._closing.close()
            raise
        self._closing.enter_context(self.processes)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    # -- facts --

    @property
    def anchor(self) -> str:
        """The trust anchor, empty before genesis."""
        path = self.folder / "anchor"
        return path.read_text().strip() if path.exists() else ""

    @property
    def passphrase(self) -> str:
        return self.passphrase_file.read_text().strip()

    @property
    def store_path(self) -> Path:
        """The control replica's database: its node daemon's store."""
        return self.node_folder(CONTROL) / node_config.STORE_NAME

    @property
    def store_url(self) -> str:
        return f"sqlite:///{self.store_path}"

    @property
    def control_url(self) -> str:
        return f"https://127.0.0.1:{self.ports['control-api']}"

    @property
    def tls_certificate(self) -> Path:
        return self.folder / "control" / "tls.pem"

    def node_folder(self, name: str) -> Path:
        return self.folder / "nodes" / name

    def identity(self, name: str) -> NodeIdentity:
        return node_config.load_node_key(self.node_folder(name))

    def node_id(self, name: str) -> str:
        return self.identity(name).node_id

    def address(self, name: str) -> str:
        return f"quic://127.0.0.1:{self.ports[name]}"

    def endpoint(self, name: str, number: int = 1) -> dict[str, Any]:
        """The registry's endpoint object for a node of the farm (docs/records/, registry.gossip_record)."""
        identity = self.identity(name)
        return {
            "endpoint_id": f"{identity.node_id}/{number}",
            "address": self.address(name),
            "transport": "direct_quic",
            "reachability": "private",
            "connectivity_mode": "direct",
            "priority": 10,
            "weight": 100,
            "peer_cert_sha256": identity.certificate_sha256,
        }

    @contextmanager
    def opened(self) -> Iterator[Opened]:
        """The control replica's store, for reading, with the farm's anchor pinned."""
        try:
            with opened(self.store_url, self.anchor) as log:
                yield log
        except UsageError as error:
            raise SetupError(str(error)) from error

    def state(self) -> AuthorityState:
        """The authority state at the head of the control replica's log."""
        with self.opened() as log:
            return log.replay(verify_signatures=False).state

    # -- processes --

    def make_node(self, member: Member, cluster: str) -> None:
        """Write a node's `node.toml`: pinned anchor, seeds, services. Key and store stay as they are."""
        folder = self.node_folder(member.name)
        (folder / node_config.CONFIG_NAME).unlink(missing_ok=True)
        seeds = [name for name in (CONTROL, "usa-los-1", "relay-1") if name != member.name]
        node_config.save(
            node_config.NodeConfig(
                folder=folder,
                name=member.name,
                cluster=cluster,
                anchor=self.anchor,
                listen_host="127.0.0.1",
                listen_port=self.ports[member.name],
                engine=self._engine_of(member),
                probe_jitter_s=PROBE_JITTER_S,
                witness_key=str(self.key_path(f"witness-{member.name}")) if member.witness else None,
                witness_name=f"witness-{member.name}" if member.witness else None,
                sequencer_key=str(self.key_path("sequencer")) if member.name == CONTROL else None,
                roles=(member.role,),
                seeds=tuple(self._seed(name) for name in seeds),
                services={SERVICE: f"tcp://127.0.0.1:{self.ports[f'content-{member.name}']}"}
                if member.serves
                else {},
            )
        )

    def _engine_of(self, member: Member) -> str:
        """The engine asked for; `mixed` alternates, so that every route crosses from one to the other."""
        return ("qh3", "aioquic")[MEMBERS.index(member) % 2] if self.engine == "mixed" else self.engine

    def key_path(self, name: str) -> Path:
        """A key file; root and recovery keys lie apart from the others."""
        apart = name.startswith(("root-", "recovery-"))
        return self.folder / ("offline" if apart else "keys") / f"{name}.key"

    def start_node(self, name: str) -> None:
        self.processes.start(name, "fabric.cli.main", "node", "run", "--dir", str(self.node_folder(name)))

    def start_control(self) -> None:
        """The control host: its node daemon, and the API on the same store, its certificate made once."""
        if not self.tls_certificate.exists():
            self.run("control_api.cli", "init", "--dir", str(self.folder / "control"), "--host", "127.0.0.1")
        self.start_node(CONTROL)
        self.processes.start(
            "control-api",
            "control_api.cli",
            "serve",
            *("--dir", str(self.folder / "control"), "--port", str(self.ports["control-api"])),
            *("--store", self.store_url, "--anchor", str(self.folder / "anchor")),
            *("--sequencer-key", f"file:{self.key_path('sequencer')}"),
        )
        self.processes.await_ready()

    def stop_control(self) -> None:
        self.processes.stop("control-api")
        self.processes.stop(CONTROL)

    def start_forward(self, name: str, service: str) -> None:
        """A local TCP port at node `name` that leads to `service`, wherever it is."""
        if f"forward-{name}" not in self.processes.children:
            where = ("--dir", str(self.node_folder(name)), str(self.ports["forward"]), service)
            self.processes.start(f"forward-{name}", "fabric.cli.main", "forward", *where)
            self.processes.await_ready()

    def run(self, *arguments: str) -> str:
        """Run one command to its end; what it printed. Raises `SetupError` with its own sentence."""
        done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SetupError(
                done.stderr.strip().splitlines()[-1] if done.stderr.strip() else " ".join(arguments)
            )
        return done.stdout

    # -- set-up --

    def _seed(self, name: str) -> node_config.Seed:
        identity = self.identity(name)
        return node_config.Seed(identity.node_id, Address(self.address(name), identity.certificate_sha256))

    def _lock(self) -> None:
        handle = (self.folder / "lock").open("w")
        self._closing.enter_context(handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SetupError(
                f"{self.folder} is in use by another ./ops/up; stop it or choose another --dir"
            ) from error

    def _choose_ports(self) -> dict[str, int]:
        """The farm's ports: chosen free at the first run, the same ones ever after."""
        path = self.folder / "farm.json"
        if path.exists():
            ports: dict[str, int] = json.loads(path.read_text())["ports"]
            for name, port in ports.items():
                _require_free(name, port)
            return ports
        with ExitStack() as held:
            ports = {member.name: _free_port(held, socket.SOCK_DGRAM) for member in MEMBERS}
            for name in ("control-api", "forward", *(f"content-{member.name}" for member in HOSTS)):
                ports[name] = _free_port(held, socket.SOCK_STREAM)
        path.write_text(json.dumps({"ports": ports}, indent=2) + "\n")
        return ports

    def _serve_content(self) -> None:
        for member in HOSTS:
            folder = self.folder / "content" / member.name
            self.content[member.name] = make_content(folder, member.name)
            self._closing.callback(ContentServer(folder, self.ports[f"content-{member.name}"]).close)


def identities(farm: Farm) -> None:
    """A node key for every member; made before genesis, which names the sequencer's node."""
    for member in MEMBERS:
        try:
            node_config.make_folder(farm.node_folder(member.name))
            node_config.create_node_key(farm.node_folder(member.name))
        except (node_config.ConfigError, UsageError) as error:
            raise SetupError(str(error)) from error


def _free_port(held: ExitStack, kind: socket.SocketKind) -> int:
    probe = held.enter_context(socket.socket(socket.AF_INET, kind))
    probe.bind(("127.0.0.1", 0))
    return int(probe.getsockname()[1])


def _require_free(name: str, port: int) -> None:
    kind = socket.SOCK_DGRAM if any(member.name == name for member in MEMBERS) else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SetupError(
                f"port {port} of {name} is taken; stop what uses it, or choose another --dir"
            ) from error
