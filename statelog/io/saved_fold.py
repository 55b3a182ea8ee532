"""The fold of a log as this node left it, in a file of its own, so that a start need not replay the log from
entry 0 (docs/adr/0013-a-node-saves-its-fold.md).

It is a cache and never evidence: `statelog verify` does not read it, and whoever finds it absent, damaged,
written by other code, or not of the log in the store, replays instead. A saved fold counts only when

- the digest in its first line is that of the rest, and the code that wrote it is the code that reads it;
- the store holds a checkpoint of exactly its size, of its root, and signed by a sequencer that its own state
  names in the term in force;
- for the log of a partition: what it rests on is, by its root, the beginning of the authority log beside it.

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
from statelog.partition import AuthorityFeed, FoldedPartition, PartitionReplay
from statelog.replay import Folded, Replay
from statelog.state import AUTHORITY_LOG

SUFFIX: Final = ".fold"
_TITLE: Final = b"statelog fold v1 "
_DECODER: Final = Decoder(tuple[str, str, Folded])  # the code's digest, the anchor, the fold
_PARTITION_DECODER: Final = Decoder(tuple[str, str, FoldedPartition])


def path_beside(store: Store) -> Path | None:
    """Where the fold of a store's log is saved: beside its file. None for a database server."""
    database = database_path(str(store.engine.url))
    name = "" if store.log == AUTHORITY_LOG else f".{store.log}"
    return None if database is None else database.with_name(f"{database.name}{name}{SUFFIX}")


def save(path: Path, replay: Replay) -> None:
    """Write the fold, whole or not at all. Raises UsageError when it cannot be written."""
    folded = replay.folded_beside() if isinstance(replay, PartitionReplay) else replay.folded()
    body = Encoder().encode((_code(), replay.anchor, folded))
    write_replacing(path, _TITLE + sha256(body).hexdigest().encode() + b"\n" + body, mode=0o600)


def load(path: Path, store: Store, anchor: str, authority: AuthorityFeed | None = None) -> Replay | None:
    """A replay that stands where the saved fold stands, or None where it does not count. `authority` is what
    the log of a partition rests on.
    """
    try:
        data = read_bounded(path, SAVED_FOLD_MAX_BYTES, "SL-STORED")
    except (UsageError, Refused):
        return None
    title, _, body = data.partition(b"\n")
    if title != _TITLE + sha256(body).hexdigest().encode():
        return None
    try:
        replay = _resumed(body, store, anchor, authority)
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError):
        return None
    if replay is None:
        return None
    note = store.checkpoint(replay.size)
    try:
        replay.verify_head(note or b"")
    except Refused:
        return None
    return replay


def _resumed(body: bytes, store: Store, anchor: str, authority: AuthorityFeed | None) -> Replay | None:
    """The replay in the file's body, when it is of this code and anchor and rests on what is there."""
    ours = (_code(), anchor, anchor)
    if authority is None:
        code, of_anchor, known = _DECODER.decode(body)
        return Replay.resumed(anchor, known) if (code, of_anchor, known.state.anchor) == ours else None
    code, of_anchor, beside = _PARTITION_DECODER.decode(body)
    if (code, of_anchor, beside.authority.state.anchor) != ours:
        return None
    replay = PartitionReplay.resumed_beside(anchor, store.log, authority, beside)
    size = replay.authority_size
    if size > authority.final_size():
        return None
    with store.reading() as connection:
        rests_on = store.of(AUTHORITY_LOG).tree(size, connection)
    return replay if rests_on.root() == replay.authority_root() else None


@cache
def _code() -> str:
    """SHA-256 over the sources that fold: a state that other rules have made is none of ours."""
    folder = Path(statelog.__file__).parent
    digest = sha256()
    for source in sorted(folder.glob("*.py")) + sorted((folder / "records").glob("*.py")):
        digest.update(f"{source.relative_to(folder)} ".encode() + sha256(source.read_bytes()).digest())
    return digest.hexdigest()
