"""A process that verifies signatures for another one: frames of jobs come in, one octet for each goes out.

It imports nothing but the verifiers, so that starting one costs little. A frame is its length in four octets
and then, for each job, the 32 octets of the public key, the length of the message in four, the 64 octets of
the signature and the message; a length of all ones stands for the message of the job before. The answer is 1
when every signature of the frame was right, else 0.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from typing import Final

from statelog.io.quickverify import surely_right
from statelog.limits import PUBLIC_KEY_BYTES, SIGNATURE_BYTES
from statelog.signing import Job, verify

_LENGTH: Final = 4  # octets of a length, the greatest first
_SAME: Final = b"\xff" * _LENGTH  # where a length stands: the message is that of the job before
RIGHT: Final = b"\x01"
WRONG: Final = b"\x00"


def frame_of(jobs: Iterable[Job]) -> bytes:
    """The frame of jobs whose keys and signatures have their right lengths."""
    parts, last = [b""], None
    for public, signature, message in jobs:
        if message is last:  # several sign one record
            parts += (public, _SAME, signature)
        else:
            parts += (public, len(message).to_bytes(_LENGTH), signature, message)
            last = message
    body = b"".join(parts)
    return len(body).to_bytes(_LENGTH) + body


def jobs_of(body: bytes) -> Iterator[Job]:
    """The jobs in a frame, its length taken off."""
    at, message = 0, b""
    while at < len(body):
        length_at = at + PUBLIC_KEY_BYTES
        signature_at = length_at + _LENGTH
        end = message_at = signature_at + SIGNATURE_BYTES
        length = body[length_at:signature_at]
        if length != _SAME:
            end += int.from_bytes(length)
            message = body[message_at:end]
        yield body[at:length_at], body[signature_at:message_at], message
        at = end


def all_right(jobs: Iterable[Job]) -> bool:
    """Whether every signature is right."""
    return all(surely_right(*job) or verify(*job) for job in jobs)


def serve() -> None:
    """Answer frames on standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one who started us decides, and closes our input
    frames, answers = sys.stdin.buffer, sys.stdout.buffer
    while length := frames.read(_LENGTH):
        body = frames.read(int.from_bytes(length))
        answers.write(RIGHT if all_right(jobs_of(body)) else WRONG)
        answers.flush()


if __name__ == "__main__":
    serve()
