"""Signed notes and verifier keys, byte for byte as in C2SP signed-note v1.0.0.

A note is text that ends in a newline, an empty line, and signature lines `— <key name> <base64>`. The base64
holds a 4-byte key id and the signature. This module knows two signature types: 0x01, Ed25519 over the text,
and 0x04, the timestamped cosignature of `statelog.checkpoint`.

Parsing is strict: what is parsed is formatted again and compared, so one note has one spelling. A signature
of an unknown key is kept, and ignored by everyone who checks.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from statelog import signing
from statelog.errors import Refused
from statelog.findings import Finding
from statelog.limits import (
    MAX_KEY_NAME_BYTES,
    MAX_NOTE_BYTES,
    MAX_NOTE_SIGNATURES,
    PUBLIC_KEY_BYTES,
)

ED25519 = 0x01
COSIGNATURE_V1 = 0x04
KEY_ID_BYTES = 4
_DASH = "— "
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")  # all but newline


def refuse(sentence: str, *, code: str = "SL-NOTE", expected: str = "", found: str = "") -> Refused:
    """The refusal of a malformed or wrongly signed note."""
    return Refused(Finding(code, sentence, expected=expected, found=found))


def decode_base64(text: str) -> bytes:
    """Standard base64 with padding, RFC 4648 section 4; any other spelling of the same bytes is refused."""
    data = signing.decode_base64(text)
    if not data:
        raise refuse("a value is not canonical base64", found=text[:80])
    return data


def valid_key_name(name: str) -> bool:
    """A name has characters, and among them no Unicode space, no plus and no control character."""
    return (
        0 < len(name.encode("utf-8", "surrogatepass")) <= MAX_KEY_NAME_BYTES
        and name.isprintable()
        and not any(char.isspace() or char == "+" for char in name)
    )


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name it signs under. `public` is 32 bytes; `key_type` ED25519 or
    COSIGNATURE_V1.
    """

    name: str
    key_type: int
    public: bytes

    def __post_init__(self) -> None:
        if not valid_key_name(self.name):
            raise refuse(
                "a key name is empty, too long, or has a space, plus or control character",
                found=self.name[:80],
            )
        if self.key_type not in (ED25519, COSIGNATURE_V1):
            raise refuse("unknown signature type of a verifier key", found=hex(self.key_type))
        if len(self.public) != PUBLIC_KEY_BYTES:
            raise refuse("a public key is not 32 bytes", found=str(len(self.public)))

    @property
    def key_id(self) -> bytes:
        """The first four bytes of SHA-256(name || newline || type || public)."""
        return sha256(self.name.encode() + b"\n" + bytes([self.key_type]) + self.public).digest()[
            :KEY_ID_BYTES
        ]

    def format(self) -> str:
        """`<name>+<key id in hex>+<base64 of type and public key>`."""
        material = signing.encode_base64(bytes([self.key_type]) + self.public)
        return f"{self.name}+{self.key_id.hex()}+{material}"

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """The key that `format` wrote. Raises Refused SL-NOTE when anything differs, the key id included."""
        name, _, rest = text.partition("+")
        key_id, _, material = rest.partition("+")
        data = decode_base64(material)
        key = cls(name, data[0], data[1:])
        if key.format() != text:
            raise refuse(
                "the verifier key's id is not the hash of its name and key",
                expected=key.key_id.hex(),
                found=key_id,
            )
        return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line: the key's name, its 4-byte id, and the bytes that its type defines."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """The line with its newline."""
        return f"{_DASH}{self.name} {signing.encode_base64(self.key_id + self.signature)}\n"

    def is_by(self, key: VerifierKey) -> bool:
        """Whether the line claims this key: both name and id match."""
        return self.name == key.name and self.key_id == key.key_id


@dataclass(frozen=True, slots=True)
class Note:
    """A text (with its final newline) and its signature lines in order."""

    text: str
    signatures: tuple[NoteSignature, ...] = ()

    def format(self) -> bytes:
        """The note's bytes: text, an empty line, the signature lines."""
        return (self.text + "\n" + "".join(item.line() for item in self.signatures)).encode()


def parse_signature_line(line: str) -> NoteSignature:
    """One line without its newline. Raises Refused SL-NOTE."""
    name, space, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH) or not space or not valid_key_name(name):
        raise refuse("a signature line is not an em dash, a key name and base64", found=line[:80])
    data = decode_base64(encoded)
    if len(data) <= KEY_ID_BYTES:
        raise refuse("a signature line holds no signature", found=line[:80])
    return NoteSignature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


def parse_signature_lines(data: bytes) -> tuple[NoteSignature, ...]:
    """Signature lines alone, each ended by a newline, as a witness answers them. Raises Refused SL-NOTE."""
    if len(data) > MAX_NOTE_BYTES:
        raise refuse(
            "the signature lines are too long",
            expected=f"at most {MAX_NOTE_BYTES} bytes",
            found=str(len(data)),
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse("a signature line is not UTF-8") from error
    if not text.endswith("\n"):
        raise refuse("the last signature line has no newline")
    lines = text[:-1].split("\n")
    if len(lines) > MAX_NOTE_SIGNATURES:
        raise refuse(
            "too many signature lines", expected=f"at most {MAX_NOTE_SIGNATURES}", found=str(len(lines))
        )
    return tuple(parse_signature_line(line) for line in lines)


def parse_note(data: bytes) -> Note:
    """The note in `data`. Raises Refused SL-NOTE; the signatures are not verified."""
    if len(data) > MAX_NOTE_BYTES:
        raise refuse("the note is too long", expected=f"at most {MAX_NOTE_BYTES} bytes", found=str(len(data)))
    try:
        whole = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse("the note is not UTF-8") from error
    if _CONTROL.search(whole):
        raise refuse("the note has a control character other than newline")
    # The text may hold empty lines itself: the last one parts it from the signatures.
    split = whole.rfind("\n\n")
    if split < 0:
        raise refuse("the note has no empty line before its signatures")
    note = Note(whole[: split + 1], parse_signature_lines(whole[split + 2 :].encode()))
    if note.format() != data:
        raise refuse("the note is not spelled as its parts are")
    return note


def sign_text(text: str, name: str, signer: signing.Signer) -> NoteSignature:
    """An Ed25519 signature line (type 0x01) over `text`, which ends in a newline."""
    if not text.endswith("\n"):
        raise ValueError("a note's text ends in a newline")
    key = VerifierKey(name, ED25519, signer.public)
    return NoteSignature(name, key.key_id, signer.sign(text.encode()))


def verify_line(text: str, line: NoteSignature, key: VerifierKey) -> bool:
    """Whether `line` is by `key` (type 0x01) and right over `text`."""
    return (
        key.key_type == ED25519
        and line.is_by(key)
        and signing.verify(key.public, line.signature, text.encode())
    )
