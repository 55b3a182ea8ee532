"""The snapshots of a log against a fresh fold of it: what admission, which folds no rows, cannot judge."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from statelog.audit import LogSource, Report
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.replay import Entry
from statelog.rowproofs import SNAPSHOT_SCHEMA, Fold, summaries, trees_of
from statelog.state import AUTHORITY_LOG


@dataclass(frozen=True, slots=True)
class Claim:
    """A snapshot record that an audit accepted: where it stands and what it says."""

    index: int
    record_id: str
    size: int
    projections: list[dict[str, Any]]


@dataclass(slots=True)
class SnapshotWatch:
    """Follows audits and collects the snapshots of each log (`statelog.audit.Checker`)."""

    claims: dict[str, list[Claim]] = field(default_factory=dict)
    _log: str = AUTHORITY_LOG

    def restart(self, log: str) -> None:
        """Before a pass over a log."""
        self._log, self.claims[log] = log, []

    def entry(self, entry: Entry) -> None:
        """An accepted entry."""
        record = entry.record
        if record["schema_version"] == SNAPSHOT_SCHEMA:
            claim = Claim(entry.index, entry.record_id, record["size"], record["projections"])
            self.claims[self._log].append(claim)

    def of_other_folds(self, new_fold: Callable[[], Fold]) -> int:
        """How many snapshots name only read models of other versions, which nobody here can fold anew."""
        return sum(
            not _known(claim, {name for name, _ in new_fold().rows(log)})
            for log, found in self.claims.items()
            for claim in found
        )

    def finish(self) -> Iterable[Finding]:
        """Nothing yet: the rows as of a snapshot are known only by folding the log once more."""
        return ()


def check_snapshots(
    sources: Mapping[str, LogSource],
    reports: Iterable[Report],
    claims: Mapping[str, list[Claim]],
    new_fold: Callable[[], Fold],
) -> Iterator[Finding]:
    """Fold the logs that have snapshots, and compare each with the rows as of its size (SL-FOLD).

    Reads a log with snapshots a second time, up to the last of their sizes; one without costs nothing. Rows
    are folded from accepted entries only, so a snapshot beyond the first refused entry is left unjudged: the
    audit has said what is wrong before it.
    """
    sound = {report.log: report.sound_size for report in reports}
    for log, found in claims.items():
        wanted = [claim for claim in found if claim.size <= sound.get(log, 0)]
        if not wanted:
            continue
        fold = new_fold()
        try:
            if log != AUTHORITY_LOG:
                for index, leaf in islice(sources[AUTHORITY_LOG].entries(), sound[AUTHORITY_LOG]):
                    fold.add(AUTHORITY_LOG, index, leaf)
            yield from _compare(log, sources[log], fold, sorted(wanted, key=lambda claim: claim.size))
        except Refused as error:
            yield error.finding.of(log)  # the source does not answer as it did to the audit


def _compare(log: str, source: LogSource, fold: Fold, claims: list[Claim]) -> Iterator[Finding]:
    rest = iter(claims)
    claim = next(rest, None)
    for index, leaf in source.entries():
        if claim is None:
            return
        fold.add(log, index, leaf)
        while claim is not None and claim.size == index + 1:
            yield from _differences(log, claim, summaries(trees_of(fold, log)))
            claim = next(rest, None)


def _differences(log: str, claim: Claim, fresh: list[dict[str, Any]]) -> Iterator[Finding]:
    said = {one["name"]: one for one in claim.projections}
    made = {one["name"]: one for one in fresh}
    if not _known(claim, made.keys()):
        return
    for name in sorted(said.keys() | made.keys()):
        if said.get(name) != made.get(name):
            sentence = f"the snapshot does not say what a fresh fold of {claim.size} entries says"
            expected, found = (_text(one.get(name)) for one in (made, said))
            yield Finding(
                "SL-FOLD",
                sentence,
                f"projections[{name}]",
                expected,
                found,
                claim.index,
                claim.record_id,
                log,
            )


def _known(claim: Claim, names: Collection[str]) -> bool:
    return any(one["name"] in names for one in claim.projections)


def _text(one: dict[str, Any] | None) -> str:
    return "nothing" if one is None else f"{one['rows']} rows, root {one['root']}"
