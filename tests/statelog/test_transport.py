"""Requests on their way: as text, as scanned frames, and what a damaged or hostile one may not do."""

from __future__ import annotations

import random
import zlib
from base64 import b32encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statelog.errors import Refused
from statelog.limits import MAX_QR_FRAMES, MAX_REQUEST_BYTES, QR_FRAME_CHARS
from statelog.transport import from_frames, from_text, to_frames, to_text, unpacked

DENSE = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:")  # ISO/IEC 18004, alphanumeric mode
LARGE = random.Random(7).randbytes(MAX_REQUEST_BYTES)  # not compressible
SOME = random.Random(8).randbytes(2_000)


def refused(sentence: str, *frames: str) -> None:
    with pytest.raises(Refused, match=sentence) as caught:
        from_frames(frames)
    assert caught.value.code == "SL-REQUEST"


# -- text --


@given(st.binary(min_size=1, max_size=500))
def test_text_there_and_back(data: bytes) -> None:
    text = to_text(data)
    assert from_text(text) == data
    assert unpacked(text.encode()) == (data, "text")
    assert max(map(len, text.splitlines())) <= 72


@pytest.mark.parametrize(
    "mangled",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "Dear Bob,\n\nplease sign:\n\n" + text + "\n--\nAlice\n",
        lambda text: "".join(f"> > {line}\n" for line in text.splitlines()),
        lambda text: "".join(f"    {line}  \n" for line in text.splitlines()),
    ],
)
def test_what_mail_programs_do_is_survived(mangled: object) -> None:
    assert callable(mangled)
    assert from_text(mangled(to_text(SOME))) == SOME


@pytest.mark.parametrize("line", [1, 5, -2])
def test_a_changed_character_is_noticed(line: int) -> None:
    lines = to_text(SOME).splitlines()
    at = len(lines[line]) - 8
    other = "0" if lines[line][at] != "0" else "1"
    lines[line] = lines[line][:at] + other + lines[line][at + 1 :]
    with pytest.raises(Refused, match="damaged") as caught:
        from_text("\n".join(lines))
    assert caught.value.code == "SL-REQUEST"


def test_a_lost_line_is_noticed() -> None:
    lines = to_text(SOME).splitlines()
    for gone in (1, len(lines) - 2):
        with pytest.raises(Refused, match="damaged"):
            from_text("\n".join(lines[:gone] + lines[gone + 1 :]))
    for gone in (0, len(lines) - 1):
        with pytest.raises(Refused, match="BEGIN"):
            from_text("\n".join(lines[:gone] + lines[gone + 1 :]))


def test_two_blocks_are_no_request() -> None:
    with pytest.raises(Refused, match="one BEGIN"):
        from_text(to_text(SOME) + to_text(b"another"))


def test_an_empty_block_is_refused() -> None:
    first, *_, last = to_text(SOME).splitlines()
    with pytest.raises(Refused, match="damaged"):
        from_text(f"{first}\n{last}")
    with pytest.raises(Refused, match="damaged"):
        from_text(f"{last}\n{first}")


# -- frames --


@given(st.binary(min_size=1, max_size=4_000), st.randoms(use_true_random=False))
def test_frames_there_and_back_in_any_order(data: bytes, chance: random.Random) -> None:
    frames = to_frames(data)
    assert set("".join(frames)) <= DENSE
    scanned = frames + chance.sample(frames, len(frames) // 2)  # a scanner repeats itself
    chance.shuffle(scanned)
    assert from_frames(scanned) == data
    assert unpacked("\n".join(["", *scanned, ""]).encode()) == (data, "frames")


def test_the_largest_request_fits() -> None:
    frames = to_frames(LARGE)
    assert len(frames) <= MAX_QR_FRAMES
    assert from_frames(reversed(frames)) == LARGE


def test_what_is_missing_is_named() -> None:
    frames = to_frames(SOME)
    assert len(frames) == 6
    refused("frame 2, 5 of 6 is missing", *(frames[at] for at in (0, 2, 3, 5)))
    refused("nothing was scanned")
    refused("nothing was scanned", "", "  ")


def test_frames_of_two_requests_are_not_mixed() -> None:
    refused("different requests", *to_frames(SOME), *to_frames(b"another"))
    first, *rest = to_frames(SOME)
    refused("different requests", first, *rest, first[:-1] + ("A" if first[-1] != "A" else "B"))
    refused("different requests", first, *rest, first.replace(":6:", ":7:"))


@pytest.mark.parametrize(
    "frame",
    [
        "https://example.org",
        "SL1:",
        "SL1:ID:1:1:",
        "SL1:ID:0:1:AA",
        "SL1:ID:2:1:AA",
        "SL1:ID:-1:1:AA",
        "SL1:ID:1:x:AA",
        "SL1:ID:²:²:AA",
        "SL1:ID:1:9999999999:AA",
        "SL2:ID:1:1:AA",
    ],
)
def test_other_texts_are_no_frames(frame: str) -> None:
    refused("no frame", frame)


def test_frames_larger_than_any_request_are_refused_at_once() -> None:
    refused("larger", f"SL1:ID:1:{MAX_QR_FRAMES + 1}:AA")
    refused("larger", f"SL1:ID:1:1:{'A' * (QR_FRAME_CHARS + 1)}")


def test_a_changed_part_does_not_fit() -> None:
    frames = to_frames(SOME)
    for at, frame in enumerate(frames):
        changed = frame[:-2] + ("A" if frame[-2] != "A" else "B") + frame[-1]
        refused("do not fit", *frames[:at], changed, *frames[at + 1 :])


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xff\xff",
        zlib.compress(SOME),  # with a head and sum of its own, which the frames do not have
        zlib.compress(SOME, 9, -15)[:-3],
        zlib.compress(SOME, 9, -15) + b"more",
    ],
)
def test_parts_that_do_not_unfold_are_refused(packed: bytes) -> None:
    text = b32encode(packed).decode().rstrip("=") or "1"
    identifier = b32encode(sha256(SOME).digest()[:10]).decode()
    parts = [text[at : at + QR_FRAME_CHARS] for at in range(0, len(text), QR_FRAME_CHARS)]
    refused("do not fit", *(f"SL1:{identifier}:{n}:{len(parts)}:{part}" for n, part in enumerate(parts, 1)))


def test_a_few_frames_never_unfold_into_gigabytes() -> None:
    bomb = bytes(MAX_REQUEST_BYTES * 1_000)
    text = b32encode(zlib.compress(bomb, 9, -15)).decode().rstrip("=")
    parts = [text[at : at + QR_FRAME_CHARS] for at in range(0, len(text), QR_FRAME_CHARS)]
    identifier = b32encode(sha256(bomb).digest()[:10]).decode()
    assert len(parts) <= MAX_QR_FRAMES
    refused("do not fit", *(f"SL1:{identifier}:{n}:{len(parts)}:{part}" for n, part in enumerate(parts, 1)))
    fits = bytes(MAX_REQUEST_BYTES)
    assert from_frames(to_frames(fits)) == fits


# -- whichever it is --


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        b"",
        b'{"title":"-----BEGIN STATELOG SIGNING REQUEST-----"}',
        b"\xff\xfe",
        b"-----BEGIN PGP MESSAGE-----\n",
    ],
)
def test_other_bytes_are_left_as_they_are(data: bytes) -> None:
    assert unpacked(data) == (data, "file")
