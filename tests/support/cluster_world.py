"""A simulated cluster of the log on a virtual clock: sequencer, four witnesses, replicas, one of them a liar.

    world = ClusterWorld(seed=7)
    world.run(hours=2)
    world.fired      # which faults and behaviours really happened, and how often
    world.digest()   # the same seed gives the same

Replaying, cosigning, following and finality are the product's own machines; here are only their shells. Disks
are dictionaries; the network loses, delays, doubles and cuts. A process may crash at any write, just before
it or just after. After every step the world checks what must always hold, and raises `BrokenError`.
"""

# Long on purpose: the world, its network and its honest actors belong together and are read together.
from __future__ import annotations

import heapq
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from fabric.services.messages import MessageError
from fabric.sync import Entries, Head, Intake, batches
from statelog.alarms import is_stale
from statelog.canonical import decode, encode
from statelog.checkpoint import parse_signed_checkpoint, sign_checkpoint
from statelog.errors import Refused
from statelog.finality import final_cosignatures, freshness, needed_sets
from statelog.io.cosign import CosignRound
from statelog.merkle import CompactRange, consistency_proof, leaf_hash
from statelog.note import parse_signature_lines
from statelog.replay import Replay
from statelog.signing import record_id_of
from statelog.splitview import SplitView, check_split_view
from statelog.witness import (
    Fetch,
    Fetched,
    Persist,
    Persisted,
    Reply,
    Request,
    Witness,
    WitnessState,
    parse_size,
)
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.logs import with_lines

HOUR_S = 3_600.0
RETRY_S, PULL_S, COMPARE_S, FETCH_TIMEOUT_S, BARRED_S = 5.0, 20.0, 60.0, 8.0, 90.0
SEQUENCER, LIAR = "sequencer", "liar"
WITNESSES = ("witness-1", "witness-2", "witness-3", "witness-4")
REPLICAS = ("replica-1", "replica-2", "replica-3")


class BrokenError(AssertionError):
    """Something that must always hold does not."""


class Crashed(Exception):  # noqa: N818 - not an error of ours: the process died at a write
    pass


class DiskFull(Exception):  # noqa: N818 - likewise: the write did not happen, and the process goes on
    pass


@dataclass(frozen=True)
class Faults:
    """Probabilities of a message's fates; rates of outages an hour."""

    loss: float = 0.05
    double: float = 0.05
    spike: float = 0.02
    delay_s: tuple[float, float] = (0.005, 0.1)
    spike_s: tuple[float, float] = (1.0, 20.0)
    crashes: float = 3.0
    full_disks: float = 1.0
    cuts: float = 1.0
    replaced: float = 4.0


class Actor(ABC):
    """A process: what it keeps (`disk`) survives a crash, everything else is made anew by `start`."""

    def __init__(self, world: ClusterWorld, name: str) -> None:
        self.world, self.name = world, name
        self.disk: dict[str, Any] = {}
        self.up = True
        self.life = 0
        self.fate = ""  # of the next write: "crash", "full" or nothing

    @abstractmethod
    def start(self) -> None:
        """Begin from what is kept."""

    def receive(self, source: str, message: tuple[Any, ...]) -> None:
        """A message: its kind first."""
        getattr(self, f"on_{message[0]}")(source, *message[1:])

    def write(self, **changes: Any) -> None:
        """One transaction: all of it, or nothing."""
        fate, self.fate = self.fate, ""
        if fate == "full":
            self.world.fired["disk full"] += 1
            raise DiskFull
        if fate == "crash" and self.world.chance.random() < 0.5:
            self.world.fired["crash before write"] += 1
            raise Crashed
        self.disk.update(changes)
        if fate == "crash":
            self.world.fired["crash after write"] += 1
            raise Crashed

    def later(self, delay_s: float, action: Callable[..., None], *arguments: Any) -> None:
        """A timer, which dies with the process."""
        life = self.life

        def due() -> None:
            if self.up and self.life == life:
                self.world.perform(self, action, *arguments)

        self.world.after(delay_s, due)

    def send(self, target: str, *message: Any) -> None:
        self.world.send(self.name, target, message)


class SequencerActor(Actor):
    """Appends what clients submit, has heads cosigned, refreshes them, serves entries."""

    def start(self) -> None:
        disk = self.disk
        self.replay = Replay(self.world.cluster.anchor)
        for leaf in disk["leaves"]:
            self.replay.append(leaf, verify_signatures=False)
        self.nodes: dict[tuple[int, int], bytes] = {}
        tree = CompactRange()
        for leaf in disk["leaves"]:
            self._grow(tree, leaf)
        self.tree = tree
        self.known = dict.fromkeys(WITNESSES, 0)
        self.fresh_at = 0
        self._begin()

    def _grow(self, tree: CompactRange, leaf: bytes) -> None:
        self.nodes.update({(level, at): hash_ for level, at, hash_ in tree.append(leaf_hash(leaf))})

    def on_submit(self, source: str, data: bytes) -> None:
        world, disk = self.world, self.disk
        now = int(world.now)
        record_id = record_id_of(world.decoded(data))
        if record_id not in disk["places"]:
            candidate = self.replay.copy()
            try:
                leaf = candidate.next_leaf(data, now)
                candidate.append(leaf)
            except Refused as refusal:
                self.send(source, "refused", record_id, refusal.code)
                return
            note = sign_checkpoint(candidate.checkpoint(), signer("sequencer-1"))
            self.write(
                leaves=[*disk["leaves"], leaf],
                places={**disk["places"], record_id: candidate.size - 1},
                notes={**disk["notes"], candidate.size: note},
            )
            self.replay = candidate
            self._grow(self.tree, leaf)
            self._begin()
        elif disk["places"][record_id] < disk["final"]:
            self.send(source, "final", record_id, disk["places"][record_id])

    def _begin(self) -> None:
        """A round for the newest head; the timers of older ones find that they are old."""
        size = self.replay.size
        sets = needed_sets(self.replay.state, self.disk["final"], size)
        self.round = CosignRound(self.disk["notes"][size], sets)
        for line in self.disk["lines"].get(size, {}).values():
            self.round.note = with_lines(self.round.note, parse_signature_lines(line))
        self.asking = set(WITNESSES)
        self.later(0.0, self._ask, size)

    def _ask(self, size: int) -> None:
        if size != self.replay.size:
            return
        for name in sorted(self.asking):
            self._request(name)
        if self.asking:
            self.later(RETRY_S, self._ask, size)

    def _request(self, name: str) -> None:
        body = self.round.request(self.known[name], lambda level, at: self.nodes[level, at])
        self.send(name, "cosign", self.replay.size, body)

    def on_cosigned(self, source: str, size: int, status: int, body: bytes) -> None:
        if size != self.replay.size or source not in self.asking:
            return
        if status == 409:
            self.known[source] = parse_size(body)
            if self.known[source] <= size:
                self._request(source)
        if status != 200:
            return
        key = next(one for one in self.round.witnesses() if one.name == f"{source}.example")
        found = self.round.accept(key, body, self.world.now)
        lines = {**self.disk["lines"].get(size, {}), source: found.line.encode()}
        changes: dict[str, Any] = {"lines": {**self.disk["lines"], size: lines}}
        known = self.round.note
        self.round.stored(found)
        if self.round.final() and size > self.disk["final"]:
            changes["final"] = size
        try:
            self.write(**changes)
        except DiskFull:
            self.round.note = known
            raise
        self.asking.discard(source)
        self.known[source] = size
        self._refreshed(size)

    def _refreshed(self, size: int) -> None:
        result = final_cosignatures(self.round.note, self.replay.state.witnesses)
        fresh = freshness(result, self.replay.state.witnesses.faulty)
        if self.disk["final"] == size and fresh is not None and fresh > self.fresh_at:
            self.fresh_at = fresh
            allowed = self.replay.state.descriptor.max_checkpoint_age_s
            self.later(fresh + allowed / 3 - self.world.now, self._refresh, fresh)
            # Not to everybody: who is not told finds out from whomever it asks next.
            for name in (LIAR, *self.world.chance.sample(REPLICAS, 1)):
                self.send(name, "news")

    def _refresh(self, fresh: int) -> None:
        if fresh == self.fresh_at:
            self.world.fired["refresh"] += 1
            self._begin()

    def head(self) -> bytes | None:
        size = self.disk["final"]
        if not size:
            return None
        return self.disk["notes"][size] + b"".join(v for _, v in sorted(self.disk["lines"][size].items()))

    def on_fetch(self, source: str, request_id: int, start: int, end: int) -> None:
        self.send(source, "fetched", request_id, start, self.disk["leaves"][start:end])

    def on_pull(self, source: str, stream: int, start: int) -> None:
        found = answer(self.disk["leaves"], self.disk["final"], self.head(), start)
        self.send(source, "pulled", stream, found)

    def on_compare(self, source: str, note: bytes) -> None:
        del note
        head = self.head()
        if head is not None:
            self.send(source, "compared", head)


def answer(leaves: list[bytes], final: int, head: bytes | None, start: int) -> list[Entries | Head]:
    """What an honest source sends to a follower at `start`."""
    if head is None or start > final:
        return []
    return [*batches(start, leaves[start:final]), Head(head)]


class WitnessActor(Actor):
    """The witness machine, its memory on disk, its entries from the sequencer."""

    def start(self) -> None:
        world = self.world
        self.machine = Witness(
            world.origin,
            f"{self.name}.example",
            signer(self.name),
            Replay(world.cluster.anchor),
            self.disk["state"],
        )
        self.requests = 0
        self.wanted: dict[int, int] = {}  # fetches under way: where each starts
        self.askers: dict[int, tuple[str, int]] = {}

    def on_cosign(self, source: str, size: int, body: bytes) -> None:
        self.requests += 1
        self.askers[self.requests] = (source, size)
        self._feed(Request(self.requests, body))

    def on_fetched(self, source: str, request_id: int, start: int, leaves: list[bytes]) -> None:
        if source == SEQUENCER and start == self.wanted.get(request_id):
            del self.wanted[request_id]
            self._feed(Fetched(request_id, leaves))

    def _feed(self, event: Request | Fetched | Persisted) -> None:
        for effect in self.machine.handle(self.world.now, event):
            if isinstance(effect, Reply):
                source, size = self.askers.pop(effect.request_id)
                self.world.fired[f"witness answers {effect.status}"] += 1
                if effect.status == 200:
                    self.world.cosigned(self, size)
                self.send(source, "cosigned", size, effect.status, effect.body)
            elif isinstance(effect, Fetch):
                self.wanted[effect.request_id] = effect.start
                self.send(SEQUENCER, "fetch", effect.request_id, effect.start, effect.end)
                self.later(FETCH_TIMEOUT_S, self._give_up, effect.request_id, effect.start)
            else:
                self._persist(effect)

    def _give_up(self, request_id: int, start: int) -> None:
        if self.wanted.get(request_id) == start:
            del self.wanted[request_id]
            self.world.fired["source away"] += 1
            self._feed(Fetched(request_id, None))

    def _persist(self, effect: Persist) -> None:
        stored: WitnessState | None = self.disk["state"]
        if (stored is None and effect.expected.size == 0) or stored == effect.expected:
            try:
                self.write(state=effect.new)
            except DiskFull:  # the shell gives the request up and begins again from what is stored
                self.start()
                return
        self._feed(Persisted(effect.request_id, self.disk["state"]))


class ReplicaActor(Actor):
    """Follows one source after the other, serves what is final, compares heads with everybody."""

    def start(self) -> None:
        self.final = Replay(self.world.cluster.anchor)
        for leaf in self.disk["leaves"]:
            self.final.append(leaf, verify_signatures=False)
        self.barred: set[str] = set()
        self.streams: set[int] = set()
        self.source = SEQUENCER
        self.later(self.world.chance.uniform(0, PULL_S), self._pull_again)
        self.later(self.world.chance.uniform(0, COMPARE_S), self._compare_again)

    def sources(self) -> list[str]:
        return [one for one in (SEQUENCER, LIAR, *REPLICAS) if one != self.name and one not in self.barred]

    def _pull_again(self) -> None:
        self.source = self.world.chance.choice(self.sources())
        self._pull()
        self.later(self.world.chance.uniform(0.5, 1.5) * PULL_S, self._pull_again)

    def _pull(self) -> None:
        self._ask(self.source)

    def _ask(self, source: str) -> None:
        """Open a stream; an answer on one that this process has not opened never reaches it."""
        stream = self.world.chance.getrandbits(64)
        self.streams.add(stream)
        self.send(source, "pull", stream, self.final.size)

    def on_news(self, source: str) -> None:
        if source not in self.barred:
            self._ask(source)

    def on_pull(self, source: str, stream: int, start: int) -> None:
        found = answer(self.disk["leaves"], self.final.size, self.disk["head"], start)
        self.send(source, "pulled", stream, found)

    def on_pulled(self, source: str, stream: int, messages: list[Entries | Head]) -> None:
        if source in self.barred or stream not in self.streams:
            return
        try:
            self._take(messages)
        except (Refused, MessageError) as refusal:
            self.world.refused(self, source, refusal.code)
            self.barred.add(source)
            self.later(BARRED_S, self.barred.discard, source)  # as a new session would

    def _take(self, messages: list[Entries | Head]) -> None:
        intake = Intake(self.final)
        for message in messages:
            if isinstance(message, Entries):
                intake.entries(message)
                continue
            self.judge_head(message.note)
            batch = intake.head(message.note)
            if batch is None:
                continue
            lines = b"".join(one.line.encode() for one in batch.cosigned)
            self.write(
                leaves=[*self.disk["leaves"], *(entry.data for entry in batch.entries)],
                head=batch.note + lines,
            )
            self.final = batch.after
            intake.accept(batch)

    def _compare_again(self) -> None:
        if self.disk["head"] is not None:
            self.send(self.world.chance.choice(self.sources()), "compare", self.disk["head"])
        self.later(COMPARE_S, self._compare_again)

    def on_compare(self, source: str, note: bytes) -> None:
        self.judge_head(note)
        if self.disk["head"] is not None:
            self.send(source, "compared", self.disk["head"])

    def on_compared(self, source: str, note: bytes) -> None:
        del source
        self.judge_head(note)

    def judge_head(self, note: bytes) -> None:
        """As `statelog.io.comparing` does on a store: keep what is proved to be another history."""
        try:
            head, _ = parse_signed_checkpoint(note)
        except Refused:
            return
        if head.origin != self.world.origin or not 0 < head.size <= self.final.size:
            return
        tree, nodes = CompactRange(), {}
        for leaf in self.disk["leaves"][: self.final.size]:
            nodes.update({(level, at): hash_ for level, at, hash_ in tree.append(leaf_hash(leaf))})

        def read(level: int, at: int) -> bytes:
            return nodes[level, at]

        root = CompactRange.from_nodes(head.size, read).root()
        if root == head.root:
            return
        found = SplitView(
            note, self.disk["head"], root, tuple(consistency_proof(head.size, self.final.size, read))
        )
        try:
            check_split_view(found, self.final.sequencer_keys())
        except Refused:
            return  # signed by nobody: no evidence against the sequencer
        self.world.fired["split view proved"] += 1

    def stale(self) -> bool:
        """What its alarm says now."""
        if self.disk["head"] is None:
            return True
        witnesses = self.final.state.witnesses
        result = final_cosignatures(parse_signed_checkpoint(self.disk["head"])[1], witnesses)
        allowed = self.final.state.descriptor.max_checkpoint_age_s
        return is_stale(freshness(result, witnesses.faulty), allowed, self.world.now)


class Client(Actor):
    """Submits leases one after the other and asks again until each is final."""

    def start(self) -> None:
        self.number = self.disk.get("number", 0)
        self.later(1.0, self._submit)

    def _submit(self) -> None:
        world = self.world
        if world.healed:
            return
        route, epoch = self.number % 5, self.number // 5 + 1
        lease = world.cluster.lease(f"route-{route}", epoch=epoch, issued_at=int(world.now) - 1)
        self.waiting = record_id_of(lease)
        self.data = encode(lease)
        world.records[self.data] = lease
        self._insist(self.number)

    def _insist(self, number: int) -> None:
        if number == self.number:
            self.send(SEQUENCER, "submit", self.data)
            self.later(RETRY_S * 2, self._insist, number)

    def on_final(self, source: str, record_id: str, index: int) -> None:
        del source
        if record_id == self.waiting:
            self.world.acknowledged[record_id] = index
            self.number += 1
            self.waiting = ""
            often = self.world.chance.random() < 0.6  # bursts, so that a follower lacks several entries
            self.later(1.0 if often else self.world.chance.expovariate(1 / 480.0), self._submit)

    def on_refused(self, source: str, record_id: str, code: str) -> None:
        raise BrokenError(f"{source} refused a good record {record_id}: {code}")


@dataclass(order=True)
class _Event:
    at: float
    number: int
    action: Callable[[], None] = field(compare=False)


class ClusterWorld:
    """See the module. `liar` makes the byzantine replica (`tests.support.byzantine`), or an honest one."""

    def __init__(
        self, seed: int, faults: Faults = Faults(), liar: Callable[[ClusterWorld, str], Actor] = ReplicaActor
    ) -> None:
        self.chance = random.Random(seed)
        self.faults = faults
        self.cluster: Cluster = make_cluster(nodes=("phone-a", "relay-1", "home-1"))
        self.origin = f"{self.cluster.cluster_id}/authority"
        self.now = float(self.cluster.now)
        self.fired: Counter[str] = Counter()
        self.records: dict[bytes, dict[str, Any]] = {}
        self.acknowledged: dict[str, int] = {}
        self.steps = 0
        self.healed = False
        self._trace = sha256()
        self._events: list[_Event] = []
        self._number = 0
        self._cut: set[frozenset[str]] = set()
        self._roots: list[bytes] = [CompactRange().root()]  # of the one history, by size
        self._canonical: list[bytes] = []
        self._tree = CompactRange()
        self._finals: dict[str, int] = {}
        self.actors: dict[str, Actor] = {
            SEQUENCER: SequencerActor(self, SEQUENCER),
            "client": Client(self, "client"),
        }
        self.actors |= {name: WitnessActor(self, name) for name in WITNESSES}
        self.actors |= {name: ReplicaActor(self, name) for name in REPLICAS}
        self.actors[LIAR] = liar(self, LIAR)
        self._found()
        for actor in self.actors.values():
            actor.start()
        self._plan_outages()

    def _found(self) -> None:
        """Genesis: the cluster's log in the sequencer's store, nothing anywhere else."""
        leaves, replay = self.cluster.leaves(), Replay(self.cluster.anchor)
        for leaf in leaves:
            replay.append(leaf)
        note = sign_checkpoint(replay.checkpoint(), signer("sequencer-1"))
        places = {
            record_id_of(self.decoded(record)): n for n, (record, _, _) in enumerate(self.cluster.log.entries)
        }
        self.actors[SEQUENCER].disk |= {"leaves": leaves, "places": places, "final": 0, "lines": {}}
        self.actors[SEQUENCER].disk["notes"] = {len(leaves): note}
        for name, actor in self.actors.items():
            if name in WITNESSES:
                actor.disk["state"] = None
            elif name in (*REPLICAS, LIAR):
                actor.disk |= {"leaves": [], "head": None}

    def decoded(self, data: bytes) -> dict[str, Any]:
        """A record of the client's or of the founding, without decoding it again."""
        return self.records.get(data) or decode(data)

    # -- time --

    def after(self, delay_s: float, action: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, _Event(self.now + max(0.0, delay_s), self._number, action))

    def run(self, hours: float) -> None:
        """Let so much simulated time pass, checking after every step."""
        end = self.now + hours * HOUR_S
        while self._events and self._events[0].at <= end:
            event = heapq.heappop(self._events)
            self.now = max(self.now, event.at)
            event.action()
            self.steps += 1
            self.check()
        self.now = end

    def note(self, line: str) -> None:
        self._trace.update(f"{self.now:.6f} {line}\n".encode())

    def digest(self) -> str:
        """Of everything that happened, in order."""
        return self._trace.copy().hexdigest()

    # -- processes --

    def perform(self, actor: Actor, action: Callable[..., None], *arguments: Any) -> None:
        """Something happens in a process; it may die of it."""
        try:
            action(*arguments)
        except DiskFull:
            self.note(f"{actor.name} could not write")
        except Crashed:
            self.note(f"{actor.name} crashes")
            actor.up = False
            actor.life += 1
            self.after(self.chance.uniform(0.5, 60.0), lambda: self._restart(actor))

    def _restart(self, actor: Actor) -> None:
        if self.actors[actor.name] is not actor:
            return
        self.note(f"{actor.name} is back")
        actor.up = True
        self.perform(actor, actor.start)

    def _plan_outages(self) -> None:
        names = [SEQUENCER, *WITNESSES, *REPLICAS]

        def doom(fate: str, rate: float) -> None:
            if not self.faults.crashes:
                return  # healed
            victim = self.actors[self.chance.choice(names)]
            victim.fate = victim.fate or fate
            self.after(self.chance.expovariate(rate / HOUR_S), lambda: doom(fate, rate))

        def cut(rate: float) -> None:
            if not self.faults.cuts:
                return
            group = self.chance.sample(names, self.chance.randrange(1, 4))
            pairs = {frozenset((a, b)) for a in group for b in (*names, LIAR, "client") if b not in group}
            self._cut |= pairs
            self.note(f"cut {group}")
            self.after(self.chance.uniform(10.0, 900.0), lambda: self._cut.difference_update(pairs))
            self.after(self.chance.expovariate(rate / HOUR_S), lambda: cut(rate))

        plans = (("crash", self.faults.crashes, doom), ("full", self.faults.full_disks, doom))
        for fate, rate, plan in plans:
            if rate:
                self.after(self.chance.expovariate(rate / HOUR_S), lambda f=fate, r=rate, p=plan: p(f, r))  # type: ignore[misc]  # bound now
        if self.faults.replaced:
            self.after(self.chance.expovariate(self.faults.replaced / HOUR_S), self._replace_one)
        if self.faults.cuts:
            self.after(self.chance.expovariate(self.faults.cuts / HOUR_S), lambda: cut(self.faults.cuts))

    def _replace_one(self) -> None:
        """A replica is lost with its disk, and a new one takes its place."""
        if not self.faults.replaced:
            return
        name = self.chance.choice(REPLICAS)
        self.fired["replaced"] += 1
        self.note(f"{name} is replaced")
        old = self.actors[name]
        old.up, old.life = False, old.life + 1
        self.actors[name] = made = ReplicaActor(self, name)
        made.disk |= {"leaves": [], "head": None}
        self._finals[name] = 0
        self.perform(made, made.start)
        self.after(self.chance.expovariate(self.faults.replaced / HOUR_S), self._replace_one)

    def heal(self) -> None:
        """No more faults and no more records: what is down comes back, what is cut heals."""
        self.healed = True
        self.faults = Faults(0.0, 0.0, 0.0, crashes=0.0, full_disks=0.0, cuts=0.0, replaced=0.0)
        self._cut.clear()
        for actor in self.actors.values():
            actor.fate = ""

    def settled(self) -> bool:
        """Everybody stands at the sequencer's newest head, final and fresh."""
        size = len(self._canonical)
        replicas = [self.actors[name] for name in REPLICAS]
        return (
            self._finals[SEQUENCER] == size
            and all(len(one.disk["leaves"]) == size for one in replicas)
            and not any(one.stale() for one in replicas if isinstance(one, ReplicaActor))
        )

    # -- network --

    def send(self, source: str, target: str, message: tuple[Any, ...]) -> None:
        faults, chance = self.faults, self.chance
        if chance.random() < faults.loss:
            self.fired["loss"] += 1
            return
        copies = 1
        if chance.random() < faults.double:
            self.fired["double"] += 1
            copies = 2
        for _ in range(copies):
            delay = chance.uniform(*faults.delay_s)
            if chance.random() < faults.spike:
                self.fired["spike"] += 1
                delay += chance.uniform(*faults.spike_s)
            self.after(delay, lambda: self._arrive(source, target, message))

    def _arrive(self, source: str, target: str, message: tuple[Any, ...]) -> None:
        actor = self.actors[target]
        if frozenset((source, target)) in self._cut:
            self.fired["cut"] += 1
        elif not actor.up:
            self.fired["nobody home"] += 1
        else:
            self.note(f"{source} {message[0]} {target}")
            self.perform(actor, actor.receive, source, message)

    def root_at(self, size: int) -> bytes | None:
        """The root of the one history at `size`, None where it does not reach."""
        return self._roots[size] if size < len(self._roots) else None

    # -- what actors tell --

    def refused(self, actor: Actor, source: str, code: str) -> None:
        self.note(f"{actor.name} refuses {source}: {code}")
        self.fired[f"refused {code}"] += 1
        if source != LIAR:
            raise BrokenError(f"{actor.name} refused the honest {source}: {code}")

    def cosigned(self, witness: Actor, size: int) -> None:
        state = witness.disk["state"]
        if state is None or state.size < size:
            raise BrokenError(f"{witness.name} answered before it remembered")

    # -- what always holds --

    def check(self) -> None:
        """One history: everything that is kept anywhere is a beginning of what the sequencer keeps."""
        self._extend(self.actors[SEQUENCER].disk)
        for name, actor in self.actors.items():
            disk = actor.disk
            if name in WITNESSES:
                state = disk["state"]
                self._final_moves(name, 0 if state is None else state.size, state and state.root)
            elif name in REPLICAS or (name == LIAR and type(actor) is ReplicaActor):
                self._final_moves(name, len(disk["leaves"]), None)

    def _extend(self, disk: dict[str, Any]) -> None:
        leaves = disk["leaves"]
        if len(leaves) < len(self._canonical):
            raise BrokenError("the sequencer lost entries")
        for leaf in leaves[len(self._canonical) :]:
            self._canonical.append(leaf)
            self._tree.append(leaf_hash(leaf))
            self._roots.append(self._tree.root())
        self._final_moves(SEQUENCER, disk["final"], None)
        for record_id, index in self.acknowledged.items():
            if disk["places"].get(record_id) != index or index >= disk["final"]:
                raise BrokenError(f"acknowledged and lost: {record_id}")

    def _final_moves(self, name: str, size: int, root: bytes | None) -> None:
        before = self._finals.get(name, 0)
        if size == before:
            return
        if size < before:
            raise BrokenError(f"{name} lost what was final: {before}, then {size}")
        self._finals[name] = size
        if name in REPLICAS:
            kept = self.actors[name].disk
            if kept["leaves"] != self._canonical[:size]:
                raise BrokenError(f"{name} accepted other entries")
            root = parse_signed_checkpoint(kept["head"])[0].root
        if size >= len(self._roots) or (root is not None and root != self._roots[size]):
            raise BrokenError(f"{name} has a head of {size} that conflicts with the one history")
