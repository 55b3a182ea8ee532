"""`statelog request`: by mail and by QR code, there and back."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
import segno

from statelog import ceremony, transport
from statelog.ceremony import Request
from tests.statelog.cli.conftest import Farm, Run


@pytest.fixture
def request_file(farm: Farm, run: Run, tmp_path: Path) -> Path:
    document = tmp_path / "probe.json"
    document.write_text('{ "allow": ["192.0.2.0/24"] }')
    path = tmp_path / "probe.sigreq"
    where = ("--store", farm.path, "--root", farm.anchor, "--out", path)
    made = run("propose", "policy.epoch", "--policy", "probe", "--document", document, *where)
    assert made.code == 0, made.err
    return path


@pytest.fixture
def large_file(request_file: Path, tmp_path: Path) -> Path:
    """A request that takes several QR codes."""
    request = ceremony.decode_request(request_file.read_bytes())
    noise = random.Random(1).randbytes(450).hex()
    path = tmp_path / "large.sigreq"
    large = Request({**request.record, "document": {"noise": noise}}, (), request.title)
    path.write_bytes(ceremony.encode_request(large))
    return path


def modules_of(drawing: str) -> list[str]:
    """The rows of a QR code drawn in half blocks, `#` for a dark module, without its margin."""
    halves = {"█": "  ", "▀": " #", "▄": "# ", " ": "##"}
    rows: list[str] = []
    for line in drawing.splitlines():
        pairs = [halves[char] for char in line]
        rows += ["".join(pair[0] for pair in pairs), "".join(pair[1] for pair in pairs)]
    dark = [row for row in rows if "#" in row and len(set(row)) > 1]
    return [row[4:-4] for row in dark]


def test_a_request_travels_as_text(farm: Farm, request_file: Path, run: Run, tmp_path: Path) -> None:
    mail = tmp_path / "mail.txt"
    printed = run("request", "text", request_file)
    assert printed.code == 0
    mail.write_text("Dear Bob,\n\n" + printed.out.replace("\n", "\r\n") + "\nAlice\n")
    assert run("request", "text", request_file, "--out", tmp_path / "block.txt").code == 0
    assert (tmp_path / "block.txt").read_text() == printed.out

    back = tmp_path / "back.sigreq"
    read = run("request", "read", mail, "--out", back)
    assert read.code == 0, read.err
    assert "Policy probe becomes epoch 1" in read.out
    assert back.read_bytes() == request_file.read_bytes()
    again = run("request", "read", mail, "--out", back)
    assert (again.code, "exists already" in again.err) == (2, True)


def test_a_mail_is_signed_as_it_came(farm: Farm, request_file: Path, run: Run, tmp_path: Path) -> None:
    text = run("request", "text", request_file).out
    (tmp_path / "mail.txt").write_text(text)
    sign = ("--key", "env:KEY_CONTROL_1", "--store", farm.path, "--root", farm.anchor)
    digest = ceremony.decode_request(request_file.read_bytes()).record_id
    nowhere = run("sign", tmp_path / "mail.txt", *sign, "--digest", digest)
    assert (nowhere.code, "give --out" in nowhere.err) == (2, True)
    for name, source in (("a", tmp_path / "mail.txt"), ("b", "-")):
        out = tmp_path / f"{name}.sigreq"
        signed = run("sign", source, *sign, "--digest", digest, "--out", out, stdin=text)
        assert signed.code == 0, signed.err
        assert len(ceremony.decode_request(out.read_bytes()).signatures) == 1
    assert (tmp_path / "mail.txt").read_text() == text


def test_a_small_request_is_one_code_on_the_screen(request_file: Path, run: Run) -> None:
    shown = run("request", "qr", request_file)
    assert shown.code == 0, shown.err
    assert "QR code 1 of 1" in shown.out
    (frame,) = transport.to_frames(request_file.read_bytes())
    drawing = shown.out.rpartition("QR code")[0]
    assert max(map(len, drawing.splitlines())) <= 100
    code = segno.make_qr(frame, error="m", mode="alphanumeric")
    expected = ["".join("#" if module else " " for module in row) for row in code.matrix]
    assert modules_of(drawing) == expected


def test_a_large_request_is_numbered_codes(large_file: Path, run: Run, tmp_path: Path) -> None:
    shown = run("request", "qr", large_file).out
    assert "QR code 1 of 3" in shown
    assert "QR code 3 of 3" in shown
    frames = transport.to_frames(large_file.read_bytes())
    out = tmp_path / "read.sigreq"
    missing = run("request", "read", "-", "--out", out, stdin="\n".join(frames[1:]))
    assert (missing.code, "frame 1 of 3 is missing" in missing.err, out.exists()) == (1, True, False)
    for number, frame in enumerate(frames):
        (tmp_path / f"{number}.txt").write_text(frame + "\n")
    files = [tmp_path / f"{number}.txt" for number in (2, 0, 1)]
    assert run("request", "read", *files, "--out", out).code == 0
    assert out.read_bytes() == large_file.read_bytes()


@pytest.mark.parametrize("columns", [80, 90])
def test_a_terminal_that_is_too_narrow_for_a_code_is_said(
    large_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    said = run("request", "qr", large_file)
    assert (said.code, f"this terminal has {columns}" in said.err) == (0, columns < 85)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_pictures_are_one_file_a_code(large_file: Path, run: Run, tmp_path: Path, kind: str) -> None:
    made = run("request", "qr", large_file, "--out", tmp_path / f"q.{kind}")
    assert made.code == 0, made.err
    pictures = sorted(tmp_path.glob(f"q-*.{kind}"))
    assert [path.name for path in pictures] == [f"q-{number}.{kind}" for number in (1, 2, 3)]
    starts = {"png": b"\x89PNG", "svg": b"<?xml"}
    assert all(path.read_bytes().startswith(starts[kind]) for path in pictures)
    other = run("request", "qr", large_file, "--out", tmp_path / "q.gif")
    assert (other.code, ".png or .svg" in other.err) == (2, True)


def test_a_scanner_reads_the_pictures(large_file: Path, run: Run, tmp_path: Path) -> None:
    if shutil.which("zbarimg") is None:
        pytest.skip("no scanner here: Debian's zbar-tools brings zbarimg")
    assert run("request", "qr", large_file, "--out", tmp_path / "q.png").code == 0
    command = ["zbarimg", "--raw", "-q", *map(str, sorted(tmp_path.glob("q-*.png")))]
    scanned = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    out = tmp_path / "scanned.sigreq"
    read = run("request", "read", "-", "--out", out, stdin=scanned)
    assert read.code == 0, read.err
    assert out.read_bytes() == large_file.read_bytes()


def test_the_signed_request_is_shown_to_be_scanned(farm: Farm, request_file: Path, run: Run) -> None:
    digest = ceremony.decode_request(request_file.read_bytes()).record_id
    sign = ("sign", request_file, "--key", "env:KEY_CONTROL_1", "--store", farm.path, "--root", farm.anchor)
    shown = run(*sign, "--digest", digest, "--qr").out
    frames = transport.to_frames(request_file.read_bytes())  # with its signature by now
    assert f"QR code {len(frames)} of {len(frames)}" in shown
    assert shown.count("█" * 60) >= 2


def test_submit_takes_a_signed_mail(farm: Farm, request_file: Path, run: Run, tmp_path: Path) -> None:
    where = ("--store", farm.path, "--root", farm.anchor)
    digest = ceremony.decode_request(request_file.read_bytes()).record_id
    keys = ("--key", "env:KEY_CONTROL_1", "--key", "env:KEY_CONTROL_2")
    assert run("sign", request_file, *keys, *where, "--digest", digest).code == 0
    mail = tmp_path / "mail.txt"
    mail.write_text(run("request", "text", request_file).out)
    status = run("status", mail, *where, "-o", "json").json
    assert status["complete"]
    done = run("submit", mail, *where, "--sequencer-key", "env:KEY_SEQUENCER_1", "--wait", 0, "-o", "json")
    assert (done.code, done.json["record_id"]) == (0, digest)


@pytest.mark.parametrize("content", [b"", b"SL1:x", b"{}", b"\xff" * 200_000])
def test_what_is_no_request_writes_nothing(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    said = run("request", "read", tmp_path / "x", "--out", tmp_path / "out")
    assert (said.code, "SL-REQUEST" in said.err, (tmp_path / "out").exists()) == (1, True, False)
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(said.out)
