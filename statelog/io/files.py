"""Small files that people hand around: read with a bound, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from statelog.errors import UsageError, refuse

_OPEN_ALREADY = re.compile(
    r"/dev/std(in|out|err)|/dev/fd/[0-9]+|/proc/self/fd/[0-9]+"
)  # what a shell's <(…) is called
BESIDE_A_DATABASE = ("-wal", "-shm", "-journal")  # what SQLite may keep beside its file


def read_bounded(path: Path, max_bytes: int, code: str) -> bytes:
    """The whole file, at most `max_bytes`.

    Raises `UsageError` when it cannot be opened or is no file (`require_file`), and `Refused` with `code`
    when it is larger: one byte past the bound is read, never more, whatever the file system says of its size.
    """
    require_file(path)
    try:
        with path.open("rb") as source:
            data = source.read(max_bytes + 1)
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error
    if len(data) > max_bytes:
        raise refuse(
            code, f"{path} is too large to be what it should be", expected=f"at most {max_bytes} bytes"
        )
    return data


def file_begins(path: Path, magic: bytes) -> bool:
    """Whether a file begins so, which is not asked of a pipe: what it has given it does not give again.

    Raises `UsageError` as `read_bounded`.
    """
    require_file(path)
    try:
        if not path.is_file():
            return False
        with path.open("rb") as source:
            return source.read(len(magic)) == magic
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error


def is_taken(path: Path) -> bool:
    """Whether something is at `path`. Raises `UsageError` when that cannot be seen."""
    try:
        return path.exists()
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error


def make_folder(path: Path) -> None:
    """A private folder at `path`, unless one is there. Raises `UsageError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error


def require_file(path: Path) -> None:
    """Raises `UsageError` for what is not a regular file: a named pipe is waited for as long as nobody
    writes, and a device may have no end.

    What the caller's shell has opened already, `/dev/stdin` and `/dev/fd/N`, is whatever the user made it.
    """
    if _OPEN_ALREADY.fullmatch(str(path)):
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a directory")
    if not stat.S_ISREG(mode):
        raise UsageError(f"{path} is not a regular file; to read it all the same: /dev/stdin < {path}")


def read_first_line(path: Path, max_bytes: int) -> str:
    """The first line of a small text file, without its end: how a passphrase or PIN is handed over.

    Raises `UsageError` when it cannot be read or is not UTF-8, `Refused` (SL-KEYFILE) when it is too large.
    """
    data = read_bounded(path, max_bytes, "SL-KEYFILE")
    try:
        return data.split(b"\n", 1)[0].rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: the first line is not UTF-8 text") from error


def write_new(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Create `path` with `data`; an existing file is never touched (`UsageError`).

    The bytes are complete and synced under another name first, so that a crash leaves the whole file
    or none.
    """
    with _complete_copy(path, data, mode) as copy:
        try:
            os.link(copy, path)
        except FileExistsError as error:
            raise UsageError(f"{path} exists already; give another name or move it away") from error
        except OSError:  # a file system without hard links: the reservation below is just as exclusive
            _replace_reserved(copy, path, mode)
    _sync_folder(path.parent)


def write_replacing(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` at `path`, atomically in place of the file that may be there. Raises `UsageError`."""
    _require_replaceable(path)
    with _complete_copy(path, data, mode) as copy:
        try:
            copy.replace(path)
        except OSError as error:
            raise UsageError(f"{path}: {_reason(error)}") from error
    _sync_folder(path.parent)


@contextlib.contextmanager
def replacing(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """An empty file beside `path`, for what is long in the making: when the block ends without an error it is
    synced and takes the place of `path`, else it is removed, with what SQLite may have left beside it.

    What a process left that was killed in the making is removed by the next one for the same path. Raises
    `UsageError`.
    """
    _require_replaceable(path)
    _forget_cut_off(path)
    copy = path.parent / f".{path.name}.{secrets.token_hex(6)}.making"
    try:
        held = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX)  # held as long as somebody makes it, and no longer
            yield copy
            os.fsync(held)
            copy.replace(path)
        except OSError as error:
            raise UsageError(f"{path}: {_reason(error)}") from error
    finally:
        os.close(held)
        remove_database(copy)
    _sync_folder(path.parent)


def remove_database(path: Path) -> None:
    """Remove a file, if it is there, and what SQLite keeps beside it: the next database of that name would
    take that for its own.
    """
    for beside in ("", *BESIDE_A_DATABASE):
        path.with_name(path.name + beside).unlink(missing_ok=True)


def _require_replaceable(path: Path) -> None:
    """Raises `UsageError` where a file would take the place of a device or a pipe: `/dev/null` for one, which
    the superuser could so remove for everybody.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # nothing is there; what else is wrong is said by whoever makes the copy beside it
    if _OPEN_ALREADY.fullmatch(str(path)) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise UsageError(f"{path} is not a regular file, and none may take its place; name a new one")


def _forget_cut_off(path: Path) -> None:
    """Remove files in the making of `path` that nobody makes any more."""
    for copy in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 12}.making"):
        with contextlib.suppress(OSError):  # somebody holds it, or has just removed it
            descriptor = os.open(copy, os.O_WRONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_database(copy)
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def _complete_copy(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    copy = path.parent / f".{path.name}.{secrets.token_hex(6)}.part"
    try:
        descriptor = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error
    try:
        try:
            with os.fdopen(descriptor, "wb") as sink:
                sink.write(data)
                sink.flush()
                os.fsync(sink.fileno())
        except OSError as error:
            raise UsageError(f"{path}: {_reason(error)}") from error
        yield copy
    finally:
        copy.unlink(missing_ok=True)


def _replace_reserved(copy: Path, path: Path, mode: int) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        copy.replace(path)
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; give another name or move it away") from error
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from error


def _sync_folder(folder: Path) -> None:
    """Make the new name durable; file systems that cannot sync a folder keep their own promise."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
