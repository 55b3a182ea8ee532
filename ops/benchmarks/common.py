"""What every benchmark shares: repeating, medians, CPU time beside wall time, and one shape of result."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Spent:
    """What a block took: wall seconds, and CPU seconds of this process and its finished children."""

    wall_s: float = 0.0
    cpu_s: float = 0.0


@contextmanager
def measured() -> Iterator[Spent]:
    """Measure a block; the yielded `Spent` is filled when it ends."""
    spent = Spent()
    cpu, start = _cpu_s(), time.perf_counter()
    yield spent
    spent.wall_s = time.perf_counter() - start
    spent.cpu_s = _cpu_s() - cpu


def _cpu_s() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def repeat(runs: int, pair: Callable[[], tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Call `pair` `runs` times: (ours, peer's) each time, so that both sides meet the same noise."""
    pairs = [pair() for _ in range(runs)]
    return [ours for ours, _ in pairs], [peer for _, peer in pairs]


def result(
    name: str,
    unit: str,
    values: list[float],
    *,
    peer: str,
    peer_values: list[float],
    target: float,
    lower_is_better: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """One line of the report.

    `value` and `peer_value` are medians; `ratio` is the median of the ratios of the single runs, value
    over peer (peer over value when lower is better, so that a larger ratio is always better); `ok` says
    whether it reaches `target`.
    """
    ratios = [
        (theirs / ours if lower_is_better else ours / theirs)
        for ours, theirs in zip(values, peer_values, strict=True)
    ]
    ratio = statistics.median(ratios)
    return {
        "name": name,
        "value": round_to(statistics.median(values)),
        "unit": unit,
        "peer": peer,
        "peer_value": round_to(statistics.median(peer_values)),
        "ratio": round(ratio, 3),
        "target": target,
        "ok": ratio >= target,
        "runs": [round_to(value) for value in values],
        **more,
    }


def round_to(value: float, digits: int = 4) -> float:
    """`value` with so many significant digits: a benchmark has no more."""
    return float(f"{value:.{digits}g}")


def machine() -> dict[str, Any]:
    """What the figures depend on: cores, processor, kernel, interpreter and the libraries measured."""
    return {
        "cores": cores(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
        "libraries": {
            name: importlib.metadata.version(name)
            for name in ("PyNaCl", "orjson", "SQLAlchemy", "aioquic", "qh3", "cryptography")
        },
    }


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    if sys.platform == "linux":
        with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
