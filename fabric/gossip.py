"""Epidemic spreading of signed records that act ahead of the log. Pure: time and chance are arguments.

Two movements, as in Demers et al. 1987 and memberlist: *rumours* (the ids of new records go to a few random
peers every round, for a number of rounds that grows with the logarithm of the population) and *repair* (on
connect and now and then, peers compare one digest per bucket of ids and exchange the differences). A rumour
that is lost is found by repair, so nothing here is acknowledged.

    HAVE ids            "I hold these"               -> WANT what is unknown
    WANT ids            "send me these"              -> RECORD for each
    RECORD id, bytes    only taken when asked for    -> Judge (admission, elsewhere) -> hold, spread
    DIGEST buckets      SHA-256 over each bucket's sorted ids; bucket = first byte of the id -> HAVE + DIGEST

A record's id is its `record_id`. The machine never reads a record: admission does, on another thread, and
answers with `Judged`. So bad bytes cost one bounded queue entry and one lookup before anything is verified.
What it holds converges: of one subject the best `keep` records by the order of docs/records/ (epoch,
issued_at, generation, lower id), whatever the order of arrival. What is final in the log leaves the set,
because the log's own replication carries it.
"""

# Long on purpose: one machine whose tables of items, offers and peers change together.
from __future__ import annotations

import hashlib
import math
import random
from collections import Counter, deque
from dataclasses import dataclass, field

from fabric import limits
from fabric.buckets import TokenBucket
from fabric.services.gossip import Digest, Have, Message, Record, Want

Order = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Item:
    """An admitted record as gossip sees it.

    `order`: greater wins within `subject`. `keep`: how many records of the subject are held (a registry
    service keeps two, so that a newcomer also learns the fallback). `urgent` ones (revocations) go first.
    """

    record_id: str
    data: bytes = field(repr=False)
    subject: tuple[str, ...]
    order: Order
    expires_at: int
    keep: int = 1
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why admission refused. `copy_only`: another copy of the same record may pass (bad signatures).
    `unjudged`: the node failed, which says nothing of the record.
    """

    code: str
    copy_only: bool = False
    unjudged: bool = False


# Events in.
@dataclass(frozen=True, slots=True)
class PeerUp:
    peer: str


@dataclass(frozen=True, slots=True)
class PeerDown:
    peer: str


@dataclass(frozen=True, slots=True)
class Repair:
    """Compare with this peer now: it may have what concerns this node."""

    peer: str


@dataclass(frozen=True, slots=True)
class Received:
    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Local:
    """A record that this node admitted itself: delivered here, or restored from disk."""

    item: Item


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer to `Judge`. `known`: valid, but already final in the log, so gossip has no need of it."""

    record_id: str
    verdict: Item | Refusal | None

    @property
    def known(self) -> bool:
        return self.verdict is None


@dataclass(frozen=True, slots=True)
class Logged:
    """A record became final: it and every worse record of its subject leave the set."""

    record_id: str
    subject: tuple[str, ...]
    order: Order


@dataclass(frozen=True, slots=True)
class Dropped:
    """The log refused the record: its word wins."""

    record_id: str


@dataclass(frozen=True, slots=True)
class HeadAdvanced:
    """The final head moved, so what was refused before may pass now."""


@dataclass(frozen=True, slots=True)
class Population:
    """How many nodes there are, as far as this node knows; sets the number of rounds."""

    nodes: int


@dataclass(frozen=True, slots=True)
class Timer:
    pass


OfPeer = PeerUp | PeerDown | Repair | Received
Event = OfPeer | Local | Judged | Logged | Dropped | HeadAdvanced | Population | Timer


# Effects out.
@dataclass(frozen=True, slots=True)
class Send:
    peer: str
    message: Message


@dataclass(frozen=True, slots=True)
class Judge:
    """Run admission on these bytes and answer with `Judged`; the id in the answer is the one claimed here.

    The shell refuses with code `GS-ID` when the bytes are of another record than `record_id`.
    """

    peer: str
    record_id: str
    data: bytes = field(repr=False)


Effect = Send | Judge


@dataclass(slots=True)
class _Peer:
    offers: TokenBucket
    serving: TokenBucket
    wanted: dict[str, float] = field(default_factory=dict)  # id asked for -> when the answer is overdue
    queue: deque[str] = field(default_factory=deque)  # ids to ask for when a place is free
    pending: int = 0  # ids offered by this peer that we still lack
    refused: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Bucket:
    ids: dict[str, None] = field(default_factory=dict)
    digest: bytes | None = None

    def sha256(self) -> bytes:
        if self.digest is None:
            self.digest = hashlib.sha256(b"".join(bytes.fromhex(i) for i in sorted(self.ids))).digest()
        return self.digest


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters for status; `refused` is peer -> code -> count."""

    items: int
    bytes: int
    spreading: int
    wanted: int
    counters: dict[str, int]
    refused: dict[str, dict[str, int]]


def _parts(ids: list[str]) -> list[tuple[str, ...]]:
    size = limits.GOSSIP_MAX_IDS
    return [tuple(ids[start : start + size]) for start in range(0, len(ids), size)]


class Gossip:
    """One node's gossip. `me` is this node's id: of two peers the lower one opens the comparison."""

    def __init__(self, me: str, rng: random.Random) -> None:
        self.me = me
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._population = 1
        # Insertion-ordered dicts throughout: a set's order changes from process to process.
        self._peers: dict[str, _Peer] = {}
        self._items: dict[str, Item] = {}
        self._bytes = 0
        self._subjects: dict[tuple[str, ...], list[Item]] = {}
        self._buckets: dict[int, _Bucket] = {}
        self._spreading: dict[str, int] = {}
        self._offered: dict[str, dict[str, None]] = {}  # id we lack -> peers that hold it
        self._asked: dict[str, str] = {}  # id -> peer it is asked of
        self._overdue: deque[tuple[float, str, str]] = deque()  # (when, peer, id); stale rows are skipped
        self._wants: dict[str, list[str]] = {}  # to be sent at the end of this turn
        self._judging: dict[str, tuple[str, bytes]] = {}  # id -> (peer, hash of the copy)
        self._bad_copies: dict[bytes, str] = {}
        self._settled: dict[str, int | None] = {}  # logged or refused by the log: never wanted again
        self._refused: dict[str, str] = {}  # refused as of this head
        self._next_round: float | None = None
        self._next_repair: float | None = None

    # -- surface ---------------------------------------------------------------------------------------------

    def handle(self, now: float, event: Event) -> list[Effect]:
        """Take one event at `now` (seconds); returns messages to send and records to judge."""
        effects: list[Effect] = []
        match event:
            case PeerUp() | PeerDown() | Repair() | Received():
                self._of_peer(now, event, effects)
            case Local(item):
                self._hold(now, item, spread=True)
            case Judged(record_id, verdict):
                self._judged(now, record_id, verdict)
            case Logged(record_id, subject, order):
                self._logged(record_id, subject, order)
            case Dropped(record_id):
                self._remove(record_id)
                self._settle(record_id)
            case HeadAdvanced():
                self._refused.clear()
                self._bad_copies.clear()
            case Population(nodes):
                self._population = max(1, nodes)
            case Timer():
                pass
        self._run_timers(now, effects)
        for name, ids in self._wants.items():
            effects.extend(Send(name, Want(part)) for part in _parts(ids))
        self._wants.clear()
        return effects

    def deadline(self) -> float | None:
        """When `Timer` is due, or None."""
        times = [t for t in (self._next_round, self._next_repair) if t is not None]
        if self._overdue:
            times.append(self._overdue[0][0])
        return min(times, default=None)

    def holds(self, record_id: str) -> bool:
        return record_id in self._items

    def items(self) -> list[Item]:
        return list(self._items.values())

    def snapshot(self) -> Snapshot:
        return Snapshot(
            items=len(self._items),
            bytes=self._bytes,
            spreading=len(self._spreading),
            wanted=len(self._offered),
            counters=dict(self.counters),
            refused={name: dict(peer.refused) for name, peer in self._peers.items() if peer.refused},
        )

    def digest(self, *, reply: bool = False) -> Digest:
        """The digests of all buckets that hold something."""
        return Digest({b: bucket.sha256() for b, bucket in sorted(self._buckets.items())}, reply)

    # -- peers -----------------------------------------------------------------------------------------------

    def _of_peer(self, now: float, event: OfPeer, effects: list[Effect]) -> None:
        match event:
            case PeerUp(peer):
                self._peer_up(now, peer, effects)
            case PeerDown(peer):
                self._peer_down(now, peer)
            case Repair(peer):
                if peer in self._peers:
                    effects.append(Send(peer, self.digest()))
            case Received(peer, message):
                if peer in self._peers:
                    self._received(now, peer, message, effects)

    def _peer_up(self, now: float, peer: str, effects: list[Effect]) -> None:
        self._peers[peer] = _Peer(
            offers=TokenBucket(limits.GOSSIP_OFFERS_PER_S, limits.GOSSIP_OFFERS_BURST, now),
            serving=TokenBucket(limits.GOSSIP_RECORDS_PER_S, limits.GOSSIP_RECORDS_BURST, now),
        )
        if self.me < peer:
            effects.append(Send(peer, self.digest()))
        if self._next_repair is None:
            self._next_repair = now + self._repair_delay()
        if self._spreading and self._next_round is None:
            self._next_round = now

    def _peer_down(self, now: float, peer: str) -> None:
        gone = self._peers.pop(peer, None)
        if gone is None:
            return
        self._wants.pop(peer, None)
        for record_id in [i for i, peers in self._offered.items() if peer in peers]:
            self._unoffer(record_id, peer)
        for record_id in gone.wanted:
            del self._asked[record_id]
            self._ask(now, record_id)

    # -- messages --------------------------------------------------------------------------------------------

    def _received(self, now: float, name: str, message: Message, effects: list[Effect]) -> None:
        peer = self._peers[name]
        match message:
            case Have(ids):
                if not peer.offers.take(now, len(ids)):
                    self._count(peer, "GS-RATE")
                    return
                for record_id in ids[: limits.GOSSIP_MAX_IDS]:
                    self._offer(now, name, record_id)
            case Want(ids):
                self._serve(now, name, ids, effects)
            case Record(record_id, data):
                self._record(now, name, record_id, data, effects)
            case Digest(buckets, reply):
                if not peer.offers.take(now, limits.GOSSIP_DIGEST_COST):
                    self._count(peer, "GS-RATE")
                    return
                self._compare(name, buckets, reply, effects)

    def _offer(self, now: float, name: str, record_id: str) -> None:
        if self._is_known(record_id):
            return
        peer = self._peers[name]
        peers = self._offered.get(record_id)
        if peers is None:
            if (
                len(self._offered) >= limits.GOSSIP_MAX_OFFERED
                or peer.pending >= limits.GOSSIP_MAX_OFFERED_PEER
            ):
                self._count(peer, "GS-FULL")
                return
            peers = self._offered[record_id] = {}
        if name not in peers:
            peers[name] = None
            peer.pending += 1
        self._ask(now, record_id)

    def _serve(self, now: float, name: str, ids: tuple[str, ...], effects: list[Effect]) -> None:
        peer = self._peers[name]
        held = [self._items[i] for i in ids[: limits.GOSSIP_MAX_IDS] if i in self._items]
        held.sort(key=lambda item: not item.urgent)
        for item in held:
            if not peer.serving.take(now, 1):
                self._count(peer, "GS-RATE")
                return
            self.counters["records_sent"] += 1
            effects.append(Send(name, Record(item.record_id, item.data)))

    def _record(self, now: float, name: str, record_id: str, data: bytes, effects: list[Effect]) -> None:
        peer = self._peers[name]
        if peer.wanted.pop(record_id, None) is None:
            self._count(peer, "GS-UNASKED")
            return
        del self._asked[record_id]
        self.counters["records_received"] += 1
        self._pump(now, name)
        if self._is_known(record_id) or record_id in self._judging:
            return
        copy = hashlib.sha256(data).digest()
        bad = self._bad_copies.get(copy)
        if bad is not None:
            self._count(peer, bad)
            self._unoffer(record_id, name)
            self._ask(now, record_id)
            return
        self._judging[record_id] = (name, copy)
        effects.append(Judge(name, record_id, data))

    def _compare(self, name: str, theirs: dict[int, bytes], reply: bool, effects: list[Effect]) -> None:
        self.counters["digests"] += 1
        ours = self.digest(reply=True)
        differing = [b for b in range(256) if theirs.get(b) != ours.buckets.get(b)]
        if not differing:
            return
        mine = [i for b in differing if b in self._buckets for i in sorted(self._buckets[b].ids)]
        mine.sort(key=lambda i: not self._items[i].urgent)
        effects.extend(Send(name, Have(part)) for part in _parts(mine))
        if not reply:
            effects.append(Send(name, ours))

    def _judged(self, now: float, record_id: str, verdict: Item | Refusal | None) -> None:
        name, copy = self._judging.pop(record_id, ("", b""))
        if verdict is None:
            self._settle(record_id)
            return
        if isinstance(verdict, Item):
            self._hold(now, verdict, spread=True)
            return
        self.counters["records_refused"] += 1
        if name in self._peers:
            self._count(self._peers[name], verdict.code)
        if verdict.unjudged:
            self._forget_offer(record_id)
        elif verdict.copy_only:
            self._remember(self._bad_copies, copy, verdict.code, limits.GOSSIP_MAX_BAD_COPIES)
            self._unoffer(record_id, name)
            self._ask(now, record_id)
        else:
            self._remember(self._refused, record_id, verdict.code, limits.GOSSIP_MAX_SETTLED)
            self._forget_offer(record_id)

    # -- the set ---------------------------------------------------------------------------------------------

    def _hold(self, now: float, item: Item, *, spread: bool) -> None:
        self._forget_offer(item.record_id)
        if item.record_id in self._items or item.expires_at <= now:
            return
        rivals = self._subjects.setdefault(item.subject, [])
        rivals.append(item)
        rivals.sort(key=lambda i: i.order, reverse=True)
        for worse in rivals[item.keep :]:
            if worse is not item:
                self._remove(worse.record_id)
            self._remember(self._refused, worse.record_id, "GS-WORSE", limits.GOSSIP_MAX_SETTLED)
        del rivals[item.keep :]
        if item not in rivals:
            return
        self._items[item.record_id] = item
        self._bytes += len(item.data)
        bucket = self._buckets.setdefault(int(item.record_id[:2], 16), _Bucket())
        bucket.ids[item.record_id] = None
        bucket.digest = None
        self._make_room()
        if spread and item.record_id in self._items:
            self._spreading[item.record_id] = self._rounds()
            if self._next_round is None and self._peers:
                self._next_round = now

    def _remove(self, record_id: str) -> None:
        self._forget_offer(record_id)
        self._spreading.pop(record_id, None)
        item = self._items.pop(record_id, None)
        if item is None:
            return
        self._bytes -= len(item.data)
        rivals = self._subjects.get(item.subject, [])
        if item in rivals:
            rivals.remove(item)
        if not rivals:
            self._subjects.pop(item.subject, None)
        number = int(record_id[:2], 16)
        bucket = self._buckets[number]
        del bucket.ids[record_id]
        bucket.digest = None
        if not bucket.ids:
            del self._buckets[number]

    def _logged(self, record_id: str, subject: tuple[str, ...], order: Order) -> None:
        self._settle(record_id)
        worse = [i.record_id for i in self._subjects.get(subject, ()) if i.order <= order]
        for other in [record_id, *worse]:
            self._remove(other)

    def _make_room(self) -> None:
        """Over the bound, what ends first goes first; revocations and fences last."""
        while len(self._items) > limits.GOSSIP_MAX_ITEMS or self._bytes > limits.GOSSIP_MAX_BYTES:
            victim = min(self._items.values(), key=lambda i: (i.urgent, i.expires_at, i.record_id))
            self.counters["evicted"] += 1
            self._remove(victim.record_id)

    # -- asking ----------------------------------------------------------------------------------------------

    def _is_known(self, record_id: str) -> bool:
        return record_id in self._items or record_id in self._settled or record_id in self._refused

    def _ask(self, now: float, record_id: str) -> None:
        """Want the record from one peer that holds it; the others wait their turn."""
        if record_id in self._judging or record_id in self._asked or record_id not in self._offered:
            return
        names = list(self._offered[record_id])
        for name in names:
            peer = self._peers[name]
            if len(peer.wanted) < limits.GOSSIP_MAX_WANTED_PEER:
                overdue = now + limits.GOSSIP_WANT_TIMEOUT_S
                peer.wanted[record_id] = overdue
                self._asked[record_id] = name
                self._overdue.append((overdue, name, record_id))
                self._wants.setdefault(name, []).append(record_id)
                return
        self._peers[names[0]].queue.append(record_id)

    def _pump(self, now: float, name: str) -> None:
        """A place is free at this peer: ask for what waited for it."""
        peer = self._peers[name]
        while peer.queue and len(peer.wanted) < limits.GOSSIP_MAX_WANTED_PEER:
            self._ask(now, peer.queue.popleft())

    def _unoffer(self, record_id: str, name: str) -> None:
        peers = self._offered.get(record_id)
        if peers is None or name not in peers:
            return
        del peers[name]
        if name in self._peers:
            self._peers[name].pending -= 1
        if not peers:
            del self._offered[record_id]

    def _forget_offer(self, record_id: str) -> None:
        for name in list(self._offered.get(record_id, {})):
            self._unoffer(record_id, name)

    def _settle(self, record_id: str) -> None:
        self._forget_offer(record_id)
        self._remember(self._settled, record_id, None, limits.GOSSIP_MAX_SETTLED)

    @staticmethod
    def _remember(table: dict, key: object, value: object, bound: int) -> None:  # type: ignore[type-arg]  # any table
        table.pop(key, None)
        table[key] = value
        while len(table) > bound:
            del table[next(iter(table))]

    def _count(self, peer: _Peer, code: str) -> None:
        self.counters["refused"] += 1
        peer.refused[code] += 1

    # -- time ------------------------------------------------------------------------------------------------

    def _rounds(self) -> int:
        nodes = max(self._population, len(self._peers) + 1)
        return max(1, math.ceil(limits.GOSSIP_ROUNDS_FACTOR * math.log10(nodes + 1)))

    def _repair_delay(self) -> float:
        # Spread by a tenth, so that a farm started at once does not compare at once for ever.
        return limits.GOSSIP_REPAIR_S * self._rng.uniform(0.9, 1.1)

    def _run_timers(self, now: float, effects: list[Effect]) -> None:
        if self._next_round is not None and now >= self._next_round:
            self._round(now, effects)
        while self._overdue and now >= self._overdue[0][0]:
            at, name, record_id = self._overdue.popleft()
            if name not in self._peers or self._peers[name].wanted.get(record_id) != at:
                continue  # answered, or the peer has gone
            del self._peers[name].wanted[record_id]
            del self._asked[record_id]
            self.counters["want_timeouts"] += 1
            self._unoffer(record_id, name)
            self._ask(now, record_id)
            self._pump(now, name)
        if self._next_repair is not None and now >= self._next_repair:
            self._repair(now, effects)

    def _round(self, now: float, effects: list[Effect]) -> None:
        names = list(self._peers)
        if not names or not self._spreading:
            self._next_round = None
            return
        ids = sorted(self._spreading, key=lambda i: not self._items[i].urgent)
        for name in self._rng.sample(names, min(limits.GOSSIP_FANOUT, len(names))):
            effects.extend(Send(name, Have(part)) for part in _parts(ids))
        self.counters["rounds"] += 1
        for record_id in ids:
            self._spreading[record_id] -= 1
            if self._spreading[record_id] <= 0:
                del self._spreading[record_id]
        self._next_round = now + limits.GOSSIP_ROUND_S if self._spreading else None

    def _repair(self, now: float, effects: list[Effect]) -> None:
        for record_id in [i for i, item in self._items.items() if item.expires_at <= now]:
            self._remove(record_id)
        self._next_repair = now + self._repair_delay()
        if self._peers:
            effects.append(Send(self._rng.choice(list(self._peers)), self.digest()))
