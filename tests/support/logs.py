"""Logs for tests: replays of a test cluster, its signed and cosigned checkpoints, witnesses, sources in
memory.

    cluster = make_cluster()
    replay = replay_of(cluster)
    note = cosigned(head_note(replay))          # signed by the sequencer, cosigned by all four witnesses
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from statelog.canonical import encode
from statelog.checkpoint import cosign, parse_signed_checkpoint, sign_checkpoint
from statelog.errors import SourceUnreadable
from statelog.io.database import open_database
from statelog.io.sequencer import Sequencer
from statelog.io.store import Store, StoredCosignature
from statelog.merkle import CompactRange, consistency_proof, leaf_hash
from statelog.note import Note, NoteSignature
from statelog.replay import Replay
from statelog.witness import (
    Fetch,
    Fetched,
    Persist,
    Persisted,
    Reply,
    Request,
    Witness,
    WitnessState,
    encode_add_checkpoint,
)
from tests.support.authority import Cluster, key_id, make_cluster, signer

WITNESSES = ("witness-1", "witness-2", "witness-3", "witness-4")


def replay_of(cluster: Cluster, size: int | None = None) -> Replay:
    """A replay of the first `size` entries (all without) of the cluster's log."""
    replay = Replay(cluster.anchor)
    for leaf in cluster.leaves()[:size]:
        replay.append(leaf)
    return replay


def head_note(replay: Replay, by: str = "sequencer-1") -> bytes:
    """The signed checkpoint of the log as `replay` stands."""
    return sign_checkpoint(replay.checkpoint(), signer(by))


def cosigned(note: bytes, names: Iterable[str] = WITNESSES, at: int = 1_767_225_600) -> bytes:
    """The note with the cosignatures of the named witnesses at Unix second `at`."""
    _, parsed = parse_signed_checkpoint(note)
    lines = (cosign(parsed.text, f"{name}.example", signer(name), at) for name in names)
    return with_lines(parsed, lines).format()


def with_lines(note: Note, more: Iterable[NoteSignature]) -> Note:
    """The note with further signature lines, those already there left out."""
    return Note(note.text, (*note.signatures, *(line for line in more if line not in note.signatures)))


def outbox_state(store: Store, record_id: str) -> tuple[str, int | None, str | None]:
    """(state, log index, code) of a record in the outbox."""
    row = store.outbox_row(record_id)
    assert row is not None
    return row.state, row.log_index, row.code


def new_store(where: Path | str, cluster: Cluster) -> tuple[sa.Engine, Sequencer]:
    """A store at a path, or a URL, that holds the whole log of `cluster`, written by its sequencer."""
    engine = open_database(f"sqlite:///{where}" if isinstance(where, Path) else where, create=True)
    records = [encode_entry for encode_entry, _, _ in cluster.log.entries]
    sequencer = Sequencer.create(engine, records[0], records[1], signer("sequencer-1"), now=cluster.now)
    if records[2:]:
        sequencer.submit_many(records[2:], cluster.now)
    return engine, sequencer


def finalize(
    store: Store, names: Iterable[str] = WITNESSES, size: int | None = None, at: int = 1_767_225_600
) -> None:
    """Store the named witnesses' cosignatures of the checkpoint at `size` (the newest), and mark it final."""
    note = store.checkpoint(size)
    assert note is not None
    checkpoint, parsed = parse_signed_checkpoint(note)
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


def leases(cluster: Cluster, count: int, first: int = 0) -> list[bytes]:
    """`count` signed records that do not touch one another: leases of routes route-<first> and on."""
    return [encode(cluster.lease(f"route-{n}")) for n in range(first, first + count)]


@dataclass
class MemorySource:
    """A log source in memory; an auditor sees entries and checkpoints and nothing else."""

    leaves: list[bytes]
    notes: list[tuple[int, bytes]] = field(default_factory=list)

    def entries(self) -> Iterator[tuple[int, bytes]]:
        return iter(list(enumerate(self.leaves)))

    def checkpoints(self) -> Iterator[tuple[int, bytes]]:
        return iter(self.notes)


class ClusterEntries:
    """Where a witness reads a cluster's log, in memory (`statelog.io.entries.EntrySource`).

    At most `per_read` leaves at once; `away` raises, and reads wait while `held` is not set. `final` are the
    sizes whose heads are cosigned and called final; `beside` the sources of other logs.
    """

    def __init__(self, cluster: Cluster, per_read: int = 4) -> None:
        self.cluster = cluster
        self.leaves: Sequence[bytes] | None = None  # others than the cluster's
        self.per_read = per_read
        self.away = False
        self.held = threading.Event()
        self.held.set()
        self.final: list[int] = []
        self.witnesses: Iterable[str] = WITNESSES
        self.beside: dict[str, ClusterEntries] = {}
        self.reads: list[tuple[int, int]] = []

    def of(self, log: str) -> ClusterEntries:
        return self.beside[log]

    def read(self, start: int, end: int) -> list[bytes]:
        assert self.held.wait(30)
        if self.away:
            raise SourceUnreadable("the source is away")
        self.reads.append((start, end))
        leaves = self.cluster.leaves() if self.leaves is None else self.leaves
        return list(leaves[start : min(end, start + self.per_read)])

    def heads(self, start: int) -> Iterator[tuple[int, bytes]]:
        if self.away:
            raise SourceUnreadable("the source is away")
        for size in self.final:
            if size >= start:
                yield size, cosigned(head_note(replay_of(self.cluster, size)), self.witnesses)


def source_of(
    cluster: Cluster, sizes: Sequence[int] | None = None, by: Sequence[str] = WITNESSES
) -> MemorySource:
    """The cluster's log with checkpoints that are cosigned at the given sizes (its end without)."""
    leaves = cluster.leaves()
    wanted = [len(leaves)] if sizes is None else list(sizes)
    replay = Replay(cluster.anchor)
    source = MemorySource(leaves)
    for leaf in leaves:
        replay.append(leaf)
        if replay.size in wanted:
            source.notes.append((replay.size, cosigned(head_note(replay), by)))
    return source


class WitnessHost:
    """Drives a witness machine: fetches from `leaves`, and keeps what it persists, in memory."""

    def __init__(
        self,
        cluster: Cluster,
        name: str = "witness-1",
        leaves: Callable[[], Sequence[bytes] | None] | None = None,
        replay: Callable[[], Replay] | None = None,
        log: str = "authority",
    ) -> None:
        """`replay` makes the fold of another `log`, before its first entry."""
        self.cluster = cluster
        self.origin = f"{cluster.cluster_id}/{log}"
        self.fresh = replay or (lambda: Replay(cluster.anchor))
        self.key_name = f"{name}.example"
        self.leaves = leaves or cluster.leaves
        self.stored: WitnessState | None = None
        self.fetched: list[tuple[int, int]] = []
        self.writes: list[WitnessState] = []
        self.machine = Witness(self.origin, self.key_name, signer(name), self.fresh(), None)
        self._signer = signer(name)
        self._requests = 0

    def restart(self) -> None:
        """Forget everything but what was persisted."""
        self.machine = Witness(self.origin, self.key_name, self._signer, self.fresh(), self.stored)

    def compare_and_set(self, effect: Persist) -> WitnessState:
        """What a store does: the new state if the expected one is there, else what is there."""
        stored = self.stored or WitnessState(self.origin, 0, effect.expected.root, 0)
        if stored == effect.expected:
            self.stored = effect.new
            self.writes.append(effect.new)
        return self.stored or stored

    def ask(self, body: bytes, now: float | None = None) -> Reply:
        """One request to its end."""
        at = float(self.cluster.now) if now is None else now
        self._requests += 1
        effects = self.machine.handle(at, Request(self._requests, body))
        while True:
            (effect,) = effects
            if isinstance(effect, Reply):
                return effect
            if isinstance(effect, Fetch):
                self.fetched.append((effect.start, effect.end))
                leaves = self.leaves()
                found = None if leaves is None else list(leaves[effect.start : effect.end])
                effects = self.machine.handle(at, Fetched(effect.request_id, found))
            else:
                effects = self.machine.handle(at, Persisted(effect.request_id, self.compare_and_set(effect)))


def forked(cluster: Cluster) -> Cluster:
    """Another history of a production cluster's log, of the same length: one genesis, other entries."""
    fork = make_cluster(nodes=(), now=cluster.now)
    assert fork.anchor == cluster.anchor
    while fork.log.size < cluster.log.size:
        fork.append(fork.policy(f"fork-{fork.log.size}"))
    return fork


def consistency(leaves: list[bytes], old: int, new: int) -> list[bytes]:
    tree, nodes = CompactRange(), {}
    for leaf in leaves[:new]:
        for level, index, hash_ in tree.append(leaf_hash(leaf)):
            nodes[level, index] = hash_
    return consistency_proof(old, new, lambda level, index: nodes[level, index])


def request_body(cluster: Cluster, old: int, new: int, note: bytes | None = None) -> bytes:
    """A rightful request from size `old` to `new`."""
    head = head_note(replay_of(cluster, new)) if note is None else note
    return encode_add_checkpoint(old, consistency(cluster.leaves(), old, new), head)


def verdict(reply: Reply) -> tuple[int, str]:
    assert reply.content_type == "text/plain; charset=utf-8"
    return reply.status, reply.body.decode().split(":")[0].split(" ")[0]


def cosigned_at(cluster: Cluster, size: int) -> WitnessHost:
    """A witness that has cosigned the head of `size`."""
    host = WitnessHost(cluster)
    assert host.ask(request_body(cluster, 0, size)).status == 200
    return host
