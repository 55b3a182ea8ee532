"""An audit as commands run it: on all cores, under a progress bar, and what it came to, for people and
programs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import typer

from statelog.audit import Checker, LogSource, Report
from statelog.audit_logs import audit_logs
from statelog.audit_snapshots import SnapshotWatch, check_snapshots
from statelog.cli.common import EXIT_FINDINGS, Form, print_json, print_table, progress, say
from statelog.findings import Finding
from statelog.io.snapshots import installed_fold
from statelog.io.verify_pool import VerifyPool
from statelog.limits import VERIFY_POOL_MIN_ENTRIES
from statelog.replay import Entry
from statelog.state import AUTHORITY_LOG
from statelog.wording import plain, short

SCHEMA = "statelog.verify.v1"


class ModeWatch:
    """Follows audits and counts the entries that development mode accepted (`statelog.audit.Checker`)."""

    def __init__(self) -> None:
        self._log = AUTHORITY_LOG
        self._counted: dict[str, int] = {}  # by log; counted anew in each pass
        self._production_from: int | None = (
            None  # the first index of the authority log that production admits
        )

    @property
    def bootstrap(self) -> int:
        """Of all logs."""
        return sum(self._counted.values())

    def restart(self, log: str) -> None:
        """Before a pass over a log."""
        self._log, self._counted[log] = log, 0
        if log == AUTHORITY_LOG:
            self._production_from = None

    def entry(self, entry: Entry) -> None:
        """An accepted entry; a descriptor counts by its own mode, what a partition's log carries by the
        newest authority entry that it was judged by.
        """
        size, known = entry.leaf.authority_size, self._production_from
        if (
            known is None
            and entry.kind.name == "authority.descriptor"
            and entry.record["mode"] == "production"
        ):
            known = self._production_from = entry.index
        at = entry.index if size is None else size - 1
        self._counted[self._log] += known is None or at < known

    def finish(self) -> Iterable[Finding]:
        """Development mode is no finding; the report says it beside them."""
        return ()


class OpenedLogs:
    """The logs that the authority log opens (a `statelog.audit.Checker`): a source should show them too."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def entry(self, entry: Entry) -> None:
        """An accepted entry."""
        if entry.kind.name == "log.term":
            self.names.add(entry.record["log"])

    def finish(self) -> Iterable[Finding]:
        """A log that was opened need not have been written to: the report says which were not shown."""
        return ()


@dataclass
class Audited:
    """What an audit of logs came to: a report for each, and what was checked beside."""

    reports: list[Report] = field(default_factory=list)
    modes: ModeWatch = field(default_factory=ModeWatch)
    snapshots: SnapshotWatch = field(default_factory=SnapshotWatch)
    opened: OpenedLogs = field(default_factory=OpenedLogs)
    checks: list[str] = field(default_factory=lambda: ["log"])
    extra: list[Finding] = field(default_factory=list)
    unjudged_snapshots: int = 0

    @property
    def not_shown(self) -> list[str]:
        """Logs that the authority log opened and of which the source showed nothing, or was not asked to."""
        return sorted(self.opened.names - {report.log for report in self.reports})

    @property
    def findings(self) -> list[Finding]:
        """All of them, those of the logs first."""
        return [*(one for report in self.reports for one in report.findings), *self.extra]

    @property
    def complete(self) -> bool:
        """Whether every log was read to its end."""
        return all(report.complete for report in self.reports)

    def watch(self, log: str) -> Sequence[Checker]:
        """Before a pass over a log."""
        self.modes.restart(log)
        self.snapshots.restart(log)
        return [self.modes, self.snapshots, self.opened]


def run_audit(
    logs: Mapping[str, LogSource], size: int, anchor: str, audited: Audited, jobs: int
) -> list[Report]:
    """Audit logs of `size` entries together, under a progress bar and on as many cores as `jobs` says, and
    their snapshots by the installed fold.
    """
    with _pool(jobs, size) as pool, progress("auditing", size) as advance:
        audited.reports = audit_logs(logs, anchor, advance, verifier=pool, checkers=audited.watch)
    new_fold = installed_fold()
    if new_fold is not None:
        audited.checks.append("snapshots")
        claims = audited.snapshots.claims
        audited.extra += check_snapshots(logs, audited.reports, claims, new_fold)
        audited.unjudged_snapshots = audited.snapshots.of_other_folds(new_fold)
    return audited.reports


def show_audit(source: str, audited: Audited, output: Form) -> None:
    """Print what was found and, unless it is nothing, end with exit code 1."""
    if output is Form.JSON:
        print_json(_document(source, audited))
    else:
        _print(audited)
    if audited.findings or not audited.complete:
        raise typer.Exit(EXIT_FINDINGS)


def _pool(jobs: int, size: int) -> AbstractContextManager[VerifyPool | None]:
    """Workers, where there is enough to verify to be worth starting them."""
    if jobs == 1 or (jobs == 0 and size < VERIFY_POOL_MIN_ENTRIES):
        return nullcontext()
    return VerifyPool(jobs - 1 if jobs else None)  # this process is one of them


# -- the report --


def _document(source: str, audited: Audited) -> dict[str, Any]:
    reports, findings = audited.reports, audited.findings
    return {
        "schema": SCHEMA,
        "source": source,
        "anchor": reports[0].anchor,
        "clean": not findings and audited.complete,
        "complete": audited.complete,
        **_log_document(reports[0]),
        "signatures": sum(report.signatures for report in reports),
        "bootstrap_entries": audited.modes.bootstrap,
        "unjudged_snapshots": audited.unjudged_snapshots,
        "logs_not_shown": audited.not_shown,
        "checks": audited.checks,
        "logs": [_log_document(report) for report in reports],
        "findings": [
            {
                "log": one.log,
                "code": one.code,
                "log_index": one.log_index,
                "record_id": one.record_id,
                "path": one.path,
                "sentence": one.sentence,
                "expected": one.expected,
                "found": one.found,
            }
            for one in findings
        ],
    }


def _log_document(report: Report) -> dict[str, Any]:
    return {
        "log": report.log,
        "origin": report.origin,
        "size": report.size,
        "root": report.root.hex(),
        "final_size": report.final_size,
        "final_root": report.final_root.hex(),
        "checkpoints": report.checkpoints,
        "signatures": report.signatures,
        "complete": report.complete,
    }


def _print(audited: Audited) -> None:
    reports, findings = audited.reports, audited.findings
    if findings:
        print_table(
            ("log", "code", "index", "record", "what is wrong"),
            (
                (
                    one.log or "",
                    one.code,
                    "" if one.log_index is None else one.log_index,
                    short(one.record_id or ""),
                    plain(str(one).removeprefix(one.code).removeprefix(": ").strip()),
                )
                for one in findings
            ),
        )
    verdict = "clean" if not findings else f"{len(findings)} finding(s)"
    if not audited.complete:
        verdict += ", and the audit could not go to the end"
    say(f"anchor     {reports[0].anchor}")
    for report in reports:
        say(
            f"log        {report.origin or report.log}",
            f"entries    {report.size}, final up to {report.final_size}",
            f"verified   {report.signatures} signatures, {report.checkpoints} checkpoints",
        )
    say(f"checked    {', '.join(audited.checks)}")
    if audited.modes.bootstrap:
        say(f"bootstrap  {audited.modes.bootstrap} entries were accepted in development mode")
    for log in audited.not_shown:
        say(f"not shown  the log {log}, which the authority log opens")
    if audited.unjudged_snapshots:
        say(f"not judged {audited.unjudged_snapshots} snapshots of folds of another version")
    say(verdict)
