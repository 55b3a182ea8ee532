"""A life of one store in a process of its own, for tests that kill it or fail its writes at a chosen call.

    with Lives() as lives:
        life = lives.begin(folder)          # forked, and waits
        strace = ["strace", "-p", str(life.pid), …]
        life.go(); life.wait()              # exit status, or minus the signal
        life.said                           # what it acknowledged, in order, up to its end

A process that has imported everything is forked for each life, so that one costs a few milliseconds. The life
itself uses one thread, so that the calls of two lives are counted alike.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from projections.io.writer import Writer
from statelog.canonical import encode
from statelog.errors import SourceUnreadable
from statelog.io.cosign import collect
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer, Submitted
from statelog.io.store import Store
from statelog.witness import Fetch, Fetched, Persist, Persisted, Reply, Request, Witness
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import WitnessHost, new_store, replay_of

STORE, MEMORY, GO, SAID = "state.db", "witness.db", "go", "said"
ONE = "one"  # a folder with a file of this name: one batch is all of a life
BATCHES = 3
PER_BATCH = 2
PR_SET_PTRACER, PTRACER_ANY = 0x59616D61, 2**64 - 1


def small_cluster() -> Cluster:
    """Leases need few nodes; everything else would only cost time."""
    return make_cluster(nodes=("phone-a", "relay-1", "home-1"))


def records(cluster: Cluster) -> list[bytes]:
    return [encode(cluster.lease(f"route-{n}")) for n in range(BATCHES * PER_BATCH)]


def prepare(folder: Path) -> None:
    """The store as every life finds it: the cluster's log, not final, and an empty witness's memory."""
    new_store(folder / STORE, small_cluster())[0].dispose()
    open_database(f"sqlite:///{folder / MEMORY}", create=True).dispose()


def batches_in(folder: Path) -> int:
    """How many batches a life in this folder appends, has cosigned, and projects."""
    return 1 if (folder / ONE).exists() else BATCHES


# --- one life ---


class _Inline(ThreadPoolExecutor):
    """Runs everything at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


class Life:
    """Appends, has it cosigned by one durable witness and three in memory, projects; says what is done."""

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self.cluster = small_cluster()
        self.say = say
        self.engine = open_database(f"sqlite:///{folder / STORE}")
        self.store = Store(self.engine)
        self.memory = open_database(f"sqlite:///{folder / MEMORY}")
        self.batches = batches_in(folder)
        self.others = {f"witness-{n}.example": WitnessHost(self.cluster, f"witness-{n}") for n in (2, 3, 4)}

    def run(self) -> None:
        records_ = records(self.cluster)
        for number in range(self.batches):
            batch = records_[number * PER_BATCH : (number + 1) * PER_BATCH]
            self.again(lambda batch=batch: self.append(batch))  # type: ignore[misc]  # bound for this round
            self.again(self.cosign)
            self.again(self.project)
        self.engine.dispose()
        self.memory.dispose()
        self.say("done")

    def again(self, step: Callable[[], None]) -> None:
        """A step whose store failed once is tried once more, by a process that goes on."""
        try:
            step()
        except SourceUnreadable:
            self.say("failed")
            step()

    def append(self, batch: list[bytes]) -> None:
        sequencer = Sequencer(self.store, self.cluster.anchor, signer("sequencer-1"))
        for outcome in sequencer.submit_many(batch, self.cluster.now):
            assert isinstance(outcome, Submitted), outcome
            self.say(f"appended {outcome.log_index} {outcome.record_id}")

    def cosign(self) -> None:
        replay = Sequencer(self.store, self.cluster.anchor, signer("sequencer-1")).replay()
        leaves = [row.leaf for row in self.store.entries(0)]
        for host in self.others.values():
            host.leaves = lambda: leaves

        async def ask(name: str, body: bytes) -> tuple[int, bytes]:
            if name in self.others:
                reply = self.others[name].ask(body)
            else:
                reply = self.witness(leaves, body)
                if reply.status == 200:
                    self.say(f"cosigned {replay.size} {replay.root().hex()}")
            return reply.status, reply.body

        async def main() -> None:
            asyncio.get_running_loop().set_default_executor(_Inline())
            clock = float(self.cluster.now)
            done = await collect(
                self.store,
                replay,
                ask,
                clock=lambda: clock,
                on_final=lambda size: self.say(f"final {size}"),
            )
            if not done.final:
                raise SourceUnreadable(f"not final: {done.failures}")

        asyncio.run(main())

    def witness(self, leaves: Sequence[bytes], body: bytes) -> Reply:
        """The durable witness, as it begins anew after a failure: from what is stored."""
        memory = Store(self.memory)
        origin = f"{self.cluster.cluster_id}/authority"
        state = memory.witness_state(origin)
        replay = replay_of(self.cluster, 0)
        for leaf in leaves[: 0 if state is None else state.size]:
            replay.append(leaf, verify_signatures=False)
        machine = Witness(origin, "witness-1.example", signer("witness-1"), replay, state)
        (effect,) = machine.handle(float(self.cluster.now), Request(1, body))
        while not isinstance(effect, Reply):
            answer: Fetched | Persisted
            if isinstance(effect, Fetch):
                answer = Fetched(1, list(leaves[effect.start : effect.end]))
            elif isinstance(effect, Persist):
                kept = memory.witness_compare_and_set(effect.expected, effect.new)
                stored = effect.new if kept else memory.witness_state(origin)
                answer = Persisted(1, stored or effect.expected)
            (effect,) = machine.handle(float(self.cluster.now), answer)
        return effect

    def project(self) -> None:
        head = self.store.head()
        assert head is not None
        Writer(self.engine).catch_up_from_store(head.final_size)
        self.say(f"projected {head.final_size}")


# --- the process that is forked for each ---


def _child(folder: Path) -> None:
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ctypes.c_ulong(PTRACER_ANY), 0, 0, 0)  # where Yama is strict
    said = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with (folder / GO).open() as go:
        go.read()
    Life(folder, lambda line: os.write(said, line.encode() + b"\n") and None).run()


def main() -> None:
    """Reads folders from standard input; for each forks a life, says its pid, then its exit status."""
    # Whatever is imported or computed once is so before the first fork.
    small_cluster()
    with TemporaryDirectory() as folder:
        open_database(f"sqlite:///{folder}/{STORE}", create=True).dispose()
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _child(Path(line.strip()))
                status = 0
            finally:
                os._exit(status)
        print(pid, flush=True)
        _, waited = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(waited), flush=True)


@dataclass
class Begun:
    """A life that waits to be told to go."""

    pid: int
    folder: Path
    source: Popen[str]

    def go(self) -> None:
        with (self.folder / GO).open("w") as go:
            go.write("\n")

    def wait(self) -> int:
        assert self.source.stdout is not None
        return int(self.source.stdout.readline())

    @property
    def said(self) -> list[str]:
        """Whole lines only: one that was cut by the end was not said."""
        text = (self.folder / SAID).read_text() if (self.folder / SAID).exists() else ""
        return text.split("\n")[:-1]


class Lives:
    """The process that lives are forked from."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.support.crash"]
        root = Path(__file__).resolve().parents[2]
        self.source = Popen(command, stdin=PIPE, stdout=PIPE, text=True, cwd=root)

    def begin(self, folder: Path) -> Begun:
        os.mkfifo(folder / GO)
        assert self.source.stdin is not None
        assert self.source.stdout is not None
        self.source.stdin.write(f"{folder}\n")
        self.source.stdin.flush()
        return Begun(int(self.source.stdout.readline()), folder, self.source)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.kill()
        self.source.communicate()


if __name__ == "__main__":
    main()
