"""Checkpoints and cosignatures, against the specifications' examples and bytes composed by hand."""

from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog import checkpoint as checkpoints
from statelog.checkpoint import (
    Checkpoint,
    parse_checkpoint,
    parse_signed_checkpoint,
    sign_checkpoint,
    witness_key,
)
from statelog.errors import Refused
from statelog.note import Note, NoteSignature, VerifierKey, sign_text
from statelog.signing import SeedSigner, verify

# C2SP tlog-checkpoint and tlog-cosignature, examples.
EXAMPLE_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
EXAMPLE = (
    EXAMPLE_TEXT
    + "\n— example.com/behind-the-sofa"
    + " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    + "— witness.example.com/w1"
    + " jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+"
    + "mbIUBkBIfZ+qnA==\n"
).encode()

LOG = SeedSigner(b"l" * 32)
WITNESS = SeedSigner(b"w" * 32)
ROOT = sha256(b"root").digest()
HEAD = Checkpoint("log.example/1", 7, ROOT)
NOW = 1_767_225_600


def refused_code(text: str) -> str:
    with pytest.raises(Refused) as refused:
        parse_checkpoint(text)
    return refused.value.code


def test_the_example_of_the_specification() -> None:
    checkpoint, note = parse_signed_checkpoint(EXAMPLE)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert base64.b64encode(checkpoint.root) == b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
    assert checkpoint.text() == EXAMPLE_TEXT
    assert note.format() == EXAMPLE
    assert checkpoints.cosignature_timestamp(note.signatures[1]) == 1679315147


def test_the_message_of_the_specification() -> None:
    message = checkpoints.cosignature_message(EXAMPLE_TEXT, 1679315147)
    assert message == b"cosignature/v1\ntime 1679315147\n" + EXAMPLE_TEXT.encode()


def test_a_checkpoint_is_three_lines() -> None:
    assert HEAD.text() == f"log.example/1\n7\n{base64.b64encode(ROOT).decode()}\n"
    assert parse_checkpoint(HEAD.text()) == HEAD


def test_extension_lines_are_kept() -> None:
    text = HEAD.text() + "extra 1\nextra 2\n"
    parsed = parse_checkpoint(text)
    assert parsed.extensions == ("extra 1", "extra 2")
    assert parsed.text() == text


ROOT_LINE = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"log\n7\n{ROOT_LINE}", "SL-CHECKPOINT"),  # no final newline
        ("log\n7\n", "SL-CHECKPOINT"),
        (f"\n7\n{ROOT_LINE}\n", "SL-CHECKPOINT"),  # no origin
        (f"log\n07\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n+7\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n-7\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n 7\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n7_0\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n٧\n{ROOT_LINE}\n", "SL-CHECKPOINT"),  # a digit, and not ASCII
        (f"log\n²\n{ROOT_LINE}\n", "SL-CHECKPOINT"),  # a digit that is no number
        (f"log\n\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n{2**63}\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n{'9' * 5000}\n{ROOT_LINE}\n", "SL-CHECKPOINT"),
        (f"log\n7\n{base64.b64encode(ROOT[:31]).decode()}\n", "SL-CHECKPOINT"),
        (f"log\n7\n{ROOT_LINE}\n\n", "SL-CHECKPOINT"),  # an empty extension
        (f"log\n7\n{ROOT_LINE}\nbad\rline\n", "SL-CHECKPOINT"),
        (f"log\n7\n{ROOT_LINE[:-1]}\n", "SL-NOTE"),
        (f"log\n7\n{ROOT_LINE[:-2]}B=\n", "SL-NOTE"),  # trailing bits
    ],
)
def test_malformed_checkpoints_are_refused(text: str, code: str) -> None:
    assert refused_code(text) == code


@pytest.mark.parametrize("size", [-1, 2**63])
def test_a_size_is_in_range(size: int) -> None:
    with pytest.raises(Refused) as refused:
        Checkpoint("log", size, ROOT)
    assert refused.value.code == "SL-CHECKPOINT"


def test_the_largest_and_the_empty_tree() -> None:
    for size in (0, 2**63 - 1):
        text = Checkpoint("log", size, ROOT).text()
        assert parse_checkpoint(text).size == size


@given(st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32))
def test_every_checkpoint_is_read_as_it_was_written(size: int, root: bytes) -> None:
    checkpoint = Checkpoint("cluster.example/authority", size, root)
    assert parse_checkpoint(checkpoint.text()) == checkpoint


def test_a_signed_checkpoint_names_the_origin_as_its_key() -> None:
    parsed, note = parse_signed_checkpoint(sign_checkpoint(HEAD, LOG))
    keys = checkpoints.log_keys(HEAD.origin, [LOG.public])
    assert parsed == HEAD
    assert [line.name for line in note.signatures] == [HEAD.origin]
    assert checkpoints.verify_sequencer(note, keys) == keys[0]
    with pytest.raises(Refused, match="no sequencer"):
        checkpoints.verify_sequencer(note, checkpoints.log_keys("log.example/2", [LOG.public]))


def test_a_wrong_line_of_a_known_sequencer_spoils_the_note() -> None:
    other = SeedSigner(b"o" * 32)
    wrong = sign_text("another\n", HEAD.origin, other)
    note = Note(HEAD.text(), (wrong, sign_text(HEAD.text(), HEAD.origin, LOG)))
    (known,) = checkpoints.log_keys(HEAD.origin, [LOG.public])
    assert checkpoints.verify_sequencer(note, [known]) == known, "an unknown key's line is ignored"
    with pytest.raises(Refused, match="signature is wrong"):
        checkpoints.verify_sequencer(note, checkpoints.log_keys(HEAD.origin, [LOG.public, other.public]))


# --- cosignatures ---

KEY = witness_key("w1.example", WITNESS.public)


def test_a_cosignature_is_time_and_signature_under_a_type_4_key() -> None:
    line = checkpoints.cosign(HEAD.text(), "w1.example", WITNESS, NOW)
    expected_id = sha256(b"w1.example\n\x04" + WITNESS.public).digest()[:4]
    message = f"cosignature/v1\ntime {NOW}\n{HEAD.text()}".encode()
    assert line.key_id == expected_id == KEY.key_id
    assert line.signature[:8] == NOW.to_bytes(8, "big")
    assert verify(WITNESS.public, line.signature[8:], message)
    assert checkpoints.verify_cosignature(HEAD.text(), line, KEY) == NOW


def test_the_key_id_of_a_known_witness() -> None:
    text = "witness.example.org+b8a2cf20+BFLN3yikSfFkVAJtrnh/CiY3Zozkoy7clp+P7XB28qUN"
    key = VerifierKey.parse(text)
    assert witness_key("witness.example.org", key.public) == key


def test_wrong_cosignatures_are_refused() -> None:
    line = checkpoints.cosign(HEAD.text(), "w1.example", WITNESS, NOW)
    flipped = line.signature[:-1] + bytes([line.signature[-1] ^ 1])
    later = (NOW + 1).to_bytes(8, "big") + line.signature[8:]
    never = bytes(8) + line.signature[8:]
    beyond = (2**63).to_bytes(8, "big") + line.signature[8:]
    wrong = [
        (HEAD.text(), NoteSignature(line.name, line.key_id, flipped), KEY),
        (HEAD.text(), NoteSignature(line.name, line.key_id, later), KEY),
        (HEAD.text(), NoteSignature(line.name, line.key_id, never), KEY),
        (HEAD.text(), NoteSignature(line.name, line.key_id, beyond), KEY),
        (HEAD.text(), NoteSignature(line.name, line.key_id, line.signature[8:]), KEY),
        (HEAD.text(), NoteSignature("w2.example", line.key_id, line.signature), KEY),
        (HEAD.text(), line, witness_key("w1.example", LOG.public)),
        (HEAD.text(), line, VerifierKey("w1.example", 1, WITNESS.public)),
        (Checkpoint(HEAD.origin, 8, ROOT).text(), line, KEY),
    ]
    for text, bad, key in wrong:
        with pytest.raises(Refused) as refused:
            checkpoints.verify_cosignature(text, bad, key)
        assert refused.value.code == "SL-COSIGNATURE"
    for timeless in (never, beyond, line.signature[8:], line.signature + b"\0"):
        with pytest.raises(Refused) as refused:
            checkpoints.cosignature_timestamp(NoteSignature(line.name, line.key_id, timeless))
        assert refused.value.code == "SL-COSIGNATURE"


def test_a_log_signature_is_no_cosignature() -> None:
    _, note = parse_signed_checkpoint(sign_checkpoint(HEAD, WITNESS))
    with pytest.raises(Refused) as refused:
        checkpoints.verify_cosignature(
            note.text, note.signatures[0], witness_key(HEAD.origin, WITNESS.public)
        )
    assert refused.value.code == "SL-COSIGNATURE"


@pytest.mark.parametrize("timestamp", [0, -1, 2**63])
def test_a_cosignature_has_a_time(timestamp: int) -> None:
    with pytest.raises(ValueError, match="time"):
        checkpoints.cosign(HEAD.text(), "w1.example", WITNESS, timestamp)
