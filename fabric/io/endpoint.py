"""The UDP endpoint: its sockets, every carrier on them, their timers, and one flush per turn of the loop.

Each connection's datagrams wait in a queue of their own (`fabric.inbox`). A turn hands a bounded number of
them to their connections, those first that have cost least, lets the machines answer, and sends what they
produced in as few system calls as the kernel allows. Strangers cost little: an unknown datagram is a
dictionary look-up, all strangers share one queue, and `fabric.io.doorman` bounds what a new connection costs.
"""

# Long on purpose: the way of every datagram and timer through one node, read in one place.
from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator
from typing import Final, Self

from fabric import limits, sessionpolicy
from fabric.errors import FabricError, SessionError
from fabric.events import SessionConfig, SessionEvent
from fabric.identity import NodeIdentity, check_expected, format_quic_address, parse_quic_address
from fabric.inbox import Inbox, worth
from fabric.io.connection import Connection
from fabric.io.demux import ConnectionTable
from fabric.io.doorman import Answer, Doorman, RetryPolicy, Welcome
from fabric.io.engines import DEFAULT_CONFIG, Address, CarrierConfig, load_engine
from fabric.io.engines.packets import CID_BYTES, long_destination, parse_long_header
from fabric.io.port import Port
from fabric.io.ports import Ports
from fabric.io.relaying import LookupLease, RelayShell
from fabric.io.resuming import Resuming
from fabric.io.serving import Authorize, Services, StreamHandler
from fabric.io.streams import Stream
from fabric.io.suites import suites_by_speed
from fabric.io.totals import Totals
from fabric.io.udp import Batching, UdpSocket
from fabric.io.watching import Watching
from fabric.memory import MemoryBudget
from fabric.sessionpolicy import SessionPolicy
from fabric.wire import OpenStream, RouteUpdate

__all__ = ["Authorize", "Endpoint", "StreamHandler"]

_log = logging.getLogger(__name__)

DEFAULT_SESSIONS: Final = SessionPolicy()

_STRANGERS: Final = "strangers"
"""Who sends what belongs to no connection yet: one queue for all of them."""


class Endpoint:
    """Listens and dials from one UDP socket, or one per bind address. Make it with `Endpoint.bind`."""

    def __init__(
        self,
        identity: NodeIdentity,
        cluster_id: str,
        udp: UdpSocket,
        *,
        engine: str = "auto",
        carrier: CarrierConfig = DEFAULT_CONFIG,
        session: SessionConfig | None = None,
        services: dict[str, StreamHandler] | None = None,
        authorize: Authorize | None = None,
        lookup_lease: LookupLease | None = None,
        on_connection: Callable[[Connection], None] | None = None,
        retry_policy: RetryPolicy = "auto",
        sessions: SessionPolicy = DEFAULT_SESSIONS,
        suites: tuple[str, ...] | None = None,
    ) -> None:
        self.identity = identity
        self.cluster_id = cluster_id
        self.session_config = session or SessionConfig()
        self.suites = suites or suites_by_speed()
        self.local_address: Address = udp.local_address
        self._loop = asyncio.get_running_loop()
        if not udp.whole:
            carrier = dataclasses.replace(carrier, probe_datagram_bytes=carrier.max_datagram_bytes)
        self._engine = load_engine(engine, identity, carrier)
        self._on_connection = on_connection
        self.on_route_told: Callable[[Connection, RouteUpdate], None] | None = None
        """Told what a neighbour says of a route; a hint, and no proof."""
        self.policy = sessions
        """How many sessions there may be, and which go first."""
        self._sessions: dict[Connection, None] = {}
        """Those that are ready, oldest first."""
        self._by_node: dict[str, dict[Connection, None]] = {}
        self._idle_look: asyncio.TimerHandle | None = None
        self._doorman = Doorman(retry_policy)
        self.counters = self._doorman.counters
        """What was refused or went wrong, by name."""
        self._serving = Services(services, authorize, self.counters)
        self.services = self._serving.handlers
        """Handlers by name; may change at any time."""
        self._table = ConnectionTable()
        self._timers: dict[Connection, asyncio.TimerHandle] = {}
        self._dirty: dict[Connection, None] = {}
        self._inbox: Inbox[Connection | str, tuple[Port, Address]] = Inbox()
        self._turn_soon: asyncio.Handle | None = None
        self._flush_soon: asyncio.Handle | None = None
        self._ready_waiters: set[asyncio.Future[None]] = set()
        self._draining = self._closed = False
        self.relaying = RelayShell(self, lookup_lease)
        self.resuming = Resuming(self)
        self.watching = Watching(self)
        self.memory: MemoryBudget[Stream] = MemoryBudget()
        self._ports = Ports(self._on_arrival, self._flush, self._on_receive_error, self._on_unreachable)
        self._ports.add(udp)
        self.totals = Totals()
        """What the sessions that are over have done; `totals.with_live(connections())` is all."""

    @classmethod
    async def bind(
        cls,
        identity: NodeIdentity,
        cluster_id: str,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        batching: Batching = "auto",
        engine: str = "auto",
        carrier: CarrierConfig = DEFAULT_CONFIG,
        session: SessionConfig | None = None,
        services: dict[str, StreamHandler] | None = None,
        authorize: Authorize | None = None,
        lookup_lease: LookupLease | None = None,
        on_connection: Callable[[Connection], None] | None = None,
        retry_policy: RetryPolicy = "auto",
        sessions: SessionPolicy = DEFAULT_SESSIONS,
        suites: tuple[str, ...] | None = None,
    ) -> Self:
        """Bind and start.

        `services` maps logical names to handlers; `authorize` judges each stream opened to us beside that;
        `lookup_lease` makes this node a relay and lets it be the last hop of leased routes; `on_connection`
        sees each session, dialed or accepted, when it is ready. `retry_policy` "auto" sends Retry from
        `limits.ENDPOINT_HALF_OPEN_RETRY` half-open connections on; `sessions` says which sessions stay;
        `suites` are the ciphers of seals, the best first, by default what this machine does faster.
        `SocketError` when the address is taken.
        """
        udp = UdpSocket(host, port, batching=batching)
        try:
            return cls(
                identity,
                cluster_id,
                udp,
                engine=engine,
                carrier=carrier,
                session=session,
                services=services,
                authorize=authorize,
                lookup_lease=lookup_lease,
                on_connection=on_connection,
                retry_policy=retry_policy,
                sessions=sessions,
                suites=suites,
            )
        except BaseException:
            udp.close()
            raise

    # -- for those who use the endpoint ----------------------------------------------------------------

    async def dial(
        self,
        address: str,
        *,
        pin: str | None = None,
        node_id: str | None = None,
        timeout_s: float = limits.SESSION_HANDSHAKE_TIMEOUT_S,
    ) -> Connection:
        """Connect to `quic://host:port`, whose listener must match `pin` and `node_id` (one may be None).

        Returns a ready session: the new one, or the one that the peer dialed at the same moment where that
        is the one to stay. Raises `FabricError`: `bad_address`, `no_address`, an `identity_…` code,
        `handshake_timeout`, or why the session closed.
        """
        connection = await self.start_dial(address, pin=pin, node_id=node_id)
        try:
            async with asyncio.timeout(timeout_s):
                try:
                    await connection.ready()
                except SessionError as error:
                    if error.code != "going_away" or not connection.peer_node_id:
                        raise
                    # The peer dialed us at the same moment and keeps that session; ours may lag behind it.
                    return await self._session_with(connection.peer_node_id)
        except TimeoutError:
            connection.close("handshake_timeout")
            raise FabricError("handshake_timeout", f"{address} did not answer in {timeout_s} s") from None
        except BaseException:
            connection.close("done")
            raise
        return self.connection_to(connection.peer_node_id) or connection

    async def start_dial(
        self, address: str, *, pin: str | None = None, node_id: str | None = None
    ) -> Connection:
        """Like `dial`, but return before the peer answered; a stream opened now rides in its first flight."""
        host, port = parse_quic_address(address)
        check_expected(pin, node_id)
        self._require_open()
        via, addr = await self._ports.resolve(host, port)
        self._require_open()  # it may have been closed while the name was resolved
        if len(self._table) >= limits.ENDPOINT_CONNECTIONS:
            raise FabricError("too_many_connections", f"{len(self._table)} connections are open")
        now = self.now()
        connection = Connection(
            self, self._engine.dial(addr, now), now, pin=pin, node_id=node_id, dialed_at=address
        )
        self._table.add(connection)
        self._ports.attach(connection, via)
        self.connection_dirty(connection)
        return connection

    def _require_open(self) -> None:
        if self._draining or self._closed:
            raise FabricError("carrier_closed", "the endpoint is closed, or about to be")

    @property
    def url(self) -> str:
        """Where the endpoint is bound, as `quic://host:port`."""
        return format_quic_address(str(self.local_address[0]), int(self.local_address[1]))

    def connections(self) -> list[Connection]:
        """Sessions that are ready now."""
        return [connection for connection in self._sessions if connection.is_ready]

    def connection_to(self, node_id: str) -> Connection | None:
        """The session to use for a neighbour: not draining nor silent, and the one that stays of two."""
        found = [one for one in self._sessions_of(node_id) if one.usable]
        if not found:
            return None
        # Dialed by the lower node id first; of equals the newest, which a restarted peer has made.
        return max(enumerate(found), key=lambda item: (self._stays(item[1]), item[0]))[1]

    @property
    def addresses(self) -> list[Address]:
        """Where this endpoint is bound; `local_address` was the first of them."""
        return self._ports.addresses

    def add_address(self, host: str, port: int = 0, *, batching: Batching = "auto") -> Address:
        """Listen and dial from one more address; where it is bound. `SocketError` when it is taken."""
        return self._ports.add(UdpSocket(host, port, batching=batching)).local_address

    def drop_address(self, address: Address) -> None:
        """Leave an address, because its interface is gone or unwanted.

        Sessions that were dialed from it go on from another of its family; those accepted there end.
        """
        moved, stranded = self._ports.remove(address)
        for connection in moved:
            connection.moved()
        for connection in stranded:
            connection.lose()

    def moved(self) -> None:
        """What is dialed may leave from another address of the machine than before, behind a wildcard."""
        for connection in self._table.connections():
            if connection.is_dialer:
                connection.moved()

    @property
    def half_open(self) -> int:
        """Inbound connections whose peer is not proved yet."""
        return self._doorman.half_open

    def drain(self) -> None:
        """Say GOAWAY to every neighbour, and take and begin no more sessions."""
        self._draining = True
        for connection in self.connections():
            connection.goaway()

    async def aclose(self, code: str = "done") -> None:
        """Close every session, cancel the services' tasks and close the socket. Idempotent. Whoever is
        cancelled here has done all that but for waiting.
        """
        if self._closed:
            return
        self._closed = True
        try:
            await self.resuming.aclose()
            self._close_sessions(code)
            await self._serving.aclose()
        finally:
            self._close_sessions(code)
            self._serving.cancel()
            self._release()

    def _close_sessions(self, code: str) -> None:
        self.watching.close()
        for connection in self._table.connections():
            connection.close(code)

    def _release(self) -> None:
        """Send what is left to say, and give up timers and sockets."""
        self._flush()
        for handle in (self._flush_soon, self._turn_soon):
            if handle is not None:
                handle.cancel()
        for timer in (*self._timers.values(), *filter(None, (self._idle_look,))):
            timer.cancel()
        self._timers.clear()
        self.relaying.close()
        self._ports.close()
        self._table.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    # -- for the connections ---------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds of the loop's steady clock, the one that carriers, sessions and streams live by."""
        return self._loop.time()

    def connection_dirty(self, connection: Connection) -> None:
        """Flush the connection before the loop waits again."""
        self._dirty[connection] = None
        if self._flush_soon is None and not self._closed:
            self._flush_soon = self._loop.call_soon(self._flush)

    def connection_ready(self, connection: Connection) -> None:
        """A peer is proved: settle with a session dialed at the same moment, and tell who waits."""
        self._doorman.proved(connection)
        self._sessions[connection] = None
        self._by_node.setdefault(connection.peer_node_id, {})[connection] = None
        for other in self._sessions_of(connection.peer_node_id):
            if other.is_dialer != connection.is_dialer:
                # Both ends dialed at once, and both judge alike which one goes.
                going = connection if self._stays(other) else other
                going.goaway()
                going.leave()
        for other in self._sessions_of(connection.peer_node_id)[: -self.policy.per_node]:
            other.lose("too_many_sessions")
        if len(self._sessions) > self.policy.total:
            self._make_room(connection)
            if not connection.is_ready:
                return
        if self._idle_look is None:
            self._look_soon()
        self.relaying.ready(connection)
        for waiter in self._ready_waiters:
            if not waiter.done():
                waiter.set_result(None)
        self.resuming.ready()
        if self._on_connection is not None and not connection.draining:
            self._on_connection(connection)

    def connection_closed(self, connection: Connection) -> None:
        """A session is over."""
        self.totals.end(connection, connection.closed.result())
        self._doorman.proved(connection)
        if connection in self._sessions:
            del self._sessions[connection]
            neighbour = self._by_node[connection.peer_node_id]
            del neighbour[connection]
            if not neighbour:
                del self._by_node[connection.peer_node_id]

    def relayed(self, connection: Connection, now: float, event: SessionEvent) -> bool:
        """Offer an event to the relay; whether it was about a stream that only passes through."""
        return self.relaying.handle(connection, now, event)

    def route_told(self, connection: Connection, update: RouteUpdate) -> None:
        """A neighbour says that a route changed."""
        if self.on_route_told is not None:
            self.on_route_told(connection, update)

    def judge_open(self, connection: Connection, body: OpenStream) -> str:
        """The node that must have signed an OPEN that ends here; raises `StreamError` to refuse it."""
        initiator = self.relaying.initiator(connection, body)
        self._serving.judge(connection, body, initiator)
        return initiator

    def start_service(self, connection: Connection, stream: Stream) -> None:
        """Run the service of a stream that proved its first record."""
        self._serving.start(connection, stream)

    def unix_time(self, now: float) -> float:
        """The wall clock's Unix seconds at `now` of the steady clock: what leases expire by."""
        return now - self.now() + time.time()

    # -- datagrams in ----------------------------------------------------------------------------------

    def _on_arrival(self, port: Port, batch: list[tuple[bytes, Address]]) -> None:
        self._sort(port, batch)
        if self._turn_soon is None:
            self._take_turn()

    def _take_turn(self) -> None:
        """Act on datagrams until there were enough of them or it has taken long enough, then send."""
        if self._turn_soon is not None:
            self._turn_soon.cancel()
            self._turn_soon = None
        began = now = self.now()
        count = 0
        while count < limits.UDP_DATAGRAMS_PER_TURN and now < began + limits.UDP_TURN_S:
            taken = self._inbox.take()
            if taken is None:
                break
            sender, datagrams, (port, addr) = taken
            count += len(datagrams)
            if isinstance(sender, Connection):
                self._feed(sender, datagrams, addr, now)
                if sender.unread:
                    self._inbox.put(sender, [], (port, addr))
            else:
                self._strangers(port, datagrams, addr, now)
            before, now = now, self.now()
            self._inbox.spent(sender, now - before, worth(datagrams))
        if self._inbox and not self._closed:
            self._turn_soon = self._loop.call_soon(self._take_turn)
        self._flush()

    def _on_unreachable(self, addr: Address, said: str | int) -> None:
        self.counters["icmp_too_big" if isinstance(said, int) else "icmp_unreachable"] += 1
        for connection in self._table.connections():
            if connection.remote != addr:
                continue
            if isinstance(said, int):
                connection.too_big(said)
            else:
                connection.suspect(said)

    def _on_receive_error(self) -> None:
        self.counters["receive_errors"] += 1

    def _sort(self, port: Port, batch: list[tuple[bytes, Address]]) -> None:
        """Queue every datagram with those of the connection that it belongs to."""
        run: list[bytes] = []
        run_cid = b""
        run_addr: Address | None = None
        for data, addr in batch:
            # Runs of one connection from one address, which is nearly everything, are one look-up each.
            cid = data[1 : 1 + CID_BYTES] if data[:1] < b"\x80" else long_destination(data)
            if run and cid == run_cid and addr == run_addr:
                run.append(data)
                continue
            if run and run_addr is not None:
                self._queue(port, run_cid, run, run_addr)
            run, run_cid, run_addr = [data], cid, addr
        if run and run_addr is not None:
            self._queue(port, run_cid, run, run_addr)

    def _queue(self, port: Port, cid: bytes, run: list[bytes], addr: Address) -> None:
        """Queue a run of datagrams for one connection id; a handshake's first belong to nobody yet."""
        sender = self._table.by_cid.get(cid)
        if sender is None and run[0][:1] < b"\x80":
            self.counters["unowned_datagrams"] += len(run)
        elif lost := self._inbox.put(sender or _STRANGERS, run, (port, addr)):
            self.counters["datagrams_overrun"] += lost

    def _strangers(self, port: Port, datagrams: list[bytes], addr: Address, now: float) -> None:
        """Datagrams with long headers: of handshakes, or of whoever likes to send them."""
        for data in datagrams:
            connection = self._long_header(port, data, addr, now)
            if connection is None:
                # Also what the doorman answered or met with silence.
                self.counters["unowned_datagrams"] += 1
            else:
                self._feed(connection, [data], addr, now)

    def _feed(self, connection: Connection, datagrams: list[bytes], addr: Address, now: float) -> None:
        try:
            connection.receive(datagrams, addr, now)
        except Exception as error:
            # An engine's or our own defect must not let one peer end the others' sessions.
            _log.exception("connection to %s port %d fails on what it received", addr[0], addr[1])
            self.counters["internal_errors"] += 1
            connection.internal_error(error)
        self._table.refresh(connection)
        self._dirty[connection] = None

    def _long_header(self, port: Port, data: bytes, addr: Address, now: float) -> Connection | None:
        """The connection a long-header packet belongs to, which an Initial packet may make."""
        header = parse_long_header(data)
        if header is None or "%" in addr[0]:
            # An address with a zone (link-local) has no quic:// form; nobody is invited to dial from there.
            return None
        known = self._table.by_cid.get(header.destination_cid)
        if known is not None:
            return known
        if self._draining or self._closed or len(self._table) >= limits.ENDPOINT_CONNECTIONS:
            return None
        verdict = self._doorman.judge(header, len(data), addr, now)
        if isinstance(verdict, Answer):
            port.send([(verdict.datagram, addr)])
        if not isinstance(verdict, Welcome):
            return None
        carrier = self._engine.accept(
            original_destination_cid=verdict.original_cid,
            retry_source_cid=verdict.retry_cid,
            addr=addr,
            now=now,
        )
        connection = Connection(self, carrier, now)
        self._doorman.opened(connection, addr)
        self._table.add(connection, header.destination_cid)
        self._ports.attach(connection, port)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._doorman.proved(connection)
        self._dirty.pop(connection, None)
        self._table.remove(connection)
        self._ports.detach(connection)
        self._inbox.forget(connection)
        timer = self._timers.pop(connection, None)
        if timer is not None:
            timer.cancel()

    # -- output and timers -----------------------------------------------------------------------------

    def _flush(self) -> None:
        """Everything that changed since the last flush, once."""
        if self._flush_soon is not None:
            self._flush_soon.cancel()
            self._flush_soon = None
        again: list[Connection] = []
        waiting: list[Connection] = []
        now = at = self.now()
        while self._dirty:
            connection = next(iter(self._dirty))
            del self._dirty[connection]
            port = self._ports.via(connection)
            if port is not None and port.blocked:
                waiting.append(connection)
                continue
            try:
                datagrams, more = connection.flush(now)
            except Exception as error:
                _log.exception("connection to %s fails while sending", connection.remote[0])
                self.counters["internal_errors"] += 1
                connection.internal_error(error)
                continue
            if port is not None:
                port.send(datagrams)
            before, at = at, self.now()
            self._inbox.spent(connection, at - before)
            self._dirty.pop(connection, None)
            if more:
                again.append(connection)
            self._settle(connection, now)
        self._dirty.update(dict.fromkeys(waiting))  # until their socket has room
        for connection in again:
            self.connection_dirty(connection)

    def _settle(self, connection: Connection, now: float) -> None:
        """After a flush: forget a connection that is gone, else set its timer."""
        if connection.closed.done() and (connection.carrier.done or connection.is_stranger):
            # A stranger's connection does not linger for its closing period: many could fill the table. If
            # the one CLOSE is lost, its next packet finds nobody and it gives up by itself.
            self._forget(connection)
            return
        at = connection.timer()
        handle = self._timers.get(connection)
        if at is None:
            return
        # A timer that is too early finds nothing due and is set again; to move it each time costs more.
        if handle is not None and now < handle.when() <= at:
            return
        if handle is not None:
            handle.cancel()
        self._timers[connection] = self._loop.call_at(at, self._on_timer, connection)

    def _on_timer(self, connection: Connection) -> None:
        self._timers.pop(connection, None)
        if connection not in self._table:
            return
        now = self.now()
        try:
            connection.handle_timer(now)
        except Exception as error:
            _log.exception("timer of the connection to %s fails", connection.remote[0])
            self.counters["internal_errors"] += 1
            connection.internal_error(error)
        self._table.refresh(connection)
        self.connection_dirty(connection)

    # -- sessions that nobody uses ---------------------------------------------------------------------

    def _look_soon(self) -> None:
        self._idle_look = self._loop.call_later(
            self.policy.idle_ttl_s / limits.SESSION_IDLE_LOOKS, self._end_idle
        )

    def _end_idle(self) -> None:
        """End what was idle for long; look again while there are sessions."""
        self._idle_look = None
        for connection in sessionpolicy.expired(self._idle(), self.now(), self.policy.idle_ttl_s):
            connection.lose("idle")
        if self._sessions and not self._closed:
            self._look_soon()

    def _make_room(self, newcomer: Connection) -> None:
        """There is one session too many: the idle one that matters least ends, or else the new one."""
        going = sessionpolicy.victim(one for one in self._idle() if one.session is not newcomer)
        if going is None:
            self.counters["no_room"] += 1
            newcomer.close("no_room")
        else:
            self.counters["evicted"] += 1
            going.lose("evicted")

    def _idle(self) -> Iterator[sessionpolicy.Idle[Connection]]:
        now, standing = self.now(), self.policy.standing
        for connection in self.connections():
            since = connection.idle_since(now)
            if since is not None:
                yield sessionpolicy.Idle(connection, since, standing(connection.peer_node_id))

    # -- the rest --------------------------------------------------------------------------------------

    def _stays(self, connection: Connection) -> bool:
        """Of two sessions dialed at once, whether this is the one that the lower node id dialed."""
        return connection.is_dialer == (self.identity.node_id < connection.peer_node_id)

    def _sessions_of(self, node_id: str) -> list[Connection]:
        """Sessions with a neighbour, oldest first."""
        return [one for one in self._by_node.get(node_id, ()) if one.is_ready]

    async def _session_with(self, node_id: str) -> Connection:
        """The session with a neighbour, once there is one."""
        while (found := self.connection_to(node_id)) is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._ready_waiters.add(waiter)
            try:
                await waiter
            finally:
                self._ready_waiters.discard(waiter)
        return found
