"""`control-api init` and `serve`: set-up, one clear line for what is wrong, and one real TLS server."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from typer.testing import CliRunner, Result

from control_api.cli import app
from control_api.settings import read_settings
from statelog.canonical import encode
from statelog.errors import Refused, UsageError
from statelog.io.client import ControlClient
from statelog.io.database import open_database
from statelog.io.doorbell import Doorbell
from statelog.signing import SeedSigner, encode_base64, record_id_of
from tests.control_api.replica import Replica, make_replica
from tests.support.authority import make_cluster, signer
from tests.support.users import not_root


@pytest.mark.parametrize("command", ["init", "serve"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_every_command_has_examples_with_options_that_there_are(command: str, option: str) -> None:
    said = cli(command, option)
    assert said.exit_code == 0
    assert said.output.count(f"control-api {command} --dir control") == 2
    assert "Exit codes" in cli("--help").output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    environment = {"_CONTROL_API_COMPLETE": f"source_{shell}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-m", "control_api.cli"]
    done = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert (done.returncode, b"control-api" in done.stdout) == (0, True), done.stderr


def cli(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def test_a_wrong_command_line_is_one_line() -> None:
    for arguments in (("srve",), ("init",), ("serve", "--dir", "x", "--port", "many")):
        command = [sys.executable, "-m", "control_api.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert "; see `control-api" in done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def expect_one_line(result: Result, *words: str) -> None:
    """Exit code 2 and one line on stderr with all the words."""
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("control-api: ")
    for word in words:
        assert word in line


@pytest.fixture
def folder(replica: Replica) -> Path:
    """A replica's folder, set up on its store."""
    made = replica.folder / "control"
    result = cli("init", "--dir", made, "--store", replica.settings.store, "--anchor", replica.cluster.anchor)
    assert result.exit_code == 0, result.output
    return made


class TestInit:
    def test_it_makes_a_private_key_a_certificate_and_settings(self, tmp_path: Path) -> None:
        anchor = tmp_path / "anchor"
        anchor.write_text("a" * 64 + "\n")
        store = f'sqlite:///{tmp_path}/odd "name"\\.db'
        given = ("--port", "8443", "--name", "api.example", "--store", store, "--anchor", anchor)
        result = cli("init", "--dir", tmp_path / "c", *given, "--sequencer-key", "file:/k")
        assert result.exit_code == 0, result.output
        for name in ("tls.key", "tls.pem", "control-api.toml"):
            assert stat.S_IMODE((tmp_path / "c" / name).stat().st_mode) == 0o600
        table = tomllib.loads((tmp_path / "c" / "control-api.toml").read_text())
        assert table["store"] == store
        settings = read_settings(tmp_path / "c")
        assert (settings.port, settings.anchor, settings.sequencer_key) == (8443, "a" * 64, "file:/k")
        certificate = x509.load_pem_x509_certificate(settings.tls_certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["api.example", "localhost"]
        assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]

    def test_it_replaces_nothing(self, folder: Path) -> None:
        before = (folder / "tls.key").read_bytes()
        expect_one_line(cli("init", "--dir", folder), "tls.key", "exists")
        assert (folder / "tls.key").read_bytes() == before

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        arguments = ("--port", "8443", "--store", "sqlite:///x.db", "--anchor", "a" * 64)
        assert cli("init", "--dir", tmp_path / "c", *arguments).exit_code == 0
        tmp_path.chmod(0o500)
        with not_root():
            expect_one_line(cli("init", "--dir", tmp_path / "d", *arguments), "permission")

    def test_a_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "c").write_text("")
        expect_one_line(cli("init", "--dir", tmp_path / "c"), "exists")


class TestRefusalsOfServe:
    def test_no_port(self, folder: Path) -> None:
        expect_one_line(cli("serve", "--dir", folder), "no port", "--port")

    @pytest.mark.parametrize("port", ["0", "65536"])
    def test_no_such_port(self, folder: Path, port: str) -> None:
        expect_one_line(cli("serve", "--dir", folder, "--port", port), "port", port)

    def test_a_taken_port(self, folder: Path) -> None:
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = str(holder.getsockname()[1])
            expect_one_line(cli("serve", "--dir", folder, "--port", port), "cannot listen", port, "in use")

    def test_a_host_that_is_not_here(self, folder: Path) -> None:
        expect_one_line(cli("serve", "--dir", folder, "--port", "1", "--host", "192.0.2.1"), "192.0.2.1")

    def test_no_folder_and_a_folder_that_was_not_set_up(self, tmp_path: Path) -> None:
        expect_one_line(cli("serve", "--dir", tmp_path / "none", "--port", "1"), "control-api init")
        (tmp_path / "control-api.toml").mkdir()
        expect_one_line(cli("serve", "--dir", tmp_path, "--port", "1"), "directory")

    def test_another_anchor(self, folder: Path) -> None:
        expect_one_line(
            cli("serve", "--dir", folder, "--port", "1", "--anchor", "b" * 64), "anchor", "b" * 64
        )

    @pytest.mark.parametrize("anchor", ["short", "/nowhere/anchor"])
    def test_no_anchor_at_all(self, folder: Path, anchor: str) -> None:
        expect_one_line(cli("serve", "--dir", folder, "--port", "1", "--anchor", anchor), "anchor", anchor)

    def test_a_database_that_is_no_store_or_not_there(self, folder: Path, tmp_path: Path) -> None:
        for name, word in (("none.db", "no store"), ("empty.db", "schema")):
            if name == "empty.db":
                (tmp_path / name).touch()
            expect_one_line(
                cli("serve", "--dir", folder, "--port", "1", "--store", f"sqlite:///{tmp_path / name}"), word
            )
        expect_one_line(cli("serve", "--dir", folder, "--port", "1", "--store", "nonsense"), "nonsense")

    def test_another_clusters_database(self, folder: Path, development: Replica) -> None:
        expect_one_line(
            cli("serve", "--dir", folder, "--port", "1", "--store", development.settings.store), "anchor"
        )

    def test_no_certificate(self, folder: Path) -> None:
        (folder / "tls.pem").unlink()
        expect_one_line(cli("serve", "--dir", folder, "--port", "1"), "tls.pem")

    def test_a_sequencer_key_that_is_not_there(self, folder: Path) -> None:
        result = cli(
            "serve", "--dir", folder, "--port", str(free_port()), "--sequencer-key", "env:NO_SUCH_KEY"
        )
        expect_one_line(result, "NO_SUCH_KEY")


class TestSettings:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('colour = "red"', ("colour", "known are")),
            ('port = "8443"', ("port", "type")),
            ("port = true", ("port", "type")),
            ("wait_s = 31", ("wait_s", "30")),
            ("store = [", ("not TOML",)),
        ],
    )
    def test_a_mistake_in_the_file_is_named(self, folder: Path, line: str, words: tuple[str, ...]) -> None:
        read_settings(folder)
        with (folder / "control-api.toml").open("a") as sink:
            sink.write(line + "\n")
        with pytest.raises(UsageError) as error:
            read_settings(folder)
        assert all(word in str(error.value) for word in words)

    def test_what_must_be_set(self, tmp_path: Path) -> None:
        (tmp_path / "control-api.toml").write_text("")
        with pytest.raises(UsageError, match="no store: give --store"):
            read_settings(tmp_path)
        with pytest.raises(UsageError, match="no anchor: give --anchor"):
            read_settings(tmp_path, store="sqlite:///x.db")
        made = read_settings(tmp_path, store="sqlite:///x.db", anchor="a" * 64)
        assert made.tls_key == tmp_path / "tls.key"

    @pytest.mark.parametrize("name", ["control-api.toml", "tls.pem", "tls.key", "token", "anchor"])
    def test_a_pipe_is_not_waited_for(self, folder: Path, name: str) -> None:
        with (folder / "control-api.toml").open("a") as sink:
            sink.write('api_token_file = "token"\n')
        (folder / "token").write_text("open sesame\n")
        (folder / "anchor").write_text(read_settings(folder).anchor)
        where = folder / name
        data = where.read_bytes()
        where.unlink()
        os.mkfifo(where)
        serve = (
            "serve",
            "--dir",
            folder,
            "--port",
            "1",
            "--anchor",
            folder / "anchor",
            "--host",
            "192.0.2.1",
        )
        expect_one_line(cli(*serve), str(where), "not a regular file" if name != "anchor" else "readable")
        where.unlink()
        where.write_bytes(data)
        expect_one_line(cli(*serve), "192.0.2.1")  # nothing else was wrong than that no port is here

    def test_a_token_file(self, folder: Path) -> None:
        with (folder / "control-api.toml").open("a") as sink:
            sink.write('api_token_file = "token"\n')
        settings = read_settings(folder)
        with pytest.raises(UsageError, match="no such file"):
            settings.api_token()
        (folder / "token").write_text(" \n")
        with pytest.raises(UsageError, match="empty"):
            settings.api_token()
        (folder / "token").write_text("open sesame\n")
        assert settings.api_token() == "open sesame"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Replica]:
    """A replica whose cluster was founded just now, for processes with a real clock."""
    folder = tmp_path / "live"
    folder.mkdir()
    made = make_replica(folder, make_cluster(now=int(time.time()) - 60))
    made.clock.now = time.time()
    yield made
    made.engine.dispose()


@pytest.fixture
def server(live: Replica) -> Iterator[str]:
    """The real command on a real port; its address."""
    folder = live.folder / "control"
    given = ("--store", live.settings.store, "--anchor", live.cluster.anchor)
    assert cli("init", "--dir", folder, *given).exit_code == 0
    port = free_port()
    serve = ["serve", "--dir", str(folder), "--port", str(port), "--sequencer-key", "env:TEST_SEQUENCER"]
    process = subprocess.Popen(
        [sys.executable, "-m", "control_api.cli", *serve],
        env={**os.environ, "TEST_SEQUENCER": encode_base64(_seed("sequencer-1"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert f"https://127.0.0.1:{port}" in line
    yield f"https://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors, errors


def _seed(name: str) -> bytes:
    """The seed behind `tests.support.authority.signer`, for a key source that takes seeds."""
    seed = sha256(b"key of a test cluster: " + name.encode()).digest()
    assert SeedSigner(seed).public == signer(name).public
    return seed


class TestServer:
    def test_a_record_becomes_final_over_real_tls_across_processes(self, server: str, live: Replica) -> None:
        record = live.cluster.registry()
        with (
            ControlClient(server, live.folder / "control" / "tls.pem") as client,
            ThreadPoolExecutor() as pool,
        ):
            status = client.status()
            assert (status["log"]["anchor"], status["sequences"]) == (live.cluster.anchor, True)
            asking = pool.submit(client.submit, encode(record), 20.0)
            with Doorbell(live.settings.store) as bell:
                while not live.unfinal:
                    assert bell.wait(10), "the API rings when it has written"
            assert not asking.done()
            live.finalize()
            told = asking.result()
            assert (told.final, told.duplicate, told.record_id) == (True, False, record_id_of(record))
            assert client.record(told.record_id)["state"] == "final"
            again = client.submit(encode(record), wait_s=0)
            assert (again.duplicate, again.log_index) == (True, told.log_index)
            forged = live.cluster.registry("web-admin", by=["control-1"])
            with pytest.raises(Refused) as refused:
                client.submit(encode(forged))
            assert refused.value.code == "SL-QUORUM"

    def test_only_the_pinned_certificate_and_tls_1_3_are_spoken(self, server: str, live: Replica) -> None:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.get(f"{server}/healthz")
        pin = str(live.folder / "control" / "tls.pem")
        old = ssl.create_default_context(cafile=pin)
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server}/healthz", verify=old)
        answer = httpx.get(f"{server}/healthz", verify=ssl.create_default_context(cafile=pin))
        assert answer.json() == {"status": "ok"}
        assert "server" not in answer.headers

    def test_a_body_is_cut_off_at_64_kib(self, server: str, live: Replica) -> None:
        context = ssl.create_default_context(cafile=str(live.folder / "control" / "tls.pem"))
        answer = httpx.post(
            f"{server}/v1/records",
            content=(b"x" * 8192 for _ in range(9)),
            headers={"content-type": "application/json"},
            verify=context,
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "SL-SIZE")


def test_a_store_that_the_api_opens_is_left_as_it_was(replica: Replica, folder: Path) -> None:
    before = replica.store.head()
    cli("serve", "--dir", folder)
    engine = open_database(replica.settings.store, anchor=replica.cluster.anchor)
    engine.dispose()
    assert replica.store.head() == before
