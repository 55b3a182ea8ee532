"""The heartbeat: what it says, and that nothing a node can be makes it large."""

from __future__ import annotations

import json
from typing import Any

from fabric import limits
from fabric.classes import TrafficClass
from fabric.heartbeat import SCHEMA, heartbeat
from fabric.pressure import REASONS

HUGE = (1 << 80) + 1
LONG = '"\\\x00ü€😀' * 1000


def session(number: int, queued: int = HUGE) -> dict[str, Any]:
    counts = {"streams": HUGE, "queued_bytes": queued, "sent_bytes": HUGE, "received_bytes": HUGE}
    return {
        "node_id": f"{number:064x}",
        "rtt_ms": 1e300,
        "jitter_ms": None,
        "packets_lost": HUGE,
        "peer_pressure": HUGE,
        "classes": {one.name.lower(): counts for one in TrafficClass},
    }


def many(count: int = 5000) -> dict[str, int]:
    return {f"{number}-{LONG}": HUGE + number for number in range(count)}


def worst() -> dict[str, Any]:
    """A node of which everything is as large as code elsewhere could ever make it, and larger."""
    history = [{"at": HUGE, "level": "critical", "recommended_action": "rebuild_or_reroute"}] * 1000
    return {
        "node_id": "f" * 64,
        "name": LONG,
        "cluster": LONG,
        "uptime_s": 1e300,
        "capabilities": [LONG] * 1000,
        "approved": True,
        "roles": [LONG] * 1000,
        "services": many(),
        "log": {"final_size": HUGE, "term": HUGE, "age_s": 1e300, "stale": None},
        "pressure": {
            "level": "critical",
            "score": 100,
            "reasons": list(REASONS),
            "recommended_action": "rebuild_or_reroute",
            "node": dict.fromkeys(("queue", "cpu", "memory", "sockets", "network"), 100),
            "classes": {one.name.lower(): many(8) for one in TrafficClass},
            "history": history,
        },
        "relaying": {
            "streams": HUGE,
            "held_bytes": HUGE,
            "by_class": {one.name.lower(): many(8) for one in TrafficClass},
        },
        "resumption": {"held": 1024, "counters": many()},
        "sessions": [session(number) for number in range(4096)],
        "sessions_left_out": HUGE,
        "totals": {"resets_received": many(), "closed": many(), "counters": many()},
    }


def test_the_worst_node_fits() -> None:
    found = heartbeat(worst(), at=1e10, versions=dict.fromkeys(map(str, range(1000)), LONG))
    assert len(json.dumps(found).encode()) <= limits.HEARTBEAT_BYTES


def test_what_was_left_out_is_counted_and_the_busiest_stay() -> None:
    state = worst()
    state["sessions"] = [session(number, queued=number) for number in range(100)]
    state["sessions_left_out"] = 7
    found = heartbeat(state, at=0.0, versions={})
    sessions = found["sessions"]
    assert (sessions["count"], sessions["left_out"]) == (107, 107 - limits.HEARTBEAT_SESSIONS)
    assert sessions["busiest"][0]["node_id"] == f"{99:064x}"


def test_it_says_what_a_controller_compares() -> None:
    state = worst() | {"name": "home-1", "capabilities": ["gossip", "flow_pressure"]}
    found = heartbeat(state, at=1700000000.1234, versions={"fabric-node": "0.1.0"})
    assert found["schema"] == SCHEMA
    assert found["at"] == 1700000000.123
    assert found["name"] == "home-1"
    assert found["capabilities"] == ["gossip", "flow_pressure"]
    assert found["versions"] == {"fabric-node": "0.1.0"}
    assert found["log"]["stale"] is True, "what is not known to be fresh is stale"
    assert found["flow_pressure"]["level"] == "critical"
    assert len(found["flow_pressure"]["changes"]) == limits.HEARTBEAT_CHANGES
