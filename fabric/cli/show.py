"""How answers look: JSON as it is, or tables for people."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from fabric.io.config import ConfigError
from statelog.wording import plain

SHORT = 12


def console(*, soft_wrap: bool = True) -> Console:
    """For tables and sentences in which others may be quoted: no text means anything to it."""
    return Console(markup=False, emoji=False, highlight=False, soft_wrap=soft_wrap)


def record(values: Mapping[str, Any], output: str) -> None:
    """A few named values; the schema's name is for programs."""
    if is_json(output):
        print(json.dumps(values))
        return
    width = max(map(len, values), default=0)
    for name, value in values.items():
        if name != "schema":
            print(f"{name.ljust(width)}  {plain(_value(value))}")


def status(found: Mapping[str, Any], output: str) -> None:
    """`fabric.status.v1`."""
    if is_json(output):
        print(json.dumps(found))
        return
    out, names = console(), _names(found)
    _standing(out, found, names)
    _load(out, found)
    _ways(out, found, names)
    _told(out, found, names)


def _standing(out: Console, found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Who the node is, where its logs are, and what must not be overlooked."""
    log = found["log"]
    approved = "approved" if found["approved"] else "not approved"
    roles = ", ".join(found["roles"]) or "no roles"
    out.print(f"{found['name']}  {found['address']}  engine {found['engine']}")
    out.print(f"node {found['node_id']}")
    out.print(f"{found['cluster']}  {found['mode'] or 'no log yet'}  {approved}  {roles}")
    age = "unknown" if log["age_s"] is None else f"{log['age_s']:.0f} s"
    late = "  STALE" if log["stale"] else ""
    source = _source(log, names)
    where = f"log final {log['final_size']} of {log['size']}  term {log['term']}"
    out.print(f"{where}  head age {age}{late}  from {source}")
    for one in log["partitions"]:
        whence = _source(one, names)
        where = f"{one['log']} final {one['final_size']} of {one['size']}  term {one['term']}"
        out.print(f"{where}  from {whence}")
    unlogged = [f"node {one[:SHORT]} revoked" for one in found["unlogged"]["revoked_nodes"]]
    unlogged += [f"certificate {one[:SHORT]} revoked" for one in found["unlogged"]["revoked_certificates"]]
    unlogged += [f"{one['target']} {one['value'][:SHORT]} fenced" for one in found["unlogged"]["fences"]]
    if unlogged:
        out.print(f"unlogged  {', '.join(unlogged)}")
    for one in found["alarms"]:
        out.print(plain(f"ALARM {one['code']}: {one['sentence']}"))


def _load(out: Console, found: Mapping[str, Any]) -> None:
    """Sessions, and how loaded the node is by which classes."""
    _table(
        out,
        "sessions",
        ("peer", "remote", "rtt ms", "datagram", "streams", "capabilities"),
        (
            (
                one["name"] or one["node_id"][:SHORT],
                one["remote"],
                one["rtt_ms"],
                one["datagram_bytes"],
                sum(each["streams"] for each in one["classes"].values()),
                " ".join(
                    name if len(name) < 2 * SHORT else name[: 2 * SHORT] for name in one["capabilities"]
                ),
            )
            for one in found["sessions"]
        ),
    )
    for kind, name in (("sessions", "sessions"), ("streams", "streams"), ("relay", "rows of the relay")):
        if found[f"{kind}_left_out"]:
            out.print(f"left out  {found[f'{kind}_left_out']} {name} that moved less")
    pressure = found["pressure"]
    reasons = f"  {', '.join(pressure['reasons'])}" if pressure["reasons"] else ""
    out.print(
        f"pressure {pressure['level']}  score {pressure['score']}{reasons}  {pressure['recommended_action']}"
    )
    _table(
        out,
        "flows",
        ("class", "streams", "queued", "window", "dropped"),
        (
            (name, one["channels"], one["queued_bytes"], one["window_bytes"], one["dropped"])
            for name, one in pressure["classes"].items()
            if one["channels"] or one["queued_bytes"] or one["dropped"]
        ),
    )


def _ways(out: Console, found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """Where services are, the routes to them, and what is relayed."""
    _table(
        out,
        "registry",
        ("service", "scope", "active", "fallback", "candidate"),
        (
            (
                one["service"],
                " ".join(filter(None, (one["scope"], one["organization_id"]))),
                _short(one["active"]),
                " ".join(map(_short, one["fallback"])),
                " ".join(map(_short, one["candidate"])),
            )
            for one in found["registry"]
        ),
    )
    _table(
        out,
        "routes",
        ("route", "service", "hops", "stands", "in use"),
        (
            (
                one["route_id"],
                one["service"],
                " > ".join(names.get(hop, hop[:SHORT]) for hop in one["hops"]),
                _value(one["stands"]),
                _value(one["in_use"]),
            )
            for one in found["routes"]
        ),
    )
    _table(
        out,
        "relay",
        ("class", "route", "organization", "streams", "bytes forward", "bytes back"),
        (
            (
                one["class"],
                one["route_id"],
                one["organization_id"],
                one["streams"],
                one["bytes_forward"],
                one["bytes_back"],
            )
            for one in found["relay"]
        ),
    )


def _told(out: Console, found: Mapping[str, Any], names: Mapping[str, str]) -> None:
    """What others tell, and what of it was refused."""
    gossip, counted = found["gossip"], found["probes"]["counters"]
    probes = ", ".join(f"{name} {count}" for name, count in counted.items()) or "none"
    out.print(f"gossip holds {gossip['items']}, spreads {gossip['spreading']}; probes {probes}")
    refused = {**found["refusals"]["delivered"], **found["refusals"]["services"]}
    for peer, codes in found["refusals"]["by_peer"].items():
        refused |= {f"{names.get(peer, peer[:SHORT])} {code}": count for code, count in codes.items()}
    if refused:
        out.print(plain("refused  " + ", ".join(f"{name} {count}" for name, count in refused.items())))


def smoke(report: Mapping[str, Any], output: str) -> None:
    """`fabric.smoke.v1`."""
    if is_json(output):
        print(json.dumps(report))
        return
    out = console()
    rows = (
        (
            "ok" if step["ok"] else "FAILED",
            step["name"],
            f"{step['seconds']:.2f}",
            "  ".join(f"{name} {_value(value)}" for name, value in step["detail"].items()),
        )
        for step in report["steps"]
    )
    _table(out, f"smoke against {report['peer'][:SHORT]}", ("", "step", "s", "seen"), rows)


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={_value(one)}" for name, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def working(what: str, output: str) -> contextlib.AbstractContextManager[object]:
    """Something that moves on a terminal while a person waits; nothing for programs."""
    console = Console(stderr=True)
    if is_json(output) or not console.is_terminal:
        return contextlib.nullcontext()
    return console.status(f"{what} …")


def is_json(output: str) -> bool:
    """Whether `-o json` was asked for. Raises ConfigError for what is neither that nor `table`."""
    if output not in ("table", "json"):
        raise ConfigError(f"output {output!r}: table or json")
    return output == "json"


def _names(found: Mapping[str, Any]) -> dict[str, str]:
    names = {one["node_id"]: one["name"] for one in found["sessions"] if one["name"]}
    return {**names, found["node_id"]: found["name"]}


def _source(log: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Whom a log is followed at."""
    peer = log["source"]
    return names.get(peer, peer[:SHORT]) if peer else "this node's store"


def _short(record_id: str | None) -> str:
    return "-" if record_id is None else record_id[:SHORT]


def _table(out: Console, title: str, columns: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> None:
    lines = [tuple("-" if value in (None, "") else plain(str(value)) for value in row) for row in rows]
    if not lines:
        return
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    for line in lines:
        table.add_row(*line)
    out.print(table)
