"""`soak`: a session that carries bulk for minutes beside a thousand open streams; nothing may grow.

The peer is the session's own youth: CPU a byte and resident memory of both ends, its last third against its
first. `--minutes` says how long.
"""

from __future__ import annotations

import time
from typing import Any

from ops.benchmarks.common import result
from ops.benchmarks.session_node import Child

STREAMS = 1_000
WARM_UP_S = 3.0
"""Until windows, buffers and the allocator have their sizes."""
MIB = 1 << 20


def run(runs: int, quick: bool = False, *, minutes: float = 1.0) -> list[dict[str, Any]]:
    """Two rows. `runs` is not used: a soak is one long run, and its thirds are what repeats."""
    del runs
    seconds = 3.0 if quick else minutes * 60
    with Child("node") as node:
        port = node.read()["port"]
        with Child("soak", port=port, streams=STREAMS) as dialer:
            dialer.read()
            time.sleep(WARM_UP_S)  # time under load is what is wanted
            marks = [_mark(dialer, node)]
            for _ in range(3):
                time.sleep(seconds / 3)  # same
                marks.append(_mark(dialer, node))
    youth, age = _cpu_per_mb(marks[0], marks[1]), _cpu_per_mb(marks[2], marks[3])
    about = f"{seconds:g} s of bulk beside {STREAMS} open streams"
    carried = round((marks[3]["sent"] - marks[0]["sent"]) / MIB)
    return [
        result(
            f"{about}: CPU of both ends",
            "ms/MB",
            [age],
            peer="the same, first third",
            peer_values=[youth],
            target=0.9,
            lower_is_better=True,
            carried_mib=carried,
        ),
        result(
            f"{about}: memory of both ends",
            "MiB",
            [marks[3]["resident"] / MIB],
            peer="the same at the beginning",
            peer_values=[marks[0]["resident"] / MIB],
            target=0.9,
            lower_is_better=True,
        ),
    ]


def _mark(dialer: Child, node: Child) -> dict[str, float]:
    here, there = dialer.ask("report"), node.ask("report")
    return {name: here[name] + there[name] for name in ("resident", "cpu_s")} | {"sent": here["sent"]}


def _cpu_per_mb(before: dict[str, float], after: dict[str, float]) -> float:
    return (after["cpu_s"] - before["cpu_s"]) * 1e9 / (after["sent"] - before["sent"])
