"""What one stream feels of the others: echoes beside bulk, beside admission, bulk beside a deaf reader."""

from __future__ import annotations

import statistics
from typing import Any

from ops.benchmarks.common import repeat, result
from ops.benchmarks.session_node import Child

RECORDS = 1_000
STUCK_STREAMS = 4
TIMES_IDLE, PLUS_MS = 5, 5
WORK_S = 0.02
"""What four flights of handshakes and signatures may cost beside the round trips."""


def rows(runs: int, quick: bool) -> list[dict[str, Any]]:
    """Latencies in milliseconds; the limit of each run follows from what the same run measured idle."""
    return [
        beside(runs, quick, admit=False),
        beside(runs, quick, admit=True),
        unread(runs, quick),
        first_byte(runs),
    ]


def beside(runs: int, quick: bool, *, admit: bool) -> dict[str, Any]:
    """The slowest hundredth of echoes while a bulk stream saturates the session, and the node also admits."""
    values, allowed, idles = [], [], []
    for _ in range(runs):
        idle, busy = _echoes(100 if quick else 500, admit=admit)
        idles.append(statistics.median(idle))
        values.append(_percentile(busy, 0.99))
        allowed.append(TIMES_IDLE * idles[-1] + PLUS_MS)
    also = f" and the node admits {RECORDS} records" if admit else ""
    return result(
        f"interactive echo, p99, while bulk saturates{also}",
        "ms",
        values,
        peer=f"{TIMES_IDLE} x the idle p50, and {PLUS_MS} ms",
        peer_values=allowed,
        target=1.0,
        lower_is_better=True,
        idle_p50_ms=[round(idle, 3) for idle in idles],
    )


def unread(runs: int, quick: bool) -> dict[str, Any]:
    """A bulk stream beside streams that nobody reads, against the same stream alone."""
    megabytes = 25 if quick else 200

    def once() -> tuple[float, float]:
        with (
            Child("node") as node,
            Child("unread", port=node.read()["port"], megabytes=megabytes, bulk=STUCK_STREAMS) as dialer,
        ):
            seconds = dialer.read()
            return megabytes * 8 / seconds["beside"], megabytes * 8 / seconds["alone"]

    ours, peers = repeat(runs, once)
    return result(
        f"bulk beside {STUCK_STREAMS} bulk streams that nobody reads",
        "Mbit/s",
        ours,
        peer="the same alone",
        peer_values=peers,
        target=0.9,
    )


def first_byte(runs: int) -> dict[str, Any]:
    """From the beginning of a dial until its first application byte is on its way, over 50 ms."""
    values, allowed, answers = [], [], []
    for _ in range(runs):
        with (
            Child("node") as node,
            Child("link", port=node.read()["port"], delay_ms=25) as link,
            Child("first-byte", port=link.read()["port"]) as dialer,
        ):
            times = dialer.read()
        values.append(1000 * times["sent"])
        answers.append(round(1000 * times["answered"], 1))
        allowed.append(1000 * (2 * times["round_trip"] + WORK_S))
    return result(
        "first application byte of a dial, 50 ms round trip",
        "ms",
        values,
        peer=f"two round trips, and {WORK_S * 1000:g} ms of work",
        peer_values=allowed,
        target=1.0,
        lower_is_better=True,
        answered_ms=answers,
    )


def _echoes(count: int, *, admit: bool) -> tuple[list[float], list[float]]:
    with (
        Child("node", records=RECORDS if admit else 0) as node,
        Child("latency", port=node.read()["port"], bulk=1, echoes=count) as dialer,
    ):
        idle = dialer.read()["idle"]
        if admit:
            node.ask("admit")
        return idle, dialer.ask("stop")["busy"]


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
