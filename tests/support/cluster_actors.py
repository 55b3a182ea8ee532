"""The honest actors of the simulated cluster (`tests.support.cluster_world`): sequencer, witnesses, replicas.

What they decide with is the product's; a disk is a dictionary, a write is all or nothing, and a process that
crashes begins again from its disk.
"""

# Long on purpose: the shells of the machines that play against one another are read together.
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fabric.services.messages import MessageError
from fabric.sync import Entries, Head, Intake, batches
from statelog.alarms import is_stale
from statelog.canonical import encode
from statelog.checkpoint import parse_signed_checkpoint, sign_checkpoint
from statelog.errors import Refused
from statelog.finality import final_cosignatures, finality, freshness, is_final, milestones, needed_sets
from statelog.io.cosign import CosignRound
from statelog.merkle import CompactRange, consistency_proof, leaf_hash
from statelog.note import Note, parse_signature_lines
from statelog.replay import Replay
from statelog.signing import record_id_of
from statelog.splitview import SplitView, check_split_view
from statelog.state import AuthorityState
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
from tests.support.authority import signer
from tests.support.logs import with_lines

if TYPE_CHECKING:
    from tests.support.cluster_world import ClusterWorld

RETRY_S, PULL_S, COMPARE_S, FETCH_TIMEOUT_S, BARRED_S = 5.0, 20.0, 60.0, 8.0, 90.0
LEASE_S, FENCE_S = 6 * 3_600, 600  # a lease outlives any sequencer that holds it back, a fence may not
SEQUENCER, LIAR = "sequencer", "liar"
POOL = tuple(f"witness-{n}" for n in range(1, 9))
WITNESSES = POOL[:4]  # of the first set
REPLICAS = ("replica-1", "replica-2", "replica-3")


class BrokenError(AssertionError):
    """Something that must always hold does not."""


class Crashed(Exception):  # noqa: N818 - not an error of ours: the process died at a write
    pass


class DiskFull(Exception):  # noqa: N818 - likewise: the write did not happen, and the process goes on
    pass


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
        self.known: dict[str, int] = {}
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
            self.append(candidate, leaf, record_id)
        elif disk["places"][record_id] < disk["final"]:
            self.send(source, "final", record_id, disk["places"][record_id])

    def append(self, after: Replay, leaf: bytes, record_id: str, **more: Any) -> None:
        """The entry, with whatever `more`, in one write; `after` stands right behind it."""
        disk = self.disk
        note = sign_checkpoint(after.checkpoint(), signer(disk["key"]))
        self.write(
            leaves=[*disk["leaves"], leaf],
            places={**disk["places"], record_id: after.size - 1},
            notes={**disk["notes"], after.size: note},
            **more,
        )
        self.replay = after
        self._grow(self.tree, leaf)
        self._begin()

    def _begin(self) -> None:
        """A round for the newest head; the timers of older ones find that they are old."""
        size = self.replay.size
        sets = needed_sets(self.replay.state, self.disk["final"], size)
        self.round = CosignRound(self.disk["notes"][size], sets)
        for line in self.disk["lines"].get(size, {}).values():
            self.round.note = with_lines(self.round.note, parse_signature_lines(line))
        self.asking = {short(one.name) for one in self.round.witnesses()}
        self.later(0.0, self._ask, size)

    def _ask(self, size: int) -> None:
        if size != self.replay.size:
            return
        for name in sorted(self.asking):
            self._request(name)
        if self.asking:
            self.later(RETRY_S, self._ask, size)

    def _request(self, name: str) -> None:
        self._send_request(name, self.replay.size, self.round)

    def _send_request(self, name: str, size: int, one: CosignRound) -> None:
        known = min(self.known.get(name, 0), size)
        self.send(name, "cosign", size, one.request(known, lambda level, at: self.nodes[level, at]))

    def on_cosigned(self, source: str, size: int, status: int, body: bytes) -> None:
        newest = self.replay.size
        if source not in self.asking or size > newest:
            return
        if status == 200 and size == newest:
            self._cosigned(source, body)
        elif status == 200:  # it was led there, or the answer is late
            self.known[source] = max(size, self.known.get(source, 0))
            self._request(source)
        elif status == 409 and parse_size(body) != self.known.get(source, 0):
            self.known[source] = parse_size(body)
            if self.known[source] <= newest:
                self._request(source)
        elif status == 422 and size == newest:
            self._lead(source)

    def _lead(self, name: str) -> None:
        """As `statelog.io.cosign` does: over the heads that show it which witnesses it may believe."""
        history = self.replay.state.witness_history
        named = min((index for index, one in history if f"{name}.example" in one.by_name), default=0)
        for size, note in milestones(self.replay.state, self._heads, self.disk["final"]):
            if max(named, self.known.get(name, 0)) < size < self.replay.size:
                self.world.fired["led over a change of witnesses"] += 1
                self._send_request(name, size, CosignRound(note.format(), ()))
                return

    def _heads(self, start: int) -> list[tuple[int, Note]]:
        sizes = [size for size in sorted(self.disk["lines"]) if size >= start]
        return [(size, parse_signed_checkpoint(head_of(self.disk, size))[1]) for size in sizes]

    def _cosigned(self, source: str, body: bytes) -> None:
        size = self.replay.size
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
        return head_of(self.disk, size) if size else None

    def on_fetch(self, source: str, request_id: int, start: int, end: int) -> None:
        self.send(source, "fetched", request_id, start, self.disk["leaves"][start:end])

    def on_pull(self, source: str, stream: int, start: int) -> None:
        found = answer(self.disk, self.replay.state, self.disk["final"], start)
        self.send(source, "pulled", stream, found)

    def on_compare(self, source: str, note: bytes) -> None:
        del note
        head = self.head()
        if head is not None:
            self.send(source, "compared", head)


def short(name: str) -> str:
    """The actor behind a witness's key name."""
    return name.removesuffix(".example")


def head_of(disk: dict[str, Any], size: int) -> bytes:
    """The head of `size` that is kept, with all cosignatures that are."""
    note: bytes = disk["notes"][size]
    return note + b"".join(line for _, line in sorted(disk["lines"].get(size, {}).items()))


def answer(disk: dict[str, Any], state: AuthorityState, final: int, start: int) -> list[Entries | Head]:
    """What an honest source that is final up to `final` sends to a follower at `start`.

    As `HeldLog.batch_from`: each time the largest head that is final for whoever stands there, so that every
    change of the witnesses is passed by a head that covers it.
    """
    if not final or start > final:
        return []
    found: list[Entries | Head] = []
    while start < final:
        sizes = [size for size in disk["notes"] if start < size <= final]
        within = (size for size in sorted(sizes, reverse=True) if _is_final_after(disk, state, start, size))
        size = next(within, None)
        if size is None:
            return found
        found += [*batches(start, disk["leaves"][start:size]), Head(head_of(disk, size))]
        start = size
    return found or [Head(head_of(disk, final))]


def _is_final_after(disk: dict[str, Any], state: AuthorityState, start: int, size: int) -> bool:
    sets = needed_sets(state, start, size)
    least = max(one.threshold for one in sets)  # cheap, before any signature is verified
    if len(disk["lines"].get(size, {})) < least:
        return False
    return is_final(finality(parse_signed_checkpoint(head_of(disk, size))[1], sets))


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
        self.requests = self.life * 1_000_000  # what an earlier life asked for is not for this one
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
        if not self.final.size:
            return
        found = answer(self.disk, self.final.state, self.final.size, start)
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
            fresh = {short(one.witness.name): one.line.encode() for one in batch.cosigned}
            kept = {
                "notes": {**self.disk["notes"], batch.size: batch.note},
                "lines": {**self.disk["lines"], batch.size: {**self._lines(batch.size), **fresh}},
            }
            self.write(
                leaves=[*self.disk["leaves"], *(entry.data for entry in batch.entries)],
                head=head_of(kept, batch.size),
                **kept,
            )
            self.final = batch.after
            intake.accept(batch)

    def _lines(self, size: int) -> dict[str, bytes]:
        found: dict[str, bytes] = self.disk["lines"].get(size, {})
        return found

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


class Submitter(Actor):
    """Submits one record after the other and asks again until each is final."""

    number = 0
    waiting, data = "", b""

    def submit(self, record: dict[str, Any]) -> None:
        """Insist on this record from now on."""
        self.number += 1
        self.waiting, self.data = record_id_of(record), encode(record)
        self.world.records[self.data] = record
        self._insist(self.number)

    def _insist(self, number: int) -> None:
        if number == self.number and self.waiting:
            self.send(SEQUENCER, "submit", self.data)
            self.later(RETRY_S * 2, self._insist, number)

    def on_final(self, source: str, record_id: str, index: int) -> None:
        del source
        if record_id == self.waiting:
            self.world.acknowledged[record_id] = index
            self.waiting = ""
            self.go_on()

    def on_refused(self, source: str, record_id: str, code: str) -> None:
        if record_id == self.waiting:
            raise BrokenError(f"{source} refused a good record {record_id}: {code}")

    @abstractmethod
    def go_on(self) -> None:
        """The record is done with."""


class Client(Submitter):
    """Leases, and now and then a fence that must be in the log soon."""

    def start(self) -> None:
        self.later(1.0, self._next)

    def _next(self) -> None:
        world, number = self.world, self.number
        if world.healed:
            return
        issued_at = int(world.now) - 1
        if number % 5 == 4:
            target = {"route_id": f"gone-{number}"}
            self.submit(world.cluster.fence(target, epoch=1, issued_at=issued_at, lifetime_s=FENCE_S))
        else:
            route, epoch = f"route-{number % 5}", number // 5 + 1
            self.submit(world.cluster.lease(route, epoch=epoch, issued_at=issued_at, lifetime_s=LEASE_S))

    def on_refused(self, source: str, record_id: str, code: str) -> None:
        if record_id == self.waiting and code == "SL-EXPIRED":  # it was held back, or dropped
            self.world.fired["expired while it waited"] += 1
            self.waiting = ""
            self.go_on()
            return
        super().on_refused(source, record_id, code)

    def go_on(self) -> None:
        often = self.world.chance.random() < 0.6  # bursts, so that a follower lacks several entries
        self.later(1.0 if often else self.world.chance.expovariate(1 / 480.0), self._next)
