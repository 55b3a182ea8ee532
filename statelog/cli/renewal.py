"""`statelog needs-renewal`: what expires soon, for a person or for a timer that raises an alarm."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from statelog.cli.common import (
    EXIT_FINDINGS,
    Form,
    OutputOption,
    RootOption,
    StoreOption,
    now,
    print_json,
    print_table,
    say,
)
from statelog.cli.opened import Opened, opened
from statelog.cli.reading import bootstrap_ids, require_kind
from statelog.cli.templates.common import parse_duration
from statelog.renewal import Due, renewals
from statelog.state import AuthorityState
from statelog.times import format_time
from statelog.wording import plain, short, span

SCHEMA = "statelog.renewal.v1"


def needs_renewal(
    store: StoreOption = None,
    root: RootOption = None,
    within: Annotated[str, typer.Option(metavar="30d", help="How far ahead to look.")] = "30d",
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as role.certificate.")] = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """List what expires soon: descriptor, members, certificates and the rest; leases from half their life.

    Exit: 0 nothing is due, 1 something is, so that a timer can raise an alarm.

    Examples:

      statelog needs-renewal --store node.db --within 60d

      statelog needs-renewal --store node.db --kind route.lease -o json
    """
    if kind is not None:
        require_kind(kind)  # a slip in it would keep an alarm silent for ever
    within_s, at = parse_duration(within), now()
    with opened(store, root) as log_:
        found = [one for one in renewals(_states(log_), at, within_s) if kind in (None, one.kind)]
        marked = bootstrap_ids(log_) if found else frozenset()
    if output is Form.JSON:
        print_json(
            {
                "schema": SCHEMA,
                "at": format_time(at),
                "within_s": within_s,
                "due": [{**_as_json(one), "bootstrap": one.record_id in marked} for one in found],
            }
        )
    elif found:
        print_table(
            ("kind", "subject", "epoch", "expires", "", "record", ""),
            (
                (
                    one.kind,
                    " ".join(_shown(part) for part in one.subject if part),
                    one.epoch,
                    format_time(one.expires_at),
                    _left(one, at),
                    short(one.record_id),
                    "bootstrap" if one.record_id in marked else "",
                )
                for one in found
            ),
        )
        say(f"{len(found)} to renew; `statelog propose KIND` drafts the next epoch of each")
    else:
        say(f"nothing needs renewal within {within}")
    if found:
        raise typer.Exit(EXIT_FINDINGS)


def _states(log_: Opened) -> list[AuthorityState]:
    """The state of every log in the store."""
    return [log_.replay(name, verify_signatures=False).state for name in log_.store.logs()]


def _shown(part: str) -> str:
    """A word of a subject; long hex identifiers are cut, and whole in the JSON form."""
    return short(part) if len(part) == 64 else plain(part)


def _left(due: Due, at: int) -> str:
    if due.why == "expired":
        return f"EXPIRED {span(at - due.expires_at)} ago"
    if due.why == "parent":
        return "ENDED with the certificate above it"
    half = ", past half its life" if due.why == "half-life" else ""
    return f"in {span(due.expires_at - at)}{half}"


def _as_json(due: Due) -> dict[str, Any]:
    return {
        "kind": due.kind,
        "subject": list(due.subject),
        "epoch": due.epoch,
        "record_id": due.record_id,
        "log_index": due.log_index,
        "why": due.why,
        "due_at": format_time(due.due_at),
        "expires_at": format_time(due.expires_at),
    }
