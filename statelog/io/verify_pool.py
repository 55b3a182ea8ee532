"""Signature verification spread over processes, for audits of long logs.

Ed25519 verification is most of an audit and needs nothing but its three inputs, so batches of jobs go to
worker processes while the fold runs on here. What waits is bounded, so a long log does not pile up in memory:
a batch that would have to wait is verified here instead. So a worker for every core but one keeps all busy,
and none is shared by two.

The workers are started afresh (a fork would copy locks that other threads may hold) and import the verifier
alone. Batches wait in their pipes, in the kernel: handing one over costs a copy, and no thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import statelog
from statelog.errors import StatelogError
from statelog.io.verify_worker import RIGHT, all_right, frame_of
from statelog.limits import (
    VERIFY_BATCH_SIGNATURES,
    VERIFY_BATCHES_WAITING,
    VERIFY_PIPE_BYTES,
)
from statelog.signing import Job, verify_all

__all__ = ["VerifyPool", "verify_all"]


class VerifyPool:
    """Satisfies `statelog.audit.SignatureVerifier` with `processes` workers, at least one, and this process
    where they are all busy (default: one for every core but one).

    `ask` has another way of asking: an answer for each group of jobs. Use one or the other. A context
    manager: leaving it ends the workers.
    """

    def __init__(self, processes: int | None = None) -> None:
        self._batch: list[Job] = []
        wanted = (os.cpu_count() or 1) - 1 if processes is None else processes
        self._workers = [_Worker() for _ in range(max(1, wanted))]
        self._next = 0
        self._sound = True  # what was verified here
        self._asked: deque[Asked] = deque()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs over; while too many batches are under way, one is verified before this returns."""
        self._batch += jobs
        if len(self._batch) >= VERIFY_BATCH_SIGNATURES:
            self._send()

    def finish(self) -> bool:
        """Wait for all jobs; True when every signature was right. Raises StatelogError when a worker died."""
        if self._batch:
            self._send()
        sound = [worker.finish() for worker in self._workers]  # each of them, also after a wrong one
        here, self._sound = self._sound, True
        return here and all(sound)

    def ask(self, groups: Sequence[Sequence[Job]]) -> Asked:
        """Hand groups of jobs over; waits while a pipe is full. Raises StatelogError when a worker died."""
        asked = Asked(self._asked, [self._worker().ask(list(group)) for group in groups])
        self._asked.append(asked)
        return asked

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for worker in self._workers:
            worker.close()

    def _worker(self) -> _Worker:
        self._next = (self._next + 1) % len(self._workers)
        return self._workers[self._next]

    def _send(self) -> None:
        batch, self._batch = self._batch, []
        for _ in self._workers:
            worker = self._worker()  # in turn, so that all get the same work
            if worker.has_room():
                worker.submit(batch)
                return
        self._sound &= all_right(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Asked:
    """Groups of jobs that workers verify."""

    def __init__(self, before: deque[Asked], workers: list[_Worker]) -> None:
        self._before = before
        self._workers = workers

    def answers(self) -> list[bool]:
        """For each group, whether all of it was right. Call it once, and in the order of asking.

        Raises StatelogError when a worker died, or an answer to something else would be taken for one of
        these.
        """
        if not self._before or self._before.popleft() is not self:
            raise StatelogError("answers about signatures were not taken in order")
        return [worker.answer() for worker in self._workers]


class _Worker:
    """One process, at the other ends of two pipes."""

    def __init__(self) -> None:
        found = str(Path(statelog.__file__).parent.parent)  # where this process found the package
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "statelog.io.verify_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": found},
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise StatelogError("a process that verifies signatures has no pipes")
        self._requests: IO[bytes] = self._process.stdin
        # Unbuffered, so that whether an answer is there can be asked.
        self._answers = os.fdopen(os.dup(self._process.stdout.fileno()), "rb", buffering=0)
        self._process.stdout.close()
        self._arrived = select.poll()
        self._arrived.register(self._answers, select.POLLIN)
        _widen(self._requests)
        self._waiting = 0
        self._sound = True

    def has_room(self) -> bool:
        """Whether another batch can wait here, now that the answers that came are taken."""
        while self._waiting and self._arrived.poll(0):
            self._take_answer()
        return self._waiting < VERIFY_BATCHES_WAITING

    def submit(self, jobs: list[Job]) -> None:
        """Take a batch over, to be asked for by `finish`."""
        self.ask(jobs)
        self._waiting += 1

    def ask(self, jobs: list[Job]) -> Self:
        """Take jobs over, to be asked for their `answer`."""
        try:
            self._requests.write(frame_of(jobs))
            self._requests.flush()
        except OSError as error:
            raise StatelogError(f"a process that verifies signatures ended: {error}") from error
        return self

    def answer(self) -> bool:
        """Whether all of the jobs that were taken over longest ago were right."""
        answer = b"" if self._answers.closed else self._answers.read(1)
        if not answer:
            raise StatelogError("a process that verifies signatures ended before it had answered")
        return answer == RIGHT

    def finish(self) -> bool:
        """Wait for all answers; whether all were right. The worker then starts anew."""
        while self._waiting:
            self._take_answer()
        sound, self._sound = self._sound, True
        return sound

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.wait()
        self._answers.close()
        with suppress(OSError):  # what it did not read any more
            self._requests.close()

    def _take_answer(self) -> None:
        self._sound &= self.answer()
        self._waiting -= 1


def _widen(pipe: IO[bytes]) -> None:
    """Let the pipe hold a few batches, where the system allows it: then nobody waits for a reader."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, VERIFY_PIPE_BYTES)
