"""A store with a log in it, and the command line run in this process."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest

from statelog.checkpoint import cosign, parse_signed_checkpoint
from statelog.cli.main import main
from statelog.findings import Finding
from statelog.io.database import open_database
from statelog.io.doorbell import ring
from statelog.io.keyfiles import COSTS, Cost
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.store import Store, StoredCosignature
from statelog.limits import KDF_MIN_MEMORY_BYTES
from tests.support.authority import Cluster, key_id, make_cluster, signer
from tests.support.logs import WITNESSES, new_store


@dataclass(frozen=True)
class Ran:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        document: dict[str, Any] = orjson.loads(self.out)
        return document

    @property
    def json_of_python(self) -> dict[str, Any]:
        """With lone surrogates, as names that are no UTF-8 have them."""
        document: dict[str, Any] = json.loads(self.out)
        return document


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that a guess may cost: these tests are about what is kept, not about how long it holds."""
    monkeypatch.setitem(COSTS, "interactive", Cost(1, KDF_MIN_MEMORY_BYTES))


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("log", "--store", path)`; `stdin` is what a person types."""
    for name in ("STORE", "ROOT", "API", "CA", "TOKEN", "PASSPHRASE", "PASSPHRASE_FILE"):
        monkeypatch.delenv(f"STATELOG_{name}", raising=False)

    def call(*arguments: object, stdin: str = "") -> Ran:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0, printed.out, printed.err)

    return call


@dataclass
class Farm:
    """A cluster whose log is in the store at `path`, its keys in environment variables."""

    path: Path
    cluster: Cluster
    store: Store

    @property
    def anchor(self) -> str:
        return self.cluster.anchor

    def finalize(
        self, names: Sequence[str] = WITNESSES, at: int | None = None, log: str = "authority"
    ) -> None:
        """What the witnesses and the daemon do: cosign the newest checkpoint, now or at Unix second `at`, and
        mark it final.
        """
        store = self.store.of(log)
        note = store.checkpoint()
        assert note is not None
        checkpoint, parsed = parse_signed_checkpoint(note)
        at = int(time.time()) if at is None else at
        lines = [
            StoredCosignature(
                key_id(name),
                f"{name}.example",
                at,
                cosign(parsed.text, f"{name}.example", signer(name), at).line(),
            )
            for name in names
        ]
        store.put_cosignatures(checkpoint.size, lines)
        store.set_final(checkpoint.size, checkpoint.root)
        ring(f"sqlite:///{self.path}")

    def refuse(self, record_id: str, why: Finding) -> None:
        """What the daemon does when the sequencer said no."""
        self.store.outbox_refused(record_id, why)
        ring(f"sqlite:///{self.path}")

    def drain(self) -> None:
        """What the daemon does with the outbox: sequence it."""
        sequencer = Sequencer(self.store, self.anchor, signer("sequencer-1"))
        for row in self.store.outbox_pending(10):
            (outcome,) = sequencer.submit_many([row.data], int(time.time()))
            assert isinstance(outcome, Submitted), outcome
            self.store.outbox_sequenced(row.record_id, outcome.log_index)
        ring(f"sqlite:///{self.path}")


@pytest.fixture(scope="session")
def sound_farm(tmp_path_factory: pytest.TempPathFactory) -> Farm:
    """A production cluster with members and nodes, wholly final; nobody writes to this one."""
    cluster = make_cluster(now=int(time.time()) - 60)
    path = tmp_path_factory.mktemp("farm") / "node.db"
    engine, _ = new_store(path, cluster)
    made = Farm(path, cluster, Store(engine))
    made.finalize()
    engine.dispose()  # the last connection to go writes everything into the one file
    return made


@pytest.fixture
def farm(sound_farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Farm]:
    """A copy of the sound farm's store; the key called NAME is in env:KEY_NAME."""
    path = tmp_path / "node.db"
    shutil.copyfile(sound_farm.path, path)
    for role in ("root", "control", "route", "sequencer", "stranger"):
        for n in range(1, 5):
            seed = sha256(f"key of a test cluster: {role}-{n}".encode()).digest()
            monkeypatch.setenv(f"KEY_{role}_{n}".upper(), base64.b64encode(seed).decode())
    engine = open_database(f"sqlite:///{path}")
    yield Farm(path, sound_farm.cluster, Store(engine))
    engine.dispose()
