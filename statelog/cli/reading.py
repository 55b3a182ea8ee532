"""`statelog log` and `statelog show`: reading entries of a store, damaged ones included."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Any

import orjson
import typer

from statelog.cli.common import (
    Form,
    LogOption,
    OutputOption,
    RootOption,
    StoreOption,
    is_number,
    print_json,
    print_table,
    say,
)
from statelog.cli.opened import Opened, opened
from statelog.errors import Refused, UsageError
from statelog.io.store import StoredEntry
from statelog.leaf import Leaf, decode_leaf
from statelog.records import KINDS
from statelog.state import AUTHORITY_LOG
from statelog.times import format_time
from statelog.wording import headline, plain, short

LOG_SCHEMA = "statelog.log.v1"
ENTRY_SCHEMA = "statelog.entry.v1"
_DESCRIPTOR = "rap.fabric.authority.descriptor.v1"
_MIN_PREFIX = 6  # digits of a record id: fewer would name another record by a slip of the hand


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is listed. `leaf` is None, and `damage` says why, when its bytes cannot be read."""

    stored: StoredEntry
    leaf: Leaf | None
    damage: str
    bootstrap: bool
    final: bool

    @property
    def kind(self) -> str:
        """The kind's short name, the schema of an unknown kind, or what is wrong with the bytes."""
        if self.leaf is None:
            return self.damage
        schema = str(self.leaf.record.get("schema_version", "?"))
        return KINDS[schema].name if schema in KINDS else schema

    @property
    def subject(self) -> str:
        """What the record is about, in the words of its kind."""
        if self.leaf is None or (kind := KINDS.get(str(self.leaf.record.get("schema_version")))) is None:
            return ""
        try:
            kind.shape(self.leaf.record)
        except Refused as refusal:
            return refusal.finding.code
        return " ".join(part for part in kind.subject(self.leaf.record) if part)

    @property
    def marks(self) -> str:
        """What a reader must not miss: entries of development mode, and those that may still be dropped."""
        return " ".join(
            mark for mark, set_ in (("bootstrap", self.bootstrap), ("not final", not self.final)) if set_
        )

    def as_json(self) -> dict[str, Any]:
        """The entry without its record."""
        leaf = self.leaf
        return {
            "index": self.stored.index,
            "record_id": self.stored.record_id,
            "kind": self.kind,
            "subject": self.subject,
            "epoch": leaf.record.get("epoch") if leaf else None,
            "sequenced_at": format_time(leaf.sequenced_at) if leaf else None,
            "term": leaf.term if leaf else None,
            "authority_size": leaf.authority_size if leaf else None,
            "bootstrap": self.bootstrap,
            "final": self.final,
            "damage": self.damage or None,
        }


def log(
    store: StoreOption = None,
    root: RootOption = None,
    name: LogOption = None,
    start: Annotated[int, typer.Option("--from", min=0, help="First index to list.")] = 0,
    last: Annotated[int | None, typer.Option("--last", min=1, help="Only so many, from the end.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind, such as route.lease.")] = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """List the entries of the log.

    Examples:

      statelog log --store node.db --last 20

      statelog log --store node.db --kind registry.gossip_record -o json

      statelog log --store node.db --log routes-eu-1
    """
    if kind is not None:
        require_kind(kind)
    with opened(store, root, log=name, warn=False) as log_:
        start = max(start, log_.head.size - last) if last is not None and kind is None else start
        lines = [
            line
            for line in lines_of(log_)
            if line.stored.index >= start and (kind is None or line.kind == kind)
        ]
        lines = lines[-last:] if last is not None else lines
        if output is Form.JSON:
            print_json(
                {
                    "schema": LOG_SCHEMA,
                    "origin": log_.head.origin,
                    "anchor": log_.anchor,
                    "size": log_.head.size,
                    "final_size": log_.head.final_size,
                    "entries": [line.as_json() for line in lines],
                }
            )
            return
        print_table(
            ("index", "sequenced at", "kind", "subject", "epoch", "record id", ""),
            (
                (
                    line.stored.index,
                    format_time(line.leaf.sequenced_at) if line.leaf else "",
                    plain(line.kind),
                    plain(line.subject),
                    line.leaf.record.get("epoch", "") if line.leaf else "",
                    short(line.stored.record_id),
                    line.marks,
                )
                for line in lines
            ),
        )
        say(f"{log_.head.size} entries, final up to {log_.head.final_size}; {log_.head.origin}")


def show(
    which: Annotated[
        str, typer.Argument(metavar="ID|INDEX", help="A record id, its beginning, or an index.")
    ],
    store: StoreOption = None,
    root: RootOption = None,
    log: LogOption = None,
    output: OutputOption = Form.TABLE,
) -> None:
    """Show one entry: what it says, who signed it, and the whole record.

    Examples:

      statelog show 17 --store node.db

      statelog show 3f9a12cc --store node.db -o json

      statelog show 3 --store node.db --log routes-eu-1
    """
    with opened(store, root, log=log, warn=False) as log_:
        line = _find(log_, which)
        if output is Form.JSON:
            record = line.leaf.record if line.leaf else None
            said = _said(line)
            body = {"leaf_hash": line.stored.leaf_hash.hex(), "headline": said, "record": record}
            print_json({"schema": ENTRY_SCHEMA, "origin": log_.head.origin, **line.as_json(), **body})
            return
        leaf = line.leaf
        say(
            f"entry      {line.stored.index}" + (f"  ({line.marks})" if line.marks else ""),
            f"record id  {line.stored.record_id}",
            f"kind       {plain(line.kind)}",
        )
        if leaf is None:
            say(f"leaf       {line.stored.leaf!r}")
            return
        say(
            f"subject    {plain(line.subject)}",
            f"sequenced  {format_time(leaf.sequenced_at)} in term {leaf.term}{_judged_at(leaf)}",
            f"says       {_said(line)}",
        )
        for entry in leaf.record.get("signatures", ()):
            say(f"signed by  {plain(entry['issuer_id'])} as {plain(entry['role'])}, key {entry['key_id']}")
        say("", orjson.dumps(leaf.record, option=orjson.OPT_INDENT_2).decode())


def require_kind(kind: str) -> None:
    """Raises `UsageError` for what no kind that logs carry is called."""
    names = sorted(one.name for one in KINDS.values() if one.logged)
    if kind not in names:
        raise UsageError(f"no kind of record is called {kind!r}; there are {', '.join(names)}")


def lines_of(log_: Opened) -> Iterator[Line]:
    """Every entry of the log, in order; bytes that cannot be read are listed as what is wrong with them."""
    changes = _modes(log_) if log_.store.log != AUTHORITY_LOG else {}
    development = False
    for stored in log_.store.entries(0, log_.head.size):
        leaf, damage = None, ""
        try:
            leaf = decode_leaf(stored.leaf)
        except Refused as refusal:
            damage = refusal.finding.code
        if stored.index == 0 and leaf is not None:
            development = leaf.record.get("mode") == "development"
        if leaf is not None and leaf.authority_size is not None:
            before = [index for index in changes if index < leaf.authority_size]
            development = bool(before) and changes[max(before)] == "development"
        yield Line(stored, leaf, damage, development, stored.index < log_.head.final_size)
        # The next entry is the first that a descriptor's mode judges.
        if leaf is not None and leaf.record.get("schema_version") == _DESCRIPTOR:
            development = leaf.record.get("mode") == "development"


def bootstrap_ids(log_: Opened) -> frozenset[str]:
    """Ids of all records that development mode accepted, in every log of the store.

    Reads no more than the descriptors of a cluster that never was in development.
    """
    if "development" not in _modes(log_).values():
        return frozenset()
    found: set[str] = set()
    for name in log_.store.logs():
        store = log_.store.of(name)
        if (head := store.head()) is not None:
            here = replace(log_, store=store, head=head)
            found |= {line.stored.record_id for line in lines_of(here) if line.bootstrap}
    return frozenset(found)


def _modes(log_: Opened) -> dict[int, str]:
    """The modes that the descriptors of the authority log set, by index."""
    found: dict[int, str] = {}
    for stored in log_.store.of(AUTHORITY_LOG).entries(0):
        with contextlib.suppress(Refused):  # damage is shown where that log is listed
            record = decode_leaf(stored.leaf).record
            if record.get("schema_version") == _DESCRIPTOR:
                found[stored.index] = str(record.get("mode"))
    return found


def _judged_at(leaf: Leaf) -> str:
    return "" if leaf.authority_size is None else f", judged at authority size {leaf.authority_size}"


def _find(log_: Opened, which: str) -> Line:
    if is_number(which) and len(which) < _MIN_PREFIX + 6:
        found = [line for line in lines_of(log_) if line.stored.index == int(which)]
        if found:
            return found[0]
        raise UsageError(f"the log has {log_.head.size} entries, so there is no entry {which}")
    if len(which) < _MIN_PREFIX:
        raise UsageError(f"give an index, or at least {_MIN_PREFIX} digits of a record id")
    found = [line for line in lines_of(log_) if line.stored.record_id.startswith(which)]
    if len(found) != 1:
        raise UsageError(f"{len(found) or 'no'} records of this log have an id that begins with {which!r}")
    return found[0]


def _said(line: Line) -> str:
    if line.leaf is None or (kind := KINDS.get(str(line.leaf.record.get("schema_version")))) is None:
        return ""
    try:
        kind.shape(line.leaf.record)
    except Refused as refusal:
        return f"not readable as a {kind.name}: {refusal.finding}"
    return headline(line.leaf.record)
