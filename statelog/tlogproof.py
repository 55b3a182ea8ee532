"""The proof file of C2SP tlog-proof v1: an entry's place in a log, with a checkpoint over it.

    c2sp.org/tlog-proof@v1
    extra <base64>                 (left out when there is none)
    index <decimal>
    <base64 of a hash>             (one a line, the leaf's sibling first)

    <the checkpoint, a signed note>

This module only reads and writes the file. What `extra` holds here, and what is believed of it, is
`statelog.lightclient`.
"""

from __future__ import annotations

from dataclasses import dataclass

from statelog import signing
from statelog.checkpoint import parse_decimal
from statelog.errors import Refused, refuse
from statelog.limits import HASH_BYTES, MAX_PROOF_FILE_BYTES, MAX_PROOF_HASHES

HEADER = "c2sp.org/tlog-proof@v1"


@dataclass(frozen=True, slots=True)
class TlogProof:
    """`index` and `hashes` are the inclusion proof under `checkpoint`, a signed note; `extra` is opaque."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes = b""

    def format(self) -> bytes:
        """The file's bytes."""
        lines = [HEADER]
        if self.extra:
            lines.append(f"extra {signing.encode_base64(self.extra)}")
        lines.append(f"index {self.index}")
        lines += [signing.encode_base64(one) for one in self.hashes]
        return "".join(f"{line}\n" for line in lines).encode() + b"\n" + self.checkpoint


def parse_tlog_proof(data: bytes) -> TlogProof:
    """The proof in `data`; its checkpoint is not parsed. Raises Refused SL-PROOF for any other spelling."""
    if len(data) > MAX_PROOF_FILE_BYTES:
        raise _refuse("the proof is too long", expected=f"at most {MAX_PROOF_FILE_BYTES} bytes")
    head, parted, checkpoint = data.partition(b"\n\n")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError as error:
        raise _refuse("the lines before the checkpoint are not ASCII") from error
    if not parted or first != HEADER:
        raise _refuse("not a proof file", expected=HEADER, found=first[:80])
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = _base64(lines.pop(0).removeprefix("extra "))
    if not lines or not lines[0].startswith("index "):
        raise _refuse("the proof names no index")
    try:
        index = parse_decimal(lines.pop(0).removeprefix("index "))
    except Refused as error:
        raise _refuse("the index is not a plain decimal number") from error
    if len(lines) > MAX_PROOF_HASHES:
        raise _refuse("too many hashes", expected=f"at most {MAX_PROOF_HASHES}", found=str(len(lines)))
    hashes = tuple(_base64(line) for line in lines)
    if any(len(one) != HASH_BYTES for one in hashes):
        raise _refuse("a hash is not 32 bytes")
    return TlogProof(index, hashes, checkpoint, extra)


def _base64(text: str) -> bytes:
    data = signing.decode_base64(text)
    if not data:
        raise _refuse("a value is not canonical base64", found=text[:80])
    return data


def _refuse(sentence: str, *, expected: str = "", found: str = "") -> Refused:
    return refuse("SL-PROOF", sentence, expected=expected, found=found)
