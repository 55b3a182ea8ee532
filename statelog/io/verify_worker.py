"""A process that verifies signatures for another one: frames of jobs come in, one octet for each goes out.

It imports nothing but the verifiers, so that starting one costs little. A frame is its length in four octets,
the greatest first, and a list of jobs in Python's own `marshal`: both ends are one program and nobody else
has the pipe, and a message that several have signed is in it once. The answer is 1 when every signature of
the frame was right, else 0.
"""

from __future__ import annotations

import marshal
import signal
import sys
from collections.abc import Iterable
from typing import Final

from statelog.io.quickverify import surely_right
from statelog.signing import Job, verify

_LENGTH: Final = 4  # octets
RIGHT: Final = b"\x01"
WRONG: Final = b"\x00"


def frame_of(jobs: list[Job]) -> bytes:
    """The frame of jobs."""
    body = marshal.dumps(jobs)
    return len(body).to_bytes(_LENGTH) + body


def all_right(jobs: Iterable[Job]) -> bool:
    """Whether every signature is right."""
    for public, signature, message in jobs:
        if not (surely_right(public, signature, message) or verify(public, signature, message)):
            return False
    return True


def serve() -> None:
    """Answer frames on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us decides, and closes our input
    frames, answers = sys.stdin.buffer, sys.stdout.buffer
    while length := frames.read(_LENGTH):
        jobs: list[Job] = marshal.loads(frames.read(int.from_bytes(length)))  # noqa: S302 - our parent's own
        answers.write(RIGHT if all_right(jobs) else WRONG)
        answers.flush()


if __name__ == "__main__":
    serve()
