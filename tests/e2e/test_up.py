"""The main job, end to end: `./ops/up --once`, real processes and sockets, on and across both engines."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ops.farm.content import ContentServer, fetch

ROOT = Path(__file__).resolve().parents[2]
STEP_NAMES = [
    "genesis",
    "approve-nodes",
    "register-service",
    "fetch-direct",
    "move-service",
    "route-lease",
    "fetch-relayed",
    "refuse-forgery",
    "verify-clean",
    "verify-tampered",
    "verify-tiles",
]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def up(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops.farm", "--dir", str(folder), "--once", "-o", "json", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.stdout, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    failed = [step for step in report["steps"] if not step["ok"]]
    assert (done.returncode, report["ok"], failed) == (0, True, []), done.stderr
    return report


def verify(source: str, anchor: Path) -> tuple[int, dict[str, Any]]:
    command = [
        sys.executable,
        "-m",
        "statelog.cli.main",
        "verify",
        source,
        "--root",
        str(anchor),
        "-o",
        "json",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)


def processes_of(folder: Path) -> list[str]:
    """Command lines of live processes that name the farm's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if str(folder) in line:
                found.append(line)
    return found


@pytest.mark.parametrize("engine", ["qh3", "aioquic", "mixed"])
def test_every_step_is_proved_on(engine: str, tmp_path: Path) -> None:
    report = report_of(up(tmp_path, "--engine", engine))
    assert report["schema"] == "fabric.up.v1"
    assert [step["name"] for step in report["steps"]] == STEP_NAMES
    assert report["anchor"] == (tmp_path / "anchor").read_text().strip()
    assert processes_of(tmp_path) == []
    code, audit = verify(report["store"], tmp_path / "anchor")
    assert (code, audit["findings"]) == (0, [])


def test_a_second_run_goes_on_with_the_same_cluster(tmp_path: Path) -> None:
    first, second = report_of(up(tmp_path)), report_of(up(tmp_path))
    assert second["anchor"] == first["anchor"]
    details = {step["name"]: step["detail"] for step in second["steps"]}
    assert details["genesis"]["resumed"]
    assert details["register-service"]["epoch"] == 3  # home-1 was 1, node-9 was 2


def test_another_clusters_anchor_ends_with_one_line(tmp_path: Path) -> None:
    report = report_of(up(tmp_path))
    with sqlite3.connect(tmp_path / "nodes" / "control-1" / "node.db") as store:
        (entries,) = store.execute("SELECT count(*) FROM log_entry").fetchone()
    store.close()
    assert entries == details_of(report, "verify-clean")["size"]
    (tmp_path / "anchor").write_text("ab" * 32 + "\n")
    done = up(tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert "anchor" in done.stderr


def details_of(report: dict[str, Any], name: str) -> dict[str, Any]:
    return next(step["detail"] for step in report["steps"] if step["name"] == name)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="signal masks are read from /proc")
def test_no_thread_that_serves_content_takes_the_signal_that_ends_the_farm(tmp_path: Path) -> None:
    """The main thread waits for Ctrl-C and blocks it between two looks: nobody else may let it in then."""
    (tmp_path / "whoami").write_text("home-1\n")
    server = ContentServer(tmp_path, 0)
    try:
        assert fetch(server.server.server_address[1], "/whoami")[0] == 200  # the thread is past its beginning
        status = Path(f"/proc/self/task/{server.thread.native_id}/status").read_text()
        (blocked,) = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigBlk")]
        assert all(blocked >> (number - 1) & 1 for number in (signal.SIGINT, signal.SIGTERM))
    finally:
        server.close()


def test_ctrl_c_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "ops.farm", "--dir", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as farm:
        assert farm.stdout is not None
        said = []
        for line in farm.stdout:
            said.append(line.rstrip("\n"))
            if "Ctrl-C" in line:
                break
        assert farm.poll() is None, "the farm stays up after its last step"
        assert len(processes_of(tmp_path)) > len(STEP_NAMES) // 2
        farm.send_signal(signal.SIGINT)
        farm.stdout.read()
        assert farm.wait(30) == 0
    assert processes_of(tmp_path) == []
    assert max(len(line) for line in said[1:]) <= 80  # columns of a terminal; the first line names the folder
