"""A simulated world: the product's own pure machines on a virtual clock and an in-memory network.

    world = World(seed=7, faults=Faults(loss=0.2, spike=0.1))
    world.cut(at=5.0, until=20.0, group=("a", "b"))
    world.deliver(at=6.0, name="a", data=encode(record))
    world.run(60.0)
    world.fired        # which faults really happened, and how often
    world.trace        # what happened, in order: the same seed gives the same list

Every node runs gossip, admission, the registry book and the promoter. Messages are lost, delayed, doubled and
cut off; nodes crash and come back without memory. All chance comes from the seed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fabric import discovery, gossip, limits
from fabric.services.gossip import Message
from projections.registry import RegistryBook, StatusChange
from statelog import admission
from statelog.errors import Refused
from statelog.state import AuthorityState
from statelog.times import parse_time

JUDGING_S = 0.002  # admission of one record on another thread
DETECT_S = 3.0  # until a session notices that its peer is gone, and until it is dialed again


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances a message: lost, delayed by a `spike_s`, delivered twice. Delays are seconds, each way."""

    loss: float = 0.0
    spike: float = 0.0
    double: float = 0.0
    delay_s: tuple[float, float] = (0.005, 0.08)
    spike_s: tuple[float, float] = (0.5, 3.0)


class SimNode:
    """One node's machines. What they want done, the world does."""

    def __init__(self, world: World, name: str, life: int) -> None:
        self.world = world
        self.name = name
        rng = random.Random(f"{world.seed}/{name}/{life}")
        self.gossip = gossip.Gossip(name, rng)
        self.promoter = discovery.Promoter(rng, world.now, spread_s=world.probe_spread_s)
        self.book = RegistryBook()
        self.peers: dict[str, None] = {}
        self.serves: dict[str, None] = {}
        self.refused: Counter[str] = Counter()

    # -- machines --

    def tell_gossip(self, event: gossip.Event) -> None:
        for effect in self.gossip.handle(self.world.now, event):
            if isinstance(effect, gossip.Send):
                self.world.send(self.name, effect.peer, effect.message)
            else:
                self.world.after(JUDGING_S, self.world.if_alive(self, self.judge), effect)

    def tell_promoter(self, event: discovery.Event) -> None:
        for effect in self.promoter.handle(self.world.now, event):
            if isinstance(effect, discovery.Probe):
                self.world.probe(self, effect)
            else:
                self.changed(self.book.verified(effect.record_id, self.world.now))

    def changed(self, changes: Iterable[StatusChange]) -> None:
        for change in changes:
            self.world.log(f"{self.name[:4]} {change.record_id[:8]} {change.before}->{change.after}")
            if change.after == "candidate":
                view = self.book.views[change.subject]
                record = next(r for r in view.candidates if r.record_id == change.record_id)
                self.tell_promoter(
                    discovery.Candidate(
                        record.record_id,
                        record.subject[0],
                        record.endpoints,
                        record.expires_at,
                        urgent=view.active is None,
                    )
                )

    # -- records --

    def judge(self, effect: gossip.Judge) -> None:
        verdict = self.admitted(effect.data)
        if isinstance(verdict, gossip.Refusal):
            self.refused[verdict.code] += 1
        self.tell_gossip(gossip.Judged(effect.record_id, verdict))

    def deliver(self, data: bytes) -> None:
        verdict = self.admitted(data)
        if isinstance(verdict, gossip.Item):
            self.tell_gossip(gossip.Local(verdict))
        else:
            self.refused[verdict.code] += 1

    def admitted(self, data: bytes) -> gossip.Item | gossip.Refusal:
        try:
            admitted = admission.admit(self.world.state, data, self.world.unix_now(), ahead_of_log=True)
        except Refused as error:
            self.world.log(f"{self.name[:4]} refuses {error.code}")
            return gossip.Refusal(error.code, copy_only=error.code in ("SL-SIG", "SL-QUORUM"))
        self.changed(self.book.accepted(admitted.record, admitted.record_id, None))
        record = admitted.record
        order = (record["epoch"], parse_time(record["issued_at"]), -int(admitted.record_id, 16))
        subject = (admitted.kind.name, *admitted.subject)
        # The virtual clock begins at 0, the records' at the cluster's time.
        expires_at = parse_time(record["expires_at"]) - self.world.epoch_s
        return gossip.Item(admitted.record_id, data, subject, order, expires_at, keep=2)


class World:
    """Nodes by id, a network, a clock. `state` is the authority state that all nodes judge by."""

    def __init__(
        self,
        seed: int,
        state: AuthorityState,
        names: Iterable[str],
        epoch_s: int,
        *,
        faults: Faults | None = None,
        probe_spread_s: float = 2.0,
    ) -> None:
        self.seed = seed
        self.state = state
        self.epoch_s = epoch_s
        self.faults = faults or Faults()
        self.probe_spread_s = probe_spread_s
        self.now = 0.0
        self.rng = random.Random(seed)
        self.trace: list[str] = []
        self.fired: Counter[str] = Counter()
        self._count = itertools.count()
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._cut: set[frozenset[str]] = set()
        self._lives: Counter[str] = Counter()
        self._down: dict[str, None] = {}
        self.nodes = {name: SimNode(self, name, 0) for name in names}

    def unix_now(self) -> int:
        return self.epoch_s + int(self.now)

    def log(self, line: str) -> None:
        self.trace.append(f"{self.now:.6f} {line}")

    # -- the script --

    def connect_all(self) -> None:
        """Sessions between all pairs."""
        for one, other in itertools.combinations(self.nodes, 2):
            self._session(one, other)

    def at(self, time_s: float, action: Callable[..., None], *arguments: object) -> None:
        heapq.heappush(self._queue, (time_s, next(self._count), action, arguments))

    def after(self, delay_s: float, action: Callable[..., None], *arguments: object) -> None:
        self.at(self.now + delay_s, action, *arguments)

    def deliver(self, *, at: float, name: str, data: bytes) -> None:
        """Hand a record to one node."""
        self.at(at, lambda: self.nodes[name].deliver(data))

    def cut(self, *, at: float, until: float, group: Iterable[str]) -> None:
        """A partition: nothing passes between `group` and the others."""
        inside = dict.fromkeys(group)
        pairs = [frozenset((one, other)) for one in inside for other in self.nodes if other not in inside]
        self.at(at, self._begin_cut, pairs)
        self.at(until, self._end_cut, pairs)

    def crash(self, *, at: float, until: float, name: str) -> None:
        """The node stops, and comes back with its identity and nothing else."""
        self.at(at, self._stop, name)
        self.at(until, self._restart, name)

    def run(self, until_s: float) -> None:
        """Everything that happens up to a time."""
        while True:
            due = self._queue[0][0] if self._queue else math.inf
            timer, node = min(
                ((t, n) for n in self.alive() for t in (_deadline(n),)),
                key=lambda pair: (pair[0], pair[1].name),
                default=(math.inf, None),
            )
            at = min(due, timer)
            if at > until_s:
                self.now = until_s
                return
            self.now = max(self.now, at)
            if due <= timer or node is None:
                _, _, action, arguments = heapq.heappop(self._queue)
                action(*arguments)
            else:
                node.tell_gossip(gossip.Timer())
                node.tell_promoter(discovery.Timer())

    def alive(self) -> list[SimNode]:
        return [node for name, node in self.nodes.items() if name not in self._down]

    def active(self, service: str) -> dict[str, str | None]:
        """Each node's active record of a cluster service."""
        found: dict[str, str | None] = {}
        for name, node in self.nodes.items():
            view = node.book.views.get((service, "cluster", ""))
            found[name] = None if view is None or view.active is None else view.active.record_id
        return found

    # -- the network --

    def send(self, source: str, target: str, message: Message) -> None:
        def arrive() -> None:
            node = self.nodes[target]
            if source in node.peers:
                self.log(f"{target[:4]} gets {type(message).__name__} of {source[:4]}")
                node.tell_gossip(gossip.Received(source, message))

        self._carry(source, target, arrive)

    def probe(self, node: SimNode, effect: discovery.Probe) -> None:
        """AUTH, OPEN, ACCEPTED as one question and one answer; what gets lost is a timeout."""
        target = effect.endpoint.node_ids[0]
        answered: list[bool] = []

        def done(reason: str | None) -> None:
            if answered or self.nodes[node.name] is not node:
                return
            answered.append(True)
            self.log(f"{node.name[:4]} probed {target[:4]}: {reason or 'ok'}")
            endpoint_id = effect.endpoint.endpoint_id
            if reason is None:
                node.tell_promoter(discovery.ProbeOk(effect.record_id, endpoint_id))
            else:
                self.fired["probe_failed"] += 1
                node.tell_promoter(discovery.ProbeFailed(effect.record_id, endpoint_id, reason))

        def asked() -> None:
            serves = effect.service in self.nodes[target].serves
            self._carry(target, node.name, lambda: done(None if serves else "unknown_service"))

        self.after(limits.PROBE_TIMEOUT_S, done, "timeout")
        if target == node.name:
            self.after(0.0, done, None if effect.service in node.serves else "unknown_service")
        else:
            self._carry(node.name, target, asked)

    def if_alive(self, node: SimNode, action: Callable[..., None]) -> Callable[..., None]:
        """`action`, unless the node has crashed meanwhile."""

        def guarded(*arguments: object) -> None:
            if self.nodes[node.name] is node and node.name not in self._down:
                action(*arguments)

        return guarded

    def _carry(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        faults, rng = self.faults, self.rng
        copies = 1
        if rng.random() < faults.loss:
            self.fired["loss"] += 1
            return
        if rng.random() < faults.double:
            self.fired["double"] += 1
            copies = 2
        for _ in range(copies):
            delay = rng.uniform(*faults.delay_s)
            if rng.random() < faults.spike:
                self.fired["spike"] += 1
                delay += rng.uniform(*faults.spike_s)
            self.after(delay, self._arrive, source, target, arrive)

    def _arrive(self, source: str, target: str, arrive: Callable[[], None]) -> None:
        if frozenset((source, target)) in self._cut:
            self.fired["cut"] += 1
        elif source in self._down or target in self._down:
            self.fired["nobody_home"] += 1
        else:
            arrive()

    # -- sessions --

    def _session(self, one: str, other: str) -> None:
        if frozenset((one, other)) in self._cut or one in self._down or other in self._down:
            return
        for name, peer in ((one, other), (other, one)):
            if peer not in self.nodes[name].peers:
                self.nodes[name].peers[peer] = None
                self.nodes[name].tell_gossip(gossip.PeerUp(peer))

    def _no_session(self, one: str, other: str) -> None:
        for name, peer in ((one, other), (other, one)):
            if name not in self._down and peer in self.nodes[name].peers:
                del self.nodes[name].peers[peer]
                self.nodes[name].tell_gossip(gossip.PeerDown(peer))

    def _begin_cut(self, pairs: list[frozenset[str]]) -> None:
        self.log("cut")
        self._cut.update(pairs)
        for pair in pairs:
            self.after(DETECT_S, self._lost, pair)

    def _lost(self, pair: frozenset[str]) -> None:
        if pair in self._cut:
            self._no_session(*sorted(pair))

    def _end_cut(self, pairs: list[frozenset[str]]) -> None:
        self.log("healed")
        self._cut.difference_update(pairs)
        for pair in pairs:
            self.after(self.rng.uniform(0.1, DETECT_S), self._session, *sorted(pair))

    def _stop(self, name: str) -> None:
        self.log(f"{name[:4]} crashes")
        if self.nodes[name].gossip.items():  # else there is nothing to lose, and nothing was injected
            self.fired["crash"] += 1
        self._down[name] = None
        for other in self.nodes:
            if other != name:
                self.after(DETECT_S, self._gone, name, other)

    def _gone(self, name: str, other: str) -> None:
        if name in self._down:
            self._no_session(name, other)

    def _restart(self, name: str) -> None:
        self.log(f"{name[:4]} comes back")
        self._lives[name] += 1
        serves = self.nodes[name].serves
        for other in self.nodes:
            if other != name:
                self._no_session(name, other)
        del self._down[name]
        self.nodes[name] = SimNode(self, name, self._lives[name])
        self.nodes[name].serves = serves
        for other in self.nodes:
            if other != name:
                self.after(self.rng.uniform(0.1, DETECT_S), self._session, *sorted((name, other)))


def _deadline(node: SimNode) -> float:
    return min(
        (t for t in (node.gossip.deadline(), node.promoter.deadline()) if t is not None), default=math.inf
    )
