"""A cluster whose people, hosts and witnesses sit on machines of their own, for drills of the runbooks.

Each machine is a folder; nothing gets from one to another but by the commands of a runbook, through the
folder that stands for a stick. The control host is the product's own sequencing loop on a store, the
witnesses are product witnesses with memories of their own, asked by a function call instead of over a wire.

A runbook's commands are its fenced blocks that begin with "sh WHO…": they are run with bash on each of these
machines in turn, in the machine's folder, with $WHO its name and $STICK the stick.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fabric.io.sequencing import Sequencing
from statelog import ceremony, genesis
from statelog.cli.opened import ANCHOR_FILE
from statelog.io.database import open_database
from statelog.io.doorbell import Doorbell
from statelog.io.entries import StoreEntries
from statelog.io.held import HeldKey
from statelog.io.keyfiles import Cost, create_key_file, read_key_info
from statelog.io.sequencer import Sequencer
from statelog.io.sequencers import Sequencers
from statelog.io.signers import load_signer
from statelog.io.store import Store
from statelog.io.witnessing import WitnessHost
from statelog.limits import KDF_MIN_MEMORY_BYTES
from statelog.state import CONTROL, ROOT
from tests.support.commands import statelog_on_path

CLUSTER = "farm.abcdefghijklmnopqrstuvwxyz"
HOLDERS = ("alice", "bob", "carol")
WITNESSES = ("w1", "w2", "w3", "w4")
PASSPHRASE = "correct horse"
BLOCK = re.compile(r"^```sh ([a-z0-9 -]+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Commands of a runbook, and the machines on which they are run in turn."""

    machines: tuple[str, ...]
    commands: str


@dataclass(frozen=True)
class Ran:
    """What one machine printed."""

    machine: str
    commands: str
    printed: str


def blocks_of(runbook: str) -> list[Block]:
    """The blocks of a runbook that are run."""
    return [Block(tuple(found[1].split()), found[2]) for found in BLOCK.finditer(runbook)]


class Host:
    """The daemon beside a store, on its own thread: drains its outbox, asks witnesses, marks heads final."""

    def __init__(self, path: Path, anchor: str, key: HeldKey, ask: Callable[..., Any]) -> None:
        self._url, self._anchor, self._key, self._ask_on = f"sqlite:///{path}", anchor, key, ask
        self._stop = threading.Event()
        self._running = threading.Event()
        self._finalized = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="host")
        self._thread.start()
        self._running.wait()
        if self._failure is not None:
            raise self._failure

    def until_final(self) -> None:
        """Wait until a head of its log is final for the first time."""
        assert self._finalized.wait(60), "no head became final"

    def close(self) -> None:
        """Stop it. Raises what it failed with."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # for whoever waits for this thread
            self._failure = error
        finally:
            self._running.set()

    async def _main(self) -> None:
        engine = open_database(self._url)
        store = Store(engine)
        made: list[Sequencing] = []

        def on_final() -> None:
            head = store.head()
            made[0].advanced(0 if head is None else head.final_size)
            self._finalized.set()

        async def ask(key_id: str, body: bytes) -> tuple[int, bytes]:
            answer: tuple[int, bytes] = await self._ask_on(store, key_id, body)
            return answer

        writers = Sequencers(engine, self._anchor, self._key)
        made.append(Sequencing(self._url, writers, ask, on_final, time.time))
        with Doorbell(self._url) as bell:
            self._running.set()
            while not self._stop.is_set():
                await asyncio.to_thread(bell.wait, 0.2)
                made[0].wake()
        await made[0].close()
        engine.dispose()


class Drill:
    """The farm of a drill. Passphrases, the anchor and the stick are in every machine's environment."""

    def __init__(self, folder: Path, path: Path, recovery_delay_s: int) -> None:
        self.folder, self.stick = folder, folder / "stick"
        self.cluster_id = CLUSTER
        self.stick.mkdir()
        self._path = path
        self.anchor = ""  # of the genesis, once there is one
        self._witnesses: dict[tuple[str, int], WitnessHost] = {}
        self.away: set[str] = set()  # witnesses that do not answer
        self._stack = ExitStack()
        self.hosts: dict[str, Host] = {}
        self._begin(recovery_delay_s)

    def machine(self, name: str) -> Path:
        """The folder of a machine, made when it is first needed, with the anchor that everybody pins."""
        folder = self.folder / name
        if not folder.exists():
            folder.mkdir()
            if self.anchor:
                (folder / ANCHOR_FILE).write_text(self.anchor + "\n")
        return folder

    def key(self, machine: str, name: str, issuer: str, custody: str) -> HeldKey:
        """A key file NAME.key on a machine, made when there is none, opened."""
        path = self.machine(machine) / f"{name}.key"
        if not path.exists():
            cost = Cost(1, KDF_MIN_MEMORY_BYTES)
            create_key_file(path, PASSPHRASE, name=name, issuer_id=issuer, custody=custody, cost=cost)
        return load_signer(f"file:{path}", PASSPHRASE)

    def _begin(self, recovery_delay_s: int) -> None:
        """Genesis, first term and route members, 2 of 3 everywhere; four witnesses, one may lie."""
        now = int(time.time()) - 60
        root = [self.key(who, f"{who}-root", who, "offline") for who in HOLDERS]
        control = [self.key(who, f"{who}-control", who, "online") for who in HOLDERS]
        recovery = [self.key(who, f"{who}-recovery", who, "offline") for who in HOLDERS]
        witnesses = [self.key(name, name, f"owner-of-{name}", "online") for name in WITNESSES]
        self.node_id = self.key("control", "node", "control", "online").info.key_id
        sequencer = self.key("control", "sequencer", self.node_id, "online")
        plan = genesis.Plan(
            cluster_id=CLUSTER,
            mode="production",
            root=tuple(_entry(one, "offline") for one in root),
            root_threshold=2,
            control=tuple(_entry(one, "online") for one in control),
            control_threshold=2,
            witnesses=tuple(_entry(one, "online", name=one.info.name) for one in witnesses),
            witness_threshold=3,
            faulty=1,
            recovery=tuple(one.info.key_id for one in recovery),
            recovery_threshold=2,
            recovery_delay_s=recovery_delay_s,
        )
        first = _signed(genesis.first_descriptor(plan, now), root, ROOT)
        log = genesis.genesis_replay(first)
        term = genesis.first_term(log, [genesis.sequencer_entry(sequencer, CLUSTER, self.node_id)], now)
        term = _signed(term, control, CONTROL)
        self.anchor = first.record_id
        for machine in self.folder.iterdir():
            if machine != self.stick:
                (machine / ANCHOR_FILE).write_text(self.anchor + "\n")
        engine = open_database(f"sqlite:///{self.store('control')}", create=True)
        Sequencer.create(engine, first.signed_record(), term.signed_record(), sequencer, now=now)
        engine.dispose()

    def store(self, machine: str) -> Path:
        """The path of a host's store."""
        return self.machine(machine) / "node.db"

    def replicate(self, source: str, target: str) -> None:
        """Copy the store of one host to another, as a follower's daemon does entry by entry."""
        with sqlite3.connect(self.store(source)) as given, sqlite3.connect(self.store(target)) as taken:
            given.backup(taken)
        given.close()
        taken.close()

    # -- hosts and witnesses --

    def start(self, machine: str, key: str = "sequencer") -> None:
        """Start the daemon of a host."""
        held = load_signer(f"file:{self.machine(machine) / key}.key", PASSPHRASE)
        self.hosts[machine] = Host(self.store(machine), self.anchor, held, self._ask)

    def stop(self, machine: str) -> None:
        """Stop a host's daemon."""
        self.hosts.pop(machine).close()

    async def _ask(self, store: Store, key_id: str, body: bytes) -> tuple[int, bytes]:
        """A witness's own answer; it reads entries from whichever host asks."""
        path = next(
            (one for one in self.folder.glob("w*/w*.key") if read_key_info(one).key_id == key_id), None
        )
        if path is None or path.stem in self.away:
            raise ConnectionError(key_id)
        reply = await self._witness(path, store).answer(body)
        return reply.status, reply.body

    def _witness(self, path: Path, store: Store) -> WitnessHost:
        """The witness with the key at `path`, reading from `store`, the one of the host that asks."""
        place = (path.stem, id(store))
        if place not in self._witnesses:
            url = f"sqlite:///{path.parent}/witness.db"
            memory = open_database(url, create=not (path.parent / "witness.db").exists())
            self._stack.callback(memory.dispose)
            key = load_signer(f"file:{path}", PASSPHRASE)
            self._witnesses[place] = WitnessHost(
                self.anchor, path.stem, key, Store(memory), StoreEntries(store), time.time
            )
        return self._witnesses[place]

    def close(self) -> None:
        """Stop what runs."""
        for host in self.hosts.values():
            host.close()
        self._stack.close()

    # -- runbooks --

    def run(self, runbook: str) -> Iterator[Ran]:
        """Run a runbook block by block. Fails with what was printed at the first command that fails."""
        for block in blocks_of(runbook):
            for machine in block.machines:
                yield Ran(machine, block.commands, self.command(machine, block.commands))

    def command(self, machine: str, commands: str) -> str:
        """What commands print on a machine; every question of theirs is answered with yes."""
        folder = self.machine(machine)
        environment = {
            "PATH": f"{self._path}:/usr/bin:/bin",
            "HOME": str(folder),
            "WHO": machine,
            "STICK": str(self.stick),
            "STATELOG_PASSPHRASE": PASSPHRASE,
            "STATELOG_ROOT": str(folder / ANCHOR_FILE),
            "LC_ALL": "C.UTF-8",
        }
        with subprocess.Popen(["yes"], stdout=subprocess.PIPE) as yes:
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", commands],
                cwd=folder,
                env=environment,
                stdin=yes.stdout,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=100,
            )
            yes.kill()
        assert ran.returncode == 0, f"on {machine}: exit {ran.returncode}\n{commands}\n{ran.stdout}"
        return ran.stdout


@contextmanager
def drill(tmp_path: Path, recovery_delay_s: int = 1) -> Iterator[Drill]:
    """A farm in `tmp_path` with its control host running."""
    with statelog_on_path(tmp_path / "bin") as path:
        (tmp_path / "farm").mkdir()
        made = Drill(tmp_path / "farm", path, recovery_delay_s)
        try:
            made.start("control")
            made.hosts["control"].until_final()
            yield made
        finally:
            made.close()


def _entry(key: HeldKey, custody: str, name: str | None = None) -> dict[str, str]:
    return genesis.key_entry(key, CLUSTER, key.info.issuer_id, custody, name=name)


def _signed(request: ceremony.Request, keys: list[HeldKey], role: str) -> ceremony.Request:
    for key in keys[:2]:
        request = ceremony.attach(request, key, key.info.issuer_id, role)
    return request
