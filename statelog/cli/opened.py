"""A store, opened for a command: its fold into the authority state, and where its anchor came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from statelog.admission import home_of
from statelog.cli.common import anchor_of, note, store_url
from statelog.errors import UsageError
from statelog.io.database import database_path, open_database
from statelog.io.loading import load_replay, new_replay
from statelog.io.store import Head, Store
from statelog.leaf import decode_leaf
from statelog.records.base import Kind
from statelog.replay import Replay
from statelog.state import AUTHORITY_LOG

ANCHOR_FILE = "anchor"


@dataclass(frozen=True, slots=True)
class Opened:
    """A store with a log in it. `pinned` is False when the anchor is only what the store itself claims."""

    url: str
    store: Store
    head: Head
    anchor: str
    pinned: bool

    def replay(self, log: str | None = None, *, verify_signatures: bool = True) -> Replay:
        """The fold of every entry of a log, this one by default. Raises `Refused` at the first entry that is
        against the rules.

        Without `verify_signatures` the store's own checkpoints vouch for what is under them, which is right
        for drafting; whoever signs or audits verifies. A partition's log, which may be empty, is judged next
        by all that is final of the authority log.
        """
        store = self.store if log is None else self.store.of(log)
        if not verify_signatures:
            replay = load_replay(store, self.anchor)
        else:
            if store.log != AUTHORITY_LOG:
                self.replay(AUTHORITY_LOG)  # what the log rests on is verified first
            replay = new_replay(store, self.anchor)
            head = store.head()
            for entry in store.entries(0, 0 if head is None else head.size):
                replay.append(entry.leaf)
        replay.advance()
        return replay

    def replay_at_home(
        self, kind: Kind, record: Mapping[str, Any], *, verify_signatures: bool = True
    ) -> Replay:
        """The fold of the one log that may carry the record, drafted or whole."""
        authority = self.replay(AUTHORITY_LOG, verify_signatures=verify_signatures)
        home = home_of(kind, record, authority.state)
        return authority if home == AUTHORITY_LOG else self.replay(home, verify_signatures=verify_signatures)

    def record_in_force(self, replay: Replay, kind: str, *subject: str) -> dict[str, Any] | None:
        """The latest record of a subject, whichever log of the store carries it; None when there is none."""
        known = replay.state.subjects.get((kind, *subject))
        found = None if known is None else self.store.locate(known.record_id)
        if found is None:
            return None
        store, index = found
        (stored,) = store.entries(index, index + 1)
        return decode_leaf(stored.leaf).record


@contextmanager
def opened(
    store: str | None, root: str | None, *, log: str | None = None, warn: bool = True
) -> Iterator[Opened]:
    """Open a log of the store for reading, the authority log by default.

    The anchor is `root`, else the file `anchor` beside a SQLite store, else, with a warning, whatever the
    store says of itself. Raises `UsageError` for a store without a log, or with another anchor's.
    """
    url = store_url(store)
    anchor = anchor_of(root) if root else _anchor_beside(url)
    engine = open_database(url, anchor=anchor)
    try:
        opened_store = Store(engine, log or AUTHORITY_LOG)
        head = opened_store.head()
        if head is None:
            held = ", ".join(opened_store.logs())
            if held:
                raise UsageError(f"{url} holds no entries of a log {opened_store.log!r}; it holds {held}")
            raise UsageError(f"{url} holds no log yet; `statelog init` starts one")
        if anchor is None and warn:
            note(f"anchor {head.anchor} is what the store itself says; pin it with --root")
        yield Opened(url, opened_store, head, anchor or head.anchor, anchor is not None)
    finally:
        engine.dispose()


def _anchor_beside(url: str) -> str | None:
    path = database_path(url)
    if path is None or not (beside := path.parent / ANCHOR_FILE).is_file():
        return None
    return anchor_of(str(beside))
