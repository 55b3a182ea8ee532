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
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from statelog.audit import LogSource
from statelog.errors import Refused, SourceUnreadable, UsageError, refuse
from statelog.io.comparing import extension
from statelog.io.evidence_files import rollback_files, split_view_files, write_evidence
from statelog.io.export import other_history, publish, write
from statelog.io.resources import FolderResources
from statelog.limits import MAX_NOTE_BYTES, TILE_WIDTH
from statelog.merkle import CompactRange, leaf_hash
from statelog.rollback import Rollback
from statelog.splitview import SplitView
from statelog.state import AUTHORITY_LOG
from statelog.tilelog import Resources, TileLog, tile_logs
from statelog.tiles import CHECKPOINT_PATH, LOGS_PATH, SIZES_PATH, encode_logs, tile_at, tiles_between

INCOMING = ".incoming"
EVIDENCE = "evidence"
TILES = "tile/"
AGAIN = "delete that file and run this again, it is fetched anew"
ANEW = "mirror into a new folder, or delete this one if you can do without its memory of what was shown"
_MUTABLE = (CHECKPOINT_PATH, LOGS_PATH, SIZES_PATH)

Audit = Callable[[Mapping[str, LogSource], int], bool]


class Once:
    """Resources of `source`, each asked for once: whoever asks again gets what came, from `waiting`, where it
    is kept, or from memory if it may change at the source. All that asks sees one moment. Satisfies
    `Resources`.
    """

    def __init__(self, source: Resources, waiting: Path) -> None:
        self.where = source.where
        self._source = source
        self._waiting = waiting
        self._memory: dict[str, bytes | None] = {}
        self.came: dict[str, bytes] = {}  # the SHA-256 of what is kept below `waiting`, by path

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The resource. Raises as the source, UsageError for the disk."""
        if path in self._memory:
            return self._memory[path]
        if path in self.came:
            return _as_it_was(self._waiting, path, max_bytes, self.came[path])
        data = self._source.get(path, max_bytes)
        if data is None or path.endswith(_MUTABLE):
            self._memory[path] = data
        else:
            write(self._waiting, path, data)
            self.came[path] = sha256(data).digest()
        return data


class Incoming:
    """Resources of a `source` that is asked once, kept in `folder` once they came. Satisfies `Resources`.

    Tiles, which never change, are taken from the copy or from what came before, if they are there: wherever
    they are from, the audit judges them.
    """

    def __init__(self, source: Once, folder: Path) -> None:
        self.where = source.where
        self.folder = folder
        self.waiting = folder / INCOMING
        self.resumed = False  # something that an earlier run brought was used
        self._source = source
        self._nearby: dict[str, tuple[Path, bytes]] = {}  # where it was taken from, and its SHA-256

    def get(self, path: str, max_bytes: int) -> bytes | None:
        """The resource, from nearby or from the source. Raises as the source, UsageError for the disk."""
        if TILES not in path or path in self._source.came:
            return self._source.get(path, max_bytes)
        if path in self._nearby:
            where, digest = self._nearby[path]
            return _as_it_was(where, path, max_bytes, digest)
        for where in (self.folder, self.waiting):
            data = _own(where, path, max_bytes)
            if data is not None:
                self._nearby[path] = where, sha256(data).digest()
                self.resumed |= where == self.waiting
                return data
        return self._source.get(path, max_bytes)

    def settle(self, log: TileLog, old_size: int, below: str) -> None:
        """Move the tiles of an audited log to their place below `below`: what is new since `old_size`, or
        was lost; what belongs to its tree and nothing else.
        """
        for tile in tiles_between(0, log.size):
            path, target = self.waiting / below / tile.path, self.folder / below / tile.path
            if path.is_file():
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    path.replace(target)
                except OSError as error:
                    raise UsageError(f"{target}: {error.strerror}") from error
            elif tile.entries[1] > old_size and not target.is_file():
                write(self.folder / below, tile.path, log.read(tile))  # the source had only the full one

    def forget(self) -> None:
        """Throw away what waits, and a folder that holds nothing else."""
        shutil.rmtree(self.waiting, ignore_errors=True)
        with contextlib.suppress(OSError):  # there is a copy in it, or it never was made
            self.folder.rmdir()


def mirror(source: Resources, folder: Path, audit: Audit) -> bool:
    """Bring `folder` up to the logs of `source`, if `audit(logs, entries)` says that they are sound.

    The source is asked for nothing twice. False for a source that is not sound: nothing of it is kept. Raises
    Refused SL-ROLLBACK or SL-SPLIT for a sound source that shows less than the copy has, or another history;
    both signed heads are kept in the folder `EVIDENCE` of the copy. Raises Refused SL-CONSISTENCY for another
    cluster's, UsageError for a copy that is damaged itself, SourceUnreadable when the source is cut off (what
    came by then waits for the next run), and as `tile_logs`.
    """
    copies, once = _copies(folder), Once(source, folder / INCOMING)
    incoming = Incoming(once, folder)
    against = _against(folder, copies, once)
    if against:
        own = tile_logs(once)  # its very own bytes: those of the copy are of the other history
        sound = audit(dict(own), sum(log.size for log in own.values()))
        incoming.forget()
        if not sound:
            return False
        _require_whole(folder, copies)
        for one in against:
            write_evidence(folder / EVIDENCE, one.files)
        raise against[0].refusal
    logs = tile_logs(incoming)
    if not audit(dict(logs), sum(log.size for log in logs.values())):
        incoming.forget()
        _require_whole(folder, copies)
        if incoming.resumed:
            sentence = (
                "what an earlier run had brought may be what is not sound; it was thrown away: run again"
            )
            raise SourceUnreadable(f"{folder / INCOMING}: {sentence}")
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
    """The logs that the copy has already, none for a new one. Raises UsageError for a damaged one."""
    resources = FolderResources(folder)
    try:
        return {} if resources.get(CHECKPOINT_PATH, MAX_NOTE_BYTES) is None else tile_logs(resources)
    except (Refused, SourceUnreadable) as error:
        raise UsageError(f"the copy in {folder} is damaged: {error}; {ANEW}") from error


def _own(folder: Path, path: str, max_bytes: int) -> bytes | None:
    """A file of this disk."""
    try:
        return FolderResources(folder).get(path, max_bytes)
    except SourceUnreadable as error:
        raise UsageError(f"the copy is damaged: {error}; {AGAIN}") from error


def _as_it_was(folder: Path, path: str, max_bytes: int, digest: bytes) -> bytes:
    """A file of this disk that this run has read or written before."""
    data = _own(folder, path, max_bytes)
    if data is None or sha256(data).digest() != digest:
        raise UsageError(f"{folder / path} is not what it was a moment ago: is the disk failing? {AGAIN}")
    return data


def _require_whole(folder: Path, copies: Mapping[str, TileLog]) -> None:
    """Raises UsageError when the tiles of the copy are not those of its heads, so that nobody is blamed for
    this disk. Everything is read and hashed, no signature verified.
    """
    for name, log in copies.items():
        below = folder / _below(name)
        try:
            fault = _fault(log)
        except Refused as error:
            fault = error.finding.path
        except SourceUnreadable as error:
            raise UsageError(f"the copy in {below} is damaged: {error}; {AGAIN}") from error
        if fault == CHECKPOINT_PATH:
            raise UsageError(f"the copy is damaged: {below / fault} is not of its tiles; {ANEW}")
        if fault:
            raise UsageError(f"the copy is damaged: {below / fault} is not of its checkpoint; {AGAIN}")


def _fault(log: TileLog) -> str:
    """The first file of a log that does not fit the others, or nothing. Raises Refused, naming it."""
    hashes, tree = log.leaf_hashes(), CompactRange()
    for index, leaf in log.entries():
        found = leaf_hash(leaf)
        if found != next(hashes):
            return tile_at(None, index // TILE_WIDTH, log.size).path
        tree.append(found)
    for finding in log.check_hashes():
        return finding.path
    return "" if tree.root() == log.head.root else CHECKPOINT_PATH


class _Against(NamedTuple):
    """What a source's head says against the copy: the refusal, and the files that show it."""

    refusal: Refused
    files: dict[str, bytes]


def _against(folder: Path, copies: Mapping[str, TileLog], source: Once) -> list[_Against]:
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
        try:
            led = extension(smaller, larger)
        except (Refused, SourceUnreadable):
            _require_whole(folder, copies)  # its tiles are what was read, if it is the larger
            raise
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
