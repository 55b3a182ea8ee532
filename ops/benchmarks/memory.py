"""`memory`: what `statelog verify` holds, for a short log and for one of a million entries.

Both have ten thousand live subjects, or as many as there are entries. Counted is the largest resident size of
the command's own process, as the kernel tells it when the process ends.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ops.benchmarks.common import result
from ops.benchmarks.living import SUBJECTS, living_log

LIMIT_MIB = 300.0


def run(runs: int, quick: bool = False) -> list[dict[str, Any]]:
    """A row for each length, in MiB."""
    return [_row(count, runs) for count in ((1_000, 5_000) if quick else (10_000, 1_000_000))]


def _row(count: int, runs: int) -> dict[str, Any]:
    path, anchor = living_log(count)
    return result(
        f"memory: statelog verify of {count:,} entries, {min(count, SUBJECTS):,} live subjects",
        "MiB",
        [_resident_mib(str(path), anchor) for _ in range(runs)],
        peer="the limit",
        peer_values=[LIMIT_MIB] * runs,
        target=1.0,
        lower_is_better=True,
    )


def _resident_mib(path: str, anchor: str) -> float:
    command = [sys.executable, "-m", "statelog.cli.main", "verify", path, "--root", anchor, "-o", "json"]
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - os.devnull is no path of ours
        child = os.posix_spawn(
            sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1)]
        )
        _, status, usage = os.wait4(child, 0)
    if status:
        raise RuntimeError(f"the audit of the measured log ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1_024
