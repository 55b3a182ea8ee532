"""A copy of somebody's logs in tiles that is audited before it shows: from an address, or a folder.

What arrives waits in `.incoming` below the copy, so that a broken transfer goes on where it stopped. Only
when the audit of all of it is clean do the files move to their places, checkpoints last; otherwise the copy
stays what it was and what arrived is thrown away. The copy is a replica: a source that goes back behind it,
or shows it another history, is found out, and both signed heads are kept.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from statelog.audit import LogSource
from statelog.errors import Refused, UsageError, refuse
from statelog.io.comparing import extension
from statelog.io.evidence_files import rollback_files, split_view_files, write_evidence
from statelog.io.export import other_history, publish, write
from statelog.io.resources import FolderResources
from statelog.limits import MAX_NOTE_BYTES
from statelog.rollback import Rollback
from statelog.splitview import SplitView
from statelog.state import AUTHORITY_LOG
from statelog.tilelog import Resources, TileLog, tile_logs
from statelog.tiles import CHECKPOINT_PATH, LOGS_PATH, SIZES_PATH, encode_logs, tiles_between

INCOMING = ".incoming"
EVIDENCE = "evidence"
_MUTABLE = (CHECKPOINT_PATH, LOGS_PATH, SIZES_PATH)

Audit = Callable[[Mapping[str, LogSource], int], bool]


class Steady:
    """Resources of `source`, of which what may change is read once: all that asks sees one moment of it.
    Satisfies `Resources`.
    """

    def __init__(self, source: Resources) -> None:
        self._source = source
        self._mutable: dict[str, bytes | None] = {}

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The resource. Raises as the source."""
        if not path.endswith(_MUTABLE):
            return self._source.get(path, max_bytes)
        if path not in self._mutable:
            self._mutable[path] = self._source.get(path, max_bytes)
        return self._mutable[path]


class Incoming:
    """Resources of a steady `source`, kept in `folder` once they came. Satisfies `Resources`.

    What never changes is taken from the copy or from what came before, if it is there: wherever it is from,
    the audit judges it.
    """

    def __init__(self, source: Resources, folder: Path) -> None:
        self.folder = folder
        self.waiting = folder / INCOMING
        self._source = source
        self._nearby = (FolderResources(folder), FolderResources(self.waiting))

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The resource, from nearby or from the source. Raises as the source, UsageError for the disk."""
        if path.endswith(_MUTABLE):
            return self._source.get(path, max_bytes)
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

    False for a source that is not: nothing of it is kept. Raises Refused SL-ROLLBACK or SL-SPLIT for a sound
    source that shows less than the copy has, or another history; both signed heads are kept in the folder
    `EVIDENCE` of the copy. Raises Refused SL-CONSISTENCY for another cluster's, SourceUnreadable when the
    source is cut off (what came by then waits for the next run), and as `tile_logs`.
    """
    copies, source = _copies(folder), Steady(source)
    against = _against(folder, copies, source)
    if against:
        own = tile_logs(source)  # its very own bytes: those of the copy are of the other history
        if not audit(dict(own), sum(log.size for log in own.values())):
            return False
        for one in against:
            write_evidence(folder / EVIDENCE, one.files)
        raise against[0].refusal
    incoming = Incoming(source, folder)
    logs = tile_logs(incoming)
    if not audit(dict(logs), sum(log.size for log in logs.values())):
        incoming.forget()
        return False
    kept = {name: dict(log.checkpoints()) for name, log in logs.items()}
    for name, log in logs.items():
        incoming.settle(log, copies[name].size if name in copies else 0, _below(name))
        publish(folder / _below(name), kept[name])
    write(folder, LOGS_PATH, encode_logs(name for name in logs if name != AUTHORITY_LOG))
    incoming.forget()
    return True


def _below(log: str) -> str:
    return "" if log == AUTHORITY_LOG else log


def _copies(folder: Path) -> dict[str, TileLog]:
    """The logs that the copy has already, none for a new one."""
    resources = FolderResources(folder)
    return {} if resources.get(CHECKPOINT_PATH, MAX_NOTE_BYTES) is None else tile_logs(resources)


class _Against(NamedTuple):
    """What a source's head says against the copy: the refusal, and the files that show it."""

    refusal: Refused
    files: dict[str, bytes]


def _against(folder: Path, copies: Mapping[str, TileLog], source: Resources) -> list[_Against]:
    """The logs of which the source does not show what the copy has, or more. O(log n) of its tiles."""
    if not copies:
        return []
    shown, found = tile_logs(source), []
    for name in sorted(copies.keys() - shown.keys()):
        sentence = f"the source does not show the log {name} any more, which the copy has"
        path, sizes = f"{folder / EVIDENCE}", {"expected": copies[name].size, "found": 0}
        heads = {f"hidden-{name}-{copies[name].size}-earlier.note": copies[name].note}
        found.append(_Against(refuse("SL-ROLLBACK", sentence, path=path, **sizes), heads))
    for name, log in shown.items():
        copy = copies.get(name)
        if copy is None or copy.head == log.head:
            continue
        if copy.head.origin != log.head.origin:
            raise other_history(folder, copy.head, log.head.origin)
        smaller, larger = sorted((copy, log), key=lambda one: one.size)
        led = extension(smaller, larger)
        if led is None:  # by tiles that the audit of the source will name
            sentence = f"the tiles of {name} do not lead to its head"
            found.append(_Against(refuse("SL-TILE", sentence), {}))
            continue
        (root, proof), stem = led, f"{name}-{copy.size}-{log.size}"
        if root != smaller.head.root:
            sentence = "the source and the copy show two histories; both signed heads are kept"
            expected, got = root.hex(), smaller.head.root.hex()
            refusal = refuse("SL-SPLIT", sentence, path=f"{folder / EVIDENCE}", expected=expected, found=got)
            view = SplitView(smaller.note, larger.note, root, proof)
            found.append(_Against(refusal, split_view_files(f"split-{stem}", smaller.size, view)))
        elif log is smaller:
            sentence = f"the source shows less of {name} than the copy has; both signed heads are kept"
            sizes = {"expected": copy.size, "found": log.size}
            refusal = refuse("SL-ROLLBACK", sentence, path=f"{folder / EVIDENCE}", **sizes)
            back = Rollback(copy.note, log.note)
            found.append(_Against(refusal, rollback_files(f"rollback-{stem}", back)))
    return found
