"""A simulated cluster of the log on a virtual clock: sequencer, witnesses, replicas, one of them a liar.

    world = ClusterWorld(seed=7)
    world.run(hours=2)
    world.fired      # which faults and behaviours really happened, and how often
    world.digest()   # the same seed gives the same

Replaying, cosigning, following and finality are the product's own machines; here are only their shells
(`cluster_actors`). Their owners change the witnesses and hand the pen on (`cluster_owners`); now and then a
sequencer turns into one that lies about the time (`lying_sequencer`), or its whole site is away for a while,
or burns down with its disk. Disks are dictionaries; the network loses, delays, doubles and cuts. A process
may crash at any write, just before it or just after. After every step the world checks what must always hold,
and raises `BrokenError`.
"""

# Long on purpose: the world, its network and what must always hold in it are read together.
from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from statelog.canonical import decode
from statelog.checkpoint import parse_signed_checkpoint, sign_checkpoint
from statelog.leaf import split_leaf
from statelog.merkle import CompactRange, leaf_hash
from statelog.replay import Replay
from statelog.signing import record_id_of
from tests.support.authority import Cluster, make_cluster, signer
from tests.support.cluster_actors import (
    LIAR,
    POOL,
    REPLICAS,
    SEQUENCER,
    Actor,
    BrokenError,
    Client,
    Crashed,
    DiskFull,
    ReplicaActor,
    SequencerActor,
    WitnessActor,
    short,
)
from tests.support.cluster_owners import GRACE_S, OWNERS, Owners, standby
from tests.support.lying_sequencer import FENCED, LyingSequencer

HOUR_S = 3_600.0


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
    rotations: float = 2.0
    liars: float = 1.5
    sites: float = 0.4
    away_s: tuple[float, float] = (300.0, 2_400.0)


NONE = Faults(0, 0, 0, crashes=0, full_disks=0, cuts=0, replaced=0, rotations=0, liars=0, sites=0)


@dataclass(frozen=True)
class Quorum:
    """A witness set as the world counts it: the log index that installed it, who, how many are needed."""

    index: int
    names: frozenset[str]
    threshold: int


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
        self._away: dict[str, float] = {}  # hosts whose site nobody reaches, and until when
        self.burnt = False  # the sequencer's disk is gone: nobody but `check` may look into it
        self._sites = random.Random(f"{seed} sites")  # its own: what else happens is as without it
        self._roots: list[bytes] = [CompactRange().root()]  # of the one history, by size
        self._canonical: list[bytes] = []
        self._tree = CompactRange()
        self._finals: dict[str, int] = {}
        self.quorums: list[Quorum] = []  # of the one history, in order
        self.lies: dict[bytes, str] = {}  # leaves that must never be final, and why
        self.bent: set[bytes] = set()  # leaves whose date is not the time, and within the bound
        self._dropped: set[bytes] = set()  # roots of what a new term has dropped
        self.actors: dict[str, Actor] = {
            SEQUENCER: SequencerActor(self, SEQUENCER),
            "client": Client(self, "client"),
            OWNERS: Owners(self, OWNERS),
        }
        self.actors |= {name: WitnessActor(self, name) for name in POOL}
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
        self.actors[SEQUENCER].disk |= {"notes": {len(leaves): note}, "key": "sequencer-1"}
        for name, actor in self.actors.items():
            if name in POOL:
                actor.disk["state"] = None
            elif name in (*REPLICAS, LIAR):
                actor.disk |= _nothing()

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
        if self.actors[actor.name] is not actor or (actor.name == SEQUENCER and self.burnt):
            return
        self.note(f"{actor.name} is back")
        actor.up = True
        self.perform(actor, actor.start)

    def _plan_outages(self) -> None:
        names = [SEQUENCER, *POOL, *REPLICAS]

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
            pairs = {
                frozenset((a, b)) for a in group for b in (*names, LIAR, "client", OWNERS) if b not in group
            }
            self._cut |= pairs
            self.note(f"cut {group}")
            self.after(self.chance.uniform(10.0, 900.0), lambda: self._cut.difference_update(pairs))
            self.after(self.chance.expovariate(rate / HOUR_S), lambda: cut(rate))

        plans = (("crash", self.faults.crashes, doom), ("full", self.faults.full_disks, doom))
        for fate, rate, plan in plans:
            if rate:
                self.after(self.chance.expovariate(rate / HOUR_S), lambda f=fate, r=rate, p=plan: p(f, r))  # type: ignore[misc]  # bound now
        if self.faults.liars:
            self.after(self.chance.expovariate(self.faults.liars / HOUR_S), self._corrupt)
        if self.faults.sites:
            self._plan_site()
        if self.faults.replaced:
            self.after(self.chance.expovariate(self.faults.replaced / HOUR_S), self._replace_one)
        if self.faults.cuts:
            self.after(self.chance.expovariate(self.faults.cuts / HOUR_S), lambda: cut(self.faults.cuts))

    def _replace_one(self) -> None:
        """A replica is lost with its disk, and a new one takes its place."""
        if not self.faults.replaced:
            return
        if self.burnt:  # two lost disks at once are more than a log promises to outlive
            self.after(self.chance.expovariate(self.faults.replaced / HOUR_S), self._replace_one)
            return
        name = self.chance.choice(REPLICAS)
        self.fired["replaced"] += 1
        self.note(f"{name} is replaced")
        old = self.actors[name]
        old.up, old.life = False, old.life + 1
        self.actors[name] = made = ReplicaActor(self, name)
        made.disk |= _nothing()
        self._finals[name] = 0
        self.perform(made, made.start)
        self.after(self.chance.expovariate(self.faults.replaced / HOUR_S), self._replace_one)

    def _plan_site(self) -> None:
        self.after(self._sites.expovariate(self.faults.sites / HOUR_S), self._lose_site)

    def _lose_site(self) -> None:
        """The sequencer's site is away: nobody reaches it. It comes back by itself, or has burnt down."""
        if not self.faults.sites:
            return
        sequencer = self.actors[SEQUENCER]
        if sequencer.up and not self.burnt and self.now >= self._away.get(SEQUENCER, 0.0):
            self.fired["site away"] += 1
            self.note("the sequencer's site is away")
            self._away[SEQUENCER] = self.now + self._sites.uniform(*self.faults.away_s)
            if self._sites.random() < 0.5:
                self.after(GRACE_S, lambda: self._burn(sequencer))
        self._plan_site()

    def _burn(self, sequencer: Actor) -> None:
        """With its disk: where a replica holds all that may be final, and nothing is on its way any more."""
        if self.healed or self.actors[SEQUENCER] is not sequencer:
            return
        if standby(self) is None:
            self.fired["site spared"] += 1
            return
        self.fired["site burnt"] += 1
        self.note("the sequencer's site has burnt down")
        self.burnt = True
        sequencer.up, sequencer.life = False, sequencer.life + 1

    def moved(self) -> None:
        """The pen goes to another site; whoever had it stays where he is."""
        self._away[FENCED] = self._away.pop(SEQUENCER, 0.0)

    def _corrupt(self) -> None:
        """Who holds the pen turns into one that lies about the time."""
        if not self.faults.liars:
            return
        if type(self.actors[SEQUENCER]) is SequencerActor and not self.burnt:
            self.note("the sequencer turns")
            self.take_place(LyingSequencer(self, SEQUENCER), self.actors[SEQUENCER].disk)
        self.after(self.chance.expovariate(self.faults.liars / HOUR_S), self._corrupt)

    def take_place(self, made: Actor, disk: dict[str, Any]) -> None:
        """Another process, on `disk`, in the place of the one of its name."""
        old = self.actors.get(made.name)
        if old is not None:
            old.up, old.life, made.life = False, old.life + 1, old.life + 1
        made.disk = disk
        self.actors[made.name] = made
        self.perform(made, made.start)

    def heal(self) -> None:
        """No more faults and no more records: what is down comes back, what is cut heals."""
        self.healed = True
        self.faults = NONE
        self._cut.clear()
        self._away.clear()
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

    def is_cut(self, one: str, other: str) -> bool:
        """Whether the network between the two is parted now."""
        away = (name for name in (one, other) if self.now < self._away.get(name, 0.0))
        return next(away, None) is not None or frozenset((one, other)) in self._cut

    def _arrive(self, source: str, target: str, message: tuple[Any, ...]) -> None:
        actor = self.actors[target]
        if self.is_cut(source, target):
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

    # -- the one history --

    def forget(self, size: int) -> None:
        """A new term starts at `size`: what was beyond is dropped. Nobody may have held it to be final."""
        for name in (SEQUENCER, *REPLICAS):
            if self._finals.get(name, 0) > size:
                raise BrokenError(f"a new term drops what {name} holds to be final")
        self._dropped.update(self._roots[size + 1 :])
        del self._canonical[size:], self._roots[size + 1 :]
        self._tree = CompactRange()
        for leaf in self._canonical:
            self._tree.append(leaf_hash(leaf))
        self.quorums = [one for one in self.quorums if one.index < size]

    def strayed(self, witness: str) -> bool:
        """Whether it has cosigned what a new term has dropped: it will cosign nothing any more."""
        state = self.actors[witness].disk["state"]
        return state is not None and state.root != self.root_at(state.size)

    def is_dated_ahead(self, leaf: bytes) -> bool:
        """Whether its time lies further in the future than clocks may differ."""
        return split_leaf(leaf).sequenced_at > self.now + self.cluster.state.descriptor.clock_skew_s

    # -- what always holds --

    def check(self) -> None:
        """One history: everything that is kept anywhere is a beginning of what the sequencer keeps."""
        self._extend(self.actors[SEQUENCER].disk)
        for name, actor in self.actors.items():
            disk = actor.disk
            if name in POOL:
                state = disk["state"]
                self._final_moves(name, 0 if state is None else state.size, state and state.root)
            elif name in REPLICAS or (name == LIAR and type(actor) is ReplicaActor):
                self._final_moves(name, len(disk["leaves"]), None)

    def _extend(self, disk: dict[str, Any]) -> None:
        leaves = disk["leaves"]
        if len(leaves) < len(self._canonical):
            raise BrokenError("the sequencer lost entries")
        for index, leaf in enumerate(leaves[len(self._canonical) :], len(self._canonical)):
            self._canonical.append(leaf)
            self._tree.append(leaf_hash(leaf))
            self._roots.append(self._tree.root())
            self._count(index, split_leaf(leaf).record)
        self._final_moves(SEQUENCER, disk["final"], None)
        for record_id, index in self.acknowledged.items():
            if disk["places"].get(record_id) != index or index >= disk["final"]:
                raise BrokenError(f"acknowledged and lost: {record_id}")

    def _count(self, index: int, data: bytes) -> None:
        """Learn of a change of the witnesses, without the product's help."""
        if b"authority.descriptor.v1" not in data:
            return
        said = self.decoded(data)["witnesses"]
        names = frozenset(short(one["name"]) for one in said["keys"])
        if not self.quorums or self.quorums[-1].names != names:
            self.quorums.append(Quorum(index, names, said["threshold"]))

    def needed(self, before: int, size: int) -> list[Quorum]:
        """Whose quorums the head of `size` needs after a final head of `before`."""
        known = [one for one in self.quorums if one.index < before]
        return known[-1:] + [one for one in self.quorums if before <= one.index < size]

    def _final_moves(self, name: str, size: int, root: bytes | None) -> None:
        before = self._finals.get(name, 0)
        if size == before:
            return
        if size < before:
            raise BrokenError(f"{name} lost what was final: {before}, then {size}")
        self._finals[name] = size
        kept = self.actors[name].disk
        if name == SEQUENCER:
            self._check_final(name, before, size, kept["lines"][size])
        elif name not in POOL:
            if kept["leaves"] != self._canonical[:size]:
                raise BrokenError(f"{name} accepted other entries")
            root = parse_signed_checkpoint(kept["head"])[0].root
            for passed in sorted(at for at in kept["lines"] if before < at <= size):
                self._check_final(name, before, passed, kept["lines"][passed])
                before = passed
        elif root in self._dropped:
            self.fired["a witness cosigned what is dropped"] += 1
            return
        if size >= len(self._roots) or (root is not None and root != self._roots[size]):
            raise BrokenError(f"{name} has a head of {size} that conflicts with the one history")

    def _check_final(self, name: str, before: int, size: int, by: Iterable[str]) -> None:
        """The quorum of every set that counts, and no entry whose time a witness should have refused."""
        sets = self.needed(before, size)
        for one in sets:
            if len(one.names.intersection(by)) < one.threshold:
                raise BrokenError(f"{name} holds {size} to be final by {sorted(by)}, and needs {one}")
        self.fired["final over a change of witnesses"] += len(sets) > 1
        for leaf in self._canonical[before:size]:
            if leaf in self.lies or self.is_dated_ahead(leaf):
                raise BrokenError(f"{name} holds a lie to be final: {self.lies.get(leaf, 'dated ahead')}")
            self.fired["final with a bent date"] += leaf in self.bent


def _nothing() -> dict[str, Any]:
    """The disk of a replica that has just been made."""
    return {"leaves": [], "head": None, "notes": {}, "lines": {}}
