"""The fold of the authority log as this node left it, in a file of its own, so that a start need not replay
the log from entry 0 (docs/adr/0013-a-node-saves-its-fold.md).

It is a cache and never evidence: `statelog verify` does not read it, and whoever finds it absent, damaged,
written by other code, or not of the log in the store, replays instead. A saved fold counts only when

- the digest in its first line is that of the rest, and the code that wrote it is the code that reads it;
- the store holds a checkpoint of exactly its size, of its root, and signed by a sequencer that its own state
  names in the term in force.

Its state is taken at its word, as the pinned anchor is: both are files of the node that only the node writes
(mode 0600), and whoever can write there could as well replace the anchor.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
from msgspec.msgpack import Decoder, Encoder

import statelog
from statelog.errors import Refused, UsageError
from statelog.io.database import database_path
from statelog.io.files import read_bounded, write_replacing
from statelog.io.store import Store
from statelog.limits import SAVED_FOLD_MAX_BYTES
from statelog.replay import Folded, Replay
from statelog.state import AUTHORITY_LOG

SUFFIX: Final = ".fold"
_TITLE: Final = b"statelog fold v1 "
_DECODER: Final = Decoder(tuple[str, str, Folded])  # the code's digest, the anchor, the fold


def path_beside(store: Store) -> Path | None:
    """Where a store's fold is saved: beside its file. None for a database server and for other logs."""
    url = str(store.engine.url)
    database = database_path(url) if store.log == AUTHORITY_LOG else None
    return None if database is None else database.with_name(database.name + SUFFIX)


def save(path: Path, replay: Replay) -> None:
    """Write the fold, whole or not at all. Raises UsageError when it cannot be written."""
    body = Encoder().encode((_code(), replay.anchor, replay.folded()))
    write_replacing(path, _TITLE + sha256(body).hexdigest().encode() + b"\n" + body, mode=0o600)


def load(path: Path, store: Store, anchor: str) -> Replay | None:
    """A replay that stands where the saved fold stands, or None where it does not count."""
    try:
        data = read_bounded(path, SAVED_FOLD_MAX_BYTES, "SL-STORED")
    except (UsageError, Refused):
        return None
    title, _, body = data.partition(b"\n")
    if title != _TITLE + sha256(body).hexdigest().encode():
        return None
    try:
        code, of_anchor, known = _DECODER.decode(body)
        replay = Replay.resumed(anchor, known)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError):
        return None
    if (code, of_anchor, known.state.anchor) != (_code(), anchor, anchor):
        return None
    note = store.checkpoint(replay.size)
    try:
        replay.verify_head(note or b"")
    except Refused:
        return None
    return replay


@cache
def _code() -> str:
    """SHA-256 over the sources that fold: a state that other rules have made is none of ours."""
    folder = Path(statelog.__file__).parent
    digest = sha256()
    for source in sorted(folder.glob("*.py")) + sorted((folder / "records").glob("*.py")):
        digest.update(f"{source.relative_to(folder)} ".encode() + sha256(source.read_bytes()).digest())
    return digest.hexdigest()
