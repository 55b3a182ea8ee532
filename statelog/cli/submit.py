"""`statelog submit`: handing a signed record in, and waiting until it is final."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from statelog import canonical, ceremony, signing
from statelog.admission import admit
from statelog.cli.common import (
    EXIT_FINDINGS,
    AcceptRiskOption,
    Form,
    OutputOption,
    RootOption,
    StoreOption,
    note,
    now,
    print_json,
    say,
)
from statelog.cli.keys import ask_passphrase
from statelog.cli.opened import Opened, opened
from statelog.cli.templates.common import NOTHING
from statelog.errors import Refused, UsageError, refuse
from statelog.findings import Finding
from statelog.io.client import ControlClient
from statelog.io.database import database_path
from statelog.io.doorbell import Doorbell, ring
from statelog.io.files import read_bounded
from statelog.io.sequencers import Sequencers
from statelog.io.signers import load_signer
from statelog.limits import MAX_REQUEST_BYTES, MAX_TRAVELLING_BYTES, SUBMIT_RECHECK_S
from statelog.risks import check_accepted, risks
from statelog.state import AUTHORITY_LOG, AuthorityState
from statelog.transport import unpacked
from statelog.wording import headline

SCHEMA = "statelog.submit.v1"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a record. `final` is the only acknowledgement; before it a record may still be lost."""

    record_id: str
    final: bool
    log_index: int | None
    duplicate: bool
    log: str | None = None

    def sentence(self, waited_s: float) -> str:
        """For a person."""
        where = "not yet sequenced" if self.log_index is None else f"entry {self.log_index}"
        if self.log not in {None, AUTHORITY_LOG}:
            where += f" of {self.log}"
        if self.final:
            return f"final: {where}" + (", which it was before" if self.duplicate else "")
        return f"accepted, {where}, not final after {waited_s:g} s; ask again with `statelog show`"


def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .sigreq file, or a signed record.")],
    api: Annotated[
        str | None,
        typer.Option("--api", envvar="STATELOG_API", metavar="URL", help="A control API, https://…"),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", envvar="STATELOG_CA", help="The certificate file that vouches for it."),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="STATELOG_TOKEN", help="What the API lets you in by, if it asks."),
    ] = None,
    store: StoreOption = None,
    root: RootOption = None,
    sequencer_key: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Sequence it here, with this key; else it goes to the outbox."),
    ] = None,
    accept_risk: AcceptRiskOption = NOTHING,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for finality.")] = 30.0,
    output: OutputOption = Form.TABLE,
) -> None:
    """Submit a signed record, to a control API or straight into a store, and wait until it is final.

    Exit: 0 final, 1 refused or not final in time.

    Examples:

      statelog submit move.sigreq --api https://control.example:8443 --ca tls.pem

      statelog submit move.sigreq --store node.db
    """
    data = signed_record_in(file)
    record_id = signing.record_id_of(canonical.decode(data))
    if api is not None:
        _weigh(data, None, accept_risk)
        with ControlClient(api, ca, token=token) as client:
            result = client.submit(data, wait)
        outcome = Outcome(result.record_id, result.final, result.log_index, result.duplicate)
        if result.record_id != record_id:
            raise refuse(
                "SL-REQUEST", "the API speaks of another record", expected=record_id, found=result.record_id
            )
    else:
        with opened(store, root) as log_:
            replay = log_.replay(verify_signatures=False)
            _weigh(data, replay.state, accept_risk)
            outcome = _into_store(log_, data, record_id, sequencer_key, wait)
    _print(outcome, wait, output)
    if not outcome.final and wait > 0:
        raise typer.Exit(EXIT_FINDINGS)


def _weigh(data: bytes, state: AuthorityState | None, accepted: list[str]) -> None:
    """Every risk in words, so that none is accepted unread. Raises `Refused` SL-RISK for one that is not."""
    record = canonical.decode(data)
    check_accepted(record, state, now(), accepted)
    for risk in risks(record, state, now()):
        note(f"risk accepted: {risk}")


def signed_record_in(path: Path) -> bytes:
    """The canonical signed record in a `.sigreq` or record file. Raises `UsageError`, `Refused`."""
    data = unpacked(read_bounded(path, MAX_TRAVELLING_BYTES, "SL-REQUEST"))[0].removesuffix(b"\n")
    body = canonical.decode(data, max_bytes=MAX_REQUEST_BYTES)
    if "schema_version" in body:
        ceremony.kind_of(body).shape(body)
        return data
    request = ceremony.decode_request(data)
    if not request.signatures:
        raise UsageError(f"nobody has signed {path} yet; `statelog sign` does")
    note(headline(request.record))
    return request.signed_record()


def _into_store(
    log_: Opened, data: bytes, record_id: str, sequencer_key: str | None, wait_s: float
) -> Outcome:
    """Sequence the record, or leave it in the outbox for the process that does; then watch it."""
    with ExitStack() as stack:
        bell = None
        if database_path(log_.url) is not None:
            bell = stack.enter_context(Doorbell(log_.url))  # before the change, so that no ring is missed
        duplicate = log_.store.locate(record_id) is not None
        if sequencer_key is not None:
            signer = load_signer(sequencer_key, ask=ask_passphrase)
            Sequencers(log_.store.engine, log_.anchor, signer).submit(data, now())
        elif not duplicate:
            record = canonical.decode(data)
            replay = log_.replay_at_home(ceremony.kind_of(record), record, verify_signatures=False)
            admit(replay.state, data, now(), log=replay)
            log_.store.outbox_put(record_id, data, now())
        ring(log_.url)
        return _watch(log_, bell, record_id, duplicate, wait_s)


def _watch(log_: Opened, bell: Doorbell | None, record_id: str, duplicate: bool, wait_s: float) -> Outcome:
    """Until the record is final or refused, or `wait_s` seconds are over."""
    deadline = time.monotonic() + wait_s
    while True:
        outcome = _look(log_, record_id, duplicate)
        left = deadline - time.monotonic()
        if outcome.final or left <= 0:
            return outcome
        pause = min(left, SUBMIT_RECHECK_S)
        if bell is not None:
            bell.wait(pause)
        else:
            time.sleep(pause)  # a database server has no bell to wait at


def _look(log_: Opened, record_id: str, duplicate: bool) -> Outcome:
    place, row = log_.store.locate(record_id), log_.store.outbox_row(record_id)
    if place is not None:
        store, index = place
        head = store.head()
        return Outcome(record_id, head is not None and index < head.final_size, index, duplicate, store.log)
    if row is not None and row.state == "refused":
        raise Refused(Finding(row.code or "SL-REQUEST", row.sentence or "refused", record_id=record_id))
    return Outcome(record_id, False, None, duplicate)


def _print(outcome: Outcome, waited_s: float, output: Form) -> None:
    if output is Form.TABLE:
        say(f"record id  {outcome.record_id}", outcome.sentence(waited_s))
        return
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "record_id": outcome.record_id,
        "final": outcome.final,
        "log": outcome.log,
        "log_index": outcome.log_index,
        "duplicate": outcome.duplicate,
    }
    print_json(document)
