"""Relays: sealed records of leased streams, passed from one session to the next; no input or output here.

A relay reads classes and sizes, never payload; it forwards frames unchanged but for the hop's stream ids and
the position in the route. A stream holds at most its hop credit here, which goes back only when what came in
on one side has left on the other; what all of them hold has a budget, and whoever fills it pays for it.
Source: docs/wire.md, "Relays".
"""

# Long on purpose: the way of one relayed stream, from its OPEN to its end, and what is counted of it.
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fabric import limits, wire
from fabric.classes import CLASS_NAMES, TrafficClass
from fabric.errors import FabricError
from fabric.memory import MemoryBudget
from fabric.session import (
    Session,
    SessionClosed,
    SessionEvent,
    StreamAcceptedEvent,
    StreamAck,
    StreamClosed,
    StreamDatagram,
    StreamOpened,
    StreamPing,
    StreamPong,
    StreamRecord,
    StreamReset,
    StreamSent,
    StreamWritable,
)
from fabric.wire import OpenStream
from projections.model import Lease as LeaseRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A route lease as this node's log says now. `hops` are node ids, both ends included, distinct.

    `allowed_services` are those besides `service`; `"*"` is any. `expires_at` is Unix seconds. `fenced`: a
    fence or a revocation has ended it. `permitted`: this node holds the role that its place in `hops` needs.
    """

    route_id: str
    epoch: int
    hops: tuple[str, ...]
    service: str
    expires_at: float
    allowed_services: frozenset[str] = frozenset()
    allowed_classes: frozenset[TrafficClass] = frozenset()
    organization_id: str = ""
    fenced: bool = False
    permitted: bool = True

    @classmethod
    def of(cls, row: LeaseRow, *, stands: bool, permitted: bool = True) -> Lease:
        """From a row of the lease table; `stands`: what the snapshot says of fences and revocations;
        `permitted`: what it says of this node's roles.
        """
        return cls(
            route_id=row.route_id,
            epoch=row.epoch,
            hops=row.hops,
            service=row.service,
            expires_at=row.expires_at,
            allowed_services=frozenset(row.allowed_services),
            allowed_classes=frozenset(
                CLASS_NAMES[name] for name in row.allowed_classes if name in CLASS_NAMES
            ),
            organization_id=row.organization_id,
            fenced=not stands,
            permitted=permitted,
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a stream may not pass: a key of `errors.RESET_REASONS`, and a sentence."""

    reason: str
    sentence: str


@dataclass(slots=True)
class Account:
    """What passed since the node began, without reading it. Bytes are those of DATA frames, of datagrams too;
    `forward` is from the initiator. `live`: streams that pass now.
    """

    streams: int = 0
    records: int = 0
    bytes_forward: int = 0
    bytes_back: int = 0
    live: int = field(default=0, compare=False)

    def add(self, size: int, *, forward: bool) -> None:
        """Count one record or datagram of so many bytes."""
        self.records += 1
        if forward:
            self.bytes_forward += size
        else:
            self.bytes_back += size

    def include(self, other: Account) -> None:
        """Add what another account counted."""
        self.streams += other.streams
        self.records += other.records
        self.bytes_forward += other.bytes_forward
        self.bytes_back += other.bytes_back


AccountKey = tuple[TrafficClass, str, str]
"""(class, route_id, organization_id)"""

OTHER_ROUTES = "*"
"""Route id and organization of the rows, one a class, of what has no own row among `RELAY_ACCOUNTS`."""


def check_lease(
    lease: Lease | None, node_id: str, previous: str, open_body: OpenStream, unix_now: float
) -> Refusal | None:
    """Judge a leased OPEN at the node `node_id` that got it from `previous`; the last hop asks the same.

    Reasons: `no_lease`, `fenced`, `lease_expired`, `wrong_hop`, `not_permitted`, `wrong_previous`,
    `class_not_allowed`, `service_not_allowed`. An OPEN under an earlier epoch of the lease passes if it
    obeys the present one.
    """
    route = open_body.route
    if route is None or lease is None or lease.route_id != route.route_id or route.epoch > lease.epoch:
        return Refusal("no_lease", "no such lease is known here")
    hops, position = lease.hops, route.position
    if lease.fenced:
        return Refusal("fenced", f"route {lease.route_id} is fenced")
    if unix_now >= lease.expires_at:
        return Refusal("lease_expired", f"route {lease.route_id} expired")
    if position >= len(hops) or hops[position] != node_id or len(set(hops)) != len(hops):
        return Refusal("wrong_hop", f"this node is not hop {position} of route {lease.route_id}")
    if not lease.permitted:
        return Refusal("not_permitted", f"this node may not be hop {position} of route {lease.route_id}")
    if hops[position - 1] != previous:
        return Refusal("wrong_previous", f"{previous} is not hop {position - 1} of route {lease.route_id}")
    if open_body.traffic_class not in lease.allowed_classes:
        return Refusal("class_not_allowed", f"{open_body.traffic_class.name} on route {lease.route_id}")
    if open_body.service != lease.service and not lease.allowed_services & {open_body.service, "*"}:
        return Refusal("service_not_allowed", f"{open_body.service} on route {lease.route_id}")
    return None


@dataclass(slots=True, eq=False)
class _Leg:
    """One side of a relayed stream; `other` is where its frames go. `held`: memory of what came in on this
    side, or was asked for by it, and has not left on the other.
    """

    session: Session
    stream_id: int
    pair: _Pair
    forward: bool
    closed: bool = False
    held: int = 0

    @property
    def other(self) -> _Leg:
        return self.pair.back if self.forward else self.pair.front


class _Pair:
    """A relayed stream: the leg towards the initiator (`front`) and the one towards the responder."""

    __slots__ = ("account", "back", "front", "lease", "open", "until")

    def __init__(self, lease: Lease, open_body: OpenStream, account: Account, until: float) -> None:
        self.lease = lease
        self.until = until
        self.open = open_body
        self.account = account
        self.front: _Leg
        self.back: _Leg


class Relay:
    """Pairs a hop stream of one session with one on the next hop's session and passes frames between them.

    The shell offers it every event of every session; `True` says the event was the relay's. After that the
    sessions of `take_touched()` have output to flush.
    """

    def __init__(
        self,
        node_id: str,
        lookup_lease: Callable[[str], Lease | None],
        next_session: Callable[[str], Session | None],
        unix_now: Callable[[float], float] = lambda now: now,
    ) -> None:
        """`next_session(node_id)`: a ready session with that neighbour. `unix_now` turns a session clock's
        time into Unix seconds.
        """
        self.accounts: dict[AccountKey, Account] = {}
        self.counters: Counter[str] = Counter()
        """`refused_<reason>` of OPENs, `ended_<reason>` of running streams, `memory_exceeded`."""
        self._node_id = node_id
        self._lookup_lease = lookup_lease
        self._next_session = next_session
        self._unix_now = unix_now
        self._legs: dict[Session, dict[int, _Leg]] = {}
        self._touched: dict[Session, None] = {}
        self._due: float | None = None
        """No lease of a stream that passes expires before; asked for with every frame, so it is kept."""
        self._memory: MemoryBudget[_Leg] = MemoryBudget(
            session=limits.RELAY_SESSION_BYTES, peer=limits.RELAY_TENANT_BYTES, process=limits.RELAY_BYTES
        )

    @property
    def held(self) -> int:
        """Bytes of memory that what waits for its next hop takes."""
        return self._memory.total

    # -- events ----------------------------------------------------------------------------------------------

    def wants(self, open_body: OpenStream) -> bool:
        """Whether an OPEN is for the relay: leased, and not known to end at this node."""
        if open_body.route is None:
            return False
        lease = self._lookup_lease(open_body.route.route_id)
        return lease is None or lease.hops[-1:] != (self._node_id,)

    def handle(self, now: float, session: Session, event: SessionEvent) -> bool:
        """Take an event of `session` that is about a relayed stream, or an OPEN that the relay `wants`."""
        if isinstance(event, StreamOpened):
            if not self.wants(event.open):
                return False
            self._opened(now, session, event)
            return True
        if isinstance(event, SessionClosed):
            self._session_over(now, session)
            return False
        legs = self._legs.get(session)
        leg = legs.get(getattr(event, "stream_id", 0)) if legs else None
        if leg is None:
            return False
        self._stream_event(now, leg, event)
        return True

    def _stream_event(self, now: float, leg: _Leg, event: SessionEvent) -> None:
        other = leg.other
        to, to_id = other.session, other.stream_id
        if isinstance(event, StreamRecord):
            leg.pair.account.add(event.carried, forward=leg.forward)
            self._forward(now, leg, event)
            self._count(now, leg)
        elif isinstance(event, StreamDatagram):
            leg.pair.account.add(event.size, forward=leg.forward)
            to.send_datagram(now, to_id, event.number, event.flags, event.payload)
            self._count(now, leg)
        elif isinstance(event, StreamSent):
            # What left on this leg came in on the other: only now may that peer send more.
            if event.carried:
                to.consumed(now, to_id, event.carried)
            self._count(now, other)
            self._end(leg.pair)
        elif isinstance(event, StreamAck):
            to.send_ack(now, to_id, event.received_up_to, event.limit)
        elif isinstance(event, StreamAcceptedEvent):
            to.accept_stream(now, to_id, event.raw)
        elif isinstance(event, StreamPing):
            to.forward_ping(now, to_id, event.nonce, event.time)
        elif isinstance(event, StreamPong):
            to.pong(now, to_id, event.nonce, event.time)
        elif isinstance(event, StreamClosed):
            leg.closed = True
            to.close_stream(now, to_id)
            self._count(now, leg)
            self._end(leg.pair)
        elif isinstance(event, StreamReset):
            self._unpair(leg.pair)
            to.reset_stream(now, to_id, event.reason, event.detail)
        elif isinstance(event, StreamWritable):
            return  # hop credit, not the queue's watermark, holds the sender back
        self._touch(to)

    # -- leases ----------------------------------------------------------------------------------------------

    def recheck(self, now: float) -> None:
        """Judge every pair again: call after leases or fences changed, and when `timer()` is due."""
        for pair in self._pairs():
            lease = self._lookup_lease(pair.lease.route_id)
            refusal = check_lease(
                lease, self._node_id, pair.front.session.peer_node_id, pair.open, self._unix_now(now)
            )
            # A renewed lease may lead elsewhere; this stream stays only where it still leads.
            if (
                refusal is None
                and lease is not None
                and self._next_hop(lease, pair.open) != (pair.back.session.peer_node_id)
            ):
                refusal = Refusal("wrong_hop", f"route {lease.route_id} leads elsewhere now")
            if refusal is not None:
                self._break(now, pair, refusal)
            elif lease is not None:
                pair.lease = lease
                pair.until = self._until(now, lease)
        self._due = min((pair.until for pair in self._pairs()), default=None)

    def timer(self) -> float | None:
        """When the next lease of a relayed stream expires, on the session clock, or earlier where that stream
        is over: call `recheck` then.
        """
        return self._due

    # -- for the shell ---------------------------------------------------------------------------------------

    def take_touched(self) -> Sequence[Session]:
        """Sessions that got commands since the last call."""
        touched, self._touched = self._touched, {}
        return tuple(touched)

    def streams(self) -> int:
        """How many streams pass now."""
        return len(self._pairs())

    def by_class(self) -> dict[TrafficClass, Account]:
        """The sums of the accounts of each class that there are any of."""
        sums: dict[TrafficClass, Account] = {}
        for (traffic_class, _, _), account in self.accounts.items():
            sums.setdefault(traffic_class, Account()).include(account)
        return sums

    # -- parts -----------------------------------------------------------------------------------------------

    def _opened(self, now: float, session: Session, event: StreamOpened) -> None:
        body, route = event.open, event.open.route
        lease = self._lookup_lease(route.route_id) if route else None
        refusal = check_lease(lease, self._node_id, session.peer_node_id, body, self._unix_now(now))
        if refusal is None and lease is not None and route is not None:
            refusal = self._pass_on(now, session, event, lease, route.position + 1)
        if refusal is not None:
            self.counters[f"refused_{refusal.reason}"] += 1
            session.reset_stream(now, event.stream_id, refusal.reason, refusal.sentence)
        self._touch(session)

    def _pass_on(
        self, now: float, session: Session, event: StreamOpened, lease: Lease, position: int
    ) -> Refusal | None:
        if position >= len(lease.hops):
            return Refusal("wrong_hop", f"route {lease.route_id} ends here")
        onward = self._next_session(lease.hops[position])
        if onward is None or onward is session:
            return Refusal("next_hop_unreachable", f"no session with hop {position} of {lease.route_id}")
        try:
            stream_id = onward.open_stream(
                now,
                wire.with_position(event.raw, position),
            )
        except FabricError as error:
            # A neighbour that is full or draining is out of reach for this stream, whatever the cause.
            return Refusal("next_hop_unreachable", f"hop {position} of {lease.route_id}: {error.code}")
        onward.adopt(stream_id, tenant=lease.organization_id)
        account = self._account(lease, event.open.traffic_class)
        account.streams += 1
        account.live += 1
        pair = _Pair(lease, event.open, account, self._until(now, lease))
        pair.front = _Leg(session, event.stream_id, pair, forward=True)
        pair.back = _Leg(onward, stream_id, pair, forward=False)
        session.adopt(event.stream_id, tenant=lease.organization_id)
        self._due = pair.until if self._due is None else min(self._due, pair.until)
        for leg in (pair.front, pair.back):
            self._legs.setdefault(leg.session, {})[leg.stream_id] = leg
        self._touch(onward)
        return None

    def _forward(self, now: float, leg: _Leg, record: StreamRecord) -> None:
        other = leg.other
        try:
            other.session.send_data(now, other.stream_id, record.offset, record.flags, record.payload)
        except FabricError as error:
            # The next hop takes smaller frames than this one, or the stream's state does not allow data.
            self._break(now, leg.pair, Refusal("route_failed", f"cannot be passed on: {error.code}"))

    def _count(self, now: float, leg: _Leg) -> None:
        """Count anew what waits on the way on from `leg`."""
        if leg.stream_id not in self._legs.get(leg.session, ()):
            return  # broken meanwhile
        leg.held = leg.other.session.queued_memory(leg.other.stream_id)
        tenant = leg.pair.lease.organization_id
        victim = self._memory.hold(leg, tenant, leg.session, leg.held)
        while victim is not None:
            self.counters["memory_exceeded"] += 1
            refusal = Refusal("route_failed", f"{victim.held} bytes wait at a relay without room for more")
            self._break(now, victim.pair, refusal)
            victim = self._memory.excess(tenant, leg.session)

    def _end(self, pair: _Pair) -> None:
        """Forget a stream that both ends have closed once nothing of it waits: until then it is memory."""
        if all(
            leg.closed and not leg.session.queued_memory(leg.stream_id) for leg in (pair.front, pair.back)
        ):
            self._unpair(pair)

    def _break(self, now: float, pair: _Pair, refusal: Refusal) -> None:
        self.counters[f"ended_{refusal.reason}"] += 1
        self._unpair(pair)
        for leg in (pair.front, pair.back):
            leg.session.reset_stream(now, leg.stream_id, refusal.reason, refusal.sentence)
            self._touch(leg.session)

    def _session_over(self, now: float, session: Session) -> None:
        for leg in self._legs.get(session, {}).copy().values():
            self.counters["ended_route_failed"] += 1
            self._unpair(leg.pair)
            other = leg.other
            other.session.reset_stream(now, other.stream_id, "route_failed", "a hop's session ended")
            self._touch(other.session)
        self._touched.pop(session, None)

    def _unpair(self, pair: _Pair) -> None:
        pair.account.live -= 1
        for leg in (pair.front, pair.back):
            self._memory.hold(leg, pair.lease.organization_id, leg.session, 0)
            legs = self._legs[leg.session]
            del legs[leg.stream_id]
            if not legs:
                del self._legs[leg.session]
        if not self._legs:
            self._due = None

    def _pairs(self) -> list[_Pair]:
        return [leg.pair for legs in self._legs.values() for leg in legs.values() if leg.forward]

    def _until(self, now: float, lease: Lease) -> float:
        return now + lease.expires_at - self._unix_now(now)

    def _next_hop(self, lease: Lease, open_body: OpenStream) -> str:
        position = open_body.route.position + 1 if open_body.route else 0
        return lease.hops[position] if position < len(lease.hops) else ""

    def _account(self, lease: Lease, traffic_class: TrafficClass) -> Account:
        key = (traffic_class, lease.route_id, lease.organization_id)
        if key not in self.accounts and len(self.accounts) >= limits.RELAY_ACCOUNTS and not self._fold():
            key = (traffic_class, OTHER_ROUTES, OTHER_ROUTES)
        return self.accounts.setdefault(key, Account())

    def _fold(self) -> bool:
        """Add the oldest route of which no stream passes to its class's rest, for room; False without one."""
        for key, account in self.accounts.items():
            if not account.live and key[1] != OTHER_ROUTES:
                del self.accounts[key]
                rest = (key[0], OTHER_ROUTES, OTHER_ROUTES)
                self.accounts.setdefault(rest, Account()).include(account)
                return True
        return False

    def _touch(self, session: Session) -> None:
        self._touched[session] = None
