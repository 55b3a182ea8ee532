"""`startup`: a replica whose store holds a million entries, from the start of its process until it is open.

The process is a fresh interpreter; it opens the store as a node does, from the fold that it saved when it was
stopped, and reads its tables. The first start, which replays the log, is reported beside it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ops.benchmarks.cluster import CLUSTER_ID
from ops.benchmarks.common import result, round_to
from ops.benchmarks.living import living_log

LIMIT_S = 2.0
_START = """
import sys, time
from fabric.io.replica import Replica
url, anchor, cluster = sys.argv[1:]
replica = Replica(url, anchor, cluster, time.time, lambda update: None)
opened = replica.open()
print(opened.log.final_size, flush=True)
replica.close()
"""


def run(runs: int, quick: bool = False) -> list[dict[str, Any]]:
    """One row, in seconds."""
    count = 5_000 if quick else 1_000_000
    path, anchor = living_log(count)
    first = _start(path, anchor)
    values = [_start(path, anchor) for _ in range(runs)]
    return [
        result(
            f"startup: a replica of {count:,} entries",
            "s",
            values,
            peer="the limit",
            peer_values=[LIMIT_S] * runs,
            target=1.0,
            lower_is_better=True,
            first_start_s=round_to(first),
        )
    ]


def _start(path: Path, anchor: str) -> float:
    """Seconds from the start of a process until its replica says that it is open; then it is stopped."""
    start = time.perf_counter()
    command = [sys.executable, "-c", _START, f"sqlite:///{path}", anchor, CLUSTER_ID]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        if process.stdout is None or not process.stdout.readline().strip().isdigit():
            raise RuntimeError("the replica did not open")
        spent = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"the replica ended with {process.returncode}")
    return spent
