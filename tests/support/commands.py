"""The `statelog` command for shell scripts in tests, without paying its start each time.

A server process has everything loaded and forks for each call; the `statelog` that a script finds on its PATH
only hands over its arguments, folder, environment and the three standard streams. What runs is the product's
own `main`, as its own process, from any shell, with pipes and exit codes as usual.
"""

from __future__ import annotations

import array
import json
import os
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import typer

from statelog.cli import main as command_line
from statelog.io.keyfiles import COSTS, Cost
from statelog.limits import KDF_MIN_MEMORY_BYTES

ROOT = Path(__file__).resolve().parents[2]

_CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
    server.connect({path!r})
    call = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(call).to_bytes(4, "big")], [0, 1, 2])
    server.sendall(call)
    code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


@contextmanager
def statelog_on_path(folder: Path) -> Iterator[Path]:
    """`folder` for a PATH, with `statelog` in it."""
    with tempfile.TemporaryDirectory() as short:  # a socket's path may hold about 100 bytes
        path = Path(short) / "statelog"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(path))
            listener.listen()
            code = "from tests.support.commands import serve; import sys; serve(int(sys.argv[1]))"
            descriptor = listener.fileno()
            process = subprocess.Popen(
                [sys.executable, "-c", code, str(descriptor)], cwd=ROOT, pass_fds=[descriptor]
            )
        folder.mkdir(parents=True, exist_ok=True)
        client = folder / "statelog"
        client.write_text(_CLIENT.format(python=sys.executable, path=str(path)))
        client.chmod(0o755)
        try:
            yield folder
        finally:
            process.terminate()
            process.wait()


def serve(listener_fd: int) -> None:
    """Answer calls until terminated, one after the other."""
    for name in COSTS:  # what a guess at a passphrase costs is not what scripts are run for
        COSTS[name] = Cost(1, KDF_MIN_MEMORY_BYTES)
    # Built once, with all that it loads when it is first called, instead of in every child.
    command = typer.main.get_command(command_line.app)
    typer.main.get_command = lambda _: command
    with redirect_stdout(StringIO()), suppress(SystemExit):
        command_line.main(["key", "list", str(Path(__file__).parent)])
    with socket.socket(fileno=listener_fd) as listener:
        while True:
            peer, _ = listener.accept()
            with peer:
                arguments, folder, environment, streams = _call(peer)
                child = os.fork()
                if child == 0:
                    listener.close()
                    for target, given in enumerate(streams):
                        os.dup2(given, target)
                    # Made anew, as at the start of a process: whether they can be sought in may differ.
                    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 - the three streams
                    os.chdir(folder)
                    os.environ.clear()
                    os.environ.update(environment)
                    os._exit(_run(arguments))  # without taking the loaded modules down one by one
                for given in streams:
                    os.close(given)
                _, status = os.waitpid(child, 0)
                peer.sendall(bytes([os.waitstatus_to_exitcode(status) & 0xFF]))


def _run(arguments: list[str]) -> int:
    """The exit code of a command, with everything written."""
    code: object = 0
    try:
        command_line.main(arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else 0


def _call(peer: socket.socket) -> tuple[list[str], str, dict[str, str], list[int]]:
    head, streams, _, _ = socket.recv_fds(peer, 4, 3)
    length, data = int.from_bytes(head, "big"), bytearray()
    while len(data) < length:
        chunk = peer.recv(length - len(data))
        if not chunk:
            raise ConnectionResetError
        data += chunk
    arguments, folder, environment = json.loads(data)
    return arguments, folder, environment, list(array.array("i", streams))
