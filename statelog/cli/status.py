"""`statelog status`: a store at a glance, or how far a request is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from statelog.alarms import alarms, is_stale, of_log
from statelog.checkpoint import parse_signed_checkpoint
from statelog.cli.common import (
    EXIT_FINDINGS,
    Form,
    LogOption,
    OutputOption,
    RootOption,
    StoreOption,
    now,
    print_json,
    say,
)
from statelog.cli.opened import Opened, opened
from statelog.cli.requests import request_status
from statelog.finality import final_cosignatures, freshness
from statelog.findings import Finding
from statelog.io.comparing import Relation, compare_log
from statelog.io.sources import open_tiles
from statelog.io.store import Store
from statelog.limits import MAX_BATCH_RECORDS
from statelog.state import AUTHORITY_LOG, AuthorityState, PendingRecovery, WitnessSet
from statelog.times import format_time
from statelog.wording import plain

SCHEMA = "statelog.status.v1"


def status(
    request: Annotated[
        Path | None, typer.Argument(metavar="[REQUEST]", help="A .sigreq file; the store itself without one.")
    ] = None,
    store: StoreOption = None,
    root: RootOption = None,
    log: LogOption = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Compare heads with another copy of the log: its https:// address or tile folder.",
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", envvar="STATELOG_CA", help="PEM certificate to trust for an https:// source."),
    ] = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Show where a store stands, or who has signed a request and who is missing.

    With --compare, two copies that no single history has are found out, and one that shows less than when it
    was compared before: both signed heads are kept as evidence, and the command ends with 1.

    Examples:

      statelog status --store node.db

      statelog status --store node.db --compare https://control.example:8443/log/authority --ca tls.pem

      statelog status move.sigreq --store node.db
    """
    if request is not None:
        request_status(request, store, root, ca, output)
        return
    with opened(store, root, log=log) as log_:
        relation = None if compare is None else _compared(log_, compare, ca)
        facts = {**_facts(log_), "compared": relation}
    if output is Form.JSON:
        print_json({"schema": SCHEMA, **facts})
    else:
        _print(facts, compare)
    if relation in _BAD:
        raise typer.Exit(EXIT_FINDINGS)


_SAID = {
    Relation.SAME: "the same head",
    Relation.OLDER: "an older head of this history",
    Relation.NEWER: "a newer head that is proved to extend this history",
    Relation.DROPPED: "a head that was never final, of a tail that a new term dropped",
    Relation.BACK: "LESS THAN BEFORE: both signed heads are kept, see `statelog evidence`",
    Relation.SPLIT: "ANOTHER HISTORY: both signed heads are kept, see `statelog evidence`",
    Relation.UNSIGNED: "a head that no sequencer known here has signed",
    Relation.FOREIGN: "a head of another log",
}
_BAD = (Relation.BACK, Relation.SPLIT, Relation.UNSIGNED, Relation.FOREIGN)


def _compared(log_: Opened, source: str, ca: Path | None) -> Relation:
    replay = log_.replay(verify_signatures=False)
    before = log_.store.shown_head(source)
    with open_tiles(source, ca) as other:
        return compare_log(log_.store, replay, other, source, now(), before)


def _print(facts: dict[str, Any], compare: str | None) -> None:
    mode = " (bootstrap: production nodes refuse what it accepts)" if facts["bootstrap"] else ""
    age = facts["checkpoint_age_s"]
    allowed = facts["max_checkpoint_age_s"]
    say(
        f"cluster    {facts['cluster_id']}",
        f"mode       {facts['mode']}{mode}",
        f"anchor     {facts['anchor']}" + ("" if facts["pinned"] else "  (not pinned)"),
        f"log        {facts['origin']}",
        f"size       {facts['size']}, final up to {facts['final_size']}, term {facts['term']}",
        f"root       {facts['root']}",
        f"cosigned   {', '.join(facts['cosigned_by']) or 'by nobody'}",
        f"age        {'no final head yet' if age is None else f'{age} s of {allowed} s'}",
        f"descriptor epoch {facts['descriptor_epoch']}, expires {facts['descriptor_expires_at']}",
        f"outbox     {facts['outbox']} waiting to be sequenced",
        *(_under_way(facts["recovery"]) if facts["recovery"] else ()),
        *(f"ALARM      {one['code']}: {one['sentence']}" for one in facts["alarms"]),
    )
    for other in facts["logs"]:
        held = (
            f"size {other['size']}, final up to {other['final_size']}" if other["held"] else "not held here"
        )
        old = "" if other["checkpoint_age_s"] is None else f", age {other['checkpoint_age_s']} s"
        say(f"beside it  {other['log']}: {held}, term {other['term']}{old}")
    if compare is not None:
        say(f"compared   {compare} shows {_SAID[facts['compared']]}")


def _facts(log_: Opened) -> dict[str, Any]:
    state, head = log_.replay(verify_signatures=False).state, log_.head
    cosigned = log_.store.cosignatures(head.final_size)
    fresh_at, at = _fresh_at(log_.store, head.final_size, state.witnesses), now()
    kept = log_.store.evidence_counts()
    allowed = state.descriptor.max_checkpoint_age_s
    found = alarms(final_size=head.final_size, fresh_at=fresh_at, max_age_s=allowed, now=at, **kept._asdict())
    others = sorted(set(state.terms) - {log_.store.log}, key=lambda name: (name != AUTHORITY_LOG, name))
    beside = [_beside(log_.store.of(name), state, at) for name in others]
    for _, told in beside:
        found += told
    return {
        "cluster_id": state.cluster_id,
        "origin": head.origin,
        "mode": state.mode,
        "bootstrap": state.mode == "development",
        "anchor": log_.anchor,
        "pinned": log_.pinned,
        "size": head.size,
        "root": head.root.hex(),
        "final_size": head.final_size,
        "final_root": head.final_root.hex(),
        "term": head.term,
        "cosigned_by": [one.name for one in cosigned],
        "checkpoint_age_s": None if fresh_at is None else max(0, at - fresh_at),
        "max_checkpoint_age_s": allowed,
        "stale": is_stale(fresh_at, allowed, at),
        **kept._asdict(),
        "alarms": [{"code": one.code, "sentence": one.said} for one in found],
        "descriptor_epoch": state.descriptor.epoch,
        "descriptor_expires_at": format_time(state.descriptor.expires_at),
        "recovery": _recovery(state.recovery),
        "logs": [shown for shown, _ in beside],
        "outbox": len(log_.store.outbox_pending(MAX_BATCH_RECORDS)),
    }


def _recovery(pending: PendingRecovery | None) -> dict[str, Any] | None:
    """The recovery under way: whoever can veto it has until `due_at`."""
    if pending is None:
        return None
    return {
        "intent": pending.record_id,
        "descriptor": pending.descriptor,
        "shown_by": sorted(pending.holders.issuers),
        "due_at": format_time(pending.due_at),
    }


def _under_way(recovery: Mapping[str, Any]) -> list[str]:
    shown = ", ".join(plain(name) for name in recovery["shown_by"])
    return [
        f"RECOVERY   begun with recovery keys of {shown}: intent {recovery['intent']}",
        f"           the root may veto it until {recovery['due_at']}",
    ]


def _beside(store: Store, state: AuthorityState, now: int) -> tuple[dict[str, Any], list[Finding]]:
    """Another log of the cluster, which a term has opened, held in this store or not; and its alarms."""
    head = store.head()
    size, final_size = (0, 0) if head is None else (head.size, head.final_size)
    fresh_at = _fresh_at(store, final_size, state.witnesses)
    shown = {
        "log": store.log,
        "held": head is not None,
        "size": size,
        "final_size": final_size,
        "checkpoint_age_s": None if fresh_at is None else max(0, now - fresh_at),
        "term": state.terms[store.log].term,
    }
    if not final_size:  # an empty log has no head to grow old
        return shown, []
    allowed, kept = state.descriptor.max_checkpoint_age_s, store.evidence_counts()
    told = alarms(final_size=final_size, fresh_at=fresh_at, max_age_s=allowed, now=now, **kept._asdict())
    return shown, of_log(told, store.log)


def _fresh_at(store: Store, final_size: int, witnesses: WitnessSet) -> int | None:
    """Since when the final head of a log counts as fresh: f liars cannot make it look so."""
    note = store.checkpoint(final_size) if final_size else None
    if note is None:
        return None
    return freshness(final_cosignatures(parse_signed_checkpoint(note)[1], witnesses), witnesses.faulty)
