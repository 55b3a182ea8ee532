"""An end-to-end sealed stream as asyncio sees it: bytes in, bytes out, with backpressure both ways.

The machine (`fabric.stream.EndToEnd`) seals, counts and bounds; this shell keeps what it would not take yet,
wakes who waits, and sets its timer. Nothing here copies a byte that the machine does not have to.
"""

# Long on purpose: one stream as a program meets it, in both modes.
from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from fabric import events, limits
from fabric.classes import Mode, TrafficClass
from fabric.datagrams import OVERHEAD_BYTES
from fabric.errors import StreamError
from fabric.failover import ROUTE_RESETS, Switch
from fabric.frames import RouteRef
from fabric.io.engines.packets import datagram_frame_room
from fabric.io.hosts import StreamHost
from fabric.seal import RECORD_EMPTY
from fabric.stream import (
    DataReadable,
    EndToEnd,
    Failed,
    Finished,
    HopAccepted,
    HopAck,
    HopClosed,
    HopDatagram,
    HopInput,
    HopLost,
    HopRecord,
    HopReset,
    Opened,
    Resumed,
    SendRecord,
    StreamEffect,
    StreamEvent,
    StreamTimer,
    Suspended,
    Writable,
    perform,
)

if TYPE_CHECKING:
    from fabric.io.connection import Connection
    from fabric.io.watching import Route as WatchedRoute


def _is_acknowledged(effect: StreamEffect | StreamEvent) -> bool:
    return isinstance(effect, SendRecord) and effect.flags != RECORD_EMPTY


_FROM_FAR_END = (events.StreamRecord, events.StreamAck, events.StreamAcceptedEvent, events.StreamDatagram)


class Stream:
    """One sealed stream to a peer node's service, whichever hops carry it.

    Reading and writing are independent; one task may do each. Every failure is a `StreamError` with a stable
    code; bytes that arrived before it can still be read.
    """

    __slots__ = (
        "_end_wanted",
        "_failure",
        "_forfeited",
        "_host",
        "_loop",
        "_machine",
        "_opened",
        "_over",
        "_pending",
        "_pending_bytes",
        "_pings",
        "_timer",
        "_timer_at",
        "_unread_timer",
        "_waiters",
        "connection",
        "last_switch",
        "stream_id",
        "switches",
        "way",
    )

    def __init__(self, connection: Connection, machine: EndToEnd, stream_id: int) -> None:
        self._host: StreamHost = connection
        self._machine = machine
        self._loop = asyncio.get_running_loop()
        self._pending: deque[memoryview] | None = None  # while there are any
        self._pending_bytes = 0
        self._end_wanted = False
        self._opened = False
        self._over = False
        self._failure: StreamError | None = None
        self._pings: dict[int, tuple[asyncio.Future[float], float]] | None = None
        self._forfeited = False  # what had arrived is gone unread
        self._unread_timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] | None = None  # while anybody waits
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self.connection = connection
        """The session that carries the stream, or carried it last."""
        self.stream_id = stream_id
        self.way: WatchedRoute | None = None
        """The watched route that the stream takes, where this end watches it."""
        self.switches = 0
        """How often the stream went on by another way."""
        self.last_switch: Switch | None = None

    @property
    def service(self) -> str:
        """The logical service name of the OPEN."""
        return self._machine.service

    @property
    def traffic_class(self) -> TrafficClass:
        """The class that was asked for, which every hop meters."""
        return self._machine.traffic_class

    @property
    def mode(self) -> Mode:
        """Ordered bytes (`read`, `write`) or datagrams (`send`, `receive`)."""
        return self._machine.mode

    @property
    def peer_node_id(self) -> str:
        """The node at the other end, not the next hop."""
        return self._machine.peer_node_id

    @property
    def stream_uid(self) -> bytes:
        """16 bytes, the same on all hops."""
        return self._machine.uid

    @property
    def route(self) -> RouteRef | None:
        """The leased route that the stream takes; None when it goes to the neighbour itself."""
        return self._machine.route

    @property
    def over(self) -> bool:
        """Whether the stream ended or failed; buffered bytes may still be read."""
        return self._over

    @property
    def machine(self) -> EndToEnd:
        """The stream's machine, for the parts of the endpoint that bind it."""
        return self._machine

    @property
    def is_initiator(self) -> bool:
        """Whether this end opened the stream."""
        return self._machine.is_initiator

    @property
    def bound(self) -> bool:
        """Whether the stream has a carrier; without one, reading and writing wait for another."""
        return self._machine.bound

    @property
    def ended(self) -> bool:
        """Whether nothing is to be resumed any more."""
        return self._machine.over

    @property
    def held_bytes(self) -> int:
        """Bytes kept for the reader and, while the stream lives, for the peer."""
        machine = self._machine
        return machine.readable if self._over else machine.readable + machine.unacknowledged

    @property
    def unsent_bytes(self) -> int:
        """Bytes written that the peer has not acknowledged, those included that wait to be taken."""
        return self._pending_bytes + self._machine.unacknowledged

    # -- for the service -------------------------------------------------------------------------------

    def switched(self, switch: Switch) -> None:
        """The stream went on by another way."""
        self.switches += 1
        self.last_switch = switch

    async def opened(self) -> None:
        """Wait until the other end has accepted the stream and proved itself."""
        while not self._opened:
            self._raise_failure()
            await self._wait()

    async def read(self, max_bytes: int = -1) -> bytes:
        """Some bytes as soon as there are any (all that there are with -1); b"" at the peer's sealed end."""
        if max_bytes == 0:
            return b""
        machine = self._machine
        while True:
            if machine.readable:
                data = machine.read(max_bytes)
                self._holds()
                self._dirty()
                return data
            if machine.at_end and not self._forfeited:
                return b""
            self._raise_failure()
            await self._wait()

    async def readexactly(self, count: int) -> bytes:
        """Exactly `count` bytes, or `asyncio.IncompleteReadError` with what came before the end."""
        parts: list[bytes] = []
        missing = count
        while missing:
            data = await self.read(missing)
            if not data:
                raise asyncio.IncompleteReadError(b"".join(parts), count)
            parts.append(data)
            missing -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Queue bytes; follow with `drain`.

        What cannot be taken at once is held without a copy: do not change a mutable buffer before `drain`.
        """
        self._raise_failure()
        if self._end_wanted or self._over or self.mode is not Mode.STREAM:
            raise StreamError("cancelled", "write after the end of data, or in another mode")
        if not len(data):
            return
        if self._pending is None:
            self._pending = deque()
        self._pending.append(memoryview(data).cast("B"))
        self._pending_bytes += len(data)
        self._feed()
        self._dirty()

    async def drain(self) -> None:
        """Wait until everything written is in the machine's bounded buffer, or further."""
        while self._pending:
            self._raise_failure()
            await self._wait()
        self._raise_failure()

    async def ping(self) -> float:
        """Round-trip time in seconds to the other end, over every hop; raises `StreamError` when it ends, or
        `ping_lost` when nothing comes back for `limits.PING_TIMEOUT_S`. What is lost with a carrier is asked
        again over the next one.
        """
        if self._pings is None:
            self._pings = {}
        pings = self._pings
        answer: asyncio.Future[float] = self._loop.create_future()
        nonces: list[int] = []
        until = self._host.now() + limits.PING_TIMEOUT_S
        try:
            while not answer.done():
                self._raise_failure()
                now, asked = self._host.now(), None
                if self._over:
                    raise StreamError("stream_state", "the stream has ended")
                if now >= until:
                    raise StreamError("ping_lost", f"no answer in {limits.PING_TIMEOUT_S} s")
                if self.bound:
                    asked = self.connection
                    nonces.append(asked.session.ping(now, self.stream_id))
                    pings[nonces[-1]] = answer, now
                    self._dirty()
                with contextlib.suppress(TimeoutError):  # then it is asked again
                    async with asyncio.timeout(min(limits.PING_REPEAT_S, until - now)):
                        while asked is (self.connection if self.bound else None):
                            if answer.done() or self.over:
                                break
                            await self._wait()
        finally:
            for nonce in nonces:
                pings.pop(nonce, None)
        return answer.result()

    # -- datagram mode ---------------------------------------------------------------------------------

    @property
    def datagram_room(self) -> int:
        """The largest datagram that the carrier takes now, in plaintext bytes; the other end may take less.
        On a route it is what every hop takes, whatever its path carries.
        """
        room = self._host.datagram_room
        if self.route is not None:
            room = min(room, datagram_frame_room(limits.CARRIER_DATAGRAM_BYTES))
        return max(0, room - OVERHEAD_BYTES)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send one datagram; it may be lost, doubled never. Raises `datagram_too_large` over
        `datagram_room`, and what `write` raises.
        """
        self._raise_failure()
        if self.bound and len(data) > self.datagram_room:
            raise StreamError("datagram_too_large", f"{len(data)} bytes, room for {self.datagram_room}")
        now = self._host.now()
        self._act(now, self._machine.send(data))
        if self.way is not None:
            self._host.stream_sent(self, now, owed=False)
        self._dirty()

    async def receive(self) -> bytes | None:
        """The next datagram, in the order of arrival; None when the peer has ended the stream."""
        while (data := self._machine.receive()) is None:
            if self._machine.at_end:
                return None
            self._raise_failure()
            await self._wait()
        self._holds()
        return data

    # -- ending ----------------------------------------------------------------------------------------

    async def end(self) -> None:
        """Send the sealed end of data after everything written; wait until the peer's end acknowledged it."""
        await self._deliver(None)

    def reset(self, reason: str = "cancelled", detail: str = "") -> None:
        """Give the stream up, both directions, at once; what was not acknowledged may be lost."""
        if not self._over:
            self._act(self._host.now(), self._machine.reset(reason, detail))
        elif self._machine.readable:
            self.forfeit(reason, detail)

    def forfeit(self, reason: str, detail: str) -> None:
        """Give the stream up with all that it holds, what arrived and was not read included; a reader is told
        so, also where the stream had ended well.
        """
        if self._machine.readable:
            self._forfeited = True
            self._machine.discard()
        if not self._over:
            self._act(self._host.now(), self._machine.reset(reason, detail))
        self._failure = self._failure or StreamError(reason, detail)
        self._holds()
        self._wake()

    async def aclose(self, *, patience_s: float | None = None) -> bool:
        """Leave the stream: deliver what was written, then give up what the peer still sends, and what came
        and nobody read. Idempotent.

        It is given up, too, when the caller is cancelled, and when the peer acknowledges nothing for
        `patience_s`: False then.
        """
        if self._over:
            self.reset()
            return True
        delivered = False
        try:
            await self._deliver(patience_s)
            delivered = True
        except StreamError:
            return True
        except TimeoutError:
            return False
        else:
            return True
        finally:
            if not (delivered and self._machine.at_end):
                self.reset()

    async def _deliver(self, patience_s: float | None) -> None:
        """As `end`; `TimeoutError` when nothing more is acknowledged for so long."""
        self._want_end()
        while not self._machine.end_acknowledged and not self._over:
            before = self.unsent_bytes
            try:
                async with asyncio.timeout(patience_s):
                    while not self._machine.end_acknowledged and not self._over:
                        await self._wait()
            except TimeoutError:
                if self.unsent_bytes >= before:
                    raise
        self._raise_failure()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.reset()
        else:
            await self.aclose()

    # -- for the connection ----------------------------------------------------------------------------

    def session_event(self, now: float, event: events.SessionEvent) -> None:
        """The session says something about the hop stream."""
        way = self.way
        if way is not None and isinstance(event, _FROM_FAR_END):
            way.watch.heard()
        match event:
            case events.StreamRecord():
                self.hop_event(now, HopRecord(event.offset, event.flags, event.payload))
                # Opened or refused, the ciphertext is not held any longer.
                self._host.session.consumed(now, event.stream_id, event.carried)
                self._holds()
            case events.StreamDatagram():
                self.hop_event(now, HopDatagram(event.number, event.flags, event.payload))
                self._holds()
            case events.StreamAck():
                self.hop_event(now, HopAck(event.received_up_to, event.limit))
                self._holds()
            case events.StreamWritable():
                self._dirty()
            case events.StreamAcceptedEvent():
                self.hop_event(now, HopAccepted(event.accepted))
            case events.StreamClosed():
                self.hop_event(now, HopClosed())
            case events.StreamReset() if event.reason in ROUTE_RESETS:
                self.hop_event(now, HopLost(event.reason, event.detail))
            case events.StreamReset():
                self.hop_event(now, HopReset(event.reason, event.detail))
            case events.StreamPong():
                if way is not None:
                    way.watch.ponged(now, event.nonce)
                waiting, asked_at = (self._pings or {}).get(event.nonce, (None, now))
                if waiting is not None and not waiting.done():
                    waiting.set_result(now - asked_at)
                    self._wake()
            case events.StreamPing():
                self._host.session.pong(now, event.stream_id, event.nonce, event.time)

    def hop_event(self, now: float, event: HopInput) -> None:
        """Something happened on the hop stream, in the machine's own terms."""
        if not self._machine.over:
            self._act(now, self._machine.handle(now, event))
            self._dirty()

    def happened(self, now: float, effects: Sequence[StreamEffect | StreamEvent]) -> None:
        """Perform what the machine answered to somebody else."""
        self._act(now, effects)
        self._dirty()

    def leave_route(self, reason: str, detail: str) -> None:
        """The route may not be used any more: the stream goes on by another, or fails with this reason."""
        now = self._host.now()
        if not self.connection.closed.done():
            self.connection.session.reset_stream(now, self.stream_id, reason, detail)
        self.hop_event(now, HopLost(reason, detail))

    def move(self, connection: Connection, stream_id: int) -> None:
        """Ride on another hop stream from now on; what is left of the old one is reset."""
        old, old_id = self.connection, self.stream_id
        old.release(self)
        if not old.closed.done():
            old.session.reset_stream(self._host.now(), old_id, "route_failed", "the stream goes on elsewhere")
        self._host = self.connection = connection
        self.stream_id = stream_id
        connection.adopt(self)

    async def resume(self, connection: Connection, route: RouteRef | None = None) -> None:
        """Go on over a new hop stream of `connection`; only the end that opened the stream does this.

        Returns when the other end has agreed. Raises `FabricError`, and the stream waits for another way; if
        `connection` has no room for it, it stays as and where it is.
        """
        now = self._host.now()
        connection.session.check_room(now, self.mode)
        opening = self._machine.resume(now, route)
        self.move(connection, connection.session.open_stream(now, opening.open))
        self._rearm()
        try:
            async with asyncio.timeout(limits.OPEN_TIMEOUT_S):
                while not self._machine.bound and not self._machine.over and self._attempt_alive():
                    await self._wait()
        except TimeoutError:
            self.hop_event(self._host.now(), HopLost("route_failed", "no answer"))
        if not self._machine.bound and not self._machine.over:
            connection.release(self)
            if not connection.closed.done():
                connection.session.reset_stream(
                    self._host.now(), self.stream_id, "route_failed", "the attempt was given up"
                )
            raise StreamError("route_failed", f"no way by {connection.peer_node_id[:12]}")

    def no_way_left(self) -> None:
        """The stream waits for a way and shall not wait longer: it fails with what took its last one."""
        reason, detail = self._machine.lost
        self.hop_event(self._host.now(), HopReset(reason, detail))

    def _attempt_alive(self) -> bool:
        return self._machine.resuming

    def _dirty(self) -> None:
        if not self._machine.over and self._machine.bound:
            self._host.stream_dirty(self)

    def pump(self, now: float) -> None:
        """Move what can be moved into the session: pending bytes, records, acknowledgements."""
        while not self._machine.over:
            fed = self._feed()
            session, stream_id = self._host.session, self.stream_id
            effects = self._machine.pull(now, session.room(stream_id), behind=session.waits(stream_id))
            if self._machine.joining:
                session.tell_when_left(stream_id)
            if not effects and not fed:
                return
            self._act(now, effects)
            if self.way is not None and any(map(_is_acknowledged, effects)):
                self._host.stream_sent(self, now)
            if not self._pending:
                return

    def _feed(self) -> bool:
        """Give pending bytes to the machine; whether it took any."""
        pending = self._pending
        before = self._pending_bytes
        while pending:
            view = pending[0]
            # What waits for a carrier was counted when it began to: it does not grow meanwhile.
            room = self._host.write_room(self) if self._machine.bound else 0
            taken = self._machine.write(view[:room]) if room > 0 else 0
            self._pending_bytes -= taken
            if taken < len(view):
                pending[0] = view[taken:]
                break
            pending.popleft()
        if self._end_wanted and not pending:
            self._machine.finish()
        if before and not pending:
            self._pending = None
            self._wake()
        if self._pending_bytes == before:
            return False
        self._holds()
        return True

    def _holds(self) -> None:
        """Tell the budget what the stream holds now."""
        if self._machine.bound or self._over:
            self._host.stream_holds(self, self.held_bytes)
        if self._unread_timer is not None and not self._machine.readable:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _keep_unread(self, before: int = -1) -> None:
        """The stream is over: what is left for its reader is counted, and kept while the reader takes any."""
        self._unread_timer = None
        left = self._machine.readable
        if left == before:
            self.forfeit("cancelled", f"nothing was read for {limits.UNREAD_KEPT_S:.0f} s")
        elif left:
            self._holds()
            self._unread_timer = self._loop.call_later(limits.UNREAD_KEPT_S, self._keep_unread, left)

    def _want_end(self) -> None:
        if self._end_wanted or self._over:
            return
        self._end_wanted = True
        self._feed()
        self._dirty()

    def _act(self, now: float, effects: Sequence[StreamEffect | StreamEvent]) -> None:
        for event in perform(now, self._host.session, self.stream_id, effects):
            match event:
                case DataReadable() | Writable():
                    pass
                case Opened():
                    self._opened = True
                    self._host.stream_confirmed(self)
                case Suspended(reason=reason):
                    self._host.stream_suspended(self, reason)
                case Resumed():
                    self._host.stream_resumed(self)
                case Finished():
                    self._finish(None)
                case Failed(reason=reason, detail=detail):
                    self._finish(StreamError(reason, detail))
        if self._machine.over:
            self._host.stream_over(self)
            if self._unread_timer is None:
                self._keep_unread()
        if effects:
            self._wake()
        self._rearm()

    def _finish(self, failure: StreamError | None) -> None:
        self._over = True
        self._failure = failure
        self._pending = None
        self._pending_bytes = 0

    def _rearm(self) -> None:
        at = self._machine.timer()
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = None if at is None else self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        self.hop_event(self._host.now(), StreamTimer())
        self._rearm()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise StreamError(self._failure.code, self._failure.sentence)

    async def _wait(self) -> None:
        """Until anything about this stream changed."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        waiters = self._waiters
        if waiters is None:
            waiters = self._waiters = []
        waiters.append(waiter)
        try:
            await waiter
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._waiters = None

    def _wake(self) -> None:
        for waiter in self._waiters or ():
            if not waiter.done():
                waiter.set_result(None)
