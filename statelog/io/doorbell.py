"""Waking the other processes that use one SQLite store, so that none of them polls.

Each waiting process binds a Unix datagram socket of its own in the directory `<database>.bells`; whoever has
changed the store sends one byte to every socket there. A ring is a hint and carries nothing: one that is lost
(a process that starts just then, a full buffer) costs until the receiver's own slow timer. A socket file
whose process is gone refuses the datagram and is removed by the next ring.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

from statelog.errors import SourceUnreadable, UsageError
from statelog.io.database import database_path
from statelog.limits import MAX_BELLS, MAX_SOCKET_PATH_BYTES

_SUFFIX = ".bell"
_DEAD = (errno.ECONNREFUSED, errno.ENOENT)
_BUSY = (errno.EAGAIN, errno.ENOBUFS)  # rung already and not yet awake: nothing is lost


class Doorbell:
    """This process's bell for the store at `url` (sqlite:///PATH). Use as a context manager, or `close()` it.

    Raises UsageError for a store that is no file, SourceUnreadable when the socket cannot be made.
    """

    def __init__(self, url: str) -> None:
        directory = _bells(url)
        # The kernel bounds a socket's path to 108 bytes; a directory descriptor keeps ours short at any
        # depth.
        self.path = directory / f"{os.getpid()}-{uuid4().hex[:8]}{_SUFFIX}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            directory.mkdir(mode=0o700, exist_ok=True)
            _at(self.path, self._socket.bind)
        except OSError as error:
            self._socket.close()
            raise SourceUnreadable(f"no doorbell at {self.path}: {error}") from error

    def fileno(self) -> int:
        """The descriptor to watch for reading, for an event loop; call `drain` when it is readable."""
        return self._socket.fileno()

    def drain(self) -> int:
        """Forget all rings so far; answers how many there were."""
        rings = 0
        while True:
            try:
                self._socket.recv(1)
            except BlockingIOError:
                return rings
            rings += 1

    def wait(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` seconds for a ring and forget it; False when none came."""
        readable, _, _ = select.select([self._socket], [], [], timeout_s)
        return bool(readable) and self.drain() > 0

    def close(self) -> None:
        """Take the bell down."""
        self._socket.close()
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def ring(url: str) -> int:
    """Wake every process that has a `Doorbell` on the store at `url`; answers how many were reached.

    Never blocks and never fails for a receiver's sake. For a database server it does nothing.
    """
    if database_path(url) is None:
        return 0
    try:
        bells = sorted(_bells(url).glob(f"*{_SUFFIX}"))[:MAX_BELLS]
    except FileNotFoundError:
        return 0
    reached = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        for path in bells:
            reached += _ring_one(sender, path)
    return reached


def _ring_one(sender: socket.socket, path: Path) -> bool:
    try:
        _at(path, lambda address: sender.sendto(b"!", address))
    except OSError as error:
        if error.errno in _DEAD:
            with contextlib.suppress(OSError):  # another ring may have removed it first
                path.unlink(missing_ok=True)
            return False
        return error.errno in _BUSY
    return True


def _at(path: Path, action: Callable[[str], object]) -> None:
    """Run `action` with an address of `path` that is short enough for the kernel (108 bytes on Linux)."""
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES:
        action(str(path))
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        action(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def _bells(url: str) -> Path:
    path = database_path(url)
    if path is None:
        raise UsageError(f"{url} is a database server; a doorbell hangs beside a file")
    return path.with_name(path.name + ".bells")
