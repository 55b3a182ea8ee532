"""Answers as people see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fabric.cli import show


def test_a_table_for_people_has_words_and_no_schema(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"schema": "fabric.ping.v1", "end_to_end": True, "route_id": None}
    show.record(values, "table")
    assert capsys.readouterr().out == "end_to_end  yes\nroute_id    -\n"
    show.record(values, "json")
    assert json.loads(capsys.readouterr().out) == values


def status() -> dict[str, Any]:
    """A `fabric.status.v1` of a quiet node."""
    hops = ["a" * 64, "b" * 64]
    route = {"route_id": "r7", "service": "web", "hops": hops, "stands": True, "in_use": False}
    log = {"final_size": 2, "size": 3, "term": 1, "age_s": 4.2, "stale": False, "source": "c" * 64}
    unlogged = {"revoked_nodes": [], "revoked_certificates": [], "fences": []}
    own = {"name": "home-1", "node_id": "a" * 64, "address": "quic://127.0.0.1:7401", "engine": "qh3"}
    told = {
        "gossip": {"items": 6, "spreading": 0},
        "probes": {"counters": {"ok": 2, "probes": 3}},
        "refusals": {"delivered": {}, "services": {}, "by_peer": {}},
    }
    standing = {"cluster": "farm.abc", "mode": None, "approved": False, "roles": [], "alarms": []}
    pressure = {"level": "nominal", "score": 0, "reasons": [], "recommended_action": "observe", "classes": {}}
    shown = {"sessions": [], "registry": [], "relay": [], "routes": [route], "pressure": pressure}
    left_out = {f"{kind}_left_out": 0 for kind in ("sessions", "streams", "relay")}
    found = {**own, **standing, **told, **shown, **left_out, "unlogged": unlogged}
    return {**found, "log": {**log, "partitions": []}}


def test_what_a_node_counts_and_whom_it_follows_is_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    show.status(status(), "table")
    said = capsys.readouterr().out
    for words in (f"node {'a' * 64}\n", f"from {'c' * 12}\n", "probes ok 2, probes 3\n", "yes", "no "):
        assert words in said
    assert "True" not in said


def test_what_a_peer_says_of_itself_is_text_and_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    session = {"name": None, "node_id": "d" * 64, "remote": "192.0.2.1", "rtt_ms": 1, "datagram_bytes": 1200}
    hostile = ["[/bold]", ":smile:", "\x1b[2J\nnode"]
    show.status({**status(), "sessions": [{**session, "classes": {}, "capabilities": hostile}]}, "table")
    said = capsys.readouterr().out
    for word in ("[/bold]", ":smile:", r"\x1b[2J\nnode"):
        assert word in said
