"""The picture of `fabric top`: rates out of two states, and what is drawn."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fabric.classes import TrafficClass
from fabric.cli import top
from fabric.cli.top import picture, render

NAMES = [one.name.lower() for one in TrafficClass]


def status(
    sent: int, *, sessions: int = 1, streams: int = 1, level: str = "nominal", left_out: int = 0
) -> dict[str, Any]:
    counts = {"streams": 1, "queued_bytes": 5, "sent_bytes": sent, "received_bytes": 2 * sent}
    flow = {"channels": 1, "queued_bytes": 1500, "window_bytes": 2_621_440, "dropped": 0}
    return {
        "name": "home-1",
        "node_id": "a" * 64,
        "engine": "qh3",
        "uptime_s": 12.0,
        "pressure": {
            "level": level,
            "score": 35,
            "reasons": ["cpu"] if level != "nominal" else [],
            "recommended_action": "observe",
            "node": dict.fromkeys(("queue", "cpu", "memory", "sockets", "network"), 7),
            "classes": dict.fromkeys(NAMES, flow),
            "history": [],
        },
        "log": {"final_size": 7, "age_s": 1.0, "stale": True},
        "resumption": {"held": 0, "counters": {"resumed": 3}},
        "totals": {
            "sent_bytes": dict.fromkeys(NAMES, sent),
            "received_bytes": dict.fromkeys(NAMES, 2 * sent),
            "resets_received": {},
            "counters": {},
        },
        "sessions": [
            {
                "node_id": f"{number:064x}",
                "name": f"peer-{number}" if number else None,
                "rtt_ms": 1.5,
                "jitter_ms": None,
                "packets_lost": 0,
                "peer_pressure": 0,
                "classes": {"bulk": counts},
            }
            for number in range(sessions)
        ],
        "streams": [
            {
                "service": "web-admin",
                "class": "bulk",
                "mode": "stream",
                "peer": f"{0:064x}",
                "route_id": None,
                "held_bytes": 0,
            }
        ]
        * streams,
        "streams_left_out": left_out,
    }


def drawn(found: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(render(found))
    return out.getvalue()


def test_rates_are_differences_over_time() -> None:
    found = picture(status(1000), status(3000), 2.0)
    assert found["schema"] == "fabric.top.v1"
    assert found["classes"]["bulk"]["sent_bytes_per_s"] == 1000
    assert found["classes"]["bulk"]["received_bytes_per_s"] == 2000
    assert found["sessions"][0]["sent_bytes_per_s"] == 1000


def test_a_session_that_is_new_counts_from_nothing_and_none_runs_backwards() -> None:
    found = picture(status(1000), status(500, sessions=2), 1.0)
    assert [one["sent_bytes_per_s"] for one in found["sessions"]] == [500, 500]
    assert found["classes"]["bulk"]["sent_bytes_per_s"] == 0


def test_what_is_drawn_names_what_it_shows() -> None:
    text = drawn(picture(status(0), status(2_500_000, sessions=2, level="warning"), 1.0))
    for said in (
        "home-1",
        "STALE",
        "warning 35",
        "cpu",
        "2.5 M",
        "peer-1",
        "web-admin",
        "1.5 k",
        "resumed 3",
    ):
        assert said in text


def test_many_streams_are_cut_and_counted() -> None:
    assert "and 80 more" in drawn(picture(status(0), status(0, streams=100), 1.0))
    found = picture(status(0), status(0, streams=100, left_out=9), 1.0)
    assert found["streams_left_out"] == 9
    assert "and 89 more" in drawn(found)


class Quiet:
    """Stands for the admin client of a node in which nothing changes."""

    async def call(self, _: str) -> dict[str, Any]:
        return status(0)


@asynccontextmanager
async def quiet(_: Path) -> AsyncIterator[Quiet]:
    yield Quiet()


def test_the_last_line_ends_in_a_pipe_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(top, "AdminClient", quiet)
    asyncio.run(top.run_top(Path("unused"), 0, 1, as_json=False))
    shown = capsys.readouterr().out
    assert "home-1" in shown
    assert (shown[-1], shown[-2] != "\n") == ("\n", True)
