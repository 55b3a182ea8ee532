"""What the templates share: the log they draft from, and how options are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from statelog.cli.common import is_number
from statelog.cli.opened import Opened
from statelog.errors import UsageError, refuse
from statelog.io.files import read_bounded
from statelog.limits import MAX_RECORD_BYTES
from statelog.replay import Replay

Fields = dict[str, Any]
NOTHING: list[Any] = []  # the default of a repeatable option; each call gets a copy
Names = list[str]
KeyFiles = Annotated[
    list[Path],
    typer.Option(metavar="FILE", help="An enrollment file from `statelog key enroll`; repeatable."),
]
NodeId = Annotated[str | None, typer.Option("--node-id", help="The node: 64 hex digits.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the people who read the log.")]
Partition = Annotated[str | None, typer.Option(help="The partition.")]
Endpoints = Annotated[
    Names,
    typer.Option(
        "--endpoint", metavar="ADDRESS,pin=HEX,node=ID[,priority=N…]", help="An endpoint; repeatable."
    ),
]

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_ENDPOINT_DEFAULTS: Fields = {
    "transport": "direct_quic",
    "reachability": "public",
    "connectivity_mode": "direct",
    "priority": 10,
    "weight": 100,
}


class Current:
    """What a template may build on: the log as it stands, and the latest record of a subject."""

    def __init__(self, log_: Opened, replay: Replay | None = None) -> None:
        self.log_ = log_
        self.replay = replay or log_.replay(verify_signatures=False)

    def record(self, kind: str, *subject: str) -> Fields | None:
        """The record in force of a subject, None when there is none in the log."""
        return self.log_.record_in_force(self.replay, kind, *subject)


def read_enrollment(path: Path) -> Fields:
    """The KEY object in an enrollment file; admission checks its proof. Raises `Refused` SL-KEYFILE."""
    entry = read_json(path)
    texts = {"key_id", "alg", "public", "issuer_id", "custody", "proof"}
    if not isinstance(entry, dict) or not texts <= entry.keys() <= texts | {"name"}:
        raise refuse("SL-KEYFILE", f"{path} is not an enrollment file; `statelog key enroll` makes one")
    if not all(isinstance(value, str) for value in entry.values()):
        raise refuse("SL-KEYFILE", f"{path} is not an enrollment file: its fields are text")
    return entry


def read_json(path: Path) -> Any:
    """The JSON value in a small file. Raises `UsageError` when there is none."""
    data = read_bounded(path, MAX_RECORD_BYTES, "SL-SIZE")
    try:
        return orjson.loads(data)
    except ValueError as error:
        raise UsageError(f"{path} is not JSON: {error}") from error


def parse_duration(text: str) -> int:
    """Seconds of `90d`, `12h`, `30m` or `45s`. Raises `UsageError`."""
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise UsageError(f"{text!r} is not a duration; write 90d, 12h, 30m or 45s")
    return int(match[1]) * _UNITS[match[2]]


def is_named(entry: Fields, names: list[str]) -> bool:
    """Whether one of ``names`` is the KEY object's issuer, id or name."""
    return any(name in (entry["issuer_id"], entry["key_id"], entry.get("name")) for name in names)


def present(**fields: Any) -> Fields:
    """The fields that were given; what is missing is named by the shape check, or comes from --body."""
    return {name: value for name, value in fields.items() if value is not None}


def target(**choices: str | None) -> Fields | None:
    """The one target that was given. Raises `UsageError` for more than one."""
    given = present(**choices)
    if len(given) > 1:
        options = ", ".join("--" + name.replace("_", "-") for name in choices)
        raise UsageError(f"name one target, with one of {options}")
    return given or None


def endpoints(texts: list[str]) -> list[Fields] | None:
    """The endpoints that ``--endpoint`` options describe, None without any. Raises `UsageError`."""
    return [_endpoint(text, position) for position, text in enumerate(texts)] or None


def _endpoint(text: str, position: int) -> Fields:
    address, *rest = text.split(",")
    own: Fields = {"address": address, **_ENDPOINT_DEFAULTS}
    for part in rest:
        name, _, value = part.partition("=")
        if name not in {"pin", "id", "node", *_ENDPOINT_DEFAULTS} or not value:
            raise UsageError(f"{part!r} in --endpoint is not name=value with pin, node, id, {', '.join(own)}")
        own[name] = int(value) if name in {"priority", "weight"} and is_number(value) else value
    node = own.pop("node", None)
    if "id" not in own and node is None:
        raise UsageError(f"--endpoint {text!r} needs node=NODE_ID, or id=ENDPOINT_ID")
    if "pin" not in own:
        raise UsageError(f"--endpoint {text!r} needs pin=HEX, the SHA-256 of the node's certificate")
    identifier, pin = own.pop("id", f"{node}/{position}"), own.pop("pin")
    return {**own, "endpoint_id": identifier, "peer_cert_sha256": pin}
