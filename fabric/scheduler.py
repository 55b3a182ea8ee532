"""Which queued frame goes next.

    control, dns, interactive    in this order, while their stream and their neighbour have tokens
    excess, reliable, bulk, droppable    by weight, byte for byte; excess is express traffic out of tokens

Within a class tenants take turns, and within a tenant its streams. A frame goes when its lane has room, its
stream and the session have credit. While dns or interactive flows, bulk and droppable keep their lanes nearly
empty, so that what follows finds the path short; towards a pressed neighbour they leave part of their windows
unused. Frames of one stream never pass each other.
Source: docs/wire.md, "Scheduling".
"""

# Long on purpose: rings, shares and rooms decide together which frame goes, and are read together.
from __future__ import annotations

from collections import deque
from collections.abc import Callable, KeysView
from typing import Final, TypeVar

from fabric import limits
from fabric.buckets import TokenBucket
from fabric.classes import EXPRESS, TrafficClass
from fabric.credit import SendCredit
from fabric.lanes import LaneKey
from fabric.pressure import withheld

_EXPRESS_ORDER: Final = (TrafficClass.CONTROL, TrafficClass.DNS, TrafficClass.INTERACTIVE)
_SHRINKING: Final = frozenset({TrafficClass.BULK, TrafficClass.DROPPABLE})
_URGENT: Final = frozenset({TrafficClass.DNS, TrafficClass.INTERACTIVE})
_PEAK_SHARE: Final = 4

T = TypeVar("T")


class Item:
    """A queued frame: `head`, then `payload`. `carried`: bytes of credit it costs, 0 if it is not DATA.

    `last`: the stream's queue is closed after it.
    """

    __slots__ = ("carried", "head", "last", "payload", "size")

    def __init__(
        self, head: bytes, payload: bytes | memoryview = b"", *, data: bool = False, last: bool = False
    ) -> None:
        self.head = head
        self.payload = payload
        self.size = len(head) + len(payload)
        self.carried = self.size if data else 0
        self.last = last


class StreamQueue(SendCredit):
    """The frames of one stream that wait, first in first out, and the stream's credit."""

    __slots__ = (
        "bucket",
        "items",
        "lane",
        "queued",
        "relayed",
        "ring",
        "stream_id",
        "stuck",
        "tenant",
        "turn",
    )

    def __init__(self, stream_id: int, lane: LaneKey, credit: int, now: float) -> None:
        super().__init__(credit)
        self.stream_id = stream_id
        self.lane = lane
        self.tenant = ""
        self.items: deque[Item] | None = None  # while there are any
        self.queued = 0
        self.relayed = False  # bounded by what its sender may send, and by the relay
        self.stuck = 0  # `queued` if relayed, and while the next frame waits for the stream's own credit
        self.turn = limits.SCHEDULER_QUANTUM_BYTES
        self.ring: Ring | None = None
        rates = limits.SCHEDULER_STREAM_RATES.get(lane.traffic_class)
        self.bucket = TokenBucket(*rates, now) if rates else None

    def __len__(self) -> int:
        return len(self.items or ())

    @property
    def memory(self) -> int:
        """Bytes of memory that the frames take, what each costs beside its own bytes included."""
        return self.queued + len(self) * limits.QUEUED_FRAME_BYTES

    @property
    def first(self) -> Item:
        """The frame that `popleft` gives; there must be one."""
        if self.items is None:
            raise IndexError("the queue is empty")
        return self.items[0]

    def append(self, item: Item) -> None:
        """Put a frame at the end."""
        if self.items is None:
            self.items = deque()
        self.items.append(item)
        self.queued += item.size

    def popleft(self) -> Item:
        """Take the first frame; there must be one."""
        if self.items is None:
            raise IndexError("the queue is empty")
        item = self.items.popleft()
        self.queued -= item.size
        if not self.items:
            self.items = None
        return item

    def clear(self) -> None:
        """Forget all frames."""
        self.items, self.queued = None, 0


class _Tenant:
    __slots__ = ("name", "queues", "turn")

    def __init__(self, name: str) -> None:
        self.name = name
        self.queues: deque[StreamQueue] = deque()
        self.turn = limits.SCHEDULER_QUANTUM_BYTES


class Ring:
    """The queues of one class that have something to send and credit for it, by tenant, in turns."""

    def __init__(self) -> None:
        self.tenants: deque[_Tenant] = deque()
        """Those whose turn will come; empty while nothing waits."""
        self._by_name: dict[str, _Tenant] = {}
        self._lanes: dict[LaneKey, int] = {}
        self.turn = limits.SCHEDULER_QUANTUM_BYTES
        """Bytes until another class of the same share is next."""

    @property
    def lanes(self) -> KeysView[LaneKey]:
        """Those on which something waits."""
        return self._lanes.keys()

    def add(self, queue: StreamQueue) -> None:
        """Put a queue at the end of its tenant's turns; nothing if it is in already."""
        if queue.ring is not None:
            return
        tenant = self._by_name.get(queue.tenant)
        if tenant is None:
            tenant = self._by_name[queue.tenant] = _Tenant(queue.tenant)
            self.tenants.append(tenant)
        tenant.queues.append(queue)
        queue.ring = self
        self._lanes[queue.lane] = self._lanes.get(queue.lane, 0) + 1

    def remove(self, queue: StreamQueue) -> None:
        """Take a queue out; nothing if it is not in."""
        if queue.ring is not self:
            return
        tenant = self._by_name[queue.tenant]
        tenant.queues.remove(queue)
        queue.ring = None
        self._lanes[queue.lane] -= 1
        if not self._lanes[queue.lane]:
            del self._lanes[queue.lane]
        if not tenant.queues:
            self.tenants.remove(tenant)
            del self._by_name[queue.tenant]

    def find(self, eligible: Callable[[StreamQueue], bool], closed: set[LaneKey]) -> StreamQueue | None:
        """The first queue in turn that is eligible; it stands first afterwards, and those that were passed
        over keep their places behind it: a frame that waits for room is asked about before the next turns.

        Queues on lanes that are `closed`, also while this looks, are not asked: with one lane for a hundred
        streams the first that finds it full is the last that looks.
        """
        lanes = self.lanes
        for tenant in self.tenants:
            for queue in tenant.queues:
                if lanes <= closed:
                    return None
                if queue.lane not in closed and eligible(queue):
                    _to_front(tenant.queues, queue)
                    _to_front(self.tenants, tenant)
                    return queue
        return None

    def served(self, queue: StreamQueue, size: int) -> None:
        """The first queue sent `size` bytes: pass the turn on when its quantum, or its tenant's, is used."""
        tenant = self.tenants[0]
        queue.turn -= size
        tenant.turn -= size
        if queue.turn <= 0:
            queue.turn += limits.SCHEDULER_QUANTUM_BYTES
            tenant.queues.rotate(-1)
        if tenant.turn <= 0:
            tenant.turn += limits.SCHEDULER_QUANTUM_BYTES
            self.tenants.rotate(-1)


Pulled = tuple[StreamQueue, Item]


class Scheduler:
    """The queues of one session."""

    def __init__(self, now: float) -> None:
        self._rings = {traffic_class: Ring() for traffic_class in TrafficClass}
        self._waiting = [ring.tenants for ring in self._rings.values()]  # looked at often
        self._shares = {
            "excess": deque(self._rings[traffic_class] for traffic_class in _EXPRESS_ORDER),
            "reliable": deque((self._rings[TrafficClass.RELIABLE],)),
            "bulk": deque((self._rings[TrafficClass.BULK],)),
            "droppable": deque((self._rings[TrafficClass.DROPPABLE],)),
        }
        self._order = deque(self._shares)
        self._deficits = dict.fromkeys(self._shares, 0)
        self._turn_begun = False
        self._node_buckets = {
            TrafficClass(number): TokenBucket(*rates, now)
            for number, rates in limits.SCHEDULER_NODE_RATES.items()
        }
        self._urgent_at = float("-inf")
        self._peaks: dict[LaneKey, int] = {}
        self._peak_total = 0
        self.session_credit = SendCredit()
        self.reserve = 0
        """The end of the session's credit that only express classes may use."""
        self.queued_by_class = dict.fromkeys(TrafficClass, 0)
        self.sent_by_class = dict.fromkeys(TrafficClass, 0)
        """Bytes of frames that left, and frames that were dropped unsent, since the session began."""
        self.dropped_by_class = dict.fromkeys(TrafficClass, 0)
        self.shrunk_at = float("-inf")
        """When bulk last gave way to urgent traffic."""
        self.stuck = 0
        """Bytes that hold up no writer of other streams: of those which a relay passes on, and of those whose
        next frame waits for the stream's own credit.
        """
        self._peer_percent = 0
        self._peer_until = float("-inf")
        # What one call of `pull` works with.
        self._now = now
        self._ask: Callable[[LaneKey], int] = _no_room
        self._rooms: dict[LaneKey, int] = {}
        self._closed: set[LaneKey] = set()
        self._total = 0
        self._total_full = False
        self._taken: list[Pulled] = []

    # -- queues --

    @property
    def queued(self) -> int:
        """Bytes queued in all classes."""
        return sum(self.queued_by_class.values())

    def push(self, queue: StreamQueue, item: Item) -> None:
        """Append a frame to its stream's queue."""
        queue.append(item)
        self.queued_by_class[queue.lane.traffic_class] += item.size
        self._enlist(queue)

    def drop(self, queue: StreamQueue) -> None:
        """Forget everything a stream has queued."""
        if queue.ring is not None:
            queue.ring.remove(queue)
        self.queued_by_class[queue.lane.traffic_class] -= queue.queued
        queue.clear()
        self._enlist(queue)

    def drop_oldest(self, queue: StreamQueue) -> None:
        """Forget the frame of a stream that has waited longest."""
        item = queue.popleft()
        self.queued_by_class[queue.lane.traffic_class] -= item.size
        self.dropped_by_class[queue.lane.traffic_class] += 1
        self._enlist(queue)

    def move(self, queue: StreamQueue, tenant: str) -> None:
        """The stream takes its turns among those of another tenant from now on."""
        if queue.ring is not None:
            queue.ring.remove(queue)
        queue.tenant = tenant
        self._enlist(queue)

    def allow(self, queue: StreamQueue, allowed: int) -> None:
        """The peer's STREAM_CREDIT for this stream."""
        if queue.allow(allowed):
            self._enlist(queue)

    def peer_pressed(self, now: float, percent: int) -> None:
        """The neighbour says how pressed it is; bulk and droppable leave part of their windows unused."""
        self._peer_percent, self._peer_until = percent, now + limits.PEER_PRESSURE_S

    def peer_pressure(self, now: float) -> int:
        """What the neighbour said last, 0 to 100, while it is in force."""
        return self._peer_percent if now < self._peer_until else 0

    def has_output(self) -> bool:
        """Whether some frame waits for nothing but room or the session's credit."""
        return any(self._waiting)

    def _enlist(self, queue: StreamQueue) -> None:
        """A queue is in its ring exactly while it has a frame that its own credit allows."""
        if queue.items and queue.first.carried <= queue.left:
            self._rings[queue.lane.traffic_class].add(queue)
        elif queue.ring is not None:
            queue.ring.remove(queue)
        stuck = queue.queued if queue.relayed or queue.ring is None else 0
        self.stuck += stuck - queue.stuck
        queue.stuck = stuck

    # -- output --

    def pull(self, now: float, room: Callable[[LaneKey], int], total: int) -> list[Pulled]:
        """Take the frames that go now, in order. `room` and `total` are bytes; express ignores `total`."""
        self._now, self._ask, self._rooms, self._taken = now, room, {}, []
        self._closed = set()
        self._total, self._total_full = total, False
        self._peak_total = max(total, self._peak_total)
        for traffic_class in _EXPRESS_ORDER:
            if self._rings[traffic_class].tenants:
                self._express(traffic_class)
        if any(self._waiting):
            self._weighted()
        self._ask = _no_room
        return self._taken

    def _express(self, traffic_class: TrafficClass) -> None:
        ring, node, now = self._rings[traffic_class], self._node_buckets[traffic_class], self._now
        if traffic_class in _URGENT:
            self._urgent_at = now

        def has_tokens(queue: StreamQueue) -> bool:
            size, own = queue.first.size, queue.bucket
            return (
                own is not None
                and own.ready_at(now, size) <= now
                and node.ready_at(now, size) <= now
                and self._fits(queue)
            )

        while (queue := ring.find(has_tokens, self._closed)) is not None:
            size = queue.first.size
            node.take(now, size)
            if queue.bucket is not None:
                queue.bucket.take(now, size)
            self._take(ring, queue)

    def _weighted(self) -> None:
        """Deficit round robin (Shreedhar and Varghese, 1996); a turn cut short by `total` goes on later."""
        order, deficits = self._order, self._deficits
        idle = 0
        while idle < len(order):
            name = order[0]
            if not self._turn_begun:
                self._turn_begun = True
                deficits[name] += limits.SCHEDULER_WEIGHTS[name] * limits.SCHEDULER_ROUND_BYTES
            found = self._find(self._shares[name])
            if found is None:
                if self._total_full:
                    return
                deficits[name] = 0  # nothing to send now is nothing saved for later
                idle += 1
            else:
                idle = 0  # in debt or not, there is something to send: each turn pays some of the debt off
                if deficits[name] > 0:
                    size = found[1].first.size
                    deficits[name] -= size
                    self._take(*found)
                    self._pass_on(self._shares[name], found[0], size)
                    if deficits[name] > 0:
                        continue
            order.rotate(-1)
            self._turn_begun = False

    def _pass_on(self, rings: deque[Ring], ring: Ring, size: int) -> None:
        """Classes of one share take turns as tenants do: what is over its rate has no rank."""
        ring.turn -= size
        if ring.turn <= 0:
            ring.turn += limits.SCHEDULER_QUANTUM_BYTES
            rings.remove(ring)
            rings.append(ring)

    def _find(self, rings: deque[Ring]) -> tuple[Ring, StreamQueue] | None:
        for ring in rings:
            if self._total_full:
                break
            queue = ring.find(self._fits_in_total, self._closed) if ring.tenants else None
            if queue is not None:
                return ring, queue
        return None

    def _fits_in_total(self, queue: StreamQueue) -> bool:
        if not self._fits(queue):
            return False
        if _goes(queue.first.size, self._total, self._peak_total):
            return True
        # Until it does, nothing smaller takes what the session has left: it would, for ever.
        self._total_full = True
        if queue.ring is not None:
            self._closed.update(queue.ring.lanes)
        return False

    def _fits(self, queue: StreamQueue) -> bool:
        """Whether the queue's first frame has room on its lane, and credit of the session."""
        lane, item = queue.lane, queue.first
        room = self._rooms.get(lane)
        if room is None:
            room = self._rooms[lane] = self._ask(lane)
            self._peaks[lane] = max(room, self._peaks.get(lane, 0))
        peak = self._peaks[lane]
        if not _goes(item.size, room, peak):
            self._closed.add(lane)  # a frame that waits for room does not let shorter ones pass for ever
            return False
        # While urgent traffic flows, bulk gets its next frame only when its lane is nearly empty.
        if lane.traffic_class in _SHRINKING and self._gives_way(queue, item, room, peak):
            return False
        if not item.carried:
            return True
        left = self.session_credit.left
        return item.carried <= (left if lane.traffic_class in EXPRESS else left - self.reserve)

    def _gives_way(self, queue: StreamQueue, item: Item, room: int, peak: int) -> bool:
        """Whether a frame of bulk or droppable is held back, though it would fit."""
        now = self._now
        if now - self._urgent_at < limits.SCHEDULER_PRESSURE_HOLD_S:
            self.shrunk_at = now
            if room < min(limits.SCHEDULER_BULK_PRESSURE_BYTES, peak - peak // _PEAK_SHARE):
                self._closed.add(queue.lane)
                return True
        if now >= self._peer_until or not item.carried:
            return False
        return queue.left - item.carried < withheld(self._peer_percent, queue.window)

    def _take(self, ring: Ring, queue: StreamQueue) -> None:
        item = queue.popleft()
        queue.sent += item.carried
        self.session_credit.sent += item.carried
        self.queued_by_class[queue.lane.traffic_class] -= item.size
        self.sent_by_class[queue.lane.traffic_class] += item.size
        self._rooms[queue.lane] -= item.size
        self._total -= item.size
        ring.served(queue, item.size)
        self._enlist(queue)
        self._taken.append((queue, item))


def _to_front(row: deque[T], one: T) -> None:
    """What follows a call must not go on with an iteration over the row."""
    if row[0] is not one:
        row.remove(one)
        row.appendleft(one)


def _no_room(_lane: LaneKey) -> int:
    return 0


def _goes(size: int, room: int, peak: int) -> bool:
    """A frame goes where it fits, or where nothing waits: a frame over the whole allowance goes alone."""
    return room > 0 and (size <= room or room >= peak)
