"""A request beside the state that it would change: what `diff`, `sign`, `merge` and `status` look at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from statelog import ceremony, transport, wording
from statelog.admission import home_of, rehearse
from statelog.audit import audit
from statelog.ceremony import Progress, Request
from statelog.cli.common import anchor_of, in_words, now
from statelog.cli.opened import opened
from statelog.differences import Difference, differences
from statelog.errors import Refused, UsageError, refuse
from statelog.io.files import read_bounded
from statelog.io.resources import is_address
from statelog.io.sources import open_tiles
from statelog.limits import MAX_TRAVELLING_BYTES
from statelog.quorum import KeySet
from statelog.records import DESCRIPTOR
from statelog.replay import Replay
from statelog.risks import Risk, risks
from statelog.state import AuthorityState
from statelog.tilelog import TileLog

REQUEST_SCHEMA = "statelog.request.v1"
STDIN = "-"

RequestFile = Annotated[
    Path,
    typer.Argument(metavar="REQUEST", help="A .sigreq file, a mail's text, scanned QR codes; - for stdin."),
]


GroundOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="STATELOG_STORE",
        metavar="URL|PATH|TILES",
        help="What is in force: a store, or the log in tiles (a folder, https://…), which needs --root.",
    ),
]


CaOption = Annotated[
    Path | None,
    typer.Option("--ca", envvar="STATELOG_CA", help="PEM certificate to trust where --store is an address."),
]


class Review:
    """A request against the state that it would change; without a state, only what it says itself."""

    def __init__(self, request: Request, state: AuthorityState | None, before: dict[str, Any] | None) -> None:
        self.request = request
        self.state = state
        self.before = before
        self.sets: tuple[KeySet, ...] = ()
        if state is not None or request.is_genesis:
            self.sets = ceremony.required_sets(request, state, now())

    def progress(self, request: Request | None = None) -> Progress:
        """Who signed `request` (this one by default), counted against the sets that it needs."""
        installed = self.state.key_sets.values() if self.state is not None else ()
        return ceremony.progress(request or self.request, self.sets, installed)

    @property
    def bootstrap(self) -> bool | None:
        """Whether development mode would accept it; None when nothing is known of the mode."""
        if self.request.kind is DESCRIPTOR and (self.state is None or self.state.mode == "development"):
            return bool(self.request.record["mode"] == "development")
        return None if self.state is None else self.state.mode == "development"

    def bootstrap_lines(self) -> list[str]:
        """The mark of what development mode accepts, for people."""
        return ["bootstrap  development mode accepts it; a production node refuses it"] * bool(self.bootstrap)

    def differences(self) -> list[Difference]:
        """Every difference against the record in force, leaf by leaf."""
        return differences(self.before, self.request.record)

    def warnings(self) -> list[str]:
        """What a signer should think about twice."""
        return ceremony.warnings(self.request.record, self.state)

    def risks(self) -> list[Risk]:
        """The named risks that whoever proposes and submits this must accept by name."""
        return risks(self.request.record, self.state, now())

    def lines(self) -> list[str]:
        """All that a signer should read before signing, digest last."""
        record = self.request.record
        lines = [
            wording.headline(record),
            "",
            f"cluster    {wording.plain(record['cluster_id'])}",
            f"title      {wording.plain(self.request.title)}  (not signed)",
            f"valid      {record['issued_at']} until {record['expires_at']}",
        ]
        lines += self.bootstrap_lines()
        if self.state is None and not self.request.is_genesis:
            lines.append("changes    not known: no store was given, so this is all that the record says")
        elif self.before is None:
            lines.append("changes    nothing like it was there before; all of it is new")
        else:
            lines.append(f"changes    against epoch {self.before['epoch']}")
        lines += [f"  {change}" for change in self.differences()]
        lines += [f"warning    {warning}" for warning in self.warnings()]
        lines += [f"RISK       {risk}  ({risk.name})" for risk in self.risks()]
        lines += [f"quorum     {line}" for line in self.progress().quorums]
        return [*lines, f"digest     {self.request.record_id}", *in_words(self.request.record_id)]


def request_document(
    request: Request, path: Path, progress: Progress, bootstrap: bool | None
) -> dict[str, Any]:
    """A request as JSON, schema `statelog.request.v1`; `bootstrap` is None where the mode is not known."""
    return {
        "schema": REQUEST_SCHEMA,
        "file": str(path),
        "title": request.title,
        "record_id": request.record_id,
        "headline": wording.headline(request.record),
        "complete": progress.complete,
        "bootstrap": bootstrap,
        "quorums": [asdict(line) for line in progress.quorums],
        "wrong_signatures": list(progress.wrong),
        "record": dict(request.record),
    }


def read_request(path: Path) -> Request:
    """The request in a file of any form, or (`-`) on standard input. Raises `UsageError`, `Refused`."""
    return read_form(path)[0]


def read_form(path: Path) -> tuple[Request, transport.Form]:
    """The request in a file of any form, and the form: only a `file` may be written back in its place."""
    data, form = transport.unpacked(read_travelling(str(path)))
    return ceremony.decode_request(data), "text" if str(path) == STDIN else form


def read_travelling(path: str) -> bytes:
    """What a file, or (`-`) standard input, holds of a request, in whatever form it travelled."""
    if path != STDIN:
        return read_bounded(Path(path), MAX_TRAVELLING_BYTES, "SL-REQUEST")
    return read_stdin(MAX_TRAVELLING_BYTES)


def read_stdin(max_bytes: int) -> bytes:
    """All of standard input. Raises `Refused` SL-SIZE for more than `max_bytes`."""
    data = sys.stdin.buffer.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise refuse("SL-SIZE", "standard input is too large", expected=f"at most {max_bytes} bytes")
    return data


def reviewed(
    request: Request, store: str | None, root: str | None, ca: Path | None = None, *, offline: bool = False
) -> Review:
    """The request beside the state that it would change. Raises `Refused` when it could not pass anyway.

    A first descriptor is judged by itself. Everything else needs a store, or the log in tiles, unless
    `offline` says that there is none: then the record alone is shown.
    """
    if request.is_genesis and store is None:
        rehearse(None, request.record, now())
        return Review(request, None, None)
    if offline:
        return Review(request, None, None)
    if store is not None and is_tiles(store):
        replay, before = _from_tiles(request, store, root, ca)
    else:
        replay, before = _from_store(request, store, root)
    rehearse(replay.state, request.record, now(), log=replay)
    return Review(request, replay.state, before)


def authority_of(store: str, root: str | None, ca: Path | None = None) -> AuthorityState:
    """The authority after the log in a store or in tiles, verified."""
    if is_tiles(store):
        with _audited(store, root, ca) as (replay, log):
            for _, leaf in log.entries():
                replay.append(leaf, verify_signatures=False)
            return replay.state
    with opened(store, root) as log_:
        return log_.replay().state


Ground = tuple[Replay, dict[str, Any] | None]  # the log that would carry a record, and its subject's latest


def _from_store(request: Request, store: str | None, root: str | None) -> Ground:
    with opened(store, root) as log_:
        replay = log_.replay_at_home(request.kind, request.record)
        return replay, log_.record_in_force(replay, *_subject(request))


def _from_tiles(request: Request, source: str, root: str | None, ca: Path | None) -> Ground:
    """The log in a folder of tiles or at a web address, audited with nothing but the anchor."""
    before = None
    with _audited(source, root, ca) as (replay, log):
        for _, leaf in log.entries():
            entry = replay.append(leaf, verify_signatures=False)
            if (entry.kind.name, *entry.subject) == _subject(request):
                before = entry.record
    home = home_of(request.kind, {**request.record, "signatures": []}, replay.state)
    if home != replay.log:
        raise UsageError(f"this belongs into the log {home}; give --store a database that holds it")
    return replay, before


def is_tiles(store: str) -> bool:
    """Whether `--store` names a log in tiles, a folder or an address, and no database."""
    return is_address(store) or Path(store).is_dir()


@contextmanager
def _audited(source: str, root: str | None, ca: Path | None) -> Iterator[tuple[Replay, TileLog]]:
    """A log in tiles that passed a whole audit, and an empty replay for it."""
    if root is None:
        raise UsageError("tiles cannot vouch for themselves; give --root, their pinned anchor")
    with open_tiles(source, ca) as log:
        replay = Replay(anchor_of(root))
        if findings := audit(log, replay.anchor).findings:
            raise Refused(findings[0])
        yield replay, log


def _subject(request: Request) -> tuple[str, ...]:
    return request.kind.name, *request.kind.subject({**request.record, "signatures": []})
