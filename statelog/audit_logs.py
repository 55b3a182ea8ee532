"""Audits of all logs of a source: the authority log, then those of partitions, on what was sound of it."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from statelog.audit import Checker, LogSource, Report, SignatureVerifier, audit
from statelog.partition import PartitionReplay
from statelog.state import AUTHORITY_LOG


class AuditedAuthority:
    """The authority log as an audit left it (`statelog.partition.AuthorityFeed`).

    Only what is final and lies before the first refused entry can be rested on.
    """

    def __init__(self, source: LogSource, report: Report) -> None:
        self._source = source
        self._final_size = min(report.final_size, report.sound_size)
        self._rest: Iterator[tuple[int, bytes]] = iter(())
        self._at = -1

    def final_size(self) -> int:
        """How many entries can be rested on."""
        return self._final_size

    def leaves(self, start: int, end: int) -> Iterator[bytes]:
        """The leaves start … end - 1, read on from where the call before ended, else from the beginning."""
        if start != self._at:
            self._rest = itertools.islice(self._source.entries(), start, None)
        self._at = end
        return (leaf for _, leaf in itertools.islice(self._rest, end - start))


def audit_logs(
    sources: Mapping[str, LogSource],
    anchor: str,
    progress: Callable[[int], None] | None = None,
    *,
    verifier: SignatureVerifier | None = None,
    checkers: Callable[[str], Sequence[Checker]] = lambda _: (),
) -> list[Report]:
    """Audit the authority log and then the other logs of `sources` (by name), as `statelog.audit.audit`.

    The authority log's report comes first. `progress` counts the entries of all logs together;
    `checkers(log)` makes fresh ones for each pass over a log.
    """
    reports: list[Report] = []
    authority = sources[AUTHORITY_LOG]
    for log in sorted(sources, key=lambda name: (name != AUTHORITY_LOG, name)):
        done = sum(report.size for report in reports)
        advance = None if progress is None else _beyond(done, progress)
        watching = functools.partial(checkers, log)
        fold = None if log == AUTHORITY_LOG else _fold(anchor, log, authority, reports[0])
        found = audit(sources[log], anchor, advance, replay=fold, verifier=verifier, checkers=watching)
        reports.append(found)
    return reports


def _fold(anchor: str, log: str, authority: LogSource, report: Report) -> Callable[[], PartitionReplay]:
    return lambda: PartitionReplay(anchor, log, AuditedAuthority(authority, report))


def _beyond(done: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda entries: progress(done + entries)
