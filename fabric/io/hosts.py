"""What a stream asks of its connection, and a connection of its endpoint."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Protocol

from fabric.events import SessionConfig, SessionEvent
from fabric.identity import NodeIdentity
from fabric.memory import MemoryBudget
from fabric.session import Session
from fabric.wire import OpenStream, RouteUpdate

if TYPE_CHECKING:
    from fabric.io.connection import Connection
    from fabric.io.resuming import Resuming
    from fabric.io.streams import Stream
    from fabric.io.watching import Watching


class StreamHost(Protocol):
    """What a stream needs of the connection that carries it."""

    @property
    def session(self) -> Session:
        """The hop machine."""

    def now(self) -> float:
        """Seconds of the steady clock."""

    @property
    def datagram_room(self) -> int:
        """The largest DATAGRAM payload that the carrier takes."""

    def stream_dirty(self, stream: Stream) -> None:
        """Something may have become sendable: call `stream.pump` before the next flush."""

    def stream_confirmed(self, stream: Stream) -> None:
        """A stream that a peer opened proved its first record."""

    def stream_suspended(self, stream: Stream, code: str) -> None:
        """The hop stream is gone, with this reset reason; the stream waits for another."""

    def stream_sent(self, stream: Stream, now: float, *, owed: bool = True) -> None:
        """Something of a watched stream is on its way; `owed`: the far end will acknowledge it."""

    def stream_resumed(self, stream: Stream) -> None:
        """The stream goes on over the hop stream it was moved to."""

    def stream_holds(self, stream: Stream, held: int) -> None:
        """The stream has so many bytes that were not read or not acknowledged."""

    def write_room(self, stream: Stream) -> int:
        """How many bytes more the stream may take from its writer before the peer acknowledges some."""

    def stream_over(self, stream: Stream) -> None:
        """Nothing is expected of the stream any more, here or on another hop stream."""


class ConnectionHost(Protocol):
    """What a connection needs of its endpoint."""

    identity: NodeIdentity
    cluster_id: str
    counters: Counter[str]
    session_config: SessionConfig
    suites: tuple[str, ...]
    resuming: Resuming
    watching: Watching
    memory: MemoryBudget[Stream]

    def now(self) -> float:
        """Seconds of the steady clock."""

    def connection_dirty(self, connection: Connection) -> None:
        """The connection may have something to send: flush it before the loop waits again."""

    def connection_ready(self, connection: Connection) -> None:
        """Both ends are proved."""

    def connection_closed(self, connection: Connection) -> None:
        """The session is over; the carrier may still have to say so."""

    def route_told(self, connection: Connection, update: RouteUpdate) -> None:
        """The peer says that a route changed."""

    def relayed(self, connection: Connection, now: float, event: SessionEvent) -> bool:
        """Whether the event is about a stream that this node only passes on."""

    def judge_open(self, connection: Connection, body: OpenStream) -> str:
        """The node that must have signed an OPEN; raises `StreamError` with the reason to refuse it."""

    def start_service(self, connection: Connection, stream: Stream) -> None:
        """Call the service of a stream that has just proved its first record."""
