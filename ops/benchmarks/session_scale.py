"""Many of everything on one node: sessions served by one core, and what an idle session or stream holds."""

from __future__ import annotations

from typing import Any

from ops.benchmarks.common import result
from ops.benchmarks.session_node import Child

KIB = 1 << 10
SESSION_KIB = {"qh3": 90, "aioquic": 150}
STREAM_BYTES = 2 * KIB
STREAMS_A_SESSION = 1_000


def rows(runs: int, quick: bool) -> list[dict[str, Any]]:
    """Sessions first, then memory. Each process is measured from outside its work: resident bytes."""
    count = 200 if quick else 1_000
    measured = {engine: [sessions(engine, count) for _ in range(runs)] for engine in SESSION_KIB}
    served = [run["served"] for run in measured["qh3"]]
    return [
        result(
            f"{count} sessions into one node on one core, an answer on each",
            "sessions",
            served,
            peer="all of them",
            peer_values=[float(count)] * runs,
            target=1.0,
            node_cpu_ms=[run["node_cpu_ms"] for run in measured["qh3"]],
        ),
        *(
            result(
                f"idle session, {engine}, resident at the listener",
                "KiB",
                [run["kib"] for run in measured[engine]],
                peer="limit",
                peer_values=[float(limit)] * runs,
                target=1.0,
                lower_is_better=True,
            )
            for engine, limit in SESSION_KIB.items()
        ),
        idle_streams(runs, quick),
    ]


def sessions(engine: str, count: int) -> dict[str, float]:
    """`count` sessions with one node that has one core; what they cost it, and how many it answered."""
    with Child("node", engine=engine, core=0) as node:
        port = node.read()["port"]
        with Child("sessions", engine=engine, port=port, sessions=count) as dialer:
            dialer.read()
            before = node.ask("report")
            dialer.ask("go")
            after = node.ask("report")
            served = dialer.ask("go")["served"]
    return {
        "served": float(served),
        "kib": (after["resident"] - before["resident"]) / count / KIB,
        "node_cpu_ms": round(1000 * (after["cpu_s"] - before["cpu_s"]) / count, 3),
    }


def idle_streams(runs: int, quick: bool) -> dict[str, Any]:
    """Open streams with nothing to do, ten thousand of them, at the end that opened them."""
    count = 2_000 if quick else 10_000
    dialers, nodes = [], []
    for _ in range(runs):
        with Child("node") as node:
            options = {"streams": count, "sessions": count // STREAMS_A_SESSION}
            with Child("streams", port=node.read()["port"], **options) as dialer:
                here, there = dialer.read(), node.ask("report")
                dialers.append((dialer.ask("go")["resident"] - here["resident"]) / count)
                nodes.append(round((node.ask("report")["resident"] - there["resident"]) / count))
    return result(
        f"{count} open idle streams, resident at the end that opened them",
        "B/stream",
        dialers,
        peer="limit",
        peer_values=[float(STREAM_BYTES)] * runs,
        target=1.0,
        lower_is_better=True,
        with_a_waiting_service=nodes,
    )
