"""A node's folder: `node.toml`, the node's key, and where its store lies.

    name = "home-1"
    cluster = "demo.3k5q…"                     the cluster id
    anchor = "9f2c…"                           record id of the log's entry 0
    listen = "127.0.0.1:7401"                  the UDP address that is bound, or a list; "*:7401" binds
                                               every address of the machine as they come and go
    advertise = ["quic://192.0.2.7:7401"]      what others may dial; default: what is bound
    engine = "auto"                            auto, qh3 or aioquic
    store = "sqlite:////var/lib/…/node.db"     default: node.db in the folder
    probe_jitter_s = 10.0
    qlog = "qlog"                              a folder for a qlog file of each connection; default: off
    interactive_shards = 2                     lanes for interactive streams, 1 to 8
    bulk_shards = 4                            lanes for bulk streams, 1 to 8
    seal_suites = ["aes-256-gcm", "chacha20-poly1305"]   ciphers of streams, the best first; default: both,
                                               that first which this machine does faster
    metrics_listen = "127.0.0.1:9464"          Prometheus text over HTTP, loopback only; default: off
    witness_key = "witness.key"                a key file, or env:NAME, agent:KEY, pkcs11:URI
    witness_name = "home-1.example"
    sequencer_key = "sequencer.key"
    partitions = ["eu-1"]                      the partitions whose logs are followed; default: all
    witness_ca = "witnesses.pem"               certificates of the witnesses below; default: the system's

    [witnesses]                                asked over HTTPS by a sequencer, instead of over the fabric
    "w5.example" = "https://w5.example:8453"

    [[seeds]]
    address = "quic://127.0.0.1:7402"
    node_id = "…"
    cert_sha256 = "…"

    [services]
    web-admin = "tcp://127.0.0.1:8080"

Everything is checked when it is read; what is wrong is one sentence and exit code 2.
"""

# Long on purpose: every setting of a node beside its check.
from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fabric import interfaces, limits
from fabric.errors import FabricError
from fabric.identity import AddressError, NodeIdentity, format_quic_address, parse_quic_address
from fabric.interfaces import WILDCARDS
from fabric.peering import Address
from fabric.wire import SUITES
from statelog.errors import Refused, UsageError
from statelog.io.cosign import HttpsWitnesses
from statelog.io.files import read_bounded, write_new
from statelog.io.signers import is_source

CONFIG_NAME = "node.toml"
KEY_NAME = "node.key"
STORE_NAME = "node.db"
SOCKET_NAME = "admin.sock"
ENGINES = ("auto", "qh3", "aioquic")

"""Of one class: with both, and the other classes, within the lanes of a session."""
MAX_CONFIG_BYTES = 256 << 10
MAX_KEY_BYTES = 256

_HEX64 = re.compile(r"[0-9a-f]{64}")
_CLUSTER = re.compile(r"[a-z0-9.-]{1,63}")
_PARTITION = re.compile(r"[a-z0-9-]{1,48}")
_SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_FIELDS = frozenset(
    (
        "name",
        "cluster",
        "anchor",
        "listen",
        "advertise",
        "engine",
        "store",
        "probe_jitter_s",
        "metrics_listen",
        "interactive_shards",
        "bulk_shards",
        "seal_suites",
        "qlog",
        "witness_key",
        "witness_name",
        "sequencer_key",
        "witness_ca",
        "witnesses",
        "partitions",
        "roles",
        "seeds",
        "services",
    )
)


class ConfigError(FabricError):
    """The folder or a flag cannot be used; exit code 2. `code` is `bad_config`."""

    def __init__(self, sentence: str) -> None:
        super().__init__("bad_config", sentence)


@dataclass(frozen=True, slots=True)
class Seed:
    """A node to begin with: where it is, who it must be, and its certificate's pin."""

    node_id: str
    address: Address

    @classmethod
    def parse(cls, text: str) -> Seed:
        """`quic://host:port#<node_id>:<cert_sha256>`"""
        address, mark, pins = text.partition("#")
        node_id, colon, pin = pins.partition(":")
        if not (mark and colon):
            raise ConfigError(f"seed {text!r}: write quic://host:port#<node_id>:<cert_sha256>")
        return cls.checked(address, node_id, pin)

    @classmethod
    def checked(cls, address: object, node_id: object, pin: object) -> Seed:
        """A seed of parsed values. Raises ConfigError."""
        _check_address(address, "seed")
        _check_hex(node_id, "the seed's node_id")
        _check_hex(pin, "the seed's cert_sha256")
        return cls(str(node_id), Address(str(address), str(pin)))


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What `node.toml` says, checked. Paths are absolute."""

    folder: Path
    name: str
    cluster: str
    anchor: str
    listen_host: str
    listen_port: int
    listen_more: tuple[tuple[str, int], ...] = ()
    advertise: tuple[str, ...] = ()
    engine: str = "auto"
    store_url: str = ""
    probe_jitter_s: float = limits.PROBE_SPREAD_S
    interactive_shards: int = limits.INTERACTIVE_SHARDS
    bulk_shards: int = limits.BULK_SHARDS
    seal_suites: tuple[str, ...] | None = None
    metrics_listen: str | None = None
    qlog: str | None = None
    witness_key: str | None = None
    witness_name: str | None = None
    sequencer_key: str | None = None
    witness_ca: str | None = None
    witnesses: dict[str, str] = field(default_factory=dict)
    partitions: tuple[str, ...] | None = None
    roles: tuple[str, ...] = ()
    seeds: tuple[Seed, ...] = ()
    services: dict[str, str] = field(default_factory=dict)

    @property
    def listen(self) -> tuple[tuple[str, int], ...]:
        """Every host and port to bind, the first one first."""
        return ((self.listen_host, self.listen_port), *self.listen_more)

    @property
    def admin_socket(self) -> Path:
        return self.folder / SOCKET_NAME

    @property
    def qlog_folder(self) -> Path | None:
        return None if self.qlog is None else self.folder / self.qlog

    def to_toml(self) -> str:
        """The file's text; reading it again gives an equal value."""
        lines = [f"name = {_quote(self.name)}", f"cluster = {_quote(self.cluster)}"]
        lines.append(f"anchor = {_quote(self.anchor)}")
        listen = [_quote(_join(host, port)) for host, port in self.listen]
        lines.append(f"listen = {listen[0] if len(listen) == 1 else '[' + ', '.join(listen) + ']'}")
        if self.advertise:
            lines.append(f"advertise = [{', '.join(map(_quote, self.advertise))}]")
        lines.append(f"engine = {_quote(self.engine)}")
        if self.store_url:
            lines.append(f"store = {_quote(self.store_url)}")
        lines.append(f"probe_jitter_s = {float(self.probe_jitter_s)}")
        lines += [f"{name} = {getattr(self, name)}" for name in ("interactive_shards", "bulk_shards")]
        for name in ("metrics_listen", "qlog", "witness_key", "witness_name", "sequencer_key", "witness_ca"):
            value = getattr(self, name)
            if value is not None:
                lines.append(f"{name} = {_quote(value)}")
        if self.seal_suites is not None:
            lines.append(f"seal_suites = [{', '.join(map(_quote, self.seal_suites))}]")
        if self.partitions is not None:
            lines.append(f"partitions = [{', '.join(map(_quote, self.partitions))}]")
        if self.roles:
            lines.append(f"roles = [{', '.join(map(_quote, self.roles))}]")
        for seed in self.seeds:
            lines += ["", "[[seeds]]", f"address = {_quote(seed.address.address)}"]
            lines.append(f"node_id = {_quote(seed.node_id)}")
            lines.append(f"cert_sha256 = {_quote(seed.address.cert_sha256)}")
        for title, table in (("witnesses", self.witnesses), ("services", self.services)):
            if table:
                lines += ["", f"[{title}]"]
                lines += [f"{_quote(name)} = {_quote(value)}" for name, value in table.items()]
        return "\n".join(lines) + "\n"


# -- reading --


def load(folder: Path | str) -> NodeConfig:
    """The configuration in `folder`. Raises ConfigError."""
    folder = Path(folder).expanduser().absolute()
    path = folder / CONFIG_NAME
    try:
        text = read_bounded(path, MAX_CONFIG_BYTES, "SL-SIZE").decode()
        table = tomllib.loads(text)
    except (UsageError, Refused) as error:
        raise ConfigError(f"{error}; make a node folder with: fabric node init --dir {folder}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        return from_table(folder, table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.sentence}") from error


def from_table(folder: Path, table: dict[str, Any]) -> NodeConfig:
    """Checks a parsed `node.toml`. Raises ConfigError."""
    unknown = sorted(table.keys() - _FIELDS)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}; known are {', '.join(sorted(_FIELDS))}")
    for name in ("name", "cluster", "anchor", "listen"):
        if name not in table:
            raise ConfigError(f"{name} is missing")
    cluster = _text(table, "cluster")
    if not _CLUSTER.fullmatch(cluster or ""):
        raise ConfigError(f"cluster {cluster!r} is not a cluster id ([a-z0-9.-], at most 63)")
    _check_hex(table["anchor"], "anchor")
    (host, port), *more = _listen(table["listen"])
    engine = _text(table, "engine") or "auto"
    if engine not in ENGINES:
        raise ConfigError(f"engine {engine!r}: one of {', '.join(ENGINES)}")
    witness_key, witness_name = _text(table, "witness_key"), _text(table, "witness_name")
    if (witness_key is None) != (witness_name is None):
        raise ConfigError("witness_key and witness_name go together")
    return NodeConfig(
        folder=folder,
        name=_text(table, "name") or "",
        cluster=cluster or "",
        anchor=str(table["anchor"]),
        listen_host=host,
        listen_port=port,
        listen_more=tuple(more),
        advertise=_advertise(table.get("advertise", [])),
        engine=engine,
        store_url=_text(table, "store") or "",
        interactive_shards=_shards(table, "interactive_shards", limits.INTERACTIVE_SHARDS),
        bulk_shards=_shards(table, "bulk_shards", limits.BULK_SHARDS),
        seal_suites=_suites(table.get("seal_suites")),
        qlog=_text(table, "qlog"),
        metrics_listen=_loopback(_text(table, "metrics_listen")),
        probe_jitter_s=_seconds(table.get("probe_jitter_s", limits.PROBE_SPREAD_S)),
        witness_key=witness_key,
        witness_name=witness_name,
        sequencer_key=_text(table, "sequencer_key"),
        witness_ca=_text(table, "witness_ca"),
        witnesses=_witnesses(table.get("witnesses", {})),
        partitions=_partitions(table.get("partitions")),
        roles=tuple(str(role) for role in table.get("roles", [])),
        seeds=_seeds(table.get("seeds", [])),
        services=_services(table.get("services", {})),
    )


def parse_listen(text: str) -> tuple[str, int]:
    """`host:port` of the bound socket; port 0 lets the system choose. Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"listen {text!r}: write host:port, for example 127.0.0.1:7401")
    return host, int(port)


def _listen(value: object) -> list[tuple[str, int]]:
    texts = value if isinstance(value, list) else [value]
    if not texts or len(texts) > limits.INTERFACES_BOUND or not all(isinstance(one, str) for one in texts):
        raise ConfigError(f"listen must be host:port, or a list of at most {limits.INTERFACES_BOUND} of them")
    found = [parse_listen(str(text)) for text in texts]
    hosts = {host for host, _ in found}
    if len(hosts) < len(found) or (len(hosts) > 1 and not hosts.isdisjoint((interfaces.EVERY, *WILDCARDS))):
        raise ConfigError("listen: a host once, and * or a wildcard alone")
    return found


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _shards(table: dict[str, Any], name: str, default: int) -> int:
    value = table.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limits.SESSION_SHARDS:
        raise ConfigError(f"{name} must be a number from 1 to {limits.SESSION_SHARDS}")
    return value


def _suites(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value if isinstance(value, list) else []
    known = tuple(suite for one in names for suite in SUITES if suite == one)
    if not known or len(known) < len(names) or len(set(known)) < len(known):
        raise ConfigError(f"seal_suites must be a list of {' and '.join(SUITES)}, each at most once")
    return known


def _loopback(text: str | None) -> str | None:
    """Metrics say who talks to whom; they leave this machine only by somebody's own doing."""
    if text is None:
        return None
    host, _ = parse_listen(text)
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        raise ConfigError(f"metrics_listen {text!r}: a loopback address, for example 127.0.0.1:9464")
    return text


def parse_service(name: str, target: str) -> tuple[str, str, int]:
    """(name, host, port) of `name=tcp://host:port`. Raises ConfigError."""
    if not _SERVICE.fullmatch(name):
        raise ConfigError(f"{name!r} is not a service name")
    if not target.startswith("tcp://"):
        raise ConfigError(f"service {name}: {target!r} is not tcp://host:port")
    try:
        host, port = parse_quic_address("quic://" + target.removeprefix("tcp://"))
    except AddressError as error:
        raise ConfigError(f"service {name}: {target!r} is not tcp://host:port ({error.sentence})") from error
    return name, host, port


# -- keys --


def create_node_key(folder: Path) -> NodeIdentity:
    """A new node key in `folder`, mode 0600; an existing one is kept."""
    path = folder / KEY_NAME
    if path.exists():
        return load_node_key(folder)
    seed = os.urandom(32)
    try:
        write_new(path, base64.b64encode(seed) + b"\n", 0o600)
    except UsageError as error:
        raise ConfigError(str(error)) from error
    return NodeIdentity.from_seed(seed)


def load_node_key(folder: Path) -> NodeIdentity:
    """The node's identity. Raises ConfigError: file missing, readable by others, or no key."""
    path = folder / KEY_NAME
    try:
        mode = path.stat().st_mode
        data = read_bounded(path, MAX_KEY_BYTES, "SL-KEYFILE")
    except (OSError, UsageError, Refused) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"{path} can be read by others; run: chmod 600 {path}")
    try:
        seed = base64.b64decode(data.strip(), validate=True)
    except binascii.Error as error:
        raise ConfigError(f"{path} is not a node key: {error}") from error
    if len(seed) != 32:
        raise ConfigError(f"{path} is not a node key: it holds {len(seed)} bytes, not 32")
    return NodeIdentity.from_seed(seed)


def save(config: NodeConfig) -> None:
    """Writes `node.toml`, never over an existing one. Raises ConfigError."""
    try:
        write_new(config.folder / CONFIG_NAME, config.to_toml().encode(), 0o644)
    except UsageError as error:
        raise ConfigError(str(error)) from error


def make_folder(folder: Path) -> None:
    """The node's folder, readable by its owner only when it is made here."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {(error.strerror or str(error)).lower()}") from error


def key_source(config: NodeConfig, value: str) -> str:
    """A key source as statelog's signers take it; a bare path or `file:` is relative to the folder."""
    if is_source(value) and not value.startswith("file:"):
        return value
    return f"file:{config.folder / value.removeprefix('file:')}"


def store_url(config: NodeConfig) -> str:
    """The store's database URL."""
    if not config.store_url:
        return f"sqlite:///{config.folder / STORE_NAME}"
    return config.store_url if "://" in config.store_url else f"sqlite:///{config.folder / config.store_url}"


def https_witnesses(config: NodeConfig) -> HttpsWitnesses | None:
    """The witnesses that this node asks over HTTPS, None without any. Raises ConfigError."""
    if not config.witnesses:
        return None
    try:
        return HttpsWitnesses(
            config.witnesses, None if config.witness_ca is None else config.folder / config.witness_ca
        )
    except UsageError as error:
        raise ConfigError(f"witnesses: {error}") from error


def advertised(config: NodeConfig, reachable: Iterable[tuple[str, int]]) -> tuple[str, ...]:
    """Addresses for this node's candidate set: as configured, else where it can be reached now."""
    if config.advertise:
        return config.advertise
    found = []
    for host, port in reachable:
        with contextlib.suppress(AddressError):
            address = format_quic_address(host, port)
            parse_quic_address(address)
            found.append(address)
    return tuple(found[: limits.INTERFACES_BOUND])


# -- small checks --


def _quote(text: str) -> str:
    """A TOML basic string; JSON's escapes are a subset of TOML's for what is printable and what is not."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _text(table: dict[str, Any], name: str) -> str | None:
    value = table.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigError(f"{name} must be a text")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 600:
        raise ConfigError(f"probe_jitter_s {value!r}: seconds from 0 to 600")
    return float(value)


def _check_hex(value: object, what: str) -> None:
    if not isinstance(value, str) or not _HEX64.fullmatch(value):
        raise ConfigError(f"{what} must be 64 lower-case hex digits, not {str(value)[:80]!r}")


def _check_address(value: object, what: str) -> None:
    try:
        parse_quic_address(str(value))
    except AddressError as error:
        raise ConfigError(f"{what}: {error.sentence}") from error


def _advertise(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError("advertise must be a list of quic://host:port")
    for address in value:
        _check_address(address, "advertise")
    return tuple(value)


def _partitions(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    names = value if isinstance(value, list) else [None]
    if not all(isinstance(one, str) and _PARTITION.fullmatch(one) for one in names):
        raise ConfigError("partitions must be a list of partition names (a-z 0-9 -)")
    return tuple(names)


def _seeds(value: object) -> tuple[Seed, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ConfigError("seeds must be [[seeds]] tables with address, node_id and cert_sha256")
    return tuple(Seed.checked(i.get("address"), i.get("node_id"), i.get("cert_sha256")) for i in value)


def _witnesses(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise ConfigError('witnesses must be a table of "key name" = "https://host:port"')
    for name, url in value.items():
        if not url.startswith("https://"):
            raise ConfigError(f"witness {name}: {url!r} is not an https:// address")
    return dict(value)


def _services(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ConfigError("services must be a table of name = tcp://host:port")
    for name, target in value.items():
        parse_service(name, str(target))
    return {name: str(target) for name, target in value.items()}
