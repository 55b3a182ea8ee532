"""The four places that a key can be in, each made for a test with one and the same seed.

The agent is a real `ssh-agent` process of OpenSSH; the token is SoftHSM2's, through PKCS#11. Where a machine
lacks them, `ssh_agent` and `soft_token` skip with the Debian package's name.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

MODULES = (
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
)
PIN, SO_PIN = "4321", "87654321"


def private_key_file(path: Path, seed: bytes, form: PrivateFormat) -> Path:
    """An unencrypted private key file of `seed`, as `ssh-add` (OpenSSH) or SoftHSM2 (PKCS8) reads it."""
    key = Ed25519PrivateKey.from_private_bytes(seed)
    path.write_bytes(key.private_bytes(Encoding.PEM, form, NoEncryption()))
    path.chmod(0o600)
    return path


@dataclass
class Agent:
    """A running ssh-agent; `SSH_AUTH_SOCK` of `environment` names its socket."""

    folder: Path
    environment: dict[str, str]

    def add(self, seed: bytes, comment: str) -> None:
        """Give the agent an Ed25519 key."""
        path = private_key_file(self.folder / "id", seed, PrivateFormat.OpenSSH)
        # The private file has no comment field worth the name; ssh-keygen writes one into it.
        self._run("ssh-keygen", "-q", "-c", "-P", "", "-C", comment, "-f", path)
        self._run("ssh-add", "-q", path)
        path.unlink()

    def add_other(self, kind: str, comment: str) -> None:
        """Give the agent a key of another type, such as ecdsa."""
        path = self.folder / "other"
        self._run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", comment, "-f", path)
        self._run("ssh-add", "-q", path)

    def empty(self) -> None:
        """Take every key away."""
        self._run("ssh-add", "-q", "-D")

    def lock(self) -> None:
        """Lock the agent, as `ssh-add -x` does after asking twice."""
        asker = self.folder / "ask"
        asker.write_text("#!/bin/sh\necho secret\n")
        asker.chmod(0o700)
        self._run("ssh-add", "-q", "-x", SSH_ASKPASS=str(asker), SSH_ASKPASS_REQUIRE="force", DISPLAY=":0")

    def _run(self, *command: object, **more: str) -> None:
        environment = {**os.environ, **self.environment, **more}
        ran = subprocess.run(
            [str(part) for part in command],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr.decode()


@contextmanager
def ssh_agent(folder: Path) -> Iterator[Agent]:
    """An agent of its own, without keys."""
    if shutil.which("ssh-agent") is None:
        pytest.skip("no ssh-agent here: Debian's openssh-client brings it")
    # A socket's path holds about 100 bytes, which a test's folder can exceed.
    path = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    process = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path / "agent")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        process.stdout.readline()  # it prints the socket's path once it listens
        yield Agent(folder, {"SSH_AUTH_SOCK": str(path / "agent")})
    finally:
        process.terminate()
        process.communicate()
        shutil.rmtree(path)


@dataclass
class Tokens:
    """SoftHSM2 with its tokens in a folder of its own. One for a process: the library is loaded once."""

    folder: Path
    module: str

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to see the tokens and open them."""
        return {
            "SOFTHSM2_CONF": str(self.folder / "softhsm2.conf"),
            "STATELOG_PKCS11_MODULE": self.module,
            "STATELOG_PIN": PIN,
        }

    def add(self, label: str, *seeds: bytes) -> None:
        """A token with PIN 4321 and the keys `authority`, `authority-2`, …"""
        self._tool("--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN)
        for number, seed in enumerate(seeds, 1):
            path = private_key_file(self.folder / "k.pem", seed, PrivateFormat.PKCS8)
            name = "authority" if number == 1 else f"authority-{number}"
            self._tool(
                "--import", path, "--token", label, "--pin", PIN, "--label", name, "--id", f"{number:02}"
            )
        self.refresh()

    def refresh(self) -> None:
        """What plugging in is to hardware: SoftHSM looks for tokens when it is initialized."""
        import pkcs11  # noqa: PLC0415 - only where the library is there

        pkcs11.lib(self.module).reinitialize()

    def pull(self) -> None:
        """Take all tokens away, as if unplugged."""
        shutil.rmtree(self.folder / "tokens")
        (self.folder / "tokens").mkdir()

    def _tool(self, *arguments: object) -> None:
        command = ["softhsm2-util", *map(str, arguments)]
        ran = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, check=False
        )
        assert ran.returncode == 0, ran.stderr.decode()


def soft_tokens(folder: Path) -> Tokens:
    """SoftHSM2 without tokens, or a skip. Sets SOFTHSM2_CONF of this process: the library reads it itself."""
    module = next((path for path in MODULES if Path(path).exists()), None)
    if module is None or shutil.which("softhsm2-util") is None:
        pytest.skip("no SoftHSM2 here: Debian's softhsm2 brings it")
    (folder / "tokens").mkdir(parents=True, exist_ok=True)
    made = Tokens(folder, module)
    (folder / "softhsm2.conf").write_text(
        f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
    )
    os.environ["SOFTHSM2_CONF"] = made.environment["SOFTHSM2_CONF"]
    made.refresh()
    return made


def seed_variable(seed: bytes) -> str:
    """The value of an environment variable that holds `seed`."""
    return base64.b64encode(seed).decode()


def set_all(monkeypatch: Any, environment: dict[str, str]) -> None:
    """Put `environment` into this process's."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
