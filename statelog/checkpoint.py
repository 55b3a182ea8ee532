"""Checkpoints and witness cosignatures: C2SP tlog-checkpoint v1.0.0 and tlog-cosignature v1.0.1 (type 0x04).

A checkpoint's text is three lines: origin, size in decimal, root in base64. Further lines are extensions:
other people's logs may have them and they are kept, our own never do (`Replay.verify_head` refuses them).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from statelog import note as notes
from statelog import signing
from statelog.errors import Refused, refuse
from statelog.limits import HASH_BYTES, MAX_TIMESTAMP_S, MAX_TREE_SIZE, SIGNATURE_BYTES
from statelog.note import COSIGNATURE_V1, KEY_ID_BYTES, Note, NoteSignature, VerifierKey

_TIMESTAMP_BYTES = 8
_COSIGNATURE_BYTES = _TIMESTAMP_BYTES + SIGNATURE_BYTES


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: `origin` names the log, `size` counts leaves, `root` is 32 bytes."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lines = (self.origin, *self.extensions)
        if not all(line and not any(char < " " for char in line) for line in lines):
            raise _refuse("a line of the checkpoint is empty or has a control character")
        if not 0 <= self.size <= MAX_TREE_SIZE:
            raise _refuse("the checkpoint's size is out of range", found=str(self.size)[:80])
        if len(self.root) != HASH_BYTES:
            raise _refuse("the checkpoint's root is not 32 bytes", found=str(len(self.root)))

    def text(self) -> str:
        """The note text: three lines and the extensions, each with its newline."""
        root = signing.encode_base64(self.root)
        return "".join(f"{line}\n" for line in (self.origin, str(self.size), root, *self.extensions))


def _refuse(sentence: str, *, expected: str = "", found: str = "") -> Refused:
    return notes.refuse(sentence, code="SL-CHECKPOINT", expected=expected, found=found)


def parse_decimal(text: str) -> int:
    """An ASCII decimal without leading zeroes, below 2^63. Raises Refused SL-CHECKPOINT."""
    # Longer than 19 digits is out of range whatever they are; int() of a long string would be slow.
    if not text.isascii() or not text.isdigit() or len(text) > 19 or str(int(text)) != text:
        raise _refuse("a size is not a plain decimal number", found=text[:80])
    value = int(text)
    if value > MAX_TREE_SIZE:
        raise _refuse("a size is out of range", found=text)
    return value


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint that `text` spells. Raises Refused SL-CHECKPOINT, or SL-NOTE for bad base64."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] != "":
        raise _refuse("a checkpoint has at least three lines, each ended by a newline")
    origin, size, root, *extensions = lines[:-1]
    checkpoint = Checkpoint(origin, parse_decimal(size), notes.decode_base64(root), tuple(extensions))
    if checkpoint.text() != text:
        raise _refuse("the checkpoint is not spelled as its parts are")
    return checkpoint


def parse_signed_checkpoint(data: bytes) -> tuple[Checkpoint, Note]:
    """A signed note whose text is a checkpoint; signatures not verified. Raises Refused SL-NOTE,
    SL-CHECKPOINT.
    """
    note = notes.parse_note(data)
    return parse_checkpoint(note.text), note


def sign_checkpoint(checkpoint: Checkpoint, signer: signing.Signer) -> bytes:
    """The checkpoint as a signed note with one line, the log's own: key name = origin, type 0x01."""
    text = checkpoint.text()
    return Note(text, (notes.sign_text(text, checkpoint.origin, signer),)).format()


def log_keys(origin: str, publics: Iterable[bytes]) -> list[VerifierKey]:
    """The verifier keys under which the log `origin` may sign its checkpoints."""
    return [VerifierKey(origin, notes.ED25519, public) for public in publics]


def witness_key(name: str, public: bytes) -> VerifierKey:
    """The cosignature/v1 verifier key of a witness."""
    return VerifierKey(name, COSIGNATURE_V1, public)


def cosignature_message(checkpoint_text: str, timestamp: int) -> bytes:
    """What a cosignature/v1 signs: header line, time line, the checkpoint's text."""
    return f"cosignature/v1\ntime {timestamp}\n{checkpoint_text}".encode()


def cosign(checkpoint_text: str, name: str, signer: signing.Signer, timestamp: int) -> NoteSignature:
    """The cosignature line of witness `name` at Unix second `timestamp`, which is not zero."""
    if not 0 < timestamp <= MAX_TIMESTAMP_S:
        raise ValueError(f"a cosignature cannot carry the time {timestamp}")
    signature = signer.sign(cosignature_message(checkpoint_text, timestamp))
    key = witness_key(name, signer.public)
    return NoteSignature(name, key.key_id, timestamp.to_bytes(_TIMESTAMP_BYTES, "big") + signature)


def cosignature_timestamp(line: NoteSignature) -> int:
    """The Unix second that the line claims. Raises Refused SL-COSIGNATURE when it is no timestamped
    signature.
    """
    if len(line.signature) != _COSIGNATURE_BYTES:
        raise _bad_cosignature(line, f"is not {_COSIGNATURE_BYTES + KEY_ID_BYTES} bytes")
    timestamp = int.from_bytes(line.signature[:_TIMESTAMP_BYTES], "big")
    if not 0 < timestamp <= MAX_TIMESTAMP_S:
        raise _bad_cosignature(line, "has no valid time")
    return timestamp


def verify_cosignature(checkpoint_text: str, line: NoteSignature, key: VerifierKey) -> int:
    """The Unix second of the cosignature. Raises Refused SL-COSIGNATURE when it is not by `key` or
    not right.
    """
    if key.key_type != COSIGNATURE_V1 or not line.is_by(key):
        raise _bad_cosignature(line, f"is not by {key.format()}")
    timestamp = cosignature_timestamp(line)
    message = cosignature_message(checkpoint_text, timestamp)
    if not signing.verify(key.public, line.signature[_TIMESTAMP_BYTES:], message):
        raise _bad_cosignature(line, "does not verify")
    return timestamp


def _bad_cosignature(line: NoteSignature, why: str) -> Refused:
    return notes.refuse(f"the cosignature of {line.name} {why}", code="SL-COSIGNATURE")


def verify_sequencer(note: Note, keys: list[VerifierKey]) -> VerifierKey:
    """The first of `keys` that signed the note. Raises Refused SL-CHECKPOINT when none did.

    Lines of unknown keys are ignored; a line that names a known key and is wrong spoils the note.
    """
    signed: VerifierKey | None = None
    for line in note.signatures:
        for key in keys:
            if line.is_by(key):
                if not notes.verify_line(note.text, line, key):
                    raise refuse("SL-CHECKPOINT", "a sequencer's signature is wrong", found=line.name)
                signed = signed or key
    if signed is None:
        raise refuse("SL-CHECKPOINT", "no sequencer of the term in force signed the checkpoint")
    return signed
