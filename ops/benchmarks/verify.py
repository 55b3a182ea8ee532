"""`verify`: an audit of a whole store against all cores doing nothing but libsodium Ed25519.

Both sides are counted in signature verifications a second. The audit's count is of the signatures that it
verified; everything else it does (canonical bytes, quorum, state, tree, stored rows) is what the ratio costs.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

from ops.benchmarks.common import cores, measured, result
from ops.benchmarks.ed25519 import rate_on_all_cores
from ops.benchmarks.living import living_log
from statelog.audit import Report, audit
from statelog.canonical import decode
from statelog.io.sources import open_source
from statelog.io.verify_pool import VerifyPool
from statelog.leaf import split_leaf
from statelog.signing import signed_bytes

TARGET = 0.8
_SAMPLE = 2_000  # entries whose messages are measured for the limit


def run(runs: int, quick: bool = False) -> list[dict[str, Any]]:
    """One row: the median of `runs` audits of one store, each beside the limit measured right after it."""
    count, seconds = (1_000, 0.5) if quick else (200_000, 3.0)
    path, anchor = living_log(count)
    url = f"sqlite:///{path}"
    length = _message_bytes(url)
    values, limits, walls, cpus = [], [], [], []
    for _ in range(runs):
        with measured() as spent:
            report = _audit(url, anchor)
        values.append(report.signatures / spent.wall_s)
        walls.append(round(spent.wall_s, 3))
        cpus.append(round(spent.cpu_s, 3))
        limits.append(rate_on_all_cores(seconds, length, cores()))
    return [
        result(
            f"verify: audit of {count:,} two-of-three records",
            "signatures/s",
            values,
            peer=f"libsodium alone, {cores()} cores, {length} B",
            peer_values=limits,
            target=TARGET,
            records=report.size,
            records_per_s=round(report.size / sorted(walls)[len(walls) // 2]),
            wall_s=walls,
            cpu_s=cpus,
        )
    ]


def _audit(url: str, anchor: str) -> Report:
    with open_source(url) as source, VerifyPool() as pool:
        report = audit(source, anchor, verifier=pool)
    if report.findings or not report.complete:
        raise RuntimeError(f"the measured log is not clean: {report.findings[:3]}")
    return report


def _message_bytes(url: str) -> int:
    """The mean length of what the signatures of the log cover, of its first entries."""
    with open_source(url) as source:
        leaves = (leaf for _, leaf in islice(source.entries(), _SAMPLE))
        lengths = [len(signed_bytes(decode(split_leaf(leaf).record))) for leaf in leaves]
    return round(sum(lengths) / len(lengths))
