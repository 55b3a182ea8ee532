"""`fabric top`: a running node as it lives, once a second."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from fabric.cli import show
from fabric.io.admin import AdminClient
from statelog.wording import plain

SCHEMA = "fabric.top.v1"
LEVEL_STYLES = {"nominal": "green", "warning": "yellow", "critical": "bold red"}
BAR_CELLS = 20
SHORT = 12
STREAMS_SHOWN = 20

Status = Mapping[str, Any]


async def run_top(socket: Path, interval_s: float, count: int | None, *, as_json: bool) -> None:
    """Show the node until Ctrl-C, or `count` times; JSON is one object a line."""
    async with AdminClient(socket) as client:
        before, before_at = await client.call("status"), time.monotonic()
        if as_json:
            while count is None or count > 0:
                await asyncio.sleep(interval_s)  # the period that was asked for
                found, at = await client.call("status"), time.monotonic()
                print(json.dumps(picture(before, found, at - before_at)), flush=True)
                before, before_at = found, at
                count = None if count is None else count - 1
            return
        out = show.console(soft_wrap=False)
        with Live(console=out, screen=count is None, auto_refresh=False) as live:
            live.update(render(picture(before, before, 1.0)), refresh=True)
            while count is None or count > 0:
                await asyncio.sleep(interval_s)  # same
                found, at = await client.call("status"), time.monotonic()
                live.update(render(picture(before, found, at - before_at)), refresh=True)
                before, before_at = found, at
                count = None if count is None else count - 1
        if not out.is_terminal:
            out.line()  # which ends the last one there


def picture(before: Status, after: Status, seconds: float) -> dict[str, Any]:
    """What changed between two `fabric.status.v1` in `seconds`: rates in bytes a second."""
    earlier = {one["node_id"]: one for one in before["sessions"]}
    totals = after["totals"]
    return {
        "schema": SCHEMA,
        "name": after["name"],
        "node_id": after["node_id"],
        "engine": after["engine"],
        "uptime_s": after["uptime_s"],
        "pressure": {k: v for k, v in after["pressure"].items() if k != "history"},
        "changes": after["pressure"]["history"][-5:],
        "log": {key: after["log"][key] for key in ("final_size", "age_s", "stale")},
        "held": after["resumption"]["held"],
        "resumed": after["resumption"]["counters"].get("resumed", 0),
        "classes": {
            name: {
                **after["pressure"]["classes"].get(name, {}),
                "sent_bytes_per_s": _rate(before["totals"]["sent_bytes"][name], sent, seconds),
                "received_bytes_per_s": _rate(
                    before["totals"]["received_bytes"][name], totals["received_bytes"][name], seconds
                ),
            }
            for name, sent in totals["sent_bytes"].items()
        },
        "sessions": [_session(earlier.get(one["node_id"]), one, seconds) for one in after["sessions"]],
        "streams": [
            {key: one[key] for key in ("service", "class", "mode", "peer", "route_id", "held_bytes")}
            for one in after["streams"]
        ],
        "streams_left_out": after["streams_left_out"],
        "resets": totals["resets_received"],
        "errors": totals["counters"],
    }


def _session(before: Status | None, after: Status, seconds: float) -> dict[str, Any]:
    sent, received = _sum(after, "sent_bytes"), _sum(after, "received_bytes")
    # A session that is new since, or another one with the same node, counts from nothing.
    earlier = before if before is not None and _sum(before, "sent_bytes") <= sent else None
    return {
        "node_id": after["node_id"],
        "name": after["name"],
        "rtt_ms": after["rtt_ms"],
        "jitter_ms": after["jitter_ms"],
        "packets_lost": after["packets_lost"],
        "peer_pressure": after["peer_pressure"],
        "streams": _sum(after, "streams"),
        "queued_bytes": _sum(after, "queued_bytes"),
        "sent_bytes_per_s": _rate(0 if earlier is None else _sum(earlier, "sent_bytes"), sent, seconds),
        "received_bytes_per_s": _rate(
            0 if earlier is None else _sum(earlier, "received_bytes"), received, seconds
        ),
    }


def render(found: Mapping[str, Any]) -> Group:
    """The picture for a terminal."""
    pressure, log = found["pressure"], found["log"]
    names = {one["node_id"]: one["name"] for one in found["sessions"] if one["name"]}
    style = LEVEL_STYLES[pressure["level"]]
    filled = round(pressure["score"] * BAR_CELLS / 100)
    head = Text.assemble(
        (f"{found['name']}  ", "bold"),
        f"{found['node_id'][:SHORT]}  {found['engine']}  up {found['uptime_s']:.0f} s  ",
        f"log {log['final_size']}",
        (" STALE" if log["stale"] else "", "red"),
        f"  held {found['held']}  resumed {found['resumed']}",
    )
    bar = Text.assemble(
        "pressure ",
        ("█" * filled + "░" * (BAR_CELLS - filled), style),
        (f" {pressure['level']} {pressure['score']}  ", style),
        f"{pressure['recommended_action']}  {' '.join(pressure['reasons'])}",
    )
    load = Text("load     " + "  ".join(f"{name} {value} %" for name, value in pressure["node"].items()))
    return Group(
        head, bar, load, Text(), _classes(found), Text(), _sessions(found), Text(), _streams(found, names)
    )


def _classes(found: Mapping[str, Any]) -> Table:
    table = _table("class", "streams", "queued", "window", "out/s", "in/s", "dropped")
    for name, one in found["classes"].items():
        table.add_row(
            name,
            str(one.get("channels", 0)),
            _bytes(one.get("queued_bytes", 0)),
            _bytes(one.get("window_bytes", 0)),
            _bytes(one["sent_bytes_per_s"]),
            _bytes(one["received_bytes_per_s"]),
            str(one.get("dropped", 0)),
        )
    return table


def _sessions(found: Mapping[str, Any]) -> Table:
    table = _table("session", "rtt ms", "jitter", "lost", "pressed", "streams", "queued", "out/s", "in/s")
    for one in found["sessions"]:
        table.add_row(
            one["name"] or one["node_id"][:SHORT],
            *("-" if one[key] is None else str(one[key]) for key in ("rtt_ms", "jitter_ms", "packets_lost")),
            str(one["peer_pressure"]),
            str(one["streams"]),
            _bytes(one["queued_bytes"]),
            _bytes(one["sent_bytes_per_s"]),
            _bytes(one["received_bytes_per_s"]),
        )
    return table


def _streams(found: Mapping[str, Any], names: Mapping[str, str]) -> Table:
    table = _table("stream", "class", "mode", "peer", "route", "held")
    for one in found["streams"][:STREAMS_SHOWN]:
        table.add_row(
            plain(one["service"]),
            one["class"],
            one["mode"],
            names.get(one["peer"], one["peer"][:SHORT]),
            one["route_id"] or "-",
            _bytes(one["held_bytes"]),
        )
    left_out = max(0, len(found["streams"]) - STREAMS_SHOWN) + found["streams_left_out"]
    if left_out > 0:
        table.add_row(f"and {left_out} more")
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column(first, min_width=20, no_wrap=True)
    for one in others:
        table.add_column(one, justify="right", min_width=8, no_wrap=True)
    return table


def _sum(session: Status, key: str) -> int:
    return sum(int(each[key]) for each in session["classes"].values())


def _rate(before: int, after: int, seconds: float) -> int:
    return round(max(0, after - before) / max(seconds, 1e-6))


def _bytes(count: float) -> str:
    """`1.5 M`: three digits and a decimal prefix."""
    for prefix in ("", " k", " M", " G"):
        if count < 1000:
            return f"{count:.3g}{prefix}"
        count /= 1000
    return f"{count:.3g} T"
