"""Drafts of who decides: the descriptor, members, terms and snapshots."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from statelog import ceremony
from statelog.cli.templates.common import (
    NOTHING,
    Current,
    Fields,
    KeyFiles,
    Names,
    Reason,
    is_named,
    parse_duration,
    present,
    read_enrollment,
    read_json,
)
from statelog.errors import UsageError
from statelog.finality import takeover_size
from statelog.io.files import read_bounded
from statelog.io.snapshots import row_trees
from statelog.limits import MAX_REQUEST_BYTES
from statelog.records import DESCRIPTOR
from statelog.records.snapshot import state_root_of
from statelog.replay import Replay
from statelog.rowproofs import summaries
from statelog.signing import encode_base64
from statelog.state import AUTHORITY_LOG, RECOVERY, WitnessSet


def descriptor(
    current: Current,
    mode: Annotated[str | None, typer.Option(help="production; there is no way back.")] = None,
    add_root: KeyFiles = NOTHING,
    add_control: KeyFiles = NOTHING,
    add_witness: KeyFiles = NOTHING,
    drop: Annotated[
        Names, typer.Option(metavar="ISSUER|KEY_ID", help="A key to leave out; repeatable.")
    ] = NOTHING,
    root_threshold: Annotated[int | None, typer.Option(min=1)] = None,
    control_threshold: Annotated[int | None, typer.Option(min=1)] = None,
    witness_threshold: Annotated[int | None, typer.Option(min=1)] = None,
    faulty: Annotated[int | None, typer.Option(min=0, help="How many witnesses may lie.")] = None,
    add_recovery: KeyFiles = NOTHING,
    recovery_threshold: Annotated[int | None, typer.Option(min=0)] = None,
    recovery_delay: Annotated[
        str | None, typer.Option(metavar="7d", help="How long the root may veto a recovery.")
    ] = None,
) -> Fields:
    """The next authority descriptor: the one in force, with the changes that the options name.

    Example:

      statelog propose authority.descriptor --store node.db --drop carol --add-root dora.enroll.json
    """
    now_in_force = current.record("authority.descriptor", "cluster")
    if now_in_force is None:
        raise UsageError("the store has no descriptor to start from; `statelog init` makes the first")
    own = {name: value for name, value in now_in_force.items() if name not in ceremony.HEADER}
    keys = {entry["key_id"]: entry for entry in own["keys"] if not is_named(entry, drop)}
    for part, files, threshold in (
        ("root", add_root, root_threshold),
        ("control", add_control, control_threshold),
    ):
        entries = [read_enrollment(path) for path in files]
        keys.update({entry["key_id"]: entry for entry in entries})
        ids = [key_id for key_id in own[part]["key_ids"] if key_id in keys]
        ids += [entry["key_id"] for entry in entries if entry["key_id"] not in ids]
        own[part] = {"threshold": threshold or own[part]["threshold"], "key_ids": ids}
    named = {*own["root"]["key_ids"], *own["control"]["key_ids"]}
    own["keys"] = [entry for key_id, entry in keys.items() if key_id in named]
    witnesses = own["witnesses"]
    kept = [entry for entry in witnesses["keys"] if not is_named(entry, drop)]
    own["witnesses"] = {
        "threshold": witness_threshold or witnesses["threshold"],
        "faulty": witnesses["faulty"] if faulty is None else faulty,
        "keys": kept + [read_enrollment(path) for path in add_witness],
    }
    recovery = own["recovery"]
    pinned = [key_id for key_id in recovery["key_sha256"] if key_id not in drop]
    own["recovery"] = {
        "threshold": recovery["threshold"] if recovery_threshold is None else recovery_threshold,
        "key_sha256": pinned + [read_enrollment(path)["key_id"] for path in add_recovery],
        "delay_s": recovery["delay_s"] if recovery_delay is None else parse_duration(recovery_delay),
    }
    return own if mode is None else {**own, "mode": mode}


def recovery_intent(
    current: Current,
    descriptor: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The request that holds the coming descriptor.")
    ] = None,
    key: KeyFiles = NOTHING,
    sequencer: KeyFiles = NOTHING,
) -> Fields:
    """Begin to replace a lost root: name the coming descriptor, show recovery keys, say who writes then.

    Draft the descriptor first, with --issuer-role recovery-authority. Its recovery keys sign it once the
    intent is in the log; it is submitted when the delay is over.

    Example:

      statelog propose authority.recovery_intent --descriptor d.sigreq --key r1.json --sequencer seq.json
    """
    if descriptor is None:
        raise UsageError("name the coming descriptor with --descriptor FILE")
    coming = ceremony.decode_request(read_bounded(descriptor, MAX_REQUEST_BYTES, "SL-REQUEST"))
    if coming.kind is not DESCRIPTOR or coming.record["issuer_role"] != RECOVERY:
        raise UsageError(f"{descriptor} holds no descriptor for {RECOVERY} to sign")
    return {
        "descriptor": coming.record_id,
        "keys": [read_enrollment(path) for path in key],
        "sequencers": [_sequencer(path) for path in sequencer],
        "witnesses": coming.record["witnesses"],
    }


def _check_takeover(start_size: int, said: Names, witnesses: WitnessSet) -> None:
    """Refuse a start below what may be final by the word of the witnesses."""
    sizes: dict[str, int] = {}
    for text in said:
        name, _, size = text.partition("=")
        if name not in witnesses.by_name or not size.isascii() or not size.isdigit():
            known = ", ".join(sorted(witnesses.by_name))
            raise UsageError(f"--witness-size {text!r} is not NAME=SIZE of a witness; those are {known}")
        sizes[name] = int(size)
    least = takeover_size(sizes, witnesses)
    if start_size < least:
        raise UsageError(
            f"the log may be final up to {least}, as its witnesses say, not only up to {start_size};"
            " bring this replica there first, or hear more witnesses"
        )


def veto(
    current: Current,
    reason: Reason = None,
    intent: Annotated[str | None, typer.Option(help="The intent's record id; the one under way.")] = None,
) -> Fields:
    """Stop the recovery that is under way, by the root.

    Example:

      statelog propose authority.veto --store node.db --reason "our keys are safe"
    """
    pending = current.replay.state.recovery
    if intent is None and pending is None:
        raise UsageError("no recovery is under way in this log, so there is nothing to stop")
    return present(intent=intent or (None if pending is None else pending.record_id), reason=reason)


def members(
    current: Current,
    role: Annotated[str | None, typer.Option(help="route-, update-, storage- or observer-authority.")] = None,
    partition: Annotated[str | None, typer.Option(help="Only there; everywhere without it.")] = None,
    threshold: Annotated[int | None, typer.Option(min=1, help="How many issuers must sign.")] = None,
    add: KeyFiles = NOTHING,
    drop: Annotated[
        Names, typer.Option(metavar="ISSUER|KEY_ID", help="A key to leave out; repeatable.")
    ] = NOTHING,
) -> Fields:
    """Who speaks for a role: the members in force, with the changes that the options name.

    Example:

      statelog propose authority.members --role route-authority --threshold 2 --add a.json --add b.json
    """
    before = current.record("authority.members", role or "", partition or "") or {"keys": []}
    keys = [entry for entry in before["keys"] if not is_named(entry, drop)]
    keys += [read_enrollment(path) for path in add]
    return present(role=role, partition=partition, threshold=threshold or before.get("threshold"), keys=keys)


def term(
    current: Current,
    sequencer: KeyFiles = NOTHING,
    log: Annotated[str, typer.Option(help="The log whose writers change.")] = AUTHORITY_LOG,
    start_size: Annotated[
        int | None, typer.Option(min=0, help="Where the term starts; the head by default.")
    ] = None,
    witness_size: Annotated[
        Names,
        typer.Option(metavar="NAME=SIZE", help="What a witness says it cosigned last; repeatable."),
    ] = NOTHING,
) -> Fields:
    """Who may write a log from now on. Enroll the key with the node's id as its issuer.

    In a takeover say with --witness-size what each witness that can be reached has cosigned last: the term
    must not start below what may be final.

    Example:

      statelog key enroll file:seq.key --cluster-id farm.… --issuer NODE_ID --out seq.json

      statelog propose log.term --store node.db --sequencer seq.json
    """
    known = current.replay.state.terms.get(log)
    if log == AUTHORITY_LOG:
        written = current.replay
    elif known is None:
        written = Replay(current.replay.anchor)  # a new log, still empty
    else:
        written = current.log_.replay(log, verify_signatures=False)
    size = start_size if start_size is not None else written.size
    root = written.root_at(size)
    if witness_size:
        _check_takeover(size, witness_size, current.replay.state.witnesses)
    if root is None:
        raise UsageError(f"the root of {log} at size {size} is not known here; give it in --body")
    return {
        "log": log,
        "term": 1 if known is None else known.term + 1,
        "start_size": size,
        "start_root": encode_base64(root),
        "sequencers": [_sequencer(path) for path in sequencer],
    }


def _sequencer(path: Path) -> Fields:
    """An enrollment whose issuer is the node that holds the key."""
    entry = read_enrollment(path)
    return {"public": entry["public"], "node_id": entry["issuer_id"], "proof": entry["proof"]}


def snapshot(
    current: Current,
    log: Annotated[str | None, typer.Option(help="The log it describes; authority by default.")] = None,
    projections: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A JSON list of {name, rows, root}; folded anew by default."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=1, help="The size it describes; the head by default.")
    ] = None,
) -> Fields:
    """What the log's read models come to at a size, so that single rows can be proved.

    Examples:

      statelog propose log.snapshot --store node.db

      statelog propose log.snapshot --store node.db --log routes-eu-1
    """
    if log not in {None, current.replay.name}:
        return {"log": log}  # asked again with that log, which is to carry it
    at = current.replay.size if size is None else size
    root = current.replay.root_at(at)
    if root is None or not at:
        raise UsageError(f"the root at size {at} is not known here; choose a newer size")
    if projections is not None:
        listed = read_json(projections)
    else:
        listed = summaries(row_trees(current.log_.store.of(current.replay.name), at))
    return present(
        log=current.replay.name,
        size=at,
        root=encode_base64(root),
        projections=listed,
        state_root=encode_base64(_state_root(listed)),
    )


def _state_root(listed: Any) -> bytes:
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise UsageError("--projections must hold a JSON list of {name, rows, root}")
    return state_root_of(listed)
