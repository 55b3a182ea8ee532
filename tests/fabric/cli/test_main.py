"""The command `fabric`: what it makes, what it says, its exit codes, and the daemon as a process."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fabric.cli import main as cli_main
from fabric.cli.main import main
from fabric.io import config as settings
from fabric.peering import Address
from statelog.canonical import encode
from tests.support.authority import make_cluster
from tests.support.logs import new_store

HEX = "a" * 64


def fabric(*arguments: str) -> int:
    """Run a command in this process; its exit code."""
    try:
        main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def init(folder: Path, *more: str, listen: str = "127.0.0.1:0") -> None:
    fixed = ("--name", "home-1", "--cluster", "farm.abc", "--anchor", HEX, "--listen", listen)
    assert fabric("node", "init", "--dir", str(folder), *fixed, *more) == 0


@contextmanager
def daemon(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`fabric node run`, once it said that it is ready; ended by SIGTERM."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "fabric.cli.main",
            "node",
            "run",
            "--dir",
            str(folder),
            "--log-format",
            "json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.stderr.read() if process.stderr else ""
        yield process, json.loads(line)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def run_once(folder: Path) -> tuple[int, str, str]:
    """`fabric node run` that is expected to give up: (exit code, stdout, stderr)."""
    done = subprocess.run(
        [sys.executable, "-m", "fabric.cli.main", "node", "run", "--dir", str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def running_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("running") / "n"
    init(folder)
    with daemon(folder):
        yield folder


FULL = "No space left on device"
EVERY = [
    ("status",),
    ("status", "-o", "json"),
    ("metrics",),
    ("heartbeat",),
    ("top", "-n", "1", "--interval", "0.1", "-o", "json"),
    ("top", "-n", "1", "--interval", "0.1"),
    ("ping", "nobody", "-o", "json"),
    ("forward", "0", "web-admin"),
]


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="a full disk is played by /dev/full, which Linux alone has"
)
@pytest.mark.parametrize("command", [*EVERY, ("--help",)], ids=" ".join)
def test_output_that_cannot_be_written_is_said_in_one_line(
    running_node: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # else nothing is left to be written at the end
    where = () if command == ("--help",) else ("--dir", str(running_node))
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "fabric.cli.main", *command, *where],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    said = "unknown_node: 'nobody': no node has that name or id" if "nobody" in command else FULL
    assert (ran.returncode, ran.stderr) == (1, f"fabric: {said}\n")


@pytest.mark.parametrize("command", EVERY, ids=" ".join)
def test_a_reader_that_goes_away_is_told_nothing(
    running_node: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # else nothing is left to be written at the end
    with subprocess.Popen(
        [sys.executable, "-m", "fabric.cli.main", *command, "--dir", str(running_node)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()
        process.wait(timeout=60)
    assert "Traceback" not in said
    assert said.count("\n") <= 1
    assert process.returncode == 1


@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="a full disk is played by /dev/full, which Linux alone has"
)
def test_a_daemon_that_cannot_say_that_it_is_ready_ends_in_order(tmp_path: Path) -> None:
    init(tmp_path / "n")
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "fabric.cli.main", "node", "run", "--dir", str(tmp_path / "n")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == "fabric: No space left on device"
    assert "Traceback" not in ran.stderr
    assert not (tmp_path / "n" / "admin.sock").exists()


@pytest.mark.parametrize("count", ["0", "-3"])
def test_top_shows_something_or_says_why_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str
) -> None:
    init(tmp_path / "n")
    assert fabric("top", "--dir", str(tmp_path / "n"), "-n", count) == 2
    assert "'--count'" in capsys.readouterr().err


def test_init_writes_what_it_was_told_and_prints_what_others_need(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = f"quic://192.0.2.1:7400#{HEX}:{'b' * 64}"
    init(
        tmp_path / "n",
        *("--seed", seed, "--service", "web-admin=tcp://127.0.0.1:8080", "--role", "relay"),
        *("--witness-key", "w.key", "--witness-name", "w.example", "--engine", "aioquic", "-o", "json"),
        listen="127.0.0.1:7401",
    )
    said = json.loads(capsys.readouterr().out)
    config, identity = settings.load(tmp_path / "n"), settings.load_node_key(tmp_path / "n")
    assert (said["node_id"], said["cert_sha256"]) == (identity.node_id, identity.certificate_sha256)
    assert config.services == {"web-admin": "tcp://127.0.0.1:8080"}
    assert (config.engine, config.roles, config.witness_name) == ("aioquic", ("relay",), "w.example")
    assert config.witness_key == str(Path("w.key").absolute())
    assert config.seeds[0].node_id == HEX
    assert (tmp_path / "n" / settings.KEY_NAME).stat().st_mode & 0o777 == 0o600
    # What was printed is a seed for others.
    other = settings.Seed.parse(said["seed"])
    assert other == settings.Seed(
        identity.node_id, Address("quic://127.0.0.1:7401", identity.certificate_sha256)
    )


@pytest.mark.parametrize(
    ("listen", "more", "expected"),
    [
        ("0.0.0.0:7400", ("--advertise", "quic://192.0.2.7:7401"), "quic://192.0.2.7:7401"),
        ("0.0.0.0:7400", (), "quic://192.0.2.2:7400"),
        ("[::]:7400", (), "quic://[fd00::2]:7400"),
        ("*:7400", (), "quic://192.0.2.2:7400"),
        ("[::1]:7400", (), "quic://[::1]:7400"),
    ],
)
def test_the_seed_is_where_others_may_dial(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    listen: str,
    more: tuple[str, ...],
    expected: str,
) -> None:
    present = frozenset(("127.0.0.1", "::1", "192.0.2.2", "fd00::2", "fe80::1"))
    monkeypatch.setattr(cli_main, "machine_addresses", lambda: present)
    init(tmp_path / "n", *more, "-o", "json", listen=listen)
    seed = json.loads(capsys.readouterr().out)["seed"]
    assert settings.Seed.parse(seed).address.address == expected


@pytest.mark.parametrize("listen", ["0.0.0.0:7400", "127.0.0.1:0"])
def test_without_an_address_to_dial_there_is_no_seed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, listen: str
) -> None:
    monkeypatch.setattr(cli_main, "machine_addresses", lambda: frozenset(("127.0.0.1",)))
    init(tmp_path / "n", "-o", "json", listen=listen)
    captured = capsys.readouterr()
    assert json.loads(captured.out)["seed"] is None
    assert "--advertise" in captured.err


@pytest.mark.parametrize("source", ["env:W", "agent:w@host", "pkcs11:token=w;object=key"])
def test_a_key_elsewhere_is_no_path(tmp_path: Path, source: str) -> None:
    init(tmp_path / "n", "--witness-key", source, "--witness-name", "w.example", "--sequencer-key", source)
    config = settings.load(tmp_path / "n")
    assert config.witness_key == config.sequencer_key == source


def test_the_anchor_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "anchor").write_text(HEX + "\n")
    fixed = ("--name", "n", "--cluster", "farm.abc", "--anchor", str(tmp_path / "anchor"))
    assert fabric("node", "init", "--dir", str(tmp_path / "n"), *fixed) == 0
    assert settings.load(tmp_path / "n").anchor == HEX


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--anchor", "abc"),
            "neither 64 lower-case hex digits nor a file that holds them: abc: no such file",
        ),
        (("--anchor", "X" * 64), "64 lower-case hex"),
        (("--listen", "nowhere"), "write host:port"),
        (("--engine", "tcp"), "one of auto, qh3, aioquic"),
        (("--seed", "quic://1.2.3.4:5"), "write quic://host:port#"),
        (("--service", "web"), "write name=tcp://host:port"),
        (("--witness-key", "w.key"), "go together"),
    ],
)
def test_a_flag_that_cannot_be_used_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    fixed = ["--name", "n", "--cluster", "farm.abc", "--anchor", HEX]
    assert fabric("node", "init", "--dir", str(tmp_path / "n"), *fixed, *arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "n").exists()


def test_a_second_init_keeps_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "n")
    before = (tmp_path / "n" / "node.toml").read_text()
    fixed = ("--name", "other", "--cluster", "farm.abc", "--anchor", HEX)
    assert fabric("node", "init", "--dir", str(tmp_path / "n"), *fixed) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "n" / "node.toml").read_text() == before


@pytest.mark.parametrize(
    "command", ["status", "ping x", "smoke", "top", "metrics", "heartbeat", "forward 0 web", "open-test web"]
)
def test_without_a_daemon_commands_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    init(tmp_path / "n")
    capsys.readouterr()
    assert fabric(*command.split(), "--dir", str(tmp_path / "n")) == 2
    assert "fabric node run" in capsys.readouterr().err


def test_files_that_are_no_records_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "n")
    big = tmp_path / "big"
    big.write_bytes(bytes(100_000))
    request = tmp_path / "bad.sigreq"
    request.write_text('{"schema":"statelog.sigreq.v1"}')
    for path, said in ((tmp_path / "none", "no such file"), (big, "too large"), (request, "SL-REQUEST")):
        assert fabric("deliver", str(path), "--dir", str(tmp_path / "n")) == 2
        assert said in capsys.readouterr().err


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    commands = ("status", "ping", "smoke", "top", "metrics", "heartbeat", "deliver", "forward", "open-test")
    for command in ("", "node init", "node run", *commands):
        assert fabric(*command.split(), "--help") == 0
        said = capsys.readouterr().out
        assert "xample" in said or command == ""


def test_the_daemon_says_ready_answers_and_ends_on_sigterm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "n"
    init(folder)
    capsys.readouterr()
    with daemon(folder) as (process, ready):
        assert ready["ready"] is True
        assert ready["node_id"] == settings.load_node_key(folder).node_id
        assert ready["address"].startswith("quic://127.0.0.1:")
        assert fabric("status", "--dir", str(folder), "-o", "json") == 0
        assert json.loads(capsys.readouterr().out)["node_id"] == ready["node_id"]
        assert fabric("status", "--dir", str(folder)) == 0
        table = capsys.readouterr().out
        assert ("no log yet" in table, f"node {ready['node_id']}\n" in table) == (True, True)
        record = tmp_path / "record.json"
        record.write_bytes(encode(make_cluster().registry()))
        assert fabric("deliver", str(record), "--dir", str(folder)) == 1
        assert "GS-NOLOG" in capsys.readouterr().err
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
        assert process.returncode == 0
        lines = [json.loads(line) for line in log.splitlines()]
        assert any("listens at" in line["message"] and line["level"] == "info" for line in lines)
        bad = [line["message"] for line in lines if line["level"] in ("warning", "error")]
        assert len(bad) == 1
        assert "delivered record refused" in bad[0]
    assert not (folder / settings.SOCKET_NAME).exists()


def test_a_forwarded_port_says_ready_and_ends_on_sigint(tmp_path: Path) -> None:
    folder = tmp_path / "n"
    init(folder)
    with daemon(folder):
        arguments = [sys.executable, "-m", "fabric.cli.main", "forward", "0", "web", "--dir", str(folder)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                ready = json.loads(forward.stdout.readline())
                assert (ready["ready"], ready["service"]) == (True, "web")
                where = ("127.0.0.1", ready["port"])
                # There is no such service, and the client is told at once.
                with (
                    pytest.raises(ConnectionResetError),
                    socket.create_connection(where, 5) as client,
                ):
                    client.recv(1)
            finally:
                forward.send_signal(signal.SIGINT)
            assert forward.wait(20) == 0


def test_a_taken_port_is_exit_code_2(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        init(tmp_path / "n", listen=f"127.0.0.1:{taken.getsockname()[1]}")
        code, out, err = run_once(tmp_path / "n")
    assert (code, out) == (2, "")
    assert err.startswith("fabric: ")
    assert str(taken) not in err
    assert "use" in err


def test_another_anchor_than_the_stores_is_exit_code_2(tmp_path: Path) -> None:
    init(tmp_path / "n")
    engine, sequencer = new_store(tmp_path / "n" / "node.db", make_cluster())
    assert sequencer.store.head() is not None
    engine.dispose()
    code, _, err = run_once(tmp_path / "n")
    assert code == 2
    assert "anchor" in err.splitlines()[-1]


def test_an_unreadable_folder_is_exit_code_2(tmp_path: Path) -> None:
    init(tmp_path / "n")
    (tmp_path / "n" / "node.toml").unlink()
    (tmp_path / "n" / "node.toml").mkdir()
    code, out, err = run_once(tmp_path / "n")
    assert (code, out) == (2, "")
    assert "is a directory" in err
    (tmp_path / "file").touch()
    assert run_once(tmp_path / "file")[0] == 2


def test_a_key_file_that_is_missing_or_a_store_that_is_none_is_exit_code_2(tmp_path: Path) -> None:
    init(tmp_path / "n")
    (tmp_path / "n" / settings.KEY_NAME).unlink()
    code, _, err = run_once(tmp_path / "n")
    assert code == 2
    assert settings.KEY_NAME in err
    init(tmp_path / "m")
    with sqlite3.connect(tmp_path / "m" / settings.STORE_NAME) as connection:
        connection.execute("CREATE TABLE something_else (x)")
    connection.close()
    (tmp_path / "m" / settings.STORE_NAME).write_bytes(b"no database at all" * 100)
    code, _, err = run_once(tmp_path / "m")
    assert code == 2
    assert err.startswith("fabric: ")


def test_a_witness_key_that_does_not_open_is_exit_code_2(tmp_path: Path) -> None:
    init(tmp_path / "n", "--witness-key", "env:NO_SUCH_KEY", "--witness-name", "w.example")
    code, _, err = run_once(tmp_path / "n")
    assert code == 2
    assert "NO_SUCH_KEY" in err


def test_a_form_that_does_not_exist_is_refused_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(cli_main, "_ask", lambda *_, **__: asked.append(1) or {"state": "taken"})
    record = tmp_path / "record.json"
    record.write_bytes(b"{}")
    for arguments in (("deliver", str(record)), ("ping", "relay-1")):
        assert fabric(*arguments, "--dir", str(tmp_path), "-o", "xml") == 2
        assert capsys.readouterr().err == "fabric: output 'xml': table or json\n"
    assert asked == []
    assert fabric("deliver", str(record), "--dir", str(tmp_path), "-o", "json") == 0
    assert asked == [1]


def test_the_advice_to_start_a_daemon_can_be_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path)
    capsys.readouterr()
    assert fabric("status", "--dir", str(tmp_path)) == 2
    assert capsys.readouterr().err.endswith(f"start it: fabric node run --dir {tmp_path}\n")
