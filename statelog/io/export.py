"""The log of a store as a folder of static files (C2SP tlog-tiles) that any web server can host.

Only what is final is written. Files appear whole or not at all and the checkpoint comes last, so a reader
finds everything that the checkpoint it read covers, whenever the export stops or runs again. A tile that is
there already is compared with the store, byte for byte, and written again when a stick or a copy has damaged
it; but not before the store's own entries have given its signed root, lest what is damaged be the store.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import sqlalchemy as sa

from statelog.checkpoint import Checkpoint, parse_signed_checkpoint
from statelog.errors import Refused, SourceUnreadable, UsageError, refuse
from statelog.finality import milestones
from statelog.io.files import write_replacing
from statelog.io.loading import load_replay
from statelog.io.resources import FolderResources
from statelog.io.store import Head, Store
from statelog.io.tiles import read_tile
from statelog.limits import MAX_NOTE_BYTES, TILE_WIDTH
from statelog.merkle import leaf_hash, root_of
from statelog.note import Note
from statelog.state import AUTHORITY_LOG, AuthorityState
from statelog.tiles import (
    CHECKPOINT_PATH,
    LOGS_PATH,
    SIZES_PATH,
    Tile,
    encode_logs,
    encode_sizes,
    encode_tile,
    history_path,
    tiles_between,
)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a folder holds of one log now: `size` entries, in tiles of which `written` are new, `mended` of
    these in the place of damaged ones, and the checkpoints of the sizes in `history` beside the newest.
    """

    log: str
    origin: str
    size: int
    root: bytes
    written: int
    mended: int
    history: tuple[int, ...]


def export_logs(
    store: Store, anchor: str, folder: Path, progress: Callable[[int], None] | None = None
) -> list[Exported]:
    """Bring `folder` up to the final heads of all logs of the store, all at one moment.

    The authority log stands in `folder` itself and first, the log of a partition in the folder of its name;
    one that has nothing final yet is left out. Reads every final entry, about 5 µs each, and what the folder
    has of it; writes what it has not. `progress(entries)` counts those of all logs together.

    Raises UsageError when nothing is final yet or the folder cannot be written, Refused SL-CONSISTENCY when
    the folder holds another history or a longer one, SL-STORED when it is the store that is damaged, and what
    `load_replay` and `milestones` refuse.
    """
    done: list[Exported] = []
    with store.reading() as connection:
        for name in store.logs(connection):
            log, before = store.of(name), sum(one.size for one in done)
            head = log.head(connection)
            if head is not None and head.final_size:
                where = folder if name == AUTHORITY_LOG else folder / name
                advance = None if progress is None else _beyond(before, progress)
                done.append(_export(log, anchor, where, head, advance, connection))
    if not done or done[0].log != AUTHORITY_LOG:
        raise UsageError("nothing of the authority log is final yet, so there is nothing to export")
    write(folder, LOGS_PATH, encode_logs(one.log for one in done[1:]))
    return done


def _export(
    store: Store,
    anchor: str,
    folder: Path,
    head: Head,
    progress: Callable[[int], None] | None,
    connection: sa.Connection,
) -> Exported:
    state = load_replay(store, anchor, connection).state
    kept = final_heads(store, state, head.final_size, connection)
    _require_continued(store, folder, head, connection)
    written, mended, full = 0, 0, []
    for tile in tiles_between(0, head.final_size):
        content = read_tile(connection, store, tile)
        if content is None:
            raise refuse("SL-STORED", "a tree node is missing", path=tile.path)
        found = _found(folder, tile, len(content.data))
        if found != content.data:
            if found is not None:
                _require_sound(store, head, tile, content.data, connection, whole=not mended)
                mended += 1
            write(folder, tile.path, content.data)
            written += 1
        if tile.width == TILE_WIDTH:
            full.append(tile)
        if progress is not None and tile.level is None:
            progress(tile.entries[1])
    publish(folder, {size: note.format() for size, note in kept})
    _drop_partial(folder, full)
    history = tuple(size for size, _ in kept[:-1])
    return Exported(store.log, head.origin, head.final_size, head.final_root, written, mended, history)


def _beyond(done: int, progress: Callable[[int], None]) -> Callable[[int], None]:
    return lambda entries: progress(done + entries)


def final_heads(
    store: Store,
    state: AuthorityState,
    final_size: int,
    connection: sa.Connection,
    last: int | None = None,
) -> list[tuple[int, Note]]:
    """The store's heads that show its final head to be final (`finality.milestones`), roots compared.

    Raises Refused SL-FINALITY, SL-ROOT.
    """

    def from_size(start: int) -> Iterator[tuple[int, Note]]:
        return (
            (size, parse_signed_checkpoint(data)[1]) for size, data in store.checkpoints(start, connection)
        )

    kept = milestones(state, from_size, final_size, last)
    for size, note in kept:
        root = store.tree(size, connection).root()
        found = parse_signed_checkpoint(note.format())[0]
        if (found.size, found.root) != (size, root):
            raise refuse(
                "SL-ROOT",
                "a stored checkpoint is not of the stored tree",
                expected=root.hex(),
                found=found.root.hex(),
            ).at(size - 1)
    return kept


def publish(folder: Path, kept: Mapping[int, bytes]) -> None:
    """Write the history, its list, and last the newest of the `kept` checkpoints as `checkpoint`."""
    *history, newest = sorted(kept)
    for size in history:
        write(folder, history_path(size), kept[size])
    write(folder, SIZES_PATH, encode_sizes(history))
    write(folder, CHECKPOINT_PATH, kept[newest])


def _require_continued(store: Store, folder: Path, head: Head, connection: sa.Connection) -> None:
    """Raises Refused when the folder holds what the head does not continue."""
    data = FolderResources(folder).get(CHECKPOINT_PATH, MAX_NOTE_BYTES)
    if data is None:
        return
    try:
        old, _ = parse_signed_checkpoint(data)
    except Refused as error:
        sentence = (
            f"{folder / CHECKPOINT_PATH} is damaged: {error.finding.sentence}; remove it and export again"
        )
        raise refuse(error.code, sentence) from error
    continued = old.origin == head.origin and old.size <= head.final_size
    if not continued or store.tree(old.size, connection).root() != old.root:
        raise other_history(folder, old, f"{head.origin}, at most {head.final_size} entries")


def _found(folder: Path, tile: Tile, size: int) -> bytes | None:
    """What the folder has in the tile's place, None for nothing; b"" for what is longer or unreadable."""
    try:
        return FolderResources(folder).get(tile.path, size)
    except SourceUnreadable:
        return b""


def _require_sound(
    store: Store, head: Head, tile: Tile, data: bytes, connection: sa.Connection, *, whole: bool
) -> None:
    """Before what the folder has is replaced: Refused SL-STORED when the store's entries do not give these
    bytes or (with `whole`, O(entries)) the root of its head.
    """
    start, end = tile.entries
    leaves = (leaf_hash(one.leaf) for one in store.entries(start, end, connection))
    if tile.level is not None:
        span = TILE_WIDTH**tile.level
        hashes = [root_of(islice(leaves, span)) for _ in range(tile.width)]
        if encode_tile(hashes) != data:
            raise refuse("SL-STORED", "stored tree nodes are not of the stored entries", path=tile.path)
    if whole:
        root = root_of(leaf_hash(one.leaf) for one in store.entries(0, head.final_size, connection))
        if root != head.final_root:
            raise refuse(
                "SL-STORED",
                "the stored entries do not give the root of their head; the folder keeps what it has",
                expected=head.final_root.hex(),
                found=root.hex(),
            )


def other_history(folder: Path, old: Checkpoint, expected: str) -> Refused:
    """The refusal to overwrite a log that the new head does not continue."""
    return refuse(
        "SL-CONSISTENCY",
        f"{folder} holds a log that the new head does not continue; give another folder",
        expected=expected,
        found=f"{old.origin}, {old.size} entries",
    )


def write(folder: Path, path: str, data: bytes) -> None:
    """One file of a log, whole or not at all. Raises UsageError."""
    where = folder / path
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{where.parent}: {error.strerror}") from error
    write_replacing(where, data)


def _drop_partial(folder: Path, full: list[Tile]) -> None:
    """Partial tiles whose full tile is there now; a reader of an older checkpoint cuts the full one."""
    for tile in full:
        shutil.rmtree(folder / f"{tile.path}.p", ignore_errors=True)
