"""A copy of somebody's logs in tiles that is audited before it shows: from an address, or a folder.

What arrives waits in `.incoming` below the copy, so that a broken transfer goes on where it stopped. Only
when the audit of all of it is clean do the files move to their places, checkpoints last; otherwise the copy
stays what it was and what arrived is thrown away.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from statelog.audit import LogSource
from statelog.checkpoint import parse_signed_checkpoint
from statelog.errors import Refused, UsageError
from statelog.io.export import other_history, publish, write
from statelog.io.resources import FolderResources
from statelog.limits import MAX_NOTE_BYTES
from statelog.merkle import CompactRange
from statelog.state import AUTHORITY_LOG
from statelog.tilelog import Resources, TileLog, tile_logs
from statelog.tiles import CHECKPOINT_PATH, LOGS_PATH, SIZES_PATH, encode_logs, tiles_between

INCOMING = ".incoming"
_MUTABLE = (CHECKPOINT_PATH, LOGS_PATH, SIZES_PATH)

Audit = Callable[[Mapping[str, LogSource], int], bool]


class Incoming:
    """Resources of `source`, kept in `folder` once they came. Satisfies `Resources`.

    What never changes is taken from the copy or from what came before, if it is there: wherever it is from,
    the audit judges it.
    """

    def __init__(self, source: Resources, folder: Path) -> None:
        self.folder = folder
        self.waiting = folder / INCOMING
        self._source = source
        self._nearby = (FolderResources(folder), FolderResources(self.waiting))
        self._mutable: dict[str, bytes | None] = {}

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The resource, from nearby or from the source. Raises as the source, UsageError for the disk."""
        if path.endswith(_MUTABLE):
            if path not in self._mutable:
                self._mutable[path] = self._source.get(path, max_bytes)
            return self._mutable[path]
        for nearby in self._nearby:
            data = nearby.get(path, max_bytes)
            if data is not None:
                return data
        data = self._source.get(path, max_bytes)
        if data is not None:
            write(self.waiting, path, data)
        return data

    def settle(self, log: TileLog, old_size: int, below: str) -> None:
        """Move the tiles of an audited log to their place below `below`, from `old_size` on: what belongs to
        its tree and nothing else.
        """
        for tile in tiles_between(old_size, log.size):
            path, target = self.waiting / below / tile.path, self.folder / below / tile.path
            if not path.is_file():
                write(self.folder / below, tile.path, log.read(tile))  # the source had only the full one
                continue
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
            except OSError as error:
                raise UsageError(f"{target}: {error.strerror}") from error

    def forget(self) -> None:
        """Throw away what waits, and a folder that holds nothing else."""
        shutil.rmtree(self.waiting, ignore_errors=True)
        with contextlib.suppress(OSError):  # there is a copy in it, or it never was made
            self.folder.rmdir()


def mirror(source: Resources, folder: Path, audit: Audit) -> bool:
    """Bring `folder` up to the logs of `source`, if `audit(logs, entries)` says that they are sound.

    False for a source that is not: nothing of it is kept. Raises Refused SL-CONSISTENCY for
    a source that does not continue what the folder holds, SourceUnreadable when the source is cut off (what
    came by then waits for the next run), and as `tile_logs`.
    """
    incoming = Incoming(source, folder)
    logs = tile_logs(incoming)
    if not audit(dict(logs), sum(log.size for log in logs.values())):
        incoming.forget()
        return False
    try:
        sizes = {name: _continued(folder / _below(name), log) for name, log in logs.items()}
    except Refused:
        incoming.forget()
        raise
    kept = {name: dict(log.checkpoints()) for name, log in logs.items()}
    for name, log in logs.items():
        incoming.settle(log, sizes[name], _below(name))
        publish(folder / _below(name), kept[name])
    write(folder, LOGS_PATH, encode_logs(name for name in logs if name != AUTHORITY_LOG))
    incoming.forget()
    return True


def _below(log: str) -> str:
    return "" if log == AUTHORITY_LOG else log


def _continued(folder: Path, log: TileLog) -> int:
    """The size that the copy has already, 0 for none."""
    data = FolderResources(folder).get(CHECKPOINT_PATH, MAX_NOTE_BYTES)
    if data is None:
        return 0
    old, _ = parse_signed_checkpoint(data)
    if old.size > log.size or CompactRange.from_nodes(old.size, log.read_node).root() != old.root:
        raise other_history(folder, old, f"{log.head.origin}, {log.size} entries")
    return old.size
