"""Signed notes: the specification's own example, strict parsing, and who counts as a signer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog import limits
from statelog.errors import Refused
from statelog.note import (
    COSIGNATURE_V1,
    ED25519,
    Note,
    NoteSignature,
    VerifierKey,
    parse_note,
    parse_signature_lines,
    sign_text,
    verify_line,
)
from statelog.signing import SeedSigner

# C2SP signed-note, "Verifier keys", example.
FOO = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
TEXT = "This is an example message.\n"
SIGNATURE = "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
LINE = f"— example.com/foo {SIGNATURE}\n"
EXAMPLE = f"{TEXT}\n{LINE}".encode()
# filippo.io/sunlight test data: a cosignature/v1 key.
WITNESS = "witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN"

ALICE = SeedSigner(b"a" * 32)
BOB = SeedSigner(b"b" * 32)
ALICE_KEY = VerifierKey("alice", ED25519, ALICE.public)
BOB_KEY = VerifierKey("bob", ED25519, BOB.public)


def code_of(data: bytes) -> str:
    with pytest.raises(Refused) as refused:
        parse_note(data)
    return refused.value.code


def test_the_example_of_the_specification_verifies() -> None:
    key = VerifierKey.parse(FOO)
    note = parse_note(EXAMPLE)
    assert (key.name, key.key_type, key.key_id.hex()) == ("example.com/foo", ED25519, "530d903a")
    assert note.text == TEXT
    assert note.format() == EXAMPLE
    assert verify_line(note.text, note.signatures[0], key)


@pytest.mark.parametrize("text", [FOO, WITNESS])
def test_verifier_keys_are_written_as_they_were_read(text: str) -> None:
    assert VerifierKey.parse(text).format() == text


def test_a_cosignature_key_is_of_its_own_type() -> None:
    key = VerifierKey.parse(WITNESS)
    assert key.key_type == COSIGNATURE_V1
    assert VerifierKey(key.name, ED25519, key.public).key_id != key.key_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com/foo",
        FOO.replace("530d903a", "530d903b"),  # another id
        FOO.replace("530d903a", "530D903A"),
        FOO.replace("example.com/foo", "example.com/bar"),
        FOO.replace("+Aek", "+Bek"),  # another type
        FOO.replace("U2k", "U2l"),  # another key
        FOO[:-2],
        FOO + "=",
        FOO + "+",
        FOO.replace("example.com/foo", "example.com foo"),
        "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
    ],
)
def test_verifier_keys_have_one_spelling(text: str) -> None:
    with pytest.raises(Refused) as refused:
        VerifierKey.parse(text)
    assert refused.value.code == "SL-NOTE"


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\nb", "a\u2028b", "a\x7fb", "x" * 256])
def test_key_names_are_plain(name: str) -> None:
    with pytest.raises(Refused) as refused:
        VerifierKey(name, ED25519, ALICE.public)
    assert refused.value.code == "SL-NOTE"
    assert VerifierKey("ä-ß.example/λ", ED25519, ALICE.public).name == "ä-ß.example/λ"


def test_keys_are_32_bytes_of_a_known_type() -> None:
    with pytest.raises(Refused):
        VerifierKey("a", ED25519, ALICE.public[:31])
    with pytest.raises(Refused):
        VerifierKey("a", 2, ALICE.public)


MALFORMED = {
    "no empty line": TEXT.encode() + LINE.encode(),
    "no signature": f"{TEXT}\n".encode(),
    "no final newline": EXAMPLE[:-1],
    "an empty line after": EXAMPLE + b"\n",
    "a hyphen for the dash": EXAMPLE.replace("—".encode(), b"-"),
    "two spaces": EXAMPLE.replace(b"foo U", b"foo  U"),
    "no name": EXAMPLE.replace(b"example.com/foo U", b" U"),
    "a plus in the name": EXAMPLE.replace(b"com/foo", b"com+foo"),
    "a carriage return": EXAMPLE.replace(b"\n", b"\r\n"),
    "a tab": EXAMPLE.replace(b"an example", b"an\texample"),
    "not UTF-8": EXAMPLE.replace(b"example message", b"example \xff"),
    "no padding": EXAMPLE.replace(b"aQM=", b"aQM"),
    "loose trailing bits": EXAMPLE.replace(b"aQM=", b"aQN="),
    "URL alphabet": EXAMPLE.replace(b"wHjG1", b"w-jG1"),
    "a key id alone": f"{TEXT}\n— example.com/foo Uw2QOg==\n".encode(),
    "an extra word": EXAMPLE.replace(b"aQM=", b"aQM= x"),
    "a text line among signatures": EXAMPLE + b"text\n",
    "too long": b"x" * limits.MAX_NOTE_BYTES + EXAMPLE,
    "nothing": b"",
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_notes_are_refused(data: bytes) -> None:
    assert code_of(data) == "SL-NOTE"
    assert parse_note(EXAMPLE).text == TEXT


def test_the_text_may_hold_empty_lines() -> None:
    text = "one\n\ntwo\n\n\nthree\n"
    note = Note(text, (sign_text(text, "alice", ALICE),))
    assert parse_note(note.format()) == note


def test_the_number_of_signatures_is_bounded() -> None:
    line = sign_text(TEXT, "alice", ALICE)
    at_most = Note(TEXT, tuple([line] * limits.MAX_NOTE_SIGNATURES))
    assert len(parse_note(at_most.format()).signatures) == limits.MAX_NOTE_SIGNATURES
    assert code_of(Note(TEXT, (*at_most.signatures, line)).format()) == "SL-NOTE"


@given(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=60),
    st.binary(min_size=1, max_size=80),
)
def test_every_note_is_read_as_it_was_written(text: str, signature: bytes) -> None:
    note = Note(text + "\n", (NoteSignature("alice", b"\0\1\2\3", signature),))
    assert parse_note(note.format()) == note


@given(st.data())
def test_no_two_spellings_of_one_note(data: st.DataObject) -> None:
    """Whatever parses after a change of one byte is another note, written exactly so."""
    at = data.draw(st.integers(0, len(EXAMPLE) - 1))
    byte = data.draw(st.integers(0, 255))
    changed = EXAMPLE[:at] + bytes([byte]) + EXAMPLE[at + 1 :]
    try:
        note = parse_note(changed)
    except Refused:
        return
    assert note.format() == changed
    assert (note == parse_note(EXAMPLE)) == (changed == EXAMPLE)


def test_a_line_verifies_for_its_key_type_name_and_text_only() -> None:
    line = sign_text(TEXT, "alice", ALICE)
    assert verify_line(TEXT, line, ALICE_KEY)
    assert not verify_line(TEXT + "x\n", line, ALICE_KEY)
    assert not verify_line(TEXT, line, VerifierKey("alice", COSIGNATURE_V1, ALICE.public))
    assert not verify_line(TEXT, line, BOB_KEY)
    assert not verify_line(TEXT, line, VerifierKey("carol", ED25519, ALICE.public))
    assert not verify_line(TEXT, NoteSignature("alice", line.key_id, line.signature + b"\0"), ALICE_KEY)


def test_a_key_is_its_name_and_its_id() -> None:
    """A line that shares only one of them with a known key is of an unknown key."""
    line = sign_text(TEXT, "alice", ALICE)
    same_name = NoteSignature("bob", line.key_id, line.signature)
    same_id = NoteSignature("alice", BOB_KEY.key_id, line.signature)
    assert not same_name.is_by(BOB_KEY)
    assert not same_id.is_by(BOB_KEY)
    assert sign_text(TEXT, "bob", BOB).is_by(BOB_KEY)


def test_a_text_without_newline_is_not_signed() -> None:
    with pytest.raises(ValueError, match="newline"):
        sign_text("text", "alice", ALICE)


def test_signature_lines_alone() -> None:
    lines = sign_text(TEXT, "alice", ALICE), sign_text(TEXT, "bob", BOB)
    body = "".join(line.line() for line in lines).encode()
    assert parse_signature_lines(body) == lines
    dashless = body.replace("— ".encode(), b"")
    long = "".join(line.line() for line in lines * 300).encode()
    cut = body[:-1] + b"x"  # something else where the last newline belongs
    for wrong in (
        b"",
        body[:-1],
        cut,
        b"\n" + body,
        body + b"\n",
        body + b"x\n",
        b"\xff" + body,
        dashless,
        long,
    ):
        with pytest.raises(Refused) as refused:
            parse_signature_lines(wrong)
        assert refused.value.code == "SL-NOTE"
