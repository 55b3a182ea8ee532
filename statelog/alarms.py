"""What every view of a replica must say aloud: a stale head, and proof that somebody said two things, or less
than before.

An alarm is a finding. It stops nothing by itself: a node goes on with what it knows, and never silently.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from statelog.findings import Finding


def is_stale(fresh_at: int | None, max_age_s: int, now: float) -> bool:
    """Whether a head that counts as fresh at Unix second `fresh_at` (`finality.freshness`) is too old.

    A head without enough cosignatures to tell is.
    """
    return fresh_at is None or now - fresh_at > max_age_s


def alarms(
    *,
    final_size: int,
    fresh_at: int | None,
    max_age_s: int,
    now: float,
    equivocations: int = 0,
    split_views: int = 0,
    rollbacks: int = 0,
) -> list[Finding]:
    """The alarms of a log that stands at `final_size`; the counts are of the evidence that is kept."""
    found: list[Finding] = []
    if is_stale(fresh_at, max_age_s, now):
        age = "unknown" if fresh_at is None else f"{int(now - fresh_at)} s"
        sentence = f"the final head of {final_size} is older than the descriptor allows"
        found.append(Finding("SL-FRESHNESS", sentence, "", f"at most {max_age_s} s", age))
    if split_views:
        sentence = "the log has shown two histories; `statelog evidence` has both signed heads"
        found.append(Finding("SL-SPLIT", sentence, "", "0", str(split_views)))
    if rollbacks:
        sentence = "replicas show older heads than they did before; `statelog evidence` has both of each"
        found.append(Finding("SL-ROLLBACK", sentence, "", "0", str(rollbacks)))
    if equivocations:
        sentence = "a quorum signed two records of one subject and epoch; `statelog evidence` has both"
        found.append(Finding("SL-EQUIVOCATION", sentence, "", "0", str(equivocations)))
    return found


def of_log(found: Iterable[Finding], log: str) -> list[Finding]:
    """The alarms of another log than the one that a view is about, with its name in front.

    Equivocation is not among them: records that were signed twice are evidence of the whole store, told once.
    """
    others = (one for one in found if one.code != "SL-EQUIVOCATION")
    return [replace(one.of(log), sentence=f"{log}: {one.sentence}") for one in others]
