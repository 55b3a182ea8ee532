"""The forms in which a signing request travels: a file on a stick, text in a mail, a picture to scan. Pure.

    file     the canonical bytes themselves (`statelog.ceremony`)
    text     a block between BEGIN and END lines: base64, and the SHA-256 of the bytes for the mail programs
    frames   one line a QR code: `SL1:<id>:<number>:<of>:<part>`; the parts together are the bytes, deflated
             (RFC 1951) and in base32 (RFC 4648), so that a QR code holds them in its dense alphanumeric mode

Nothing here is secret or trusted: a request means what its record says, and its signers compare its digest.
The sums only tell a reader early that something was lost on the way.
"""

from __future__ import annotations

import zlib
from base64 import b32decode, b32encode
from collections.abc import Iterable
from hashlib import sha256
from textwrap import wrap
from typing import Final, Literal

from statelog.errors import Refused, refuse
from statelog.limits import MAX_QR_FRAMES, MAX_REQUEST_BYTES, QR_FRAME_CHARS
from statelog.signing import decode_base64, encode_base64

Form = Literal["file", "text", "frames"]

_BEGIN: Final = "-----BEGIN STATELOG SIGNING REQUEST-----"
_END: Final = "-----END STATELOG SIGNING REQUEST-----"
_SUM: Final = "sha256:"
_FRAME: Final = "SL1:"
_ID_BYTES: Final = 10  # sixteen characters: enough to tell the frames of requests apart
_LINE_CHARS: Final = 64


def to_text(data: bytes) -> str:
    """A request's bytes as a block of text for a mail."""
    lines = wrap(encode_base64(data), _LINE_CHARS)
    return "\n".join([_BEGIN, *lines, _SUM + sha256(data).hexdigest(), _END]) + "\n"


def from_text(text: str) -> bytes:
    """The bytes in a block that `to_text` made, whatever stands around it. Raises `Refused` SL-REQUEST.

    Line ends may have changed, and each line may have been quoted with `> ` and indented.
    """
    lines = [line.strip().lstrip("> ").strip() for line in text.splitlines()]
    if lines.count(_BEGIN) != 1 or lines.count(_END) != 1:
        raise _refused("the text holds no block with one BEGIN and one END line")
    *body, last = lines[lines.index(_BEGIN) + 1 : lines.index(_END)] or [""]
    data = decode_base64("".join(body))
    if data is None or last != _SUM + sha256(data).hexdigest():
        raise _refused("the text was damaged on its way: its sum is another")
    return data


def to_frames(data: bytes) -> list[str]:
    """A request's bytes as numbered frames, one for each QR code."""
    text = b32encode(zlib.compress(data, 9, -zlib.MAX_WBITS)).decode().rstrip("=")
    parts = wrap(text, QR_FRAME_CHARS)
    return [f"{_FRAME}{_id(data)}:{number}:{len(parts)}:{part}" for number, part in enumerate(parts, 1)]


def from_frames(texts: Iterable[str]) -> bytes:
    """The bytes of a request from its scanned frames, in any order, repeated ones too.

    Raises `Refused` SL-REQUEST: for what is no frame, frames of several requests, and with the numbers of
    those that are missing.
    """
    found: dict[int, str] = {}
    whole: tuple[str, int] | None = None
    for text in filter(None, (one.strip() for one in texts)):
        identifier, number, of, part = _frame(text)
        if whole not in (None, (identifier, of)) or found.get(number, part) != part:
            raise _refused("the frames are of different requests")
        whole = (identifier, of)
        found[number] = part
    if whole is None:
        raise _refused("nothing was scanned")
    identifier, of = whole
    if missing := [str(number) for number in range(1, of + 1) if number not in found]:
        raise _refused(f"frame {', '.join(missing)} of {of} is missing")
    data = _inflated("".join(found[number] for number in range(1, of + 1)))
    if data is None or _id(data) != identifier:
        raise _refused("the frames do not fit together")
    return data


def unpacked(data: bytes) -> tuple[bytes, Form]:
    """The bytes of the request in a file of whatever form, and which form it was. Raises `Refused`.

    Bytes of no known form are answered as they are: whoever parses them says what is wrong with them.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data, "file"
    if text.startswith("{"):  # JSON, whatever its title says
        return data, "file"
    if _BEGIN in text:
        return from_text(text), "text"
    if text.lstrip().startswith(_FRAME):
        return from_frames(text.splitlines()), "frames"
    return data, "file"


def _frame(text: str) -> tuple[str, int, int, str]:
    prefix, identifier, number, of, part = (text.split(":", 4) + [""] * 5)[:5]
    numbers = [one for one in (number, of) if one.isascii() and one.isdigit() and len(one) <= 3]
    if prefix + ":" != _FRAME or len(numbers) != 2 or not part or not 1 <= int(number) <= int(of):
        raise _refused("a scanned text is no frame of a signing request")
    if int(of) > MAX_QR_FRAMES or len(part) > QR_FRAME_CHARS:
        raise _refused("the frames are larger than those of any request")
    return identifier, int(number), int(of), part


def _inflated(text: str) -> bytes | None:
    """The bytes, at most those of a request: a few frames must not unfold into gigabytes."""
    try:
        packed = b32decode(text + "=" * (-len(text) % 8))
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        data = inflater.decompress(packed, MAX_REQUEST_BYTES + 1)
    except (ValueError, zlib.error):
        return None
    return data if inflater.eof and not inflater.unused_data and len(data) <= MAX_REQUEST_BYTES else None


def _id(data: bytes) -> str:
    return b32encode(sha256(data).digest()[:_ID_BYTES]).decode()


def _refused(sentence: str) -> Refused:
    return refuse("SL-REQUEST", sentence)
