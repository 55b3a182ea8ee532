"""`statelog witness serve` as a process, and what it refuses to start with."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from statelog.checkpoint import parse_signed_checkpoint, verify_cosignature, witness_key
from statelog.note import parse_signature_lines
from tests.statelog.cli.conftest import Farm, Run
from tests.support.authority import signer
from tests.support.https import Site
from tests.support.logs import request_body

NAME = "stranger.example"


def test_a_witness_process_cosigns_and_remembers(farm: Farm, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    command = [sys.executable, "-m", "statelog.cli.main", "witness", "serve", "--dir", str(folder)]
    command += ["--name", NAME, "--key", "env:KEY_STRANGER_1", "--root", farm.anchor]
    command += ["--source", str(farm.path), "--listen", "127.0.0.1:0"]
    size = farm.cluster.log.size
    for status, at, end in ((200, 0, signal.SIGTERM), (409, size, signal.SIGINT)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            first, second = process.stdout.readline(), process.stdout.readline()
            assert first == f"witness    {NAME} of {farm.cluster.cluster_id}/authority, cosigned up to {at}\n"
            url = second.split()[1].removesuffix("/add-checkpoint,")
            site = Site(int(url.rpartition(":")[2]), folder / "tls.pem")
            body = request_body(farm.cluster, 0, size)
            answer = httpx.post(f"{url}/add-checkpoint", content=body, verify=site.tls())
            process.send_signal(end)
            _, errors = process.communicate(timeout=60)
        assert answer.status_code == status, errors
        assert process.returncode == 0, errors
        assert "Traceback" not in errors, errors
        if status == 200:
            _, note = parse_signed_checkpoint(body.partition(b"\n\n")[2])
            (line,) = parse_signature_lines(answer.content)
            assert verify_cosignature(note.text, line, witness_key(NAME, signer("stranger-1").public))
    assert (folder / "tls.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"--root": None}, 2, "--root"),
        ({"--listen": "nowhere"}, 2, "HOST:PORT"),
        ({"--listen": "127.0.0.1:70000"}, 2, "HOST:PORT"),
        ({"--key": "env:NO_SUCH"}, 2, "NO_SUCH"),
        ({"--name": "with space"}, 1, "SL-NOTE"),
        ({"--source": "no/such.db"}, 2, "no store"),
        ({"--source": "https://"}, 2, "https"),
    ],
)
def test_what_a_witness_does_not_start_with(
    farm: Farm, run: Run, tmp_path: Path, change: dict[str, str | None], code: int, said: str
) -> None:
    options: dict[str, str | None] = {
        "--dir": str(tmp_path / "w"),
        "--name": NAME,
        "--key": "env:KEY_STRANGER_1",
        "--root": farm.anchor,
        "--source": str(farm.path),
        "--listen": "127.0.0.1:0",
    }
    given = [
        part for name, value in {**options, **change}.items() if value is not None for part in (name, value)
    ]
    ran = run("witness", "serve", *given)
    assert ran.code == code
    assert said in ran.err
    assert ran.err.count("\n") == 1


def test_a_certificate_that_is_none(farm: Farm, run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "tls.pem").write_text("no certificate\n")
    (folder / "tls.key").write_text("no key\n")
    ran = run(
        *("witness", "serve", "--dir", folder, "--name", NAME, "--key", "env:KEY_STRANGER_1"),
        *("--root", farm.anchor, "--source", farm.path, "--listen", "127.0.0.1:0"),
    )
    assert (ran.code, "tls.pem" in ran.err) == (2, True)
