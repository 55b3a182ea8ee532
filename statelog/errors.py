"""The error tree of the state log.

    StatelogError
    ├── Refused           a check said no: carries the Finding
    ├── UsageError        the caller asked for something that makes no sense; exit code 2 of the tools
    └── SourceUnreadable  bytes could not be obtained at all; exit code 3 of the tools

Foreign errors (database, network, files) are translated where they arise, in the shells.
"""

from __future__ import annotations

from statelog.findings import Finding


class StatelogError(Exception):
    """Base of every error that this package raises on purpose."""


class Refused(StatelogError):  # noqa: N818 - a verdict, not a malfunction
    """A check said no.  ``finding`` says which, where, what was expected and what was found."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding

    @property
    def code(self) -> str:
        return self.finding.code

    def at(self, log_index: int | None = None, record_id: str | None = None) -> Refused:
        """The same refusal, placed in a log and tied to a record."""
        return Refused(self.finding.at(log_index, record_id))


class UsageError(StatelogError):
    """The caller asked for something that cannot be done; the message says what to do instead."""


class SourceUnreadable(StatelogError):  # noqa: N818 - the name says what happened
    """A log, database or file could not be read."""


def refuse(  # one flat call reads better at forty places than a nested constructor
    code: str, sentence: str, *, path: str = "", expected: object = "", found: object = ""
) -> Refused:
    """A `Refused` to raise: ``raise refuse("SL-SIG", "…", path="signatures[0]")``."""
    return Refused(Finding(code, sentence, path, str(expected), str(found)))
