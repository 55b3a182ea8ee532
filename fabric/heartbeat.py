"""What a node reports about itself to whoever collects reports: small, bounded, one schema.

`fabric.heartbeat.v1` is `fabric.status.v1` cut down to what a controller compares among thousands of nodes.
Every list and every text in it has its bound here, so that the document has one, whatever the node's state:
at most `limits.HEARTBEAT_BYTES`. What was left out is counted. Source: docs/services.md, "Heartbeat".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from fabric import limits
from fabric.classes import TrafficClass

SCHEMA: Final = "fabric.heartbeat.v1"
NODE_ID_CHARS: Final = 64
_MAX_NUMBER: Final = (1 << 53) - 1


def heartbeat(status: Mapping[str, Any], *, at: float, versions: Mapping[str, str]) -> dict[str, Any]:
    """The report of a node whose `fabric.status.v1` is `status`, at `at`, Unix seconds.

    `versions`: names and versions of the software, `engines` among them.
    """
    pressure, log = status["pressure"], status["log"]
    sessions = sorted(status["sessions"], key=_busy, reverse=True)
    relayed = status["relaying"]["by_class"]
    shown = sessions[: limits.HEARTBEAT_SESSIONS]
    return {
        "schema": SCHEMA,
        "at": round(at, 3),
        "node_id": _text(status["node_id"], NODE_ID_CHARS),
        "name": _text(status["name"]),
        "cluster": _text(status["cluster"]),
        "uptime_s": _number(status["uptime_s"]),
        "versions": _texts(versions),
        "capabilities": _list(status["capabilities"]),
        "approved": bool(status["approved"]),
        "roles": _list(status["roles"]),
        "services": _list(status["services"]),
        "log": {
            "final_size": _number(log["final_size"]),
            "term": _number(log["term"]),
            "age_s": _maybe(log["age_s"]),
            "stale": log["stale"] is not False,
        },
        "flow_pressure": {
            "level": pressure["level"],
            "score": pressure["score"],
            "reasons": _list(pressure["reasons"]),
            "recommended_action": pressure["recommended_action"],
            "load": _numbers(pressure["node"]),
            "classes": {
                _text(name): _numbers(flow, limits.HEARTBEAT_FIELDS)
                for name, flow in _some(pressure["classes"], len(TrafficClass))
            },
            "changes": [
                {"at": _number(one["at"]), "level": one["level"], "action": one["recommended_action"]}
                for one in pressure["history"][-limits.HEARTBEAT_CHANGES :]
            ],
        },
        "resumption": {"held": status["resumption"]["held"], **_numbers(status["resumption"]["counters"])},
        "relayed": {
            "streams": _number(status["relaying"]["streams"]),
            "held_bytes": _number(status["relaying"]["held_bytes"]),
            "by_class": {_text(name): _numbers(sums) for name, sums in _some(relayed, len(TrafficClass))},
        },
        "sessions": {
            "count": _number(len(sessions) + status["sessions_left_out"]),
            "left_out": _number(len(sessions) - len(shown) + status["sessions_left_out"]),
            "busiest": [_session(one) for one in shown],
        },
        "resets": _numbers(status["totals"]["resets_received"]),
        "closed": _numbers(status["totals"]["closed"]),
        "errors": _numbers(status["totals"]["counters"]),
    }


def _session(one: Mapping[str, Any]) -> dict[str, Any]:
    classes = one["classes"].values()
    return {
        "node_id": _text(one["node_id"], NODE_ID_CHARS),
        "rtt_ms": _maybe(one["rtt_ms"]),
        "jitter_ms": _maybe(one["jitter_ms"]),
        "packets_lost": _maybe(one["packets_lost"]),
        "peer_pressure": _number(one["peer_pressure"]),
        "streams": _number(sum(each["streams"] for each in classes)),
        "queued_bytes": _number(sum(each["queued_bytes"] for each in classes)),
        "sent_bytes": _number(sum(each["sent_bytes"] for each in classes)),
        "received_bytes": _number(sum(each["received_bytes"] for each in classes)),
    }


def _busy(one: Mapping[str, Any]) -> tuple[int, int]:
    classes = one["classes"].values()
    return (
        sum(each["queued_bytes"] for each in classes),
        sum(each["sent_bytes"] + each["received_bytes"] for each in classes),
    )


# -- bounds ----------------------------------------------------------------------------------------------


def _text(value: object, chars: int = limits.HEARTBEAT_TEXT_CHARS) -> str:
    """At most `chars` characters of printable ASCII, each one byte of JSON."""
    text = str(value)[:chars]
    return "".join(one if " " <= one <= "~" and one not in '"\\' else "?" for one in text)


def _number(value: float) -> float:
    return round(max(-_MAX_NUMBER, min(_MAX_NUMBER, value)), 3)


def _maybe(value: float | None) -> float | None:
    return None if value is None else _number(value)


def _list(values: Iterable[object]) -> list[str]:
    return [_text(value) for value in list(values)[: limits.LIST_ITEMS]]


def _texts(values: Mapping[str, str]) -> dict[str, str]:
    return {_text(name): _text(value) for name, value in _some(values, limits.HEARTBEAT_FIELDS)}


def _numbers(values: Mapping[str, float], count: int = limits.HEARTBEAT_COUNTERS) -> dict[str, float]:
    """The largest ones."""
    largest = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:count]
    return {_text(name, limits.REASON_CHARS): _number(value) for name, value in sorted(largest)}


def _some(values: Mapping[str, Any], count: int) -> list[tuple[str, Any]]:
    return list(values.items())[:count]
